"""What the ranked list of memorized rows holds on the demo set, and what MultiMem adds to held-out alignment.

`python -m benchmarks.multimem.memorized_list [--samples 600] [--seed 0]` draws and audits the demo, whose faults are
known.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from audit_plugin.arrays import spearman
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.samples import read_samples
from audit_plugin.scoring.memorized import memorized_lists, rank_memorized
from audit_plugin.synthetic.demo import draw_demo
from benchmarks.multimem import common
from benchmarks.record import write_report


def main() -> None:
    """Draws, audits and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = draw_demo(Path(folder) / "demo", options.samples, options.seed)
        with open(manifest.parent / "truth.csv", encoding="utf-8") as file:
            truth = {row["id"]: row["fault"] for row in csv.DictReader(file)}
        samples = read_samples(manifest, {"image": "image", "text": "caption"})
        config = AuditConfig(encoder=common.ENCODER, seed=options.seed)
        result = run_audit(samples, config, run_dir=Path(folder) / "run")
    fault = np.array([truth[name] for name in result.ids], dtype=object)
    report = {"samples": options.samples, "seed": options.seed, **read(result, fault)}
    write_report("multimem-memorized-list", "the list of memorized rows of the demo set", report)


def read(result: AuditResult, fault: Any) -> dict[str, Any]:
    """Swapped pairs among the first of the list, what the lists hold, and MultiMem against held-out alignment."""
    columns = {name: np.asarray(values) for name, values in result.columns.items()}
    multimem, alignment = columns["multimem"], columns["alignment"]
    known = np.isfinite(multimem)
    swapped, clean = fault == "swapped", fault == "none"
    first = int(swapped.sum())
    by_multimem = np.argsort(-np.nan_to_num(multimem, nan=-np.inf), kind="stable")[:first]
    of_both = known & (swapped | clean)
    scores = {"multimem": multimem, "alignment": -alignment, "misalignment": columns["misalignment"]}
    return {
        "swapped": first,
        "swapped_among_first": int(swapped[rank_memorized(columns)[:first]].sum()),
        "swapped_among_first_by_multimem_alone": int(swapped[by_multimem].sum()),
        "clean": int(clean.sum()),
        "clean_flagged": int(columns["is_memorized"][clean].sum()),
        "lists": {name: len(rows) for name, rows in memorized_lists(columns).items()},
        "swapped_in_lists": {name: int(swapped[rows].sum()) for name, rows in memorized_lists(columns).items()},
        "spearman_with_alignment": round(spearman(multimem[known], alignment[known]), 4),
        "auroc": {name: round(float(roc_auc_score(swapped[of_both], v[of_both])), 4) for name, v in scores.items()},
    }


if __name__ == "__main__":
    main()
