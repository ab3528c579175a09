from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.record import git_hash


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *who, *command], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_tree_is_dirty_by_its_code_not_by_what_was_measured(tmp_path: Path) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "code.py").write_text("a = 1\n")
    (results / "speed.json").write_text("{}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert git_hash(results.parent) == head
    (results / "speed.json").write_text("[]\n")
    (tmp_path / "notes.txt").write_text("not tracked\n")
    assert git_hash(results.parent) == head
    (tmp_path / "code.py").write_text("a = 2\n")
    assert git_hash(results.parent) == head + "-dirty"


def test_a_folder_without_a_repository_has_no_hash(tmp_path: Path) -> None:
    assert git_hash(tmp_path) == "unknown"
