"""The output pages of audits and studies: a Markdown text of what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import count_text

from .markdown import Markdown, code, escaped

MOST_REPAIRS = 5

Page = tuple[types.Object, dict[str, str]]  # fields of the page, their values


def audit_output(summary: Mapping[str, Any], run: str, run_dir: str) -> Page:
    """The output page of an audit: flags, calibration, reliability, where the results are."""
    page, values = _markdown_page(_audit_sections(summary, run, run_dir))
    page.btn(
        "show",
        label="Show flagged samples",
        icon="filter_alt",
        variant="contained",
        on_click="@voxel51/operators/set_view",
        params={"name": f"{run}_flagged"},
    )
    return page, values


def removal_output(report: Mapping[str, Any]) -> Page:
    """The output page of a removal study: per score, how many samples to remove, and the gain."""
    from audit_plugin.report.display import removal_advice, removal_rows

    sizes = ", ".join(f"{count:,} {escaped(name.replace('_', ' '))}" for name, count in report["sets"].items())
    header = ("Ranked by", "Samples to remove", "Gain in top-5 retrieval accuracy (test)", "95% interval")
    where = (
        f"The report with the curves is {code(report['saved'])}; its `removed` lists the sample ids per score: "
        '`dataset.select(report["removed"]["multimem"])` shows them. No samples were removed and nothing was written '
        "to the dataset."
    )
    return _markdown_page(
        [
            f"Samples: {sizes}.",
            _table(header, removal_rows(report)),
            f"**{escaped(removal_advice(report))}**",
            *(f"Note: {escaped(note)}" for note in report["notes"]),
            where,
        ]
    )


def cross_modal_output(summary: Mapping[str, Any], run: str) -> Page:
    """The output page of a measurement of cross-modal recall."""
    from audit_plugin.crossmodal.sentences import recall_rows, sentences

    header = ("Learned from", *(f"Asked in {name}" for name in summary["modalities"]))
    return _markdown_page(
        [
            f"Recall of the names of {summary['identities']:,} identities; chance level {summary['chance']:.1%}.",
            _table(header, recall_rows(summary)),
            *(f"* {escaped(sentence)}" for sentence in sentences(summary)),
            *(f"Note: {escaped(note)}" for note in summary["notes"]),
            f"Fields: sidebar group **{escaped(run)}**, after reloading the page. The *Cross-modal* tab of the *Audit* "
            "panel has the curves and the identities with the largest gaps.",
        ]
    )


def _audit_sections(summary: Mapping[str, Any], run: str, run_dir: str) -> list[str]:
    from audit_plugin.report.display import protocol_rows, wrong_pairs
    from audit_plugin.scoring.suggest.join_bugs import batch_text

    flags = [(kind, f"{count:,}", code(f"{run}:{kind}")) for kind, count in summary["flags"].items()]
    recalls = (summary.get("probe_recall") or {}).items()
    probe_recall = ", ".join(f"{escaped(kind)} {value:.0%}" for kind, value in recalls if value is not None)
    reliability = summary.get("reliability")
    sections = [
        f"**{count_text(summary['samples'], 'sample')} audited**, {summary['failures']:,} could not be read.",
        _table(("Flag", "Samples", "Tag"), flags),
        f"Flagged samples: saved view **{escaped(run + '_flagged')}**, or filter by the tags above. Fields: sidebar "
        f"group **{escaped(run)}**, after reloading the page. Arrays: {code(run_dir)}.",
    ]
    if summary.get("estimated"):
        sections.append(f"Wrong pairs, by the model (a spot check measures them): {wrong_pairs(summary)}.")
    for repair in (summary.get("repairs") or ())[:MOST_REPAIRS]:
        sections.append(f"Suggested repair: {escaped(repair['sentence'], 400)}. The batch {batch_text(repair)}.")
    if probe_recall:
        sections.append(f"Probe recall (share of mismatched probe pairs that would be flagged): {probe_recall}.")
    if reliability is not None:
        sections.append(f"Reliability of the memorization scores: {reliability:.2f} of 1.")
    if summary.get("trained"):
        sections.append(f"Trained: {escaped(summary['trained'])}")
    sections.append(_attribution_table(summary))
    if means := summary.get("protocol"):
        sections.append(_table(("Group", "Mean MultiMem", "95% interval", "Samples"), protocol_rows(means)))
    sections += [f"Note: {escaped(note)}" for note in summary.get("notes") or ()]
    return sections


def _attribution_table(summary: Mapping[str, Any]) -> str:
    """The share of memorization per modality and pair; "" with two modalities, where it cannot be attributed."""
    from audit_plugin.report.display import part_name

    shares = summary.get("attribution") or {}
    if len(summary["encoder"]) < 3 or not shares:
        return ""
    return _table(("Memorization comes from", "Share"), [(part_name(k), f"{v:.1%}") for k, v in shares.items()])


def _markdown_page(sections: Iterable[str]) -> Page:
    """A page of one Markdown text, made of the sections that are not empty."""
    page = types.Object()
    page.str("found", view=types.MarkdownView())
    return page, {"found": "\n\n".join(section for section in sections if section)}


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Markdown:
    """A Markdown table; cells that are not `Markdown` appear as they are."""
    lines = [f"| {' | '.join(escaped(cell) for cell in cells)} |" for cells in (header, *rows)]
    lines.insert(1, "|---" * len(header) + "|")
    return Markdown("\n".join(lines))
