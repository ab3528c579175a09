"""How the conditions of a build were judged, for CI systems: JUnit XML, Markdown, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from audit_plugin.arrays import count_text
from audit_plugin.audit.gate import Judgment
from audit_plugin.store import open_regular

SUITE = "audit-plugin"
HEADING = "### Data gate: "


def junit_xml(judgments: Sequence[Judgment]) -> bytes:
    """One test case per condition: a failure where it holds, an error where its number is unknown."""
    errors = sum(bool(judgment.problem) for judgment in judgments)
    failures = sum(judgment.fails for judgment in judgments) - errors
    counts = {"tests": str(len(judgments)), "failures": str(failures), "errors": str(errors)}
    root = Xml.Element("testsuites", {"name": SUITE, **counts})
    suite = Xml.SubElement(root, "testsuite", {"name": SUITE, **counts})
    for judgment in judgments:
        case = Xml.SubElement(suite, "testcase", {"classname": SUITE, "name": str(judgment.condition), "time": "0"})
        sentence = judgment.sentence()
        if judgment.problem:
            Xml.SubElement(case, "error", {"message": sentence, "type": "not judged"})
        elif judgment.fails:
            Xml.SubElement(case, "failure", {"message": sentence, "type": judgment.condition.kind}).text = sentence
        Xml.SubElement(case, "system-out").text = sentence
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def markdown_summary(judgments: Sequence[Judgment]) -> str:
    """A heading and a table, for the summary of a CI job or a comment on a change."""
    rows = "".join(
        f"| `{judgment.condition}` | {outcome(judgment)} | {judgment.sentence()} |\n" for judgment in judgments
    )
    return f"{HEADING}{_overall(judgments)}\n\n| fail if | outcome | judged by |\n|---|---|---|\n{rows}"


def headline(judgments: Sequence[Judgment]) -> str:
    """The outcome of all conditions together."""
    return f"data gate: {_overall(judgments)}"


def _overall(judgments: Sequence[Judgment]) -> str:
    failing = sum(judgment.fails for judgment in judgments)
    return f"failed, {failing} of {count_text(len(judgments), 'condition')}" if failing else "passed"


def outcome(judgment: Judgment) -> str:
    """`passed`, `failed` or `not judged`, which fails too."""
    return "not judged" if judgment.problem else "failed" if judgment.fails else "passed"


def is_gate_report(path: Path) -> bool:
    """Whether a file is empty, or was written by the functions above."""
    try:
        with open_regular(path) as file:
            start = file.read(200)
    except OSError:
        return False
    return not start or start.startswith(HEADING.encode()) or f'<testsuites name="{SUITE}"'.encode() in start
