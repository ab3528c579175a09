"""The README is run, and its tables are those of the code and of the committed measurements."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from audit_plugin.scoring.columns import all_columns
from benchmarks.readme import columns_table, fill, pages
from tests.test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
GUIDES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "skills").rglob("*.md")))
each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    exec(compile(block, "README.md", "exec"), {})


def test_there_is_a_block_to_run() -> None:
    assert BLOCKS


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_tables_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert fill(text, pages()[path]) == text, "run: python -m benchmarks.readme"


@each_guide
def test_links_and_paths_lead_to_files(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (guide.parent / link).exists()] == []
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*\.(?:py|js|md))`", text)
    assert [path for path in paths if not any((home / path).exists() for home in (ROOT, ROOT / "audit_plugin"))] == []


@each_guide
def test_commands_and_options_are_those_of_today(guide: Path) -> None:
    from typer.main import get_command

    from audit_plugin.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"audit-plugin ([^#\n`&]+)", guide.read_text(encoding="utf-8")):
        name, *rest = line.split()
        if not re.fullmatch("[a-z][a-z-]*", name) or name in ("finds", "COMMAND"):  # sentences about the program
            continue
        command = commands[name]
        if rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in rest if word.startswith("--") and word not in known] == [], line


@each_guide
def test_names_of_modules_are_those_of_today(guide: Path) -> None:
    for name in set(re.findall(r"\baudit_plugin(?:\.[A-Za-z_]\w*)+", guide.read_text(encoding="utf-8"))):
        place, parts = ROOT, name.split(".")
        while parts and (place / parts[0]).is_dir():
            place /= parts.pop(0)
        module = place / "__init__.py"
        if parts and (place / f"{parts[0]}.py").is_file():
            module = place / f"{parts.pop(0)}.py"
        assert all(re.search(rf"\b{part}\b", module.read_text(encoding="utf-8")) for part in parts), name
    for name in set(re.findall(r"python -m (benchmarks[.\w]*)", guide.read_text(encoding="utf-8"))):
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


@each_guide
def test_operators_are_those_of_today(guide: Path) -> None:
    manifest = (ROOT / "fiftyone.yml").read_text(encoding="utf-8")
    listed = manifest.split("# former names")[0]
    for name in set(re.findall(r"@multimem/audit/(\w+)", guide.read_text(encoding="utf-8"))):
        assert f"- {name}\n" in listed, name


def test_links_to_files_of_the_project_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_architecture_page_names_every_room_in_order_and_functions_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.split("```")[1]
    places = [picture.index(f"{room}/ ") if f"{room}/ " in picture else picture.index(f"{room}/") for room in ORDER]
    line = [picture[:place].count("\n") for place in places]
    assert line == sorted(line)
    story = page.split("## From samples to columns")[1].split("## Where")[0]
    for dotted in re.findall(r"`((?:encoders|neighbors|trials|scoring|audit)\.[a-z_.]+)`", story):
        module, _, name = dotted.rpartition(".")
        home = importlib.import_module(f"audit_plugin.{module}")
        assert hasattr(home, name) or importlib.import_module(f"audit_plugin.{dotted}"), dotted


def test_every_column_is_explained() -> None:
    table = columns_table()
    assert all(f"`{name}`" in table for name in all_columns())


def test_measured_numbers_are_those_of_the_committed_json() -> None:
    report = json.loads((ROOT / "benchmarks/results/detection.json").read_text(encoding="utf-8"))
    ours, page = report["means"]["misalignment"], (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    assert f"| **misalignment** | {ours['cells']} | {ours['auroc']:.3f} | {ours['ap']:.3f} |" in page
    free = [m for name, m in report["means"].items() if name != "misalignment" and m["label_free"]]
    assert all(m["auroc"] < m["ours_auroc"] and m["ap"] < m["ours_ap"] for m in free)
