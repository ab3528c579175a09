"""The tables of docs/crossmodal.md, from the committed measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from audit_plugin.crossmodal.sentences import correlation, interval, recall_rows, sentences, signed
from benchmarks.record import RESULTS, markdown_table

SETS = {"persons": "drawn persons", "emoji": "emoji, four vendors' pictures of each"}
ARMS = {
    "image": "pictures",
    "text": "texts",
    "both": "both",
    "none": "nothing (after alignment)",
    "replay image": "pictures, background pairs replayed",
    "replay text": "texts, background pairs replayed",
    "described image": "pictures, and the model's own descriptions of them",
    "hasty image": "pictures, all weights at one high rate",
    "hasty text": "texts, all weights at one high rate",
    "unaligned image": "pictures, without alignment",
    "unaligned text": "texts, without alignment",
}


def crossmodal_parts() -> dict[str, str]:
    """Marked part of the page -> its content."""
    report = json.loads((RESULTS / "crossmodal.json").read_text(encoding="utf-8"))
    return {"controlled": controlled(report), "frozen": frozen(report), "memorized": memorized(report)}


def controlled(report: Mapping[str, Any]) -> str:
    """The controlled protocol: controls, recall, findings."""
    summary, machine = report["design_a"], report["machine"]
    settings, retrieval_after = summary["settings"], summary["kept_alignment"]
    minutes = sum(settings["seconds_per_seed"]) / 60
    rows = [
        (
            ARMS[arm],
            *(interval(summary["recall"][arm][name]) for name in summary["modalities"]),
            _share(retrieval_after.get(arm)),
        )
        for arm in ARMS
        if arm in summary["recall"]
    ]
    header = ("learned from", "asked with pictures", "asked with texts", "held-out pairs retrieved then")
    checks = [
        f"| {name} | {'holds' if holds else '**does not hold**'} |" for name, holds in summary["controls"].items()
    ]
    return "\n".join(
        [
            f"{summary['identities']} people, {settings['seeds']} seeds fixed beforehand, {minutes:.0f} minutes on "
            f"{machine['cores']} cores of {machine['cpu']}; 95 % intervals over people.",
            "",
            "| control | |",
            "|---|---|",
            *checks,
            "",
            *markdown_table(header, rows),
            "",
            f"Before names were learned {interval(summary['alignment']['retrieval'])} of held-out pairs were retrieved "
            f"(chance {summary['alignment']['chance']:.1%}); guessing a name gives {summary['chance']:.1%}.",
            "",
            *(f"* {line}" for line in _findings(summary)),
            "",
            *_drawing(report),
        ]
    )


def _drawing(report: Mapping[str, Any]) -> list[str]:
    measured = report.get("drawing")
    if not measured:
        return []
    return [f"Drawing {measured['pictures']:,} pictures of {measured['side']} pixels took {measured['seconds']:.0f} s."]


def _findings(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    words = {"image": "pictures", "text": "texts", "both": "both"}
    for source, target in (("image", "text"), ("text", "image")):
        if "gap" in summary:
            gap, ratio = summary["gap"][source], summary["transfer_ratio"][source]
            lines.append(
                f"**Gap**, {words[source]} to {words[target]}: {signed(gap)}; {interval(ratio)} of what both together "
                "teach is recalled across"
            )
            lines.append(f"Replaying background pairs: {signed(summary['mitigation'][source]['gain'])}")
    if "self_description" in summary:
        gain = signed(summary["self_description"]["gain"])
        lines.append(f"The model's own descriptions of its pictures, learned along with them: {gain} asked with texts")
    for way, cells in summary["unlearning"].items():
        other = [m for m in cells if m != way] if way != "both" else []
        for name in (*[m for m in cells if m == way], *other, *(cells if way == "both" else ())):
            cell = cells[name]
            lines.append(
                f"**Unlearned** from {words[way]}, asked with {words[name]}: {interval(cell['before'])} before, "
                f"{interval(cell['after'])} after ({interval(cell['gold'])} if never taught); the others keep "
                f"{interval(cell['retained'])}"
            )
    hops = summary["hops"]["both"]
    for name in summary["modalities"]:
        lines.append(
            f"**Two hops**, asked with {words[name]}: the job directly {interval(hops['latent'][name])}, by way of the "
            f"name that the model gives {interval(hops['chain'][name])} (guessing: 10 %)"
        )
    return lines


def frozen(report: Mapping[str, Any]) -> str:
    """Frozen features on both sets."""
    parts = []
    for name, title in SETS.items():
        summary = report[f"design_b_{name}"]
        header = ("learned from", *(f"asked in {modality}" for modality in summary["modalities"]))
        parts += [
            f"**{title[0].upper()}{title[1:]}**: {summary['identities']:,} identities, "
            f"{summary['questions']:,} questions, guessing {summary['chance']:.1%}, "
            f"{summary['whole_seconds']:.0f} s with encoding.",
            "",
            *markdown_table(header, recall_rows(summary)),
            "",
            *(f"* {sentence}" for sentence in sentences(summary)),
            "",
        ]
    return "\n".join(parts).rstrip()


def memorized(report: Mapping[str, Any]) -> str:
    """Rank correlation of MultiMem with recall."""
    rows = []
    for name, title in SETS.items():
        for column, cell in report[f"design_b_{name}"]["memorization"].items():
            source, target = column.removeprefix("recall_").split("_")
            rows.append((title, f"{source}, asked in {target}", correlation(cell)))
    return "\n".join(markdown_table(("set", "recall of names learned from", "rank correlation with MultiMem"), rows))


def _share(cell: Mapping[str, float] | None) -> str:
    return "" if cell is None else f"{cell['value']:.0%}"
