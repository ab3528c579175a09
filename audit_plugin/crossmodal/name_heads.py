"""What a name head that was trained on one modality recalls in the other, on frozen features.

First a head per modality is trained on pairs of identities that are not asked about, to align the modalities
(symmetric InfoNCE). Then names are learned: a linear head on the aligned embeddings of one modality. Then variants
that no step has seen are asked about. The towers share no weights, so nothing is said about unlearning or two hops
(`benchmarks.crossmodal` measures these).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
class NamingTask:
    """Rows with two modalities, of which some are to be named.

    Attributes:
        features: exactly two modalities, n rows.
        identity: int `[n]`, -1 for none.
        parts: (rows whose names are learned, rows that are asked about afterward) bool `[n]` each, one or more times
            with the same identities: two halves that take turns ask about every row.
        alignment_rows: bool `[n]`, rows of other identities, on which the modalities are aligned.
    """

    features: Features
    identity: Ints
    parts: tuple[tuple[Bools, Bools], ...]
    alignment_rows: Bools


@dataclass(frozen=True)
class Answers:
    """What was recalled, over s seeds and t questions.

    Attributes:
        rows: int64 `[t]`, the rows asked about.
        identity: int64 `[t]`, of these rows.
        hits: (arm, modality asked in) -> float32 `[s, t]`, 1 where the right name came first.
        curve: (arm, modality asked in) -> `[s, steps]` mean recall at `STEPS`.
        retrieval: `[s, t]`, see `pair_retrieval`; of the aligned embeddings before any name was learned.
        retrieval_chance: `retrieval` of unrelated rows; `chance`: recall of a guessed name.
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


def ask_name_heads(task: NamingTask, seeds: Sequence[int], device: str = "cpu", align: bool = True) -> Answers:
    """Trains all arms for every seed and asks them all; O(seeds * rows * steps).

    Without `align` the alignment heads stay untrained: the control, in which nothing can be recalled across.
    """
    by_seed: list[Answers] = []
    for seed in seeds:
        spaces = _align(task, seed, device, align)
        by_seed.append(join_rows([_answer_part(task, spaces, learn, ask, seed) for learn, ask in task.parts]))
    first = by_seed[0]
    return replace(
        first,
        hits={key: np.concatenate([answers.hits[key] for answers in by_seed]) for key in first.hits},
        curve={key: np.concatenate([answers.curve[key] for answers in by_seed]) for key in first.curve},
        retrieval=np.concatenate([answers.retrieval for answers in by_seed]),
        gap_norm=np.concatenate([answers.gap_norm for answers in by_seed]),
    )


def _answer_part(task: NamingTask, spaces: Mapping[str, Tensor], learn: Bools, ask: Bools, seed: int) -> Answers:
    """Answers of one seed, with names learned from the rows `learn` and asked of the rows `ask`."""
    modalities, rows = tuple(spaces), np.flatnonzero(ask)
    identity = task.identity[rows]
    names = np.unique(task.identity[learn])
    learned_name = torch.from_numpy(np.searchsorted(names, task.identity[learn]))
    correct_name = torch.from_numpy(np.searchsorted(names, identity))
    centered = {modality: _center(vectors, task.alignment_rows) for modality, vectors in spaces.items()}
    hits, curve = {}, {}
    for arm in (*modalities, BOTH, NONE, *(CENTERED + modality for modality in modalities)):
        vectors = centered if arm.startswith(CENTERED) else spaces
        sources = modalities if arm in (BOTH, NONE) else (arm.removeprefix(CENTERED),)
        inputs = torch.cat([vectors[modality][learn] for modality in sources])
        labels = learned_name.repeat(len(sources)).to(inputs.device)
        questions = {modality: vectors[modality][rows] for modality in modalities}
        for modality, values in _name_head_hits(inputs, labels, questions, correct_name, seed, arm == NONE).items():
            hits[arm, modality] = values[-1:]
            curve[arm, modality] = values.mean(1)[None]
    left, right = (spaces[modality][rows].cpu().numpy() for modality in modalities)
    return Answers(
        rows=rows,
        identity=identity,
        hits=hits,
        curve=curve,
        retrieval=pair_retrieval(left, right, identity)[None],
        retrieval_chance=retrieval_chance(dense_ids(identity)),
        chance=1 / max(len(names), 1),
        gap_norm=np.array([modality_gap(left, right)]),
    )


def _name_head_hits(
    inputs: Tensor, labels: Tensor, questions: Mapping[str, Tensor], correct_name: Tensor, seed: int, untrained: bool
) -> dict[str, Floats]:
    """Modality -> `[steps, t]`: 1 where the name head, after each of `STEPS`, names the identity of a question.

    It learns the names `labels` `[r]`, dense from 0, of unit `inputs` `[r, o]`. Questions `[t, o]`, their names `[t]`.
    """
    count = int(labels.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    weight = (0.01 * torch.randn(inputs.shape[1], count, generator=generator)).to(inputs.device).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=RATE, weight_decay=DECAY)
    correct_name = correct_name.to(inputs.device)
    hits: dict[str, list[Floats]] = {modality: [] for modality in questions}
    for step in range(1, STEPS[-1] + 1):
        if not untrained:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(SCALE * inputs @ weight, labels).backward()
            optimizer.step()
        if step in STEPS:
            with torch.inference_mode():
                for modality, vectors in questions.items():
                    hits[modality].append(((vectors @ weight).argmax(1) == correct_name).cpu().numpy())
    return {modality: np.stack(values).astype(np.float32) for modality, values in hits.items()}


def join_rows(parts: Sequence[Answers]) -> Answers:
    """Joins answers on different rows by the same seeds; what is a mean is weighted by the rows."""
    sizes = np.array([len(part.rows) for part in parts], dtype=np.float64)

    def mean(values: Sequence[Any]) -> Any:
        return np.average(np.stack([np.asarray(value) for value in values]), axis=0, weights=sizes)

    return Answers(
        rows=np.concatenate([part.rows for part in parts]),
        identity=np.concatenate([part.identity for part in parts]),
        hits={key: np.concatenate([part.hits[key] for part in parts], axis=1) for key in parts[0].hits},
        curve={key: mean([part.curve[key] for part in parts]) for key in parts[0].curve},
        retrieval=np.concatenate([part.retrieval for part in parts], axis=1),
        retrieval_chance=float(mean([part.retrieval_chance for part in parts])),
        chance=float(mean([part.chance for part in parts])),
        gap_norm=mean([part.gap_norm for part in parts]),
    )


def _align(task: NamingTask, seed: int, device: str, align: bool) -> dict[str, Tensor]:
    """Modality -> unit embeddings `[n, o]` in one space, by heads that saw none of the identities asked about."""
    rows = np.flatnonzero(task.alignment_rows)
    projections = {modality: fit_projection(values[rows], 0.0) for modality, values in task.features.vectors.items()}
    inputs = head_inputs(task.features, projections, device)
    member = task.alignment_rows[None]
    # rows of one identity are not negatives of each other; a row without one gets a number of its own
    own_number = task.identity.max(initial=-1) + 1 + np.arange(len(task.identity))
    repeats = np.where(task.identity >= 0, task.identity, own_number)[:, None].astype(np.int32)
    epochs = ALIGN_EPOCHS if align else 0
    heads = train_group(inputs, member, [0], repeats, epochs, seed, max(1, len(rows)))
    return dict(zip(task.features.modalities, heads.embed(inputs, 0), strict=True))


def _center(vectors: Tensor, alignment_rows: Bools) -> Tensor:
    """`[n, o]` less the mean of the alignment rows, at unit length again."""
    rows = torch.from_numpy(np.flatnonzero(alignment_rows)).to(vectors.device)
    return torch.nn.functional.normalize(vectors - vectors[rows].mean(0), dim=1)
