"""Trains small heads on cached features with and without mitigation, and compares what they retrieve unseen.

    python examples/train_heads.py features.npz --scores scores.parquet

`features.npz` holds `ids` [n] and one float array [n, d] per modality, from any frozen encoders. Both trainings take
the same number of epochs from the same start; every tenth row is held out. One seed says little: try several.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import cross_entropy, normalize

from audit_plugin.trials.mitigation import RegroupedBatchSampler, RepresentationNoise, most_memorized

TEMPERATURE = 0.05


def load(features: Path, scores: Path, column: str) -> tuple[list[torch.Tensor], np.ndarray]:
    """(unit features [n, d] per modality, score [n], NaN where there is none)."""
    with np.load(features, allow_pickle=False) as arrays:
        ids = [str(i) for i in arrays["ids"]]
        inputs = [normalize(torch.from_numpy(arrays[k]).float(), dim=-1) for k in sorted(arrays) if k != "ids"]
    table = pq.read_table(scores, columns=["id", column]).to_pydict()
    by_id = dict(zip(table["id"], table[column], strict=True))
    values = np.array([by_id.get(i, np.nan) for i in ids], dtype=np.float64)
    if not np.isfinite(values).any():
        sys.exit(f"{scores} has a {column} for none of the {len(ids)} ids: check that it is the audit of this set")
    return inputs, values


def train(inputs: list[torch.Tensor], hot: np.ndarray, sigma: float, args: argparse.Namespace) -> torch.nn.ModuleList:
    """One head per modality; the rows `hot` share batches only with each other and get noise."""
    torch.manual_seed(args.seed)
    heads = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(x.shape[1], 256), torch.nn.GELU(), torch.nn.Linear(256, 128))
        for x in inputs
    )
    noise = RepresentationNoise(sigma)
    sampler = RegroupedBatchSampler(len(inputs[0]), args.batch_size, hot, args.seed)
    is_hot = torch.zeros(len(inputs[0]), dtype=torch.bool)
    is_hot[torch.from_numpy(hot)] = True
    optimizer = torch.optim.AdamW(heads.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for batch in sampler:
            raw = [noise(head(x[batch]), is_hot[batch]) for head, x in zip(heads, inputs, strict=True)]
            embeddings = [normalize(x, dim=-1) for x in raw]
            loss = sum(contrast(a, b) for a, b in combinations(embeddings, 2))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return heads.eval()


def contrast(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of unit embeddings [b, d]."""
    logits, own = left @ right.T / TEMPERATURE, torch.arange(len(left))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


@torch.inference_mode()
def retrieval_at_5(heads: torch.nn.ModuleList, inputs: list[torch.Tensor]) -> float:
    """Share of rows whose partner is among the first 5, over all pairs of modalities and both directions."""
    embeddings = [normalize(head(x), dim=-1) for head, x in zip(heads, inputs, strict=True)]
    shares = []
    for a, b in combinations(embeddings, 2):
        for similarity in (a @ b.T, b @ a.T):
            before = (similarity > similarity.diagonal()[:, None]).sum(1)
            shares.append((before < 5).float().mean())
    return float(torch.stack(shares).mean())


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and returns held-out T@5 without and with mitigation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, help="npz file: ids [n] and one array [n, d] per modality")
    parser.add_argument("--scores", type=Path, required=True, help="scores.parquet of the audit")
    parser.add_argument("--score", default="multimem", help="score column; samples with the highest values are treated")
    parser.add_argument("--share", type=float, default=0.05, help="share of the samples that is treated")
    parser.add_argument(
        "--sigma",
        type=float,
        default=0.1,
        help="standard deviation of the noise per coordinate of the unit embedding, 0 for none",
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    inputs, scores = load(args.features, args.scores, args.score)
    held_out = np.arange(len(scores)) % 10 == 9
    seen, unseen = ([x[torch.from_numpy(rows)] for x in inputs] for rows in (~held_out, held_out))
    results = {}
    for name, hot in (("plain", np.zeros(0, np.int64)), ("mitigated", most_memorized(scores[~held_out], args.share))):
        results[name] = retrieval_at_5(train(seen, hot, args.sigma, args), unseen)
        print(f"{name}: T@5 {results[name]:.3f} on {int(held_out.sum())} held-out rows, {len(hot)} hot rows")
    return results


if __name__ == "__main__":
    main()
