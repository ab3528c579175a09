"""`audit-plugin cache`: it lists what is stored and deletes what it is told to, nothing else."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.store import FeatureCache, RunFolder, digest_of
from audit_plugin.store.inventory import delete, gone, inventory

DAY = 86_400


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, ["cache", *arguments], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with features, two runs and a similarity index, unused for 40, 30, 10 and 50 days."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "cache"
    FeatureCache("offline:model").append({"a" * 64: np.ones(500, np.float32)})
    (tmp_path / "here.csv").touch()
    for number, source in ((1, f"manifest {tmp_path}/here.csv"), (2, f"manifest {tmp_path}/gone.csv")):
        identity = {"data": number}
        with RunFolder(root / "runs" / digest_of(identity)[:16], identity) as folder:
            folder.describe(source=source, rows=1234 * number)
            folder.save("trials_0000", x=np.ones(1000 * number))
            with RunFolder(folder.path / f"extended-{'0' * 16}", {"extends": "x"}) as inner:
                inner.save("held_out", x=np.ones(100))
    index = root / "similarity" / ("0" * 24) / f"{'0' * 32}.npz"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"x" * 100)
    days = {"features": 40, "runs": 30, "similarity": 50}
    for path in root.rglob("*"):
        os.utime(path, (time.time() - days[path.relative_to(root).parts[0]] * DAY,) * 2)
    first = root / "runs" / digest_of({"data": 1})[:16]
    for path in first.rglob("*"):
        os.utime(path, (time.time() - 10 * DAY,) * 2)
    return root


def test_the_list_says_what_is_stored_and_how_large_it_is(root: Path) -> None:
    code, out, _ = run()
    assert code == 0
    lines = [re.sub(r"[│\s]+", " ", line).strip() for line in out.splitlines()]
    parent = root.parent
    assert lines[0].startswith(f"{root}: ")
    assert [line for line in lines if "ago" in line] == [
        f"run manifest {parent}/here.csv 1,234 {_size(out, 'here.csv')} 10 days ago",
        f"run manifest {parent}/gone.csv 2,468 {_size(out, 'gone.csv')} 30 days ago",
        f"features offline:model {_size(out, 'offline:model')} 40 days ago",
        "similarity index dataset id 000000000000000000000000 100 B 50 days ago",
    ]
    assert 9 < float(_size(out, "here.csv").split()[0]) < 13


def _size(out: str, name: str) -> str:
    found = re.search(rf"{re.escape(name)}.*?([\d.]+ [kM]?B)", out)
    assert found is not None
    return found[1]


def snapshot(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        (["--older-than", "35d"], ["run", "run", "similarity index"]),
        (["--older-than", "2w"], ["run", "similarity index"]),
        (["--gone"], ["run", "features", "similarity index"]),
        (["--max-size", "0kb"], ["similarity index"]),
        (["--max-size", "15kB"], ["run", "similarity index"]),
        (["--max-size", "1GB"], ["run", "run", "features", "similarity index"]),
    ],
)
def test_prune_lists_first_and_deletes_with_yes(root: Path, options: list[str], stays: list[str]) -> None:
    before = snapshot(root)
    code, out, _ = run("prune", *options)
    assert (code, snapshot(root)) == (0, before)
    assert out.endswith("nothing was deleted; to delete these, add --yes\n")
    code, out, _ = run("prune", *options, "--yes")
    assert code == 0
    assert [entry.kind for entry in inventory()] == stays
    assert ("deleted: 0 B" in out) == (len(stays) == 4)


def test_manifests_that_are_patterns_or_cannot_be_seen_are_not_gone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "s-07.tar").touch()
    names = ("s-*.tar", "s-{05..09}.tar", "s-{10..12}.tar", "a\0b", "x" * 5000)
    for number, name in enumerate(names, 10):
        with RunFolder(root / "runs" / digest_of({"data": number})[:16], {"data": number}) as folder:
            folder.describe(source=f"manifest {tmp_path}/{name}", rows=1)
    before = len(inventory())
    assert run("prune", "--gone", "--yes")[0] == 0
    left = [entry.source for entry in inventory()]
    assert len(left) == before - 2
    assert not [source for source in left if source.endswith(("gone.csv", "s-{10..12}.tar"))]


@pytest.mark.fiftyone
def test_what_belongs_to_deleted_datasets_is_gone(
    root: Path, make_dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, other = make_dataset(1), make_dataset(1)
    for number, name in enumerate((dataset.name, other.name), 20):
        with RunFolder(root / "runs" / digest_of({"data": number})[:16], {"data": number}) as folder:
            folder.describe(source=f"dataset {name}", rows=1)
        index = root / "similarity" / str((dataset, other)[number - 20]._doc.id) / f"{'1' * 32}.npz"
        index.parent.mkdir()
        index.write_bytes(b"x")
    name, number = other.name, str(other._doc.id)
    other.delete()
    before = {(entry.source, entry.path) for entry in inventory()}
    assert run("prune", "--gone", "--yes")[0] == 0  # without the database nothing is known of datasets
    assert len(before) - len(inventory()) == 1
    assert run("prune", "--gone", "--database", "--yes")[0] == 0
    left = {entry.source for entry in inventory()}
    assert {f"dataset {dataset.name}", f"dataset id {dataset._doc.id}", "offline:model"} <= left
    assert not {f"dataset {name}", f"dataset id {number}", f"dataset id {'0' * 24}"} & left


def test_prune_deletes_nothing_unnamed_and_refuses_what_it_cannot_read(root: Path) -> None:
    before = snapshot(root)
    assert run("prune", "--yes")[::2] == (
        2,
        "error: nothing says what to delete; name --older-than 30d, --max-size 5GB, --gone or --database\n",
    )
    for option, text in (("--older-than", "30"), ("--older-than", "x"), ("--max-size", "5"), ("--max-size", "-1GB")):
        code, _, error = run("prune", option, text, "--yes")
        assert (code, f"{option} is {text!r}; write a number with a unit, such as" in error) == (2, True)
    assert snapshot(root) == before


def test_a_run_in_use_and_features_just_used_stay(root: Path) -> None:
    FeatureCache("offline:model").append({"b" * 64: np.ones(500, np.float32)})
    with RunFolder(root / "runs" / digest_of({"data": 1})[:16], {"data": 1}):
        code, out, _ = run("prune", "--max-size", "0kb", "--yes")
    assert code == 0
    assert "is in use by a run; wait for it" in out
    assert "was used within the last 10 minutes" in out
    assert sorted(entry.kind for entry in inventory()) == ["features", "run", "similarity index"]


def test_what_is_not_ours_stays_and_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "trials_0000.npz").write_text("a thesis")
    run_folder = root / "runs" / digest_of({"data": 2})[:16]
    (run_folder / "thesis.tex").write_text("a thesis")
    (run_folder / "trials_0008.npz").symlink_to(outside / "trials_0000.npz")
    (run_folder / "train").symlink_to(outside)
    (root / "runs" / ("f" * 16)).symlink_to(outside)
    (root / "runs" / "my notes").mkdir()
    (root / "runs" / "my notes" / "a.npz").touch()
    (root / "removal").symlink_to(outside)
    (root / "similarity" / "x.npz").touch()
    code, _, _ = run("prune", "--max-size", "0kb", "--older-than", "0h", "--gone", "--yes")
    assert code == 0
    assert [path.name for path in outside.iterdir()] == ["trials_0000.npz"]
    assert sorted(path.name for path in run_folder.iterdir()) == ["thesis.tex", "train", "trials_0008.npz"]
    assert sorted(path.name for path in (root / "runs").iterdir()) == sorted(
        ["f" * 16, "my notes", digest_of({"data": 2})[:16]]
    )
    assert (root / "runs" / "my notes" / "a.npz").exists()
    assert (root / "similarity" / "x.npz").exists()


def test_leftovers_of_dead_processes_go_too(root: Path) -> None:
    folder = next((root / "features").iterdir())
    old = folder / f".x.float16.{'0' * 32}.part"
    held = folder / f".y.float16.{'0' * 32}.part"
    for path in (old, held):
        path.touch()
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run("prune", "--max-size", "1GB", "--yes")[0] == 0
    assert (old.exists(), held.exists()) == (False, True)


def test_a_deletion_that_was_interrupted_is_finished_by_the_next(root: Path) -> None:
    entry = next(entry for entry in inventory() if "gone.csv" in entry.source)
    (entry.path / "trials_0000.npz").unlink()
    entry = next(entry for entry in inventory() if "gone.csv" in entry.source)
    assert delete(entry) > 0
    assert not entry.path.exists()


def test_an_empty_cache_is_an_empty_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "nothing"))
    code, out, _ = run()
    assert (code, f"{tmp_path}/nothing: 0 B" in out) == (0, True)
    assert not (tmp_path / "nothing").exists()


def test_reports_of_removal_studies_are_listed_and_go_with_their_dataset(root: Path) -> None:
    folder = root / "removal" / ("1" * 24)
    folder.mkdir(parents=True)
    (folder / f"{'2' * 16}.json").write_text("{}")
    (folder / "notes.txt").touch()
    (entry,) = [entry for entry in inventory(root) if entry.kind == "removal reports"]
    assert (entry.source, entry.size) == (f"dataset id {'1' * 24}", 2)
    assert gone([entry], lambda _: False, {"1" * 24: "there"}) == []
    assert gone([entry], lambda _: False, {"3" * 24: "another"}) == [entry]
    assert delete(entry) == 2
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
