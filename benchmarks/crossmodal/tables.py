"""The tables of docs/crossmodal.md, from the committed measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, mean_interval
from audit_plugin.crossmodal.sentences import correlation, interval, recall_rows, sentences, signed
from benchmarks.record import RESULTS, markdown_table

CHOSEN_ON = 0  # the seed that the schedule was chosen on
SETS = {"persons": "drawn people", "emoji": "emoji, images of four vendors"}
ARMS = {
    "image": "images",
    "text": "texts",
    "both": "both",
    "none": "nothing (after alignment)",
    "replay image": "images, with replay of background pairs",
    "replay text": "texts, with replay of background pairs",
    "described image": "images, and the model's own descriptions of them",
    "hasty image": "images, all weights at one high learning rate",
    "hasty text": "texts, all weights at one high learning rate",
    "unaligned image": "images, without alignment",
    "unaligned text": "texts, without alignment",
}


# Names of the controls in the report -> what they state.
CONTROLS = {
    "source recall at least .95": "recall in the modality learned from is at least 0.95",
    "both-arm ceiling at least .95": "recall after learning from both is at least 0.95",
    "the none arm at chance": "recall without learning is at chance",
    "without alignment no transfer": "recall across modalities without alignment is at chance",
    "retrained without: not recalled": "names that were never taught are not recalled",
    "aligned": "the modalities are aligned",
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
    header = ("learned from", "asked with images", "asked with texts", "held-out pairs retrieved afterwards")
    checks = [
        f"| {CONTROLS.get(name, name)} | {'holds' if holds else '**does not hold**'} |"
        for name, holds in summary["controls"].items()
    ]
    return "\n".join(
        [
            f"{summary['identities']} people, {settings['seeds']} seeds fixed in advance, {minutes:.0f} minutes on "
            f"{machine['cores']} cores of {machine['cpu']}; 95% intervals over people.",
            "",
            "| control | result |",
            "|---|---|",
            *checks,
            "",
            *markdown_table(header, rows),
            "",
            f"Before names were learned, {interval(summary['alignment']['retrieval'])} of the held-out pairs were "
            f"retrieved (chance {summary['alignment']['chance']:.1%}). The chance level of a name is "
            f"{summary['chance']:.1%}.",
            "",
            *(f"* {line}" for line in _findings(summary)),
            "",
            *_drawing(report),
        ]
    )


def _gap_by_seed(summary: Mapping[str, Any], source: str) -> str:
    (target,) = {*summary["modalities"]} - {source}
    of_source, of_target = (np.array(summary["seeds"][source][name]) for name in (source, target))
    kept = np.array(summary["settings"]["seeds_kept"]) != CHOSEN_ON
    return _by_seed((of_source - of_target)[kept])


def _by_seed(differences: Floats) -> str:
    """Mean of differences of shares `[s]` in points, with the t-interval over seeds."""
    mean, low, high = (100 * value for value in mean_interval(differences))
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f} over {len(differences)} seeds)"


def _drawing(report: Mapping[str, Any]) -> list[str]:
    measured = report.get("drawing")
    if not measured:
        return []
    return [f"Drawing {measured['pictures']:,} images of {measured['side']} pixels took {measured['seconds']:.0f} s."]


def _findings(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    words = {"image": "images", "text": "texts", "both": "both"}
    for source, target in (("image", "text"), ("text", "image")):
        if "gap" in summary:
            gap, ratio = summary["gap"][source], summary["transfer_ratio"][source]
            lines.append(
                f"**Gap**, {words[source]} to {words[target]}: {signed(gap)}; {interval(ratio)} of what is "
                "learned from both together is recalled across"
            )
            lines.append(
                "The same gap by seed, without the one that the schedule was chosen on: "
                + _gap_by_seed(summary, source)
            )
            gain = signed(summary["mitigation"][source]["gain"])
            lines.append(f"Gain by replay of background pairs, {words[source]} to {words[target]}: {gain}")
    if "self_description" in summary:
        gain = signed(summary["self_description"]["gain"])
        described, replayed = (np.array(summary["seeds"][f"{arm} image"]["text"]) for arm in ("described", "replay"))
        lines.append(
            "Gain in recall with texts by also learning the model's own descriptions of its images, with replay of "
            f"background pairs: {gain}; over replay alone, by seed: {_by_seed(described - replayed)}"
        )
    for way, cells in summary["unlearning"].items():
        other = [m for m in cells if m != way] if way != "both" else []
        for name in (*[m for m in cells if m == way], *other, *(cells if way == "both" else ())):
            cell = cells[name]
            lines.append(
                f"**Unlearned** from {words[way]}, asked with {words[name]}: {interval(cell['before'])} before, "
                f"{interval(cell['after'])} after ({interval(cell['gold'])} if never taught); the recall of the other "
                f"people is {interval(cell['retained'])}"
            )
    hops = summary["hops"]["both"]
    for name in summary["modalities"]:
        lines.append(
            f"**Two hops**, asked with {words[name]}: the job is recalled directly in {interval(hops['latent'][name])} "
            f"of the questions, in two steps through the name in {interval(hops['chain'][name])} (chance: 10%)"
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
            f"{summary['questions']:,} questions, chance {summary['chance']:.1%}, "
            f"{summary['whole_seconds']:.0f} s including encoding.",
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
