"""The closing pages: what was found, how sure it is, where it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fiftyone.operators import types


def result_output(summary: Mapping[str, Any], run: str, run_dir: str) -> tuple[types.Object, dict[str, str]]:
    """The closing page of an audit: what was found, how sure it is, where it is.

    Returns:
        The outputs, and their values.
    """
    output = types.Object()
    output.str("found", view=types.MarkdownView())
    output.btn(
        "show",
        label="Show the flagged samples",
        icon="filter_alt",
        variant="contained",
        on_click="@voxel51/operators/set_view",
        params={"name": f"{run}_flagged"},
    )
    return output, {"found": _markdown(summary, run, run_dir)}


def removal_output(report: Mapping[str, Any]) -> tuple[types.Object, dict[str, str]]:
    """The closing page of a removal study: per score, how many to remove and what that is worth.

    Returns:
        The outputs, and their values.
    """
    from audit_plugin.report.display import removal_advice, removal_rows

    output = types.Object()
    output.str("found", view=types.MarkdownView())
    sizes = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report["sets"].items())
    header = ("Chosen by", "Samples to remove", "Gain in T@5 on test", "95 % interval")
    where = (
        f"The report with the curves is `{report['saved']}`; its `removed` lists the sample ids per score: "
        '`dataset.select(report["removed"]["multimem"])` shows them. Nothing was removed or written.'
    )
    notes = [f"Note: {note}" for note in report["notes"]]
    return output, {
        "found": "\n\n".join(
            [f"Samples: {sizes}.", _table(header, removal_rows(report)), f"**{removal_advice(report)}**", *notes, where]
        )
    }


def transfer_output(summary: Mapping[str, Any], run: str) -> tuple[types.Object, dict[str, str]]:
    """The closing page of a measurement of recall across modalities.

    Returns:
        The outputs, and their values.
    """
    from audit_plugin.crossmodal.sentences import recall_rows, sentences
    from audit_plugin.report.display import clean

    output = types.Object()
    output.str("found", view=types.MarkdownView())
    names = summary["modalities"]
    facts = [
        f"Names of {summary['identities']:,} identities recalled; guessing gives {summary['chance']:.1%}.",
        _table(("Learned from", *(f"Asked in {name}" for name in names)), recall_rows(summary)),
        *(f"* {clean(sentence)}" for sentence in sentences(summary)),
        *(f"Note: {clean(note)}" for note in summary["notes"]),
        f"Fields: sidebar group **{run}**, once the page is reloaded. The tab *Recall* of the panel *Audit* "
        "has the curves and the identities with the largest gaps.",
    ]
    return output, {"found": "\n\n".join(facts)}


def error_output(sentence: str) -> types.Object:
    """The closing page of work that could not be done: one sentence."""
    output = types.Object()
    output.view("error", types.Error(label="Nothing was done", description=sentence))
    return output


def _wrong(summary: Mapping[str, Any]) -> str:
    from audit_plugin.report.display import wrong_words

    if summary.get("wrong_share_model") is None:
        return ""
    return f"Wrong pairs, by a model (a spot check would tell): {wrong_words(summary)}."


def _markdown(summary: Mapping[str, Any], run: str, run_dir: str) -> str:
    from audit_plugin.report.display import clean, protocol_rows

    flags = [(kind, f"{count:,}", f"`{run}:{kind}`") for kind, count in summary["flags"].items()]
    recall = ", ".join(f"{kind} {value:.0%}" for kind, value in (summary.get("probe_recall") or {}).items())
    reliability = summary.get("reliability")
    means = summary.get("protocol")
    where = (
        f"Flagged samples: saved view **{run}_flagged**, or filter by the tags above. Fields: sidebar group "
        f"**{run}**, once the page is reloaded. Arrays: `{run_dir}`."
    )
    facts = [
        f"**{summary['samples']:,} samples audited**, {summary['failures']:,} could not be read.",
        _table(("Flag", "Samples", "Tag"), flags),
        where,
        _wrong(summary),
        *(f"Repair offered: {clean(repair['sentence'], 160)}" for repair in (summary.get("repairs") or ())[:5]),
        f"Of mismatched pairs made up as a check, these would be flagged: {recall}." if recall else "",
        "" if reliability is None else f"Reliability of the memorization scores: {reliability:.2f} of 1.",
        f"Trained: {summary['trained']}" if summary.get("trained") else "",
        _attribution(summary),
        _table(("Group", "Mean of MultiMem", "95 % interval", "Samples"), protocol_rows(means)) if means else "",
        *(f"Note: {note}" for note in summary.get("notes") or ()),
    ]
    return "\n\n".join(fact for fact in facts if fact)


def _attribution(summary: Mapping[str, Any]) -> str:
    """Which modality and which pair drives memorization; with two modalities there is nothing to tell apart."""
    from audit_plugin.report.display import part_name

    shares = summary.get("attribution") or {}
    if len(summary["encoder"]) < 3 or not shares:
        return ""
    return _table(("Memorization comes from", "Share"), [(part_name(k), f"{v:.1%}") for k, v in shares.items()])


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")
