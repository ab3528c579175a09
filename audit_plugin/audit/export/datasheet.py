"""The documents beside an export: which rows were removed and relabeled, and the datasheet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit_plugin.arrays import count_text
from audit_plugin.inputs.readers import RELABELED, REMOVED
from audit_plugin.inputs.spreadsheet import clean
from audit_plugin.scoring.wrong_pairs import least_pairs_text, least_share_text, own_precision, reported_of

from .plan import Rules

MOST_CHARACTERS = 300  # of a text of users
REMOVED_COLUMNS = {"id": "string", "caption_index": "int64", "why": "string", "by": "string", "score": "float"}
RELABELED_COLUMNS = {"id": "string", "caption_index": "int64", "before": "string", "after": "string", "by": "string"}


@dataclass
class ExportReport:
    """What an export did.

    Attributes:
        to: place of the export.
        format: name of its format.
        rows: of the audit.
        exported: rows that were exported.
        samples: samples that were exported; a sample may have several captions, which are rows.
        removed: (why, by whom) -> rows.
        relabeled: by whom -> rows with a new caption.
        proposals: rows that keep their caption although the audit proposes another one.
        unreadable: rows of which a medium could not be read now.
        stale: decisions that were not followed, because the caption has changed since.
        unknown: decisions on rows that the audit does not have.
        documents: paths of the documents beside the export.
    """

    to: Path
    format: str
    rows: int = 0
    exported: int = 0
    samples: int = 0
    removed: Counter[tuple[str, str]] = field(default_factory=Counter)
    relabeled: Counter[str] = field(default_factory=Counter)
    proposals: int = 0
    unreadable: int = 0
    stale: int = 0
    unknown: int = 0
    documents: list[Path] = field(default_factory=list)

    def count_removed(self, why: str, by: str) -> None:
        """Counts a row; numbers and notes in the reason are left out."""
        self.removed[_kind_of(why), by] += 1

    def lines(self) -> list[str]:
        """The counts in sentences."""
        left_out = self.rows - self.exported
        rows, samples = count_text(self.rows, "row"), count_text(self.samples, "sample")
        lines = [f"{self.exported:,} of {rows} exported ({samples}), {left_out:,} removed"]
        lines += [f"  {count_text(count, 'row')}: {why} (by {by})" for (why, by), count in self.removed.most_common()]
        gets = ("row gets a new caption", "rows get a new caption")
        lines += [f"{count_text(count, *gets)} (by {by})" for by, count in self.relabeled.most_common()]
        if self.proposals:
            keep = count_text(self.proposals, "row keeps its caption", "rows keep their captions")
            lines.append(f"{keep}, though the audit proposes another (see --relabel)")
        if self.stale:
            stale = count_text(self.stale, "decision is not followed", "decisions are not followed")
            lines.append(f"{stale}: the caption has changed since")
        if self.unknown:
            unknown = count_text(self.unknown, "decision is on a row", "decisions are on rows")
            lines.append(f"{unknown} that the audit does not have")
        return lines


def _kind_of(why: str) -> str:
    why = re.sub(r" \([^)]*\)", "", why)
    if why.startswith("decision remove"):
        return "decision remove"
    return re.sub(r"^(not scored|cannot be read): .*", r"\1", why, flags=re.DOTALL)


def datasheet(
    report: ExportReport, summary: Mapping[str, Any], rules: Rules, source: str, scores: str, use: str
) -> str:
    """The datasheet in Markdown.

    Args:
        report: of the export.
        summary: of the audit.
        rules: that were followed.
        source: name of the manifest.
        scores: name of the table of scores.
        use: how to read the export, "" for nothing.
    """
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = [
        ("rows of the audit", f"{report.rows:,}"),
        ("rows exported", f"{report.exported:,}"),
        ("samples exported", f"{report.samples:,}"),
        ("rows removed", f"{report.rows - report.exported:,}"),
        ("rows with a new caption", f"{sum(report.relabeled.values()):,}"),
        ("proposed captions that were not applied", f"{report.proposals:,}"),
        ("rows whose media could not be read", f"{report.unreadable:,}"),
        ("decisions not followed (caption changed since)", f"{report.stale:,}"),
    ]
    lines = [f"# Datasheet of {_md(report.to.name)}", "", f"Exported by audit-plugin, {made}, as {report.format}.", ""]
    lines += [f"- Source: {_code(source)}", f"- Scores: {_code(scores)}"]
    lines += [f"- To read it: {_code(use)}"] if use else []
    lines += ["", "## Counts", "", "| | rows |", "|---|---:|", *(f"| {name} | {count} |" for name, count in rows)]
    lines += ["", "## Removed", "", *_removed(report)]
    if report.relabeled:
        lines += ["", "## New captions", "", f"`{RELABELED}` lists them, with the captions before.", ""]
        lines += [
            "| by | rows |",
            "|---|---:|",
            *(f"| {_md(by)} | {n:,} |" for by, n in report.relabeled.most_common()),
        ]
    lines += ["", "## Rules", "", *_rules(rules), "", "## Audit", "", *_audit(summary)]
    return "\n".join(lines) + "\n"


def _removed(report: ExportReport) -> list[str]:
    if not report.removed:
        return ["Nothing."]
    rows = (f"| {_md(why)} | {_md(by)} | {count:,} |" for (why, by), count in report.removed.most_common())
    return [f"`{REMOVED}` lists each row, with the reason, by whom, and its misalignment.", "", "| why | by | rows |",
            "|---|---|---:|", *rows]  # fmt: skip


def _rules(rules: Rules) -> list[str]:
    lines = []
    if rules.top_n is not None:
        of = f" that are flagged {', '.join(rules.drop)}" if rules.drop else ""
        lines.append(f"- Removed: of the rows{of}, the {rules.top_n:,} with the highest misalignment.")
    elif rules.drop:
        lines.append(f"- Removed: rows flagged {', '.join(rules.drop)}; of duplicates one stays.")
    else:
        stay = f" Rows flagged only {', '.join(rules.keep)} stay." if rules.keep else ""
        lines.append(f"- Removed: rows that the audit proposes to remove.{stay}")
    if rules.selection is not None:
        lines.append(f"- Only the {len(rules.selection):,} selected rows.")
    applied = "applied" if rules.relabel else "not applied"
    lines.append(f"- Captions that the audit proposes are {applied}; those that a person decided are.")
    return [*lines, "- Decisions of people overrule the audit. Rows that could not be scored are removed."]


def _audit(summary: Mapping[str, Any]) -> list[str]:
    """Settings and quality of the audit."""
    if "config" not in summary:
        return ["The summary of the audit is not known: no settings and no estimates."]
    try:
        return _known_audit(summary)
    except (TypeError, ValueError, KeyError, AttributeError):  # a file of JSON may hold anything
        return ["The summary of the audit holds other values than an audit writes."]


def _known_audit(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    estimated = reported_of(summary)
    if precision := own_precision(estimated):
        share, pairs = least_share_text(precision, "not known"), least_pairs_text(estimated["pairs_interval"][0])
        lines.append(f"- Precision of the flag misaligned: {share} (model-based, not checked).")
        lines.append(f"- Wrong pairs: {pairs} (model-based, not checked).")
    else:
        lines.append("- The precision of the flags is not known.")
    recall = ", ".join(f"{_md(kind)} {value:.2f}" for kind, value in (summary.get("probe_recall") or {}).items())
    lines += [f"- Probe recall: {recall}."] if recall else []
    flags = ", ".join(f"{_md(kind)} {count:,}" for kind, count in (summary.get("flags") or {}).items())
    lines += [f"- Flags: {flags}."] if flags else []
    for name in ("encoder", "config", "versions"):
        values = {key: value for key, value in (summary.get(name) or {}).items() if value not in ("", None)}
        if values:
            lines += ["", f"### {name.capitalize()}", "", "| | |", "|---|---|"]
            lines += [f"| {_md(str(key))} | {_md(str(value))} |" for key, value in values.items()]
    return lines


def _code(text: str) -> str:
    """Text of users as code in a line of Markdown."""
    return f"`{clean(text).replace('`', chr(39))}`"


def _md(text: str) -> str:
    """Text of users in a line or cell of Markdown: nothing in it is markup."""
    return re.sub(r"([|\\`*_\[\]<>#])", r"\\\1", clean(text, MOST_CHARACTERS))
