"""(i) Group means and histograms of the paper's protocol, as its Fig. 1: f on S_S + S_C, g on S_S + S_I.

`python -m benchmarks.multimem.groups [--train heads|towers] [--repeats 5]`. Expected: mean(S_C) > 0 > mean(S_I), S_S
about 0 once the trial's offset, estimated on S_E, is removed; and, since the raw sum grows with the number of pairs,
a global score above every pair's that says nothing by itself: the mean over pairs stands beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Samples
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.trials import multimem
from audit_plugin.trials.split_protocol import GROUPS, group_report
from benchmarks.multimem import common
from benchmarks.record import RESULTS, write_report


def main() -> None:
    """Runs the sets and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", choices=("heads", "towers"), default="heads")
    parser.add_argument("--repeats", type=int, default=5, help="splits drawn anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {"google": common.emoji("google", Path(folder))}
        if options.train == "heads":
            sets["four"] = common.emoji4(Path(folder))[0]
        report = {name: measure(samples, options.train, options.repeats) for name, samples in sets.items()}
    shown = {name: entry.pop("histogram") for name, entry in report.items()}
    name = f"multimem-groups-{options.train}"
    write_report(name, "MultiMem of the split protocol's groups, intervals over splits and trainings", {"sets": report})
    common.picture(RESULTS / f"{name}.png", lambda axes: _draw(axes, shown), len(shown))


def measure(samples: Samples, train: str, repeats: int) -> dict[str, Any]:
    """Per modality set ("all", each pair): group means over repeats; one pair of models per repeat."""
    values: dict[str, list[Floats]] = {}
    roles: list[Any] = []
    trained = ""
    for seed in range(repeats):
        config = AuditConfig(encoder=common.ENCODER, protocol="split", train=train, trials=2, seed=seed)
        prepared = prepare(samples, config, Clock(silent))
        differences, role, trained = common.evidence(prepared, config, _differences)
        roles.append(role)
        for name, difference in differences.items():
            values.setdefault(name, []).append(difference)
    return {
        "samples": len(roles[0]),
        "repeats": repeats,
        "trained": trained,
        "scores": {name: _groups(differences, roles) for name, differences in values.items()},
        "checks": [group_report(d[None], r)["tests"] for d, r in zip(values["all"], roles, strict=True)],
        "histogram": {name: _by_group(differences, roles) for name, differences in values.items()},
    }


def _differences(evidence: Evidence) -> tuple[dict[str, Floats], Any, str]:
    """CMC_f - CMC_g `[n]` of all modalities, of each pair, and the mean over pairs; offsets removed on S_E."""
    trials, names = evidence.required_trials, evidence.modalities
    assert trials.reference is not None
    without_offset = []
    for number in range(2):
        parts = [e.cpu().numpy() for e in trials.embed(number)]
        terms = multimem.consistency_terms(parts, trials.reference, evidence.leave_together)
        without_offset.append(terms - terms[:, :, trials.offset_rows].mean(2, keepdims=True))
    change = without_offset[0] - without_offset[1]
    out = {"all": multimem.sum_terms(change)}
    pairs = {(a, b): multimem.sum_terms(change, (a, b)) for a in range(len(names)) for b in range(a + 1, len(names))}
    if len(names) > 2:
        out["mean over pairs"] = np.mean(list(pairs.values()), axis=0)
        out |= {f"{names[a]}-{names[b]}": v for (a, b), v in pairs.items()}
    return out, trials.roles, trials.trained


def _groups(differences: Sequence[Floats], roles: Sequence[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {
        group: common.interval([d[r == role].mean() for d, r in zip(differences, roles, strict=True)])
        for group, role in GROUPS.items()
    }
    both = [d[r == "f"].mean() + d[r == "g"].mean() for d, r in zip(differences, roles, strict=True)]
    return out | {"mirror (S_C + S_I)": common.interval(both)}


def _by_group(differences: Sequence[Floats], roles: Sequence[Any]) -> dict[str, Floats]:
    return {
        group: np.concatenate([d[r == role] for d, r in zip(differences, roles, strict=True)])
        for group, role in (("S_S", "both"), ("S_C", "f"), ("S_I", "g"))
    }


def _draw(axes: Sequence[Any], shown: dict[str, dict[str, dict[str, Floats]]]) -> None:
    for ax, (name, scores) in zip(axes, shown.items(), strict=True):
        total = scores.get("mean over pairs", scores["all"])
        edges = np.linspace(-1.2, 1.2, 61)
        for color, (group, values) in zip(common.COLORS, total.items(), strict=False):
            ax.hist(values, edges, density=True, alpha=0.55, color=color, label=f"{group}, mean {values.mean():+.2f}")
        what = "mean over pairs" if "mean over pairs" in scores else "image-text"
        ax.set(title=f"{name}: MultiMem, {what}", xlabel="CMC_f - CMC_g", ylabel="density")
        ax.legend(frameon=False)


if __name__ == "__main__":
    main()
