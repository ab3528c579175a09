"""(vi) Reliability of ensemble MultiMem against the number of trials, and whether the predicted number is right.

`python -m benchmarks.multimem.reliability [--trials 128]`. Spearman-Brown reliability of the first r trials, against
the correlation with a disjoint set of as many trials (what reliability claims to predict); and, from the reliability
at few trials, the number predicted to reach .8 and .9 against the number that it took.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.trials import multimem
from benchmarks.multimem import common
from benchmarks.record import RESULTS, write_report

STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TARGETS = (0.8, 0.9, 0.95)


def main() -> None:
    """Runs the sets and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {vendor: common.emoji(vendor, Path(folder)) for vendor in ("google", "twitter")}
        sets["four"] = common.emoji4(Path(folder))[0]
        report = {}
        for name, samples in sets.items():
            config = AuditConfig(encoder=common.ENCODER, trials=options.trials)
            trials = common.evidence(prepare(samples, config, Clock(silent)), config).evidence.trials
            report[name] = measure(multimem.adjusted_consistency(trials), trials.member)
    write_report("multimem-reliability", "reliability of MultiMem against the number of trials", {"sets": report})
    common.picture(RESULTS / "multimem-reliability.png", lambda axes: _draw(axes[0], report))


def measure(values: Floats, member: Bools) -> dict[str, Any]:
    """The curve, and predictions from its beginning."""
    total = len(member)
    steps = [r for r in STEPS if r <= total]
    curve = {r: multimem.reliability(values[:r], member[:r]) for r in steps}
    agreement = {}
    for r in [r for r in steps if 2 * r <= total]:
        first, _ = multimem.estimate_multimem(values[:r], member[:r])
        last, _ = multimem.estimate_multimem(values[-r:], member[-r:])
        agreement[r] = float(np.corrcoef(first, last)[0, 1])
    predictions = [
        {"from": r, "target": target, "predicted": multimem.trials_needed(curve[r], r, target), "took": took}
        for target in TARGETS
        if (took := next((r for r in range(4, total + 1, 2) if _reaches(values, member, r, target)), None))
        for r in (4, 8, 16)
        if r < took and r in curve
    ]
    return {
        "samples": member.shape[1],
        "reliability": {str(r): round(v, 4) for r, v in curve.items()},
        "agreement_of_disjoint_trials": {str(r): round(v, 4) for r, v in agreement.items()},
        "predictions": predictions,
    }


def _reaches(values: Floats, member: Bools, trials: int, target: float) -> bool:
    return multimem.reliability(values[:trials], member[:trials]) >= target


def _draw(ax: Any, report: dict[str, Any]) -> None:
    for color, (name, figures) in zip(common.COLORS, report.items(), strict=False):
        curve, agreed = figures["reliability"], figures["agreement_of_disjoint_trials"]
        ax.plot([int(r) for r in curve], list(curve.values()), "-o", ms=3, color=color, label=name)
        ax.plot([int(r) for r in agreed], list(agreed.values()), "x", color=color)
    ticks = (4, 8, 16, 32, 64, 128)
    ax.set_xscale("log")
    ax.set_xticks(ticks, [str(r) for r in ticks])
    ax.minorticks_off()
    ax.axhline(0.9, color="grey", lw=0.8, ls="--")
    ax.set(xlabel="trials", ylabel="reliability", title="Lines: split-half; crosses: agreement with other trials")
    ax.legend(frameon=False, loc="lower right")


if __name__ == "__main__":
    main()
