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
TOP = " of the top 5 %"


def claims_tables() -> dict[str, str]:
    """Name of the marked part -> Markdown."""
    return {"claims-multimem": rows(HEADER, _multimem()), "claims-crossmodal": rows(HEADER, _crossmodal())}


def _multimem() -> list[tuple[str, ...]]:
    """The claims on MultiMem (arXiv 2606.22220)."""
    wrong, noise, regroup, removal, robust = map(load, ("misaligned", "noise", "regroup", "removal", "robustness"))
    groups, kinds = load("groups-towers"), load("corruptions")
    others = _ordered(kinds["excess"], highest=True)
    strongest = _paired(kinds["excess"]["misaligned"], kinds["excess"][others[0]])
    harmful = _ordered(kinds["t5_change"], highest=False)
    worst = _paired(kinds["t5_change"]["misaligned"], kinds["t5_change"][harmful[0]])
    (towers,) = groups["sets"].values()
    means = towers["scores"]["all"]
    excess = wrong["excess"]
    first, last = max(excess, key=lambda m: excess[m]["mean"]), min(excess, key=lambda m: excess[m]["mean"])
    gap = np.subtract(excess["text"]["values"], excess["image"]["values"])
    noisy, plain = noise["rows"]["image + text + audio"], noise["rows"]["none"]
    memorized = _paired(noisy["multimem mean over pairs"], plain["multimem mean over pairs"])
    retrieved = _paired(noisy["T@5"], plain["T@5"])
    change = regroup["change_against_none"]
    grouped = _paired(
        change["regroup top 5 %"]["0"][f"multimem{TOP}"], change["regroup random 5 %"]["0"][f"multimem{TOP}"]
    )
    both = change["regroup + noise on top 5 %"]["0"]["T@5"]
    cut = removal["sets"]["twitter, 10 % swapped"]
    gain = cut["methods"]["multimem"]["recommended"]["test_gain"]
    ranks = [cell["rank"] for cell in robust["choice_of_h"].values()]
    return [
        (
            "samples that only one model saw stand out",
            "means of the split protocol's groups, towers from scratch",
            "samples that both models saw",
            f"S_C {shown(means['candidate'])}, S_I {shown(means['independent'])}, S_S {shown(means['shared'])}",
            _source(groups, towers["samples"], means["candidate"]),
            "a check of the implementation: it holds wherever models fit what they saw better",
        ),
        (
            "misaligned samples are memorized more",
            "one medium replaced in 4% of the rows, MultiMem above clean pairs in standard deviations",
            "clean pairs of the same set",
            f"least for {last}: {shown(excess[last], 2)}",
            _source(wrong, wrong["samples"], excess[last]),
            _verdict(excess[last]["low"] > 0),
        ),
        (
            "misalignment is memorized more than other faults",
            "six kinds in 4% of the rows each, MultiMem above untouched rows; misaligned less the next, paired by seed",
            f"the other kinds, highest first: {', '.join(others)}",
            shown(strongest, 2, signed=True),
            _source(kinds, kinds["samples"], kinds["excess"]["rare"]),
            _verdict(strongest["low"] > 0, opposite=strongest["high"] < 0),
        ),
        (
            "misalignment harms retrieval more than other faults",
            "one kind in the place of 10% of the rows trained on, T@5 of untouched rows; misaligned less the next",
            f"the other kinds, most harm first: {', '.join(harmful)}",
            f"{shown(kinds['t5_change']['misaligned'], signed=True)} for misaligned rows; {shown(worst, signed=True)}",
            _source(kinds, kinds["samples"], kinds["t5_clean"]),
            _verdict(worst["high"] < 0, opposite=worst["low"] > 0),
        ),
        (
            "a wrong text matters most",
            "the same, text less image, paired by seed",
            "the other modalities",
            f"{shown(_cell(gap), 2, signed=True)}; most: {first}",
            _source(wrong, wrong["samples"], excess["text"]),
            _verdict(_cell(gap)["low"] > 0),
        ),
        (
            "noise on the representations lowers memorization",
            "noise on all modalities, mean over pairs, paired by seed",
            "training without noise",
            shown(memorized, signed=True),
            _source(noise, noise["samples"], plain["T@5"]),
            _verdict(memorized["high"] < 0, opposite=memorized["low"] > 0),
        ),
        (
            "noise on the representations improves retrieval",
            "the same, T@5 of samples that were not trained on",
            "training without noise",
            shown(retrieved, signed=True),
            _source(noise, noise["samples"], plain["T@5"]),
            _verdict(retrieved["low"] > 0),
        ),
        (
            "regrouping memorized samples lowers their memorization",
            "the top 5% regrouped from the first epoch, their MultiMem, paired by seed",
            "random 5% regrouped, equal steps",
            shown(grouped, signed=True),
            _source(regroup, regroup["samples"], both),
            _verdict(grouped["high"] < 0),
        ),
        (
            "regrouping with noise improves retrieval",
            "the same with noise on them, T@5",
            "no treatment",
            shown(both, signed=True),
            _source(regroup, regroup["samples"], both),
            _verdict(both["low"] > 0, opposite=both["high"] < 0),
        ),
        (
            "removing the most memorized samples improves retrieval",
            "10% of the captions swapped; how many are removed is chosen on validation rows, T@5 of test rows",
            "the same additional training without removal",
            shown(gain, signed=True),
            f"{sum(cut['sets'].values()):,}, {cut['seeds']}, {removal['git'][:7]}",
            _verdict(gain["low"] > 0),
        ),
        (
            "the score hardly depends on the reference samples",
            "rank correlation with the default, five choices of them",
            "another choice with the same models",
            f"at least {shown(min(ranks, key=lambda cell: cell['low']))}",
            _source(robust, robust["samples"], ranks[0]),
            _verdict(min(cell["low"] for cell in ranks) > 0.95),
        ),
    ]


def _crossmodal() -> list[tuple[str, ...]]:
    """The claims on memorization across modalities (arXiv 2506.05198)."""
    report = json.loads((RESULTS / "crossmodal.json").read_text(encoding="utf-8"))
    summary = report["design_a"]
    recall, seeds, unlearning = summary["recall"], summary["seeds"], summary["unlearning"]
    source = f"{summary['identities']} people, {summary['settings']['seeds']}, {report['git'][:7]}"
    across = [recall["image"]["text"], recall["text"]["image"]]
    blind = [recall["unaligned image"]["text"], recall["unaligned text"]["image"]]
    by_seed = [_paired_seeds(seeds, "image", "text"), _paired_seeds(seeds, "text", "image")]
    left = [unlearning["image"]["text"], unlearning["text"]["image"]]
    hops = summary["hops"]["image"]
    replay = [summary["mitigation"][name]["gain"] for name in ("image", "text")]
    described = _cell(np.subtract(seeds["described image"]["text"], seeds["replay image"]["text"]))
    points = {key: 100 * value for key, value in described.items()}
    return [
        (
            "facts that are learned in one modality are recalled in the other",
            "names of drawn people, learned from images and asked with texts; and the reverse",
            "modalities that were not aligned before",
            f"{interval(across[0])}; {interval(across[1])}; control {interval(blind[0])}; {interval(blind[1])}",
            source,
            _verdict(all(a["low"] > b["high"] for a, b in zip(across, blind, strict=True))),
        ),
        (
            "there is a gap between the modalities",
            "recall in the modality learned from less recall in the other, by seed",
            "the same people and questions",
            "; ".join(f"{shown(cell, 1, signed=True)} points" for cell in by_seed),
            source,
            _verdict(all(cell["low"] > 0 for cell in by_seed)),
        ),
        ("the gap is there in more capable models", "", "", "", "", OPEN),
        (
            "what is unlearned in one modality stays in the other",
            "names unlearned from images and asked with texts; and the reverse",
            "a model that was never taught them",
            "; ".join(f"{interval(cell['after'])}, control {interval(cell['gold'])}" for cell in left),
            source,
            _verdict(all(cell["after"]["low"] > cell["gold"]["high"] for cell in left)),
        ),
        (
            "the gap is there over two hops",
            "the job of a person whose name was learned from images, in two steps, asked with images and with texts",
            "the modality learned from",
            f"{interval(hops['chain']['image'])} and {interval(hops['chain']['text'])}; directly "
            f"{interval(hops['latent']['image'])} and {interval(hops['latent']['text'])} (chance 10%)",
            source,
            f"in two steps {_verdict(hops['chain']['text']['high'] < hops['chain']['image']['low'])}; "
            "this model makes no two hops at once",
        ),
        (
            "a simple method makes the gap smaller",
            "background pairs are replayed while names are learned, images to texts and the reverse",
            "learning without replay",
            "; ".join(signed(cell) for cell in replay),
            source,
            _verdict(all(cell["low"] > 0 for cell in replay)),
        ),
        (
            "(ours) a model's own descriptions of its images make it smaller",
            "the descriptions are learned as well, with replay, by seed",
            "replay alone",
            f"{shown(points, 1, signed=True)} points",
            source,
            "**holds**, with sentence forms of the questions" if points["low"] > 0 else "**does not hold**",
        ),
    ]


def _ordered(cells: Mapping[str, Any], highest: bool) -> list[str]:
    """The kinds of fault but misaligned, by their mean, then by name."""
    sign = -1 if highest else 1
    return sorted({*cells} - {"misaligned"}, key=lambda kind: (sign * cells[kind]["mean"], kind))


def _cell(values: Any) -> dict[str, float]:
    """Mean and 95% interval over seeds."""
    return dict(zip(("mean", "low", "high"), mean_interval(np.asarray(values)), strict=True))


def _paired(treated: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, float]:
    return _cell(np.subtract(treated["values"], control["values"]))


def _paired_seeds(seeds: Mapping[str, Any], source: str, target: str) -> dict[str, float]:
    """Recall in the modality learned from, less that in the other, in points, over seeds."""
    return _cell(100 * np.subtract(seeds[source][source], seeds[source][target]))


def _source(report: Mapping[str, Any], samples: int, cell: Mapping[str, Any]) -> str:
    changed = " with changes" if report["git"].endswith("-dirty") else ""
    return f"{samples:,}, {len(cell['values'])}, {report['git'][:7]}{changed}"


def _verdict(holds: bool, opposite: bool = False) -> str:
    return YES if holds else f"{NO}: the opposite" if opposite else NO
