"""The tables of docs/claims.md: what both papers claim, what was measured here, and how it came out.

Each verdict follows from an interval by a rule that stands beside it, so that no text can say more than its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from audit_plugin.arrays import mean_interval
from audit_plugin.crossmodal.sentences import interval, signed
from benchmarks.multimem.tables import load, rows, shown
from benchmarks.record import RESULTS

HEADER = ("claim", "test here", "control", "result", "n, seeds, commit", "verdict")
YES, NO, OPEN = "**reproduced**", "**not reproduced**", "not tested here"
ALIKE = 0.95  # rank correlation from which two rankings are called alike


Row = tuple[str, ...]  # one per column of `HEADER`


def claims_tables() -> dict[str, str]:
    """Name of the marked part -> Markdown."""
    multimem = [_groups(), *_misaligned(), *_faults(), *_noise(), *_regrouped(), _removed(), _references()]
    report = json.loads((RESULTS / "crossmodal.json").read_text(encoding="utf-8"))
    summary = report["design_a"]
    source = f"{summary['identities']} people, {summary['settings']['seeds']}, {report['git'][:7]}"
    crossmodal = [*_recall(summary), _unlearned(summary), _two_hops(summary), *_smaller_gap(summary)]
    sourced = [(*row[:4], source, row[4]) if row[3] else (*row[:4], "", row[4]) for row in crossmodal]
    return {"claims-multimem": rows(HEADER, multimem), "claims-crossmodal": rows(HEADER, sourced)}


# --- MultiMem (arXiv 2606.22220) -------------------------------------------------------------------------------------


def _groups() -> Row:
    """Samples that both, one or no model saw."""
    report = load("groups-towers")
    (towers,) = report["sets"].values()
    means = towers["scores"]["all"]
    return (
        "samples that only one model saw stand out",
        "means of the split protocol's groups, towers from scratch",
        "samples that both models saw",
        f"S_C {shown(means['candidate'])}, S_I {shown(means['independent'])}, S_S {shown(means['shared'])}",
        _source(report, towers["samples"], means["candidate"]),
        "a check of the implementation: it holds wherever models fit what they saw better",
    )


def _misaligned() -> list[Row]:
    """One wrong medium of four."""
    report = load("misaligned")
    excess = report["excess"]
    least = min(excess, key=lambda name: excess[name]["mean"])
    other = max({*excess} - {"text"}, key=lambda name: (excess[name]["mean"], name))
    gap = _paired(excess["text"], excess[other])
    source = _source(report, report["samples"], excess[least])
    return [
        (
            "misaligned samples are memorized more",
            "one medium replaced in 4% of the rows, MultiMem above clean pairs in standard deviations",
            "clean pairs of the same set",
            f"least for {least}: {shown(excess[least], 2)}",
            source,
            _verdict(excess[least]["low"] > 0),
        ),
        (
            "a wrong text matters most",
            f"the same, text less {other}, the highest of the others, paired by seed",
            "the other modalities",
            shown(gap, 2, signed=True),
            source,
            _verdict(gap["low"] > 0, opposite=gap["high"] < 0),
        ),
    ]


def _faults() -> list[Row]:
    """Six kinds of faults in one set."""
    report = load("corruptions")
    excess, change = report["excess"], report["t5_change"]
    others, harmful = _others(excess, highest=True), _others(change, highest=False)
    strongest = _paired(excess["misaligned"], excess[others[0]])
    worst = _paired(change["misaligned"], change[harmful[0]])
    source = _source(report, report["samples"], excess["misaligned"])
    return [
        (
            "misalignment is memorized more than other faults",
            "six kinds in 4% of the rows each, MultiMem above untouched rows; misaligned less the next, paired by seed",
            f"the other kinds, highest first: {', '.join(others)}",
            shown(strongest, 2, signed=True),
            source,
            _verdict(strongest["low"] > 0, opposite=strongest["high"] < 0),
        ),
        (
            "misalignment harms retrieval more than other faults",
            "one kind in the place of 10% of the rows trained on, T@5 of untouched rows; misaligned less the next",
            f"the other kinds, most harm first: {', '.join(harmful)}",
            f"{shown(change['misaligned'], signed=True)} for misaligned rows; {shown(worst, signed=True)}",
            source,
            _verdict(worst["high"] < 0, opposite=worst["low"] > 0),
        ),
    ]


def _noise() -> list[Row]:
    """Noise on the representations of all modalities."""
    report = load("noise")
    noisy, plain = report["rows"]["image + text + audio"], report["rows"]["none"]
    memorized, retrieved = (_paired(noisy[key], plain[key]) for key in ("multimem mean over pairs", "T@5"))
    source = _source(report, report["samples"], plain["T@5"])
    return [
        (
            "noise on the representations lowers memorization",
            "noise on all modalities, mean over pairs, paired by seed",
            "training without noise",
            shown(memorized, signed=True),
            source,
            _verdict(memorized["high"] < 0, opposite=memorized["low"] > 0),
        ),
        (
            "noise on the representations improves retrieval",
            "the same, T@5 of samples that were not trained on",
            "training without noise",
            shown(retrieved, signed=True),
            source,
            _verdict(retrieved["low"] > 0, opposite=retrieved["high"] < 0),
        ),
    ]


def _regrouped() -> list[Row]:
    """The most memorized samples in batches of their own, without and with noise."""
    report = load("regroup")
    change, top = report["change_against_none"], "multimem of the top 5 %"
    grouped = _paired(change["regroup top 5 %"]["0"][top], change["regroup random 5 %"]["0"][top])
    both = change["regroup + noise on top 5 %"]["0"]["T@5"]
    source = _source(report, report["samples"], both)
    return [
        (
            "regrouping memorized samples lowers their memorization",
            "the top 5% regrouped from the first epoch, their MultiMem, paired by seed",
            "random 5% regrouped, equal steps",
            shown(grouped, signed=True),
            source,
            _verdict(grouped["high"] < 0, opposite=grouped["low"] > 0),
        ),
        (
            "regrouping with noise improves retrieval",
            "the same with noise on them, T@5",
            "no treatment",
            shown(both, signed=True),
            source,
            _verdict(both["low"] > 0, opposite=both["high"] < 0),
        ),
    ]


def _removed() -> Row:
    """The set on which the removal gains most."""
    report = load("removal")
    gains = {name: cut["methods"]["multimem"]["recommended"]["test_gain"] for name, cut in report["sets"].items()}
    name = max(gains, key=lambda name: gains[name]["mean"])
    cut, gain = report["sets"][name], gains[name]
    return (
        "removing the most memorized samples improves retrieval",
        f"how many is chosen on validation rows, T@5 of test rows; the set of {len(gains)} that gains most, {name}",
        "the same additional training without removal",
        shown(gain, signed=True),
        f"{sum(cut['sets'].values()):,}, {cut['seeds']}, {report['git'][:7]}",
        _verdict(gain["low"] > 0, opposite=gain["high"] < 0),
    )


def _references() -> Row:
    """Other reference samples."""
    report = load("robustness")
    ranks = [cell["rank"] for cell in report["choice_of_h"].values()]
    least = min(ranks, key=lambda cell: cell["low"])
    return (
        "the score hardly depends on the reference samples",
        "rank correlation with the default, five choices of them; the claim is taken for 0.95 or more",
        "another choice with the same models",
        f"at least {shown(least)}",
        _source(report, report["samples"], least),
        _verdict(least["low"] >= ALIKE),
    )


# --- memorization across modalities (arXiv 2506.05198): rows without n, seeds and commit, which are the same ---------


def _recall(summary: Mapping[str, Any]) -> list[Row]:
    """Names learned in one modality and asked in the other."""
    recall, seeds = summary["recall"], summary["seeds"]
    across = [recall["image"]["text"], recall["text"]["image"]]
    blind = [recall["unaligned image"]["text"], recall["unaligned text"]["image"]]
    gaps = [
        _cell(100 * np.subtract(seeds[source][source], seeds[source][target]))
        for source, target in (("image", "text"), ("text", "image"))
    ]
    return [
        (
            "facts that are learned in one modality are recalled in the other",
            "names of drawn people, learned from images and asked with texts; and the reverse",
            "modalities that were not aligned before",
            f"{interval(across[0])}; {interval(across[1])}; control {interval(blind[0])}; {interval(blind[1])}",
            _verdict(all(a["low"] > b["high"] for a, b in zip(across, blind, strict=True))),
        ),
        (
            "there is a gap between the modalities",
            "recall in the modality learned from less recall in the other, by seed",
            "the same people and questions",
            "; ".join(f"{shown(cell, 1, signed=True)} points" for cell in gaps),
            _verdict(all(cell["low"] > 0 for cell in gaps)),
        ),
        ("the gap is there in more capable models", "", "", "", OPEN),
    ]


def _unlearned(summary: Mapping[str, Any]) -> Row:
    """Names unlearned in one modality and asked in the other."""
    left = [summary["unlearning"]["image"]["text"], summary["unlearning"]["text"]["image"]]
    return (
        "what is unlearned in one modality stays in the other",
        "names unlearned from images and asked with texts; and the reverse",
        "a model that was never taught them",
        "; ".join(f"{interval(cell['after'])}, control {interval(cell['gold'])}" for cell in left),
        _verdict(all(cell["after"]["low"] > cell["gold"]["high"] for cell in left)),
    )


def _two_hops(summary: Mapping[str, Any]) -> Row:
    """A fact of a person that is known by name."""
    steps, direct = (summary["hops"]["image"][way] for way in ("chain", "latent"))
    return (
        "the gap is there over two hops",
        "the job of a person whose name was learned from images, in two steps, asked with images and with texts",
        "the modality learned from",
        f"{interval(steps['image'])} and {interval(steps['text'])}; directly {interval(direct['image'])} and "
        f"{interval(direct['text'])} (chance 10%)",
        f"in two steps {_verdict(steps['text']['high'] < steps['image']['low'])}; this model makes no two hops at once",
    )


def _smaller_gap(summary: Mapping[str, Any]) -> list[Row]:
    """Replay, and a model's own descriptions over replay."""
    replay = [summary["mitigation"][name]["gain"] for name in ("image", "text")]
    described, replayed = (summary["seeds"][f"{arm} image"]["text"] for arm in ("described", "replay"))
    points = _cell(100 * np.subtract(described, replayed))
    return [
        (
            "a simple method makes the gap smaller",
            "background pairs are replayed while names are learned, images to texts and the reverse",
            "learning without replay",
            "; ".join(signed(cell) for cell in replay),
            _verdict(all(cell["low"] > 0 for cell in replay)),
        ),
        (
            "(ours) a model's own descriptions of its images make it smaller",
            "the descriptions are learned as well, with replay, by seed",
            "replay alone",
            f"{shown(points, 1, signed=True)} points",
            "**holds**, with sentence forms of the questions" if points["low"] > 0 else "**does not hold**",
        ),
    ]


# --- parts of rows ---------------------------------------------------------------------------------------------------


def _others(cells: Mapping[str, Any], highest: bool) -> list[str]:
    """The kinds of fault but misaligned, by their mean, then by name."""
    sign = -1 if highest else 1
    return sorted({*cells} - {"misaligned"}, key=lambda kind: (sign * cells[kind]["mean"], kind))


def _cell(values: Any) -> dict[str, float]:
    """Mean and 95% interval over seeds."""
    return dict(zip(("mean", "low", "high"), mean_interval(np.asarray(values)), strict=True))


def _paired(treated: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, float]:
    return _cell(np.subtract(treated["values"], control["values"]))


def _source(report: Mapping[str, Any], samples: int, cell: Mapping[str, Any]) -> str:
    changed = " with changes" if report["git"].endswith("-dirty") else ""
    return f"{samples:,}, {len(cell['values'])}, {report['git'][:7]}{changed}"


def _verdict(holds: bool, opposite: bool = False) -> str:
    return YES if holds else f"{NO}: the opposite" if opposite else NO
