"""(vii) Does the choice of H matter, or the sizes of S_C and S_I?

`python -m benchmarks.multimem.robustness [--repeats 5]`. The same trials read against other reference samples H: few or
many, balanced over categories, or from a single category (out of distribution). And the split protocol with other sizes
of S_C and S_I: shares of the samples, and f and g of unequal sizes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, spearman
from audit_plugin.trials import multimem
from benchmarks.data import DATA, SOURCES
from benchmarks.multimem import common
from benchmarks.multimem.treatments import Treatment
from benchmarks.record import RESULTS, write_report

RATIOS = {"5:5": (0.05, 0.05), "10:10": (0.1, 0.1), "20:20": (0.2, 0.2), "5:20": (0.05, 0.2), "20:5": (0.2, 0.05)}


def main() -> None:
    """Runs both parts and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = common.load(common.emoji("google", Path(folder)))
    kinds = {p.id: p.category for p in SOURCES["google"].read(DATA / "google")}
    category = data.column([kinds[i] for i in data.prepared.samples.ids])
    report = {
        "samples": len(data),
        "choice_of_h": choice_of_h(data, category, options.repeats),
        "sizes": {name: sizes(data, *shares, options.repeats) for name, shares in RATIOS.items()},
    }
    write_report("multimem-robustness", "MultiMem under other reference samples and other split sizes", report)
    common.picture(RESULTS / "multimem-robustness.png", lambda axes: _draw(axes, report), 2)


def choice_of_h(data: common.Loaded, category: Any, repeats: int) -> dict[str, Any]:
    """H -> mean MultiMem and rank correlation with the default H (all non-members), from the same 16 trials.

    H is taken out of all masks before training, so that no model has seen it.
    """
    out: dict[str, dict[str, list[float]]] = {}
    for seed in range(repeats):
        rng = np.random.default_rng((seed, 71))
        chosen = _references(category, rng)
        never = np.isin(data.together, data.together[np.logical_or.reduce(list(chosen.values()))])
        member = multimem.member_masks(data.together, 16, seed) & ~never
        heads = common.train(data, member, Treatment(20, seed))
        scored = {name: _score(heads, data, member, h) for name, h in {"all non-members": None, **chosen}.items()}
        for name, values in scored.items():
            entry = out.setdefault(name, {"mean": [], "rank": []})
            entry["mean"].append(float(values[~never].mean()))
            entry["rank"].append(spearman(values[~never], scored["all non-members"][~never]))
    return {name: {k: common.interval(v) for k, v in entry.items()} for name, entry in out.items()}


def _references(category: Any, rng: np.random.Generator) -> dict[str, Bools]:
    n, names = len(category), np.unique(category.astype(str))
    order = rng.permutation(n)
    big = [c for c in names if (category == c).sum() >= 100]
    balanced = np.concatenate([rng.permutation(np.flatnonzero(category == c))[:10] for c in names])
    one = rng.permutation(np.flatnonzero(category == big[int(rng.integers(len(big)))]))[:90]
    picks = {"random 25": order[:25], "random 200": order[:200], "balanced": balanced, "one category": one}
    return {name: np.isin(np.arange(n), rows) for name, rows in picks.items()}


def _score(heads: Any, data: common.Loaded, member: Bools, h: Bools | None) -> Floats:
    values = np.stack(
        [
            multimem.consistency(common.embeddings(heads, data, t), ~inside if h is None else h, data.together)
            for t, inside in enumerate(member)
        ]
    )
    return multimem.estimate_multimem(multimem.remove_offsets(values, member), member)[0]


def sizes(data: common.Loaded, candidates: float, independent: float, repeats: int) -> dict[str, Any]:
    """Mean over S_C and S_I of one f and g per repeat; H and S_E a tenth each, offset removed on S_E."""
    means: dict[str, list[float]] = {"S_C": [], "S_I": [], "S_S": []}
    for seed in range(repeats):
        order = np.random.default_rng((seed, 73)).permutation(len(data))
        ends = np.cumsum([round(s * len(data)) for s in (0.1, 0.1, candidates, independent)])
        h, outside, c, i, s = (np.isin(np.arange(len(data)), rows) for rows in np.split(order, ends))
        heads = common.train(data, np.stack([s | c, s | i]), Treatment(20, seed))
        values = [multimem.consistency(common.embeddings(heads, data, t), h, data.together) for t in range(2)]
        change = values[0] - values[1]
        change = change - change[outside].mean()
        for name, rows in (("S_C", c), ("S_I", i), ("S_S", s)):
            means[name].append(float(change[rows].mean()))
    return {name: common.interval(v) for name, v in means.items()}


def _draw(axes: Sequence[Any], report: dict[str, Any]) -> None:
    common.bars(
        axes[0], {name: e["rank"] for name, e in report["choice_of_h"].items()}, "rank correlation with default H"
    )
    axes[0].set(title="Choice of H", xlim=(0, 1.05))
    for color, group in zip(common.COLORS, ("S_C", "S_I", "S_S"), strict=False):
        entries = {name: e[group] for name, e in report["sizes"].items()}
        means = [e["mean"] for e in entries.values()]
        axes[1].errorbar(list(entries), means, [m - e["low"] for m, e in zip(means, entries.values(), strict=True)],
                         fmt="o", color=color, capsize=3, label=group)  # fmt: skip
    axes[1].axhline(0, color="black", lw=0.8)
    axes[1].set(title="Sizes of S_C : S_I, per cent", ylabel="mean CMC_f - CMC_g")
    axes[1].legend(frameon=False, loc="center", bbox_to_anchor=(0.5, 0.66), ncols=3)


if __name__ == "__main__":
    main()
