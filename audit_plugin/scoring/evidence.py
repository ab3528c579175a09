"""Features to evidence: views, neighbors, groups, trained trials. All in canonical order, all resumable."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Bools, Features, Floats, Ints, Neighbors
from audit_plugin.neighbors import join_groups, near_duplicate_groups, pair_similarities
from audit_plugin.neighbors.projection import fit_projection, project
from audit_plugin.trials.run import (
    Job,
    Learner,
    Plan,
    embedder,
    enough_of,
    held_out_with_groups,
    plan_trials,
    run_trials,
)

from .contrast import make_negatives
from .evidence_weights import weigh_pairs
from .probe_pairs import draw_probe_pairs
from .scores import Evidence

WHITENING = 0.65
HARD = 10  # neighbors per modality that a sample is always compared with, where not all samples are
LARGEST_GROUP = 0.01
MIN_ROWS = 32
JOINT = "joint"


@dataclass(frozen=True)
class Rows:
    """What is known of n complete samples in canonical order, besides their features.

    Attributes:
        contents: modality -> content number `[n]`.
        space: modality -> the space of its encoder.
        words: modality that is text -> number of words `[n]`.
        user_groups: the user's leave-together groups `[n]`, or None.
        roles: which models saw a sample `[n]`, or None.
        labels: classes `[n]`, or None.
        known: bool `[n]`, False for samples added to a finished run, or None.
        spelling: modality that is text -> how strange it is spelled `[n]`.
    """

    contents: Mapping[str, Ints]
    space: Mapping[str, str]
    words: Mapping[str, Ints]
    user_groups: Ints | None = None
    roles: Any = None
    labels: Any = None
    known: Bools | None = None
    spelling: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """Evidence and what comes with it.

    Attributes:
        evidence: what scores are made from.
        plants: kind -> rows `[q, 2]`; planted: kind -> evidence (`scores.WEIGHTS`) -> its values `[p, q]`.
        notes: for people.
        sought: space -> how its neighbors were found, `{"method", "recall"}`.
        plan: the masks of the trials, and
        embed: (trial number, rows or None) -> unit embeddings per modality; None without trials.
        trained: what was trained, in words.
    """

    evidence: Evidence
    plants: Mapping[str, Ints]
    planted: Mapping[str, Mapping[str, Floats]]
    notes: tuple[str, ...]
    sought: Mapping[str, Mapping[str, Any]]
    plan: Plan | None = None
    embed: Callable[..., list[torch.Tensor]] | None = None
    trained: str = "nothing"


Learn = Callable[[Plan, Ints], Learner]


def gather(features: Features, rows: Rows, learn: Learn, job: Job, plan: Plan | None = None) -> Gathered:
    """All evidence on n complete samples in canonical order.

    Args:
        features: of the samples.
        rows: what else is known of them.
        learn: (masks, repeats `[n, c]`) -> how trials come about.
        job: settings and folder; told of stages "neighbors" and "train".
        plan: masks of a finished run, or None: drawn here.
    """
    notes: list[str] = []
    fit = {name: v if rows.known is None else v[rows.known] for name, v in features.vectors.items()}
    views = {name: project(v, fit_projection(fit[name], WHITENING)) for name, v in features.vectors.items()}
    near, cosines, sought = seek_neighbors(features.vectors, views, rows.contents, job)
    groups, together = leave_together_groups(features.vectors, near, cosines, rows, notes)
    content_table = np.stack([rows.contents[m] for m in views], axis=1)
    plants = draw_probe_pairs([near[m].indices for m in views], together, content_table, job.config.seed)
    evidence = Evidence(
        features.vectors,
        views,
        near,
        cosines,
        rows.contents,
        groups,
        together,
        None,
        rows.space,
        rows.words,
        known=rows.known,
        samples=rows.user_groups,
        spelling=rows.spelling,
    )
    if len(together) < MIN_ROWS or together.max() < MIN_ROWS // 2:
        notes.append(
            f"{len(together)} usable samples in {int(together.max(initial=-1)) + 1} groups are too few to "
            f"train on (at least {MIN_ROWS} needed): misalignment and memorization are not scored"
        )
        return Gathered(evidence, plants, {}, tuple(notes), sought)
    drawn = plan is None
    plan = held_out_with_groups(plan, together) if plan else plan_trials(together, job.config, rows.roles, rows.labels)
    hard = np.concatenate([near[m].indices[:, :HARD] for m in views], axis=1)
    repeats = np.concatenate([content_table, together[:, None]], axis=1).astype(np.int32)
    negatives = make_negatives(repeats, hard, plan.known, job.config.seed, job.device)
    learner = learn(plan, repeats)
    if drawn and not job.config.trials:
        plan = enough_of(plan, learner, together, job)
    trials, contrast = run_trials(plan, learner, features.modalities, tuple(rows.words), negatives, plants, job)
    evidence, planted = weigh_pairs(replace(evidence, trials=trials), negatives, plants, contrast)
    return Gathered(evidence, plants, planted, tuple(notes), sought, plan, embedder(learner, job), learner.trained)


def seek_neighbors(
    vectors: Mapping[str, Floats], views: Mapping[str, Floats], contents: Mapping[str, Ints], job: Job
) -> tuple[dict[str, Neighbors], dict[str, Floats], dict[str, dict[str, Any]]]:
    """Neighbors over distinct contents per modality and in the joint space.

    Returns:
        Per space: neighbors, their plain cosines `[n, k]`, and how they were found (`{"method", "recall"}`).
    """
    found, cosines, sought = {}, {}, {}
    n, spaces = max(1, len(next(iter(vectors.values())))), (*views, JOINT)
    for before, name in enumerate(spaces):

        def told(done: int, of: int, before: int = before) -> None:
            job.progress("neighbors", before * n + done * n // of, len(spaces) * n)

        told(0, 1)
        make = functools.partial(_sought_in, name, views, contents, told, job)
        arrays = job.run.once(f"neighbors_{name}", make)
        found[name] = Neighbors(arrays["indices"], arrays["similarities"])
        plain = vectors if name == JOINT else {name: vectors[name]}
        cosines[name] = _cosines(plain, found[name].indices)
        sought[name] = {"method": str(arrays["method"]), "recall": round(float(arrays["recall"]), 4)}
    job.progress("neighbors", len(spaces) * n, len(spaces) * n)
    return found, cosines, sought


def _sought_in(
    name: str, views: Mapping[str, Floats], contents: Mapping[str, Ints], told: Callable[[int, int], None], job: Job
) -> dict[str, np.ndarray]:
    """Neighbors in one space, to be kept: a run taken up again says of its recall what it said before."""
    of = tuple(views) if name == JOINT else (name,)
    content = _numbered([contents[m] for m in of])
    _, first, number = np.unique(content, return_index=True, return_inverse=True)
    distinct = np.concatenate([views[m][first] / np.float32(np.sqrt(len(of))) for m in of], axis=1)
    found = job.engine.search(distinct, job.config.neighbors, job.device, job.config.seed, told)
    rows = np.where(found.neighbors.indices >= 0, first[np.maximum(found.neighbors.indices, 0)], -1)
    return {
        "indices": rows[number],
        "similarities": found.neighbors.similarities[number],
        "method": np.array(found.method),
        "recall": np.array(found.recall),
    }


def _numbered(columns: Sequence[Ints]) -> Ints:
    """`[n]`: equal where all columns are, numbered in their order. Many times faster than `np.unique` of rows."""
    number = columns[0]
    for column in columns[1:]:
        number = np.unique(number * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
    return number


def _cosines(vectors: Mapping[str, Floats], indices: Ints) -> Floats:
    """`[n, k]`: mean cosine of the plain features to the neighbors; NaN where there is none."""
    near = [pair_similarities(v, indices) for v in vectors.values()]
    return np.asarray(np.mean(near, axis=0), dtype=np.float32)


def leave_together_groups(
    vectors: Mapping[str, Floats],
    near: Mapping[str, Neighbors],
    cosines: Mapping[str, Floats],
    rows: Rows,
    notes: list[str],
) -> tuple[dict[str, Ints], Ints]:
    """(near-duplicate groups per modality that is not text, leave-together groups)."""
    n = len(next(iter(vectors.values())))
    largest = max(10, int(LARGEST_GROUP * n))
    together = np.arange(n) if rows.user_groups is None else rows.user_groups
    groups = {}
    for name in vectors:
        if name in rows.words:
            continue
        found = Neighbors(near[name].indices, cosines[name])
        groups[name], split = near_duplicate_groups(vectors[name], found, rows.contents[name], largest)
        if split:
            notes.append(f"{split} groups of near-duplicate {name}s were larger than {largest} and were split")
        together = join_groups(together, groups[name])
    sizes = np.bincount(together)
    if len(sizes) and (too_large := int((sizes > largest).sum())):
        notes.append(f"{too_large} groups that leave together hold more than {largest} samples and were split")
        part = np.zeros(n, dtype=np.int64)
        for group in np.flatnonzero(sizes > largest):
            members = np.flatnonzero(together == group)
            part[members] = np.arange(len(members)) // largest
        together = _numbered([together, part])
    return groups, together
