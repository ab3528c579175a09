"""(v) Removal curves, as the paper's Fig. 5 d-f, on real sets: what `audit-plugin removal-study` reports, two vendors.

`python -m benchmarks.multimem.removal [--seeds 5]`. 70 % of the rows are scored and trained on; the N worst by each
score are removed and training goes on; N is chosen on validation rows, its gain is that on test rows. The control
removes nothing and trains as long. Real emoji as they come, and the same with 10 % of the captions swapped.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Samples
from audit_plugin.audit.removal_study import removal_study
from audit_plugin.config import AuditConfig
from benchmarks.data import DATA, SOURCES
from benchmarks.multimem import common
from benchmarks.record import RESULTS, write_report

SETS = (("google", "none"), ("twitter", "none"), ("google", "random"), ("twitter", "random"))


def main() -> None:
    """Runs the sets and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        for vendor, noise in SETS:
            samples = _labeled(common.emoji(vendor, Path(folder), noise), vendor)
            study = removal_study(samples, AuditConfig(encoder=common.ENCODER), None, options.seeds)
            name = f"{vendor}, {'as it is' if noise == 'none' else '10 % swapped'}"
            report[name] = {key: value for key, value in study.items() if key not in ("versions", "config", "removed")}
            print(name, {m: v["recommended"]["amount"] for m, v in study["methods"].items()}, flush=True)
    write_report("multimem-removal", "held-out retrieval after removing the N worst and training on", {"sets": report})
    common.picture(RESULTS / "multimem-removal.png", lambda axes: _draw(axes, report), len(report))


def _labeled(samples: Samples, vendor: str) -> Samples:
    kinds = {p.id: p.category for p in SOURCES[vendor].read(DATA / vendor)}
    return replace(samples, labels=tuple(kinds[i] for i in samples.ids))


def _draw(axes: Sequence[Any], report: dict[str, Any]) -> None:
    for ax, (name, study) in zip(axes, report.items(), strict=True):
        for color, (method, figures) in zip(common.COLORS, study["methods"].items(), strict=False):
            gains = {int(n): e["test"]["retrieval_at_5"]["gain"] for n, e in figures["amounts"].items()}
            means = np.array([g["mean"] for g in gains.values()])
            ax.plot(list(gains), means, "-o", ms=3, color=color, label=method)
            low = [gain["low"] for gain in gains.values()]
            high = [gain["high"] for gain in gains.values()]
            ax.fill_between(list(gains), low, high, color=color, alpha=0.12, lw=0)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(title=name, xlabel="removed", ylabel="test T@5 gain over the control")
    axes[0].legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    main()
