"""(iv) When to regroup the most memorized samples and add noise to them, as the paper's Fig. 5 a-c, with controls.

`python -m benchmarks.multimem.regroup [--seeds 5]`. From the regrouping epoch on, the 5 % of members with the highest
MultiMem share batches only with each other and get noise. Controls that the paper lacks: the same noise on all samples,
on a random 5 %, regrouping without noise, noise without regrouping. Regrouping adds one short batch per epoch, so the
treatments that regroup take equal steps among themselves ("regroup random 5 %" is the baseline), and so do the others.
Noise lowers MultiMem by underfitting too: it helps only where held-out retrieval does not fall.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.trials import multimem
from benchmarks.multimem import common
from benchmarks.multimem.treatments import Treatment
from benchmarks.record import RESULTS, write_report

EPOCHS = 20
GRID = (0, 5, 10, 15, 18)
SIGMA, SHARE, TRIALS = 0.1, 0.05, 8
TREATMENTS = {
    "regroup + noise on top 5 %": ("top", True, "hot"),
    "noise on top 5 %": ("top", False, "hot"),
    "regroup top 5 %": ("top", True, ""),
    "regroup random 5 %": ("random", True, ""),
    "regroup + noise on random 5 %": ("random", True, "hot"),
    "noise on all": ("top", False, "all"),
}


def main() -> None:
    """Runs all treatments and epochs and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--noise", default="random", choices=("none", "random"), help="swapped captions in the set, 10 %%"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = common.load(common.emoji("google", Path(folder), options.noise))
    cells = [measure(data, seed) for seed in range(options.seeds)]
    keys = list(cells[0]["none"][0])
    gain = {
        name: {
            str(e): {k: common.interval([c[name][at][k] - c["none"][0][k] for c in cells]) for k in keys}
            for at, e in enumerate(GRID)
        }
        for name in TREATMENTS
    }
    base = {k: common.interval([c["none"][0][k] for c in cells]) for k in keys}
    report = {"samples": len(data), "epochs": EPOCHS, "sigma": SIGMA, "base": base, "change_against_none": gain}
    write_report("multimem-regroup", "regrouping and noise from an epoch on: change against no treatment", report)
    common.picture(RESULTS / "multimem-regroup.png", lambda axes: _draw(axes, gain), 2, 3.6)


def measure(data: common.Loaded, seed: int) -> dict[str, list[dict[str, float]]]:
    """Treatment -> per regrouping epoch, its measures; "none" has one."""
    member = multimem.member_masks(data.together, TRIALS, seed)
    score = _scores(data, seed)
    rng = np.random.default_rng((seed, 83))
    hot = {"top": _hot(member, score), "random": _hot(member, rng.random(len(data)))}
    out = {"none": [_measure(data, member, hot["top"], Treatment(EPOCHS, seed))]}
    for name, (which, regroup, noise_on) in TREATMENTS.items():
        noise = dict.fromkeys(range(len(data.inputs)), SIGMA) if noise_on else {}
        out[name] = [
            _measure(
                data, member, hot["top"], Treatment(EPOCHS, seed, hot[which], regroup, noise, noise_on or "hot", start)
            )
            for start in GRID
        ]
    print(seed, {name: cells[-1] for name, cells in out.items()}, flush=True)
    return out


def _scores(data: common.Loaded, seed: int) -> Floats:
    """MultiMem from trials that have no part in what is measured afterward."""
    member = multimem.member_masks(data.together, 16, seed + 1000)
    return multimem.sum_terms(
        common.memory_terms(common.train(data, member, Treatment(EPOCHS, seed + 1000)), data, member)
    )


def _hot(member: Bools, score: Floats) -> Bools:
    """bool `[r, n]`: in every trial the same number of members, those with the highest scores."""
    count = max(1, int(SHARE * member.sum(1).min()))
    hot = np.zeros_like(member)
    for row, inside in zip(hot, member, strict=True):
        rows = np.flatnonzero(inside)
        row[rows[np.argsort(-score[rows], kind="stable")[:count]]] = True
    return hot


def _measure(data: common.Loaded, member: Bools, top: Bools, treatment: Treatment) -> dict[str, float]:
    heads = common.train(data, member, treatment)
    scores = multimem.sum_terms(common.memory_terms(heads, data, member))
    hits = [
        common.top5(common.embeddings(heads, data, t), np.flatnonzero(~m), data.shared_ids)
        for t, m in enumerate(member)
    ]
    return {
        "multimem": float(scores.mean()),
        "multimem of the top 5 %": float(scores[top.any(0)].mean()),
        "T@5": float(np.mean([list(h.values()) for h in hits])),
    }


def _draw(axes: Sequence[Any], gain: dict[str, Any]) -> None:
    for ax, key in zip(axes, ("multimem", "T@5"), strict=True):
        for color, (name, cells) in zip(common.COLORS, gain.items(), strict=False):
            means = np.array([cells[str(e)][key]["mean"] for e in GRID])
            low = np.array([cells[str(e)][key]["low"] for e in GRID])
            ax.errorbar(GRID, means, means - low, color=color, marker="o", ms=3, capsize=2, lw=1, label=name)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xlabel=f"from epoch (of {EPOCHS})", title=f"{key}: change against no treatment")
    axes[0].legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    main()
