"""Design B: what a name head that was trained on one modality recalls in the other, on frozen features.

S0 aligns: a head per modality is trained on pairs of identities that are not asked about (symmetric InfoNCE). S1 learns
names: a linear head on the aligned embeddings of one modality. S2 asks with variants that no step has seen. Towers
share no weights here, so nothing is said about unlearning or two hops (`benchmarks.crossmodal` measures these).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Bools, Features, Floats, Ints, dense_ids
from audit_plugin.neighbors.projection import fit_projection
from audit_plugin.trials.heads import train_group
from audit_plugin.trials.learners import head_inputs

from .statistics import BOTH, NONE, modality_gap, pair_retrieval, retrieval_chance

STEPS = (5, 10, 20, 40, 80, 160)  # of the name head, at which recall is read; the last is the result
RATE, SCALE, DECAY = 0.05, 10.0, 1e-3
ALIGN_EPOCHS = 30
CENTERED = "centered "  # before the arm: each modality about its own mean, the mitigation that costs nothing


@dataclass(frozen=True)
class Asked:
    """Rows with two modalities, of which some are to be recognized.

    Attributes:
        features: exactly two modalities, n rows.
        identity: int `[n]`, -1 for none.
        parts: (rows whose names are learned, rows that are asked about afterward) bool `[n]` each, one or more times
            with the same identities: two halves that take turns ask about every row.
        aligned_on: bool `[n]`, rows that S0 sees: of other identities.
    """

    features: Features
    identity: Ints
    parts: tuple[tuple[Bools, Bools], ...]
    aligned_on: Bools


@dataclass(frozen=True)
class Answers:
    """What was recalled, over s seeds and t questions.

    Attributes:
        rows: int64 `[t]`, the rows asked about.
        identity: int64 `[t]`, theirs.
        hits: (arm, modality asked in) -> float32 `[s, t]`, 1 where the right name came first.
        curve: (arm, modality asked in) -> `[s, steps]` mean recall at `STEPS`.
        retrieval: `[s, t]`, see `pair_retrieval`; of the aligned embeddings before any name was learned.
        retrieval_chance: of rows without relation; `chance`: of a guessed name.
        gap_norm: `[s]`, see `modality_gap`.
    """

    rows: Ints
    identity: Ints
    hits: Mapping[tuple[str, str], Floats]
    curve: Mapping[tuple[str, str], Floats]
    retrieval: Floats
    retrieval_chance: float
    chance: float
    gap_norm: Floats


def measure(asked: Asked, seeds: Sequence[int], device: str = "cpu", align: bool = True) -> Answers:
    """Trains all arms for every seed and asks them all; O(seeds * rows * steps).

    Args:
        asked: the rows.
        seeds: of S0 and S1.
        device: where to train.
        align: False leaves the heads of S0 untrained: the control, in which nothing can transfer.
    """
    found: list[list[Answers]] = []
    for seed in seeds:
        spaces = _aligned(asked, seed, device, align)
        found.append([_part(asked, spaces, learned, rows, seed) for learned, rows in asked.parts])
    return over_seeds([joined(parts) for parts in found])


def _part(asked: Asked, spaces: Mapping[str, torch.Tensor], learned: Bools, questions: Bools, seed: int) -> Answers:
    """One seed of one part."""
    names, rows = tuple(spaces), np.flatnonzero(questions)
    own, number = np.unique(asked.identity[learned], return_inverse=True)
    target = np.searchsorted(own, asked.identity[rows])
    hits, curve = {}, {}
    for arm in (*names, BOTH, NONE, *(CENTERED + name for name in names)):
        seen = {m: _centered(v, asked.aligned_on) if arm.startswith(CENTERED) else v for m, v in spaces.items()}
        sources = names if arm in (BOTH, NONE) else (arm.removeprefix(CENTERED),)
        inputs = torch.cat([seen[m][learned] for m in sources])
        labels = torch.from_numpy(np.tile(number.reshape(-1), len(sources))).to(inputs.device)
        found = _ask(inputs, labels, len(own), {m: v[rows] for m, v in seen.items()}, target, seed, arm == NONE)
        for name, values in found.items():
            hits[arm, name], curve[arm, name] = values[-1:], values.mean(1)[None]
    left, right = (v[rows].cpu().numpy() for v in spaces.values())
    people = asked.identity[rows]
    return Answers(
        rows,
        people,
        hits,
        curve,
        pair_retrieval(left, right, people)[None],
        retrieval_chance(dense_ids(people)),
        1 / max(len(own), 1),
        np.array([modality_gap(left, right)]),
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers on other rows, by the same seeds, as one; what is a mean is weighted by the rows."""
    sizes = np.array([len(part.rows) for part in parts], dtype=np.float64)

    def mean(values: Sequence[Any]) -> Any:
        return np.average(np.stack([np.asarray(value) for value in values]), axis=0, weights=sizes)

    return Answers(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.identity for part in parts]),
        {key: np.concatenate([part.hits[key] for part in parts], axis=1) for key in parts[0].hits},
        {key: mean([part.curve[key] for part in parts]) for key in parts[0].curve},
        np.concatenate([part.retrieval for part in parts], axis=1),
        float(mean([part.retrieval_chance for part in parts])),
        float(mean([part.chance for part in parts])),
        mean([part.gap_norm for part in parts]),
    )


def over_seeds(found: Sequence[Answers]) -> Answers:
    """Answers on the same rows by other seeds, as one."""
    first = found[0]
    return replace(
        first,
        hits={key: np.concatenate([one.hits[key] for one in found]) for key in first.hits},
        curve={key: np.concatenate([one.curve[key] for one in found]) for key in first.curve},
        retrieval=np.concatenate([one.retrieval for one in found]),
        gap_norm=np.concatenate([one.gap_norm for one in found]),
    )


def _aligned(asked: Asked, seed: int, device: str, align: bool) -> dict[str, torch.Tensor]:
    """Modality -> unit embeddings `[n, o]` in one space, by heads that saw none of the identities asked about."""
    seen = np.flatnonzero(asked.aligned_on)
    projections = {m: fit_projection(v[seen], 0.0) for m, v in asked.features.vectors.items()}
    inputs = head_inputs(asked.features, projections, device)
    member = asked.aligned_on[None]
    # rows of one identity are no negatives of each other; rows without one are strangers to all
    alone = asked.identity.max(initial=-1) + 1 + np.arange(len(asked.identity))
    repeats = np.where(asked.identity >= 0, asked.identity, alone)[:, None].astype(np.int32)
    epochs = ALIGN_EPOCHS if align else 0
    heads = train_group(inputs, member, [0], repeats, epochs, seed, max(1, len(seen)))
    return dict(zip(asked.features.modalities, heads.embed(inputs, 0), strict=True))


def _centered(vectors: torch.Tensor, known: Bools) -> torch.Tensor:
    """About the mean of the rows of S0, and of unit length again."""
    moved = vectors - vectors[torch.from_numpy(np.flatnonzero(known)).to(vectors.device)].mean(0)
    return torch.nn.functional.normalize(moved, dim=1)


def _ask(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    count: int,
    questions: Mapping[str, torch.Tensor],
    target: Ints,
    seed: int,
    untrained: bool,
) -> dict[str, Floats]:
    """Modality -> `[steps, t]`: 1 where the name head, after each of `STEPS`, names the row of a question."""
    generator = torch.Generator().manual_seed(seed)
    weight = (0.01 * torch.randn(inputs.shape[1], count, generator=generator)).to(inputs.device).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=RATE, weight_decay=DECAY)
    right = torch.from_numpy(target).to(inputs.device)
    found: dict[str, list[Floats]] = {name: [] for name in questions}
    for step in range(1, STEPS[-1] + 1):
        if not untrained:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(SCALE * inputs @ weight, labels).backward()
            optimizer.step()
        if step in STEPS:
            with torch.inference_mode():
                for name, vectors in questions.items():
                    found[name].append(((vectors @ weight).argmax(1) == right).cpu().numpy())
    return {name: np.stack(values).astype(np.float32) for name, values in found.items()}
