from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.audit.gate import KINDS, Condition, judge, parse_conditions
from audit_plugin.report.gate import HEADING, is_gate_report, junit_xml, markdown_summary
from audit_plugin.scoring.flags import FLAGS
from tests.export_fixtures import marked, write_manifest, write_scores
from tests.test_cli import NAMED, QUICK, make_manifest, private_cache, run

__all__ = ["private_cache"]

SUMMARY = {
    "estimated": {"in_one_space": False, "pairs": 30, "pairs_interval": [21, 40]},
    "false_positive_rate": 0.01,
    "config": {"split": "s"},
}


def columns(n: int = 1000, **counts: int) -> dict[str, Any]:
    """`n` rows, of which so many have a flag, a leak or a failure."""
    table: dict[str, Any] = {"misalignment": np.zeros(n, np.float32)}
    for kind, count in counts.items():
        name = {"failed": "failure", "leak": "leak"}.get(kind, f"is_{kind}")
        values = np.arange(n) < count
        table[name] = values if kind in FLAGS else np.where(values, "train", "").astype(object)
    return table


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("misaligned > 2%", Condition("misaligned", 2, True, False)),
        ("duplicate>=10", Condition("duplicate", 10, False, True)),
        ("  leak  >  0 ", Condition("leak", 0, False, False)),
        ("failed >= 0.5 %", Condition("failed", 0.5, True, True)),
    ],
)
def test_conditions_are_read_and_written(text: str, condition: Condition) -> None:
    assert parse_conditions([text]) == (condition,)
    assert parse_conditions([str(condition)]) == (condition,)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_a_condition(kind: str) -> None:
    assert parse_conditions([f"{kind} > 1%"]) == (Condition(kind, 1, True, False),)


def test_several_conditions_are_repeated_or_separated_by_commas() -> None:
    texts = [str(c) for c in parse_conditions(["misaligned > 2%, leak > 0", "failed >= 3", "leak>0"])]
    assert texts == ["misaligned > 2%", "leak > 0", "failed >= 3"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("misaligned", "is not a condition; write a kind, > or >=, and a number"),
        ("misaligned < 2%", "is not a condition"),
        ("misaligned > two", "is not a condition"),
        ("misaligned > -1", "is not a condition"),
        ("misaligned > 1,5%", "is not a condition"),
        ("misaligned > nan", "is not a condition"),
        ("misaligned > " + "9" * 400, "is not a condition"),
        ("", "'' is not a condition"),
        ("misalinged > 2%", f"names 'misalinged', which an audit does not count; use one of {', '.join(KINDS)}"),
        ("duplicate > 101%", "can never hold; give a percentage of at most 100"),
    ],
)
def test_what_is_no_condition_is_named(text: str, sentence: str) -> None:
    with pytest.raises(AuditError) as error:
        parse_conditions([text])
    assert sentence in str(error.value)
    assert len(str(error.value)) < 300


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_user_error(text: str) -> None:
    with contextlib.suppress(AuditError):
        conditions = parse_conditions([text])
        assert parse_conditions([",".join(map(str, conditions))]) == conditions


@pytest.mark.parametrize(
    ("text", "fails"),
    [  # of 1,000 rows: 21 to 40 wrong pairs, 20 duplicates
        ("misaligned > 2%", True),
        ("misaligned > 2.1%", False),
        ("misaligned >= 2.1%", True),
        ("misaligned > 20", True),
        ("misaligned > 21", False),
        ("duplicate > 2%", False),
        ("duplicate >= 2%", True),
        ("duplicate > 19", True),
        ("duplicate > 20", False),
    ],
)
def test_estimates_are_judged_by_the_lower_end_and_counts_by_themselves(text: str, fails: bool) -> None:
    judgment = judge(parse_conditions([text]), columns(duplicate=20), SUMMARY)[0]
    assert judgment.fails is fails
    assert not judgment.problem


@pytest.mark.parametrize("kind", ["conflict", "placeholder", "duplicate", "leak", "failed"])
def test_every_measured_kind_counts_its_rows(kind: str) -> None:
    def fails(text: str) -> bool:
        return judge(parse_conditions([text]), columns(**{kind: 7}), SUMMARY)[0].fails

    assert fails(f"{kind} > 6")
    assert not fails(f"{kind} > 7")


@pytest.mark.parametrize("kind", ["outlier", "memorized", "vague"])
def test_flags_in_a_tail_are_judged_beyond_false_positives(kind: str) -> None:
    # 10 false positives are expected of 1,000 rows; the 95% quantile of binomial(1000, 0.01) is 15
    judgment = judge(parse_conditions([f"{kind} > 0"]), columns(**{kind: 15}), SUMMARY)[0]
    assert (judgment.number, judgment.judged, judgment.fails) == (5, 0, False)
    assert judge(parse_conditions([f"{kind} > 0"]), columns(**{kind: 16}), SUMMARY)[0].fails


def test_new_rows_are_not_judged_by_the_estimate_of_the_whole_run() -> None:
    judgment = judge(parse_conditions(["misaligned > 2%"]), columns(misaligned=36), SUMMARY | {"extends": 500})[0]
    assert (judgment.judged, judgment.fails) == (21, True)  # 36 - 15


@pytest.mark.parametrize(
    ("text", "table", "summary"),
    [
        ("misaligned > 2%", columns(), {}),
        ("misaligned > 2%", columns(), {"estimated": {"pairs": "many", "pairs_interval": 3}}),
        ("misaligned > 2%", columns(), {"estimated": SUMMARY["estimated"] | {"pairs_interval": [np.nan, np.nan]}}),
        ("misaligned > 2%", columns(), {"estimated": SUMMARY["estimated"] | {"in_one_space": True}}),
        ("misaligned > 2%", {"misalignment": np.full(9, np.nan)}, SUMMARY),
        ("outlier > 2%", columns(outlier=3), {}),
        ("leak > 0", columns(), {}),
    ],
)
def test_what_is_not_known_passes_no_gate(text: str, table: dict[str, Any], summary: dict[str, Any]) -> None:
    judgments = judge(parse_conditions([text]), table, summary)
    assert judgments[0].fails
    assert judgments[0].sentence() == judgments[0].problem != ""
    suite = Xml.fromstring(junit_xml(judgments))
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")
    assert markdown_summary(judgments).count("not judged") == 1


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 5000))
def test_a_percentage_is_a_share_of_the_rows(count: int, per_mille: int, n: int) -> None:
    count = min(count, n)
    fails = judge(parse_conditions([f"duplicate > {per_mille / 10}%"]), columns(n, duplicate=count), SUMMARY)[0].fails
    assert fails is (1000 * count > per_mille * n)


def test_the_reports_hold_every_condition() -> None:
    conditions = parse_conditions(["misaligned > 2%, duplicate > 30, outlier > 0"])
    judgments = judge(conditions, columns(duplicate=20, outlier=3), SUMMARY)
    suite = Xml.fromstring(junit_xml(judgments))[0]
    assert [case.get("name") for case in suite] == ["misaligned > 2%", "duplicate > 30", "outlier > 0"]
    assert [case.find("failure") is not None for case in suite] == [True, False, False]
    text = markdown_summary(judgments)
    assert text.startswith("### Data gate: failed, 1 of 3 conditions\n")
    assert "at least 21 (2.10%) of 1,000 rows, estimated" in text
    assert "| `duplicate > 30` | passed | 20 (2.00%) of 1,000 rows, measured |" in text


# --- on the command line -----------------------------------------------------------------------------------------


@pytest.fixture
def two_audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tables of scores of the same ten rows; in `new.parquet` three are duplicates and one failed."""
    monkeypatch.chdir(tmp_path)
    ids = [f"r{row}" for row in range(10)]
    manifest = write_manifest(tmp_path / "m.csv", [{"id": name, "image": "a.png", "caption": "x"} for name in ids])
    write_scores(tmp_path / "old.parquet", manifest, ids)
    flagged = {"is_duplicate": marked(10, dict.fromkeys(range(3), True), False), "failure": marked(10, {9: "gone"})}
    write_scores(tmp_path / "new.parquet", manifest, ids, columns=flagged)
    return tmp_path


def test_a_comparison_judges_the_later_audit(two_audits: Path) -> None:
    files = ["--junit", "out/gate.xml", "--markdown", "out/gate.md"]
    code, out, error = run("compare", "old.parquet", "new.parquet", "--fail-if", "duplicate > 20%", *files)
    assert (code, error) == (3, "data gate: failed, 1 of 1 condition\n")
    assert "From the earlier audit to the later one" in out
    assert "failed: duplicate > 20%: 3 (30.00%) of 10 rows, measured\n" in out
    assert Xml.parse(two_audits / "out/gate.xml").getroot().get("failures") == "1"
    code, out, error = run("compare", "new.parquet", "old.parquet", "--fail-if", "duplicate > 20%", *files)
    assert (code, error) == (0, "")
    assert out.endswith("data gate: passed\n")
    assert (two_audits / "out/gate.md").read_text().startswith(f"{HEADING}passed")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fail-if", "duplicate"], "--fail-if 'duplicate' is not a condition"),
        (["--junit", "a.xml"], "--junit needs --fail-if, whose outcome it reports; add a condition"),
        (["--fail-if", "leak > 0", "--junit", "a.txt"], "--junit 'a.txt' ends in '.txt'; choose .xml"),
        (["--fail-if", "leak > 0", "--markdown", "README.md"], "--markdown 'README.md' is not a report of this tool"),
        (["--fail-if", "leak > 0", "--markdown", "link.md"], "link.md is a link to"),
    ],
)
def test_what_cannot_be_gated_is_refused_before_any_work(two_audits: Path, options: list[str], sentence: str) -> None:
    (two_audits / "README.md").write_text("# Mine\n")
    (two_audits / "link.md").symlink_to("README.md")
    code, out, error = run("compare", "old.parquet", "new.parquet", *options)
    assert (code, out) == (2, "")
    assert sentence in error
    assert (two_audits / "README.md").read_text() == "# Mine\n"


def test_only_reports_of_gates_are_replaced(tmp_path: Path) -> None:
    judgments = judge(parse_conditions(["leak > 0"]), columns(), SUMMARY)
    contents = {"a.xml": junit_xml(judgments), "a.md": markdown_summary(judgments).encode(), "empty.md": b""}
    contents |= {"b.xml": b"<testsuites></testsuites>", "b.md": b"# Mine"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert [name for name in contents if is_gate_report(tmp_path / name)] == ["a.xml", "a.md", "empty.md"]


@pytest.mark.usefixtures("private_cache")
def test_a_dry_run_passes_no_gate(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 4)
    code, _, error = run("score", manifest, *NAMED, "--dry-run", "--fail-if", "failed > 0")
    assert code == 2
    assert "--fail-if judges an audit, and --dry-run makes none; leave one of them out" in error


@pytest.mark.usefixtures("private_cache")
def test_a_gate_fails_after_all_outputs_are_written(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 40)
    with manifest.open("a") as file:
        file.write("again,0.png,a red patch number 0\nlost,no.png,a red patch\n")
    gate = ["--fail-if", "duplicate > 1, failed > 50%", "--junit", tmp_path / "g.xml", "--markdown", tmp_path / "g.md"]
    code, out, error = run("score", manifest, *NAMED, *QUICK, "--out", tmp_path / "s.parquet", *gate)
    assert (code, error.splitlines()[-1]) == (3, "data gate: failed, 1 of 2 conditions")
    assert "failed: duplicate > 1: 2 (4.76%) of 42 rows, measured" in out
    assert "passed: failed > 50%: 1 (2.38%) of 42 rows, measured" in out
    written = {path.name for path in tmp_path.glob("[sg].*")}
    assert written == {"s.parquet", "s.json", "s.png", "g.xml", "g.md"}
    assert json.loads((tmp_path / "s.json").read_text())["failures"] == 1


def test_outputs_do_not_replace_one_another(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 2)
    gate = ["--fail-if", "leak > 0", "--markdown", tmp_path / "a.md", "--junit", tmp_path / "0.png"]
    assert run("score", manifest, *NAMED, *gate)[0] == 2


@pytest.mark.usefixtures("private_cache")
def test_a_manifest_of_which_nothing_is_scored_is_code_1_with_its_reports(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 30)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    gate = ["--fail-if", "misaligned > 2%", "--markdown", tmp_path / "g.md"]
    code, _, _ = run("score", manifest, *NAMED, *QUICK, "--out", tmp_path / "s.parquet", *gate)
    assert code == 1
    assert "no row has a misalignment" in (tmp_path / "g.md").read_text()


@pytest.mark.usefixtures("private_cache")
def test_the_process_ends_with_code_3(two_audits: Path) -> None:
    command = [sys.executable, "-m", "audit_plugin", "compare", "old.parquet", "new.parquet", "--fail-if", "failed > 0"]
    assert subprocess.run(command, capture_output=True, cwd=two_audits, check=False).returncode == 3
