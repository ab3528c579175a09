"""Runs the trials group by group: train, describe what was not seen, keep sums. Every group is a resumable part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import memorization
from .arrays import Features, Floats, Ints, Trials, modality_pairs
from .config import AuditConfig
from .embedding import Progress
from .held_out import MEASURES, Negatives, describe_trial, reference_fit
from .projection import principal
from .store import RunFolder
from .training import TRIAL_GROUP, Heads, train_group

REFERENCES = 256


@dataclass(frozen=True)
class Job:
    """What every stage of a run needs: settings, device, the folder of finished parts, whom to tell of progress."""

    config: AuditConfig
    device: str
    run: RunFolder
    progress: Progress


def run_trials(
    features: Features,
    texts: tuple[str, ...],
    repeats: Ints,
    negatives: Negatives,
    plants: Mapping[str, Ints],
    job: Job,
) -> tuple[Trials, dict[str, Floats]]:
    """Trains all trials, or loads those that an interrupted run finished.

    Args:
        features: of n samples in canonical order.
        texts: modalities that are text.
        repeats: `[n, c]`, see `train_group`; the last column holds the leave-together groups.
        negatives: of the held-out measures.
        plants: kind -> rows `[q, 2]`.
        job: settings and folder.

    Returns:
        (trials; plant kind -> mean held-out contrast `[p, q]`).
    """
    config, together = job.config, repeats[:, -1].astype(np.int64)
    member = memorization.member_masks(together, config.trials, config.seed)
    inputs = head_inputs(features, job.device)
    planted = np.concatenate(list(plants.values()))
    references = np.sort(np.random.default_rng((config.seed, 13)).permutation(len(together))[:REFERENCES])
    sides = _text_sides(features.modalities, texts)
    parts = []
    for start in range(0, config.trials, TRIAL_GROUP):
        job.progress("train", start, config.trials)
        numbers = list(range(start, min(start + TRIAL_GROUP, config.trials)))

        def make(numbers: list[int] = numbers) -> dict[str, np.ndarray]:
            heads = train_group(inputs, member[numbers], numbers, repeats, config.epochs, config.seed)
            described = _describe(heads, inputs, member[numbers], negatives, together, planted)
            return heads.arrays() | described | _fit(heads, inputs, member[numbers], sides, references)

        parts.append(job.run.once(f"trials_{start:04d}", make))
    job.progress("train", config.trials, config.trials)
    held_out = {name: _mean(parts, name) for name in MEASURES} | {"generality": _generality(parts, sides, member)}
    trials = Trials(member, np.concatenate([p["consistency"] for p in parts]), held_out)
    contrast = _mean(parts, "plants")
    ends = np.cumsum([len(rows) for rows in plants.values()])[:-1]
    return trials, dict(zip(plants, np.split(contrast, ends, axis=1), strict=True))


def _text_sides(modalities: tuple[str, ...], texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """(position of the pair, position of its text) for the pairs of a medium and a text."""
    pairs = enumerate(modality_pairs(modalities))
    return [(p, b) for p, (a, b) in pairs if modalities[b] in texts and modalities[a] not in texts]


def head_inputs(features: Features, device: str) -> list[torch.Tensor]:
    """What heads are trained on: per modality `[n, q]`, principal components of mean square 1."""
    views = [principal(v, whitening=0.0) for v in features.vectors.values()]
    return [torch.from_numpy(v * np.float32(np.sqrt(v.shape[1]))).to(device) for v in views]


def _describe(
    heads: Heads, inputs: list[torch.Tensor], member: np.ndarray, negatives: Negatives, together: Ints, planted: Ints
) -> dict[str, np.ndarray]:
    """One group's consistency rows, and sums and counts `[p, n]` of its held-out measures."""
    pairs = modality_pairs(tuple(map(str, range(len(inputs)))))
    n = member.shape[1]
    out: dict[str, Any] = {"consistency": np.zeros(member.shape, np.float32)}
    for name in (*MEASURES, "plants"):
        size = len(planted) if name == "plants" else n
        out[f"{name}_sum"], out[f"{name}_count"] = np.zeros((len(pairs), size)), np.zeros((len(pairs), size))
    for trial in range(len(member)):
        embeddings = heads.embed(inputs, trial)
        out["consistency"][trial] = memorization.consistency(
            [e.cpu().numpy() for e in embeddings], member[trial], together
        )
        for p, pair in enumerate(pairs):
            measures, contrast = describe_trial(embeddings, pair, member[trial], negatives, planted)
            for name, values in {**measures, "plants": contrast}.items():
                known = np.isfinite(values)
                out[f"{name}_sum"][p] += np.where(known, values, 0)
                out[f"{name}_count"][p] += known
    return out


def _mean(parts: list[dict[str, np.ndarray]], name: str) -> Floats:
    """`[p, n]` mean over all trials that gave a value; NaN where none did."""
    total, count = (sum(part[f"{name}_{what}"] for part in parts) for what in ("sum", "count"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, dtype=np.float32)


def _fit(
    heads: Heads, inputs: list[torch.Tensor], member: np.ndarray, sides: list[tuple[int, int]], references: Ints
) -> dict[str, np.ndarray]:
    """Sums over one group's trials of `reference_fit`, per pair of a medium and a text."""
    pairs = modality_pairs(tuple(map(str, range(len(inputs)))))
    out = {f"fit_{p}": np.zeros((member.shape[1], len(references)), np.float32) for p, _ in sides}
    for trial in range(len(member)):
        embeddings = heads.embed(inputs, trial)
        for p, text in sides:
            out[f"fit_{p}"] += reference_fit(embeddings[text], embeddings[pairs[p][0]], member[trial], references)
    return out


def _generality(parts: list[dict[str, np.ndarray]], sides: list[tuple[int, int]], member: np.ndarray) -> Floats:
    """`[p, n]`: mean over spread of a text's held-out fit to the reference media; NaN for pairs without a text."""
    pairs = parts[0]["cosine_sum"].shape[0]
    out = np.full((pairs, member.shape[1]), np.nan, dtype=np.float32)
    held = np.maximum((~member).sum(0), 1)[:, None]
    for p, _ in sides:
        fit = sum(part[f"fit_{p}"] for part in parts) / held
        out[p] = fit.mean(1) / np.maximum(fit.std(1), 1e-6)
    return out
