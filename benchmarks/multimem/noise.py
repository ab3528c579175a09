"""(iii) Noise on the representations of one modality, as the paper's Table 3: memorization, uni-modal, retrieval.

`python -m benchmarks.multimem.noise [--seeds 5]`. Gaussian noise (sigma 0.1 per coordinate of the unit vector, before
the last normalization) on all samples of some modalities during training. Per setting: MultiMem per pair, their mean;
SSLMem per modality (how much nearer two noisy looks at a sample lie for members than for others); T@5 of samples that
were not trained on. The paper: noise on a modality lowers the pairs that hold it and raises the pair that does not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats
from audit_plugin.trials import multimem
from benchmarks.multimem import common
from benchmarks.multimem.treatments import Treatment
from benchmarks.record import RESULTS, write_report

NAMES = ("image", "text", "audio")
SIGMA = 0.1
TRIALS = 16
LOOK = 0.3  # deviation of the two looks' noise on the inputs, whose mean square is 1


def main() -> None:
    """Runs all settings and writes one JSON and one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = common.load(common.emoji4(Path(folder), names=NAMES)[0])
    settings = [c for k in range(len(NAMES) + 1) for c in combinations(range(len(NAMES)), k)]
    rows: dict[str, Any] = {}
    for setting in settings:
        cells = [measure(data, setting, seed) for seed in range(options.seeds)]
        name = " + ".join(NAMES[a] for a in setting) or "none"
        rows[name] = {key: common.interval([c[key] for c in cells]) for key in cells[0]}
        print(name, {key: v["mean"] for key, v in rows[name].items()}, flush=True)
    report = {"samples": len(data), "sigma": SIGMA, "trials": TRIALS, "rows": rows}
    write_report("multimem-noise", "noise per modality against memorization and retrieval, four-modality emoji", report)
    common.picture(RESULTS / "multimem-noise.png", lambda axes: _draw(axes, rows), 2, 3.6)


def measure(data: common.Loaded, noisy: Sequence[int], seed: int) -> dict[str, float]:
    """One setting under one seed: means over samples and trials."""
    member = multimem.member_masks(data.together, TRIALS, seed)
    treatment = Treatment(20, seed, noise=dict.fromkeys(noisy, SIGMA), noise_on="all")
    heads = common.train(data, member, treatment)
    memory = common.memory_terms(heads, data, member)
    pairs = list(combinations(range(len(NAMES)), 2))
    out = {f"multimem {_pair(p)}": float(multimem.sum_terms(memory, p).mean()) for p in pairs}
    out["multimem mean over pairs"] = float(np.mean(list(out.values())))
    out |= {f"sslmem {NAMES[a]}": v for a, v in enumerate(sslmem(heads, data, member, seed))}
    hits = [
        common.top5(common.embeddings(heads, data, t), np.flatnonzero(~m), data.shared_ids)
        for t, m in enumerate(member)
    ]
    out |= {f"T@5 {_pair(p)}": float(np.mean([h[p] for h in hits])) for p in pairs}
    return out | {"T@5": float(np.mean([list(h.values()) for h in hits]))}


def sslmem(heads: Any, data: common.Loaded, member: Bools, seed: int) -> list[float]:
    """Per modality: mean distance of two looks under models without the sample less that of models with it."""
    rng = np.random.default_rng((seed, 79))
    looks = [
        [x + LOOK * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)) for x in data.inputs]
        for _ in range(2)
    ]
    distance: list[list[Floats]] = [[] for _ in data.inputs]
    for trial in range(len(member)):
        one, two = (common.embeddings(heads, data, trial, look) for look in looks)
        for a, (left, right) in enumerate(zip(one, two, strict=True)):
            distance[a].append(np.linalg.norm(left - right, axis=1))
    return [-float(multimem.estimate_multimem(np.stack(d).astype(np.float32), member)[0].mean()) for d in distance]


def _pair(pair: Sequence[int]) -> str:
    return "-".join(NAMES[a] for a in pair)


def _draw(axes: Sequence[Any], rows: dict[str, Any]) -> None:
    common.bars(axes[0], {n: r["multimem mean over pairs"] for n, r in rows.items()}, "MultiMem, mean over pairs")
    common.bars(axes[1], {n: r["T@5"] for n, r in rows.items()}, "held-out T@5, mean over pairs")
    axes[0].set_title("Noise on")
    axes[1].set_title("Noise on")


if __name__ == "__main__":
    main()
