"""(ii) Planted misalignments per modality of the four-modality emoji: which are detected, and which are memorized most?

`python -m benchmarks.multimem.misaligned [--seeds 5] [--rate 0.04]`. One modality of some samples is another sample's
(permuted among them); the other three stay. AUROC against the clean samples for MultiMem, held-out alignment and the
combined score, intervals over seeds. The paper says that misaligned text is memorized most, then video, image, audio.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.named_modality import most_memorized, most_misaligned
from benchmarks.multimem import common
from benchmarks.record import RESULTS, write_report

FAULTS = ("text", "video", "image", "audio")
SCORES = {"multimem": 1, "alignment": -1, "misalignment": 1}


def main() -> None:
    """Runs the seeds and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.04, help="share of the rows, per modality")
    options = parser.parse_args()
    cells = [measure(options.rate, seed) for seed in range(options.seeds)]
    report = {
        "rate": options.rate,
        "samples": cells[0]["samples"],
        "auroc": {s: {f: common.interval([c["auroc"][s][f] for c in cells]) for f in (*FAULTS, "all")} for s in SCORES},
        "excess": {f: common.interval([c["excess"][f] for c in cells]) for f in FAULTS},
        "culprit": {f: common.interval([c["culprit"][f] for c in cells]) for f in FAULTS},
        "driver": {f: common.interval([c["driver"][f] for c in cells]) for f in FAULTS},
        "attribution": {k: common.interval([c["attribution"][k] for c in cells]) for k in cells[0]["attribution"]},
        "reliability": [c["reliability"] for c in cells],
    }
    write_report("multimem-misaligned", "planted misalignments per modality, four-modality emoji", report)
    common.picture(RESULTS / "multimem-misaligned.png", lambda axes: _draw(axes, report), 2)


def measure(rate: float, seed: int) -> dict[str, Any]:
    """One drawing of the faults, one audit."""
    with tempfile.TemporaryDirectory() as folder:
        samples, out = common.emoji4(Path(folder), rate, seed)
        with open(out / "truth.csv", encoding="utf-8") as file:
            truth = {row["id"]: row["fault"] for row in csv.DictReader(file)}
        result = run_audit(samples, AuditConfig(encoder=common.ENCODER, seed=seed), run_dir=Path(folder) / "run")
    return read(result, np.array([truth[i] for i in result.ids], dtype=object))


def read(result: AuditResult, fault: Any) -> dict[str, Any]:
    """AUROCs against clean rows, how far faulty rows lie above clean ones, and how often the culprit is named."""
    columns = {name: np.asarray(result.columns[name]) for name in (*SCORES, "multimem_mean")}
    known = np.isfinite(columns["misalignment"])
    clean = known & (fault == "none")
    of = {name: known & (fault == name) for name in FAULTS} | {"all": known & np.isin(fault, FAULTS)}
    spread = columns["multimem_mean"][clean].std()
    return {
        "samples": int(known.sum()),
        "auroc": {s: {f: _auroc(sign * columns[s], of[f], clean) for f in of} for s, sign in SCORES.items()},
        "excess": {
            f: float((columns["multimem_mean"][of[f]].mean() - columns["multimem_mean"][clean].mean()) / spread)
            for f in FAULTS
        },
        # of all faulty rows, flagged or not: the columns of the result name a modality of flagged rows only
        "culprit": {f: float((most_misaligned(result.columns, FAULTS)[of[f]] == f).mean()) for f in FAULTS},
        "driver": {f: float((most_memorized(result.columns, FAULTS)[of[f]] == f).mean()) for f in FAULTS},
        "attribution": result.summary["attribution"],
        "reliability": result.summary["reliability"],
    }


def _auroc(values: Any, positive: Any, clean: Any) -> float:
    use = positive | clean
    return float(roc_auc_score(positive[use], values[use]))


def _draw(axes: Sequence[Any], report: dict[str, Any]) -> None:
    width = 0.26
    for at, (score, by_fault) in enumerate(report["auroc"].items()):
        names = [*FAULTS, "all"]
        means = np.array([by_fault[f]["mean"] for f in names])
        low = np.array([by_fault[f]["low"] for f in names])
        where = np.arange(len(names)) + (at - 1) * width
        axes[0].bar(where, means, width, yerr=means - low, color=common.COLORS[at], label=score, error_kw={"lw": 1})
    axes[0].set(ylim=(0.4, 1), ylabel="AUROC against clean", title="Is the planted fault found?")
    axes[0].set_xticks(range(len(names)), names)
    axes[0].axhline(0.5, color="black", lw=0.8)
    axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
    common.bars(axes[1], report["excess"], "MultiMem above clean, in deviations of the clean")
    axes[1].set_title("Which misaligned modality is memorized most?")


if __name__ == "__main__":
    main()
