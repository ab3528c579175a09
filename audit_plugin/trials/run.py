"""Runs the trials group by group: train, describe what was not seen, keep sums. Every group is a resumable part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, Trials, modality_pairs
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import Progress
from audit_plugin.scoring.contrast import Negatives
from audit_plugin.scoring.held_out import Question, read_trials
from audit_plugin.store import RunFolder

from . import multimem as memorization
from . import split_protocol as protocol
from .engines import LOCAL, Engine

Kept = Mapping[str, np.ndarray]
AUTO_TRIALS = (16, 32, 64, 128)  # whole groups of trials, whose parts any larger number shares
RELIABLE = 0.8
Chosen: TypeAlias = torch.Tensor | None  # rows, or all


@dataclass(frozen=True)
class Job:
    """What every stage of a run needs: settings, device, the folder of finished parts, whom to tell, who computes."""

    config: AuditConfig
    device: str
    run: RunFolder
    progress: Progress
    engine: Engine = LOCAL


@dataclass(frozen=True)
class Plan:
    """Which trial is trained on which samples, and against which it is read.

    Attributes:
        member: bool `[r, n]`.
        known: bool `[n]`, samples that may serve as reference and negatives: all, but for those added to a run later.
        reference: bool `[n]`, a fixed H, or None: each trial's non-members.
        offset: bool `[n]`, whose mean is a trial's offset, or None: its non-members.
        roles: `[n]` of the split protocol, or None.
    """

    member: Bools
    known: Bools
    reference: Bools | None = None
    offset: Bools | None = None
    roles: Any = None


@dataclass(frozen=True)
class Learner:
    """How trials come about.

    Attributes:
        trained: the sentence on what was trained, for people.
        group: trials that are made together: one resumable part.
        make: (trial numbers, their member masks `[g, n]`) -> arrays to keep.
        embed: (those arrays, trial number, view, rows or None) -> unit embeddings `[n, o]` per modality, of the rows
            or all. View 0 is the sample as it is, 1 to `views` are augmented.
        views: augmented views.
        travels: `make` and `embed` may run in another process.
    """

    trained: str
    group: int
    make: Callable[[list[int], Bools], dict[str, np.ndarray]]
    embed: Callable[[Kept, int, int, Chosen], list[torch.Tensor]]
    views: int = 0
    travels: bool = False


def plan_trials(together: Ints, config: AuditConfig, roles: Any = None, labels: Any = None) -> Plan:
    """The masks of a run, drawn over leave-together groups `[n]`.

    Args:
        together: groups, in canonical order.
        config: protocol, number of trials, folds, seed.
        roles: `[n]` given by the user, or None. In a split they may name the reference H alone.
        labels: `[n]` classes that balance the reference samples of a drawn split, or None.
    """
    known = np.ones(len(together), dtype=bool)
    if config.protocol == "ensemble" and config.train != "checkpoints":
        trials = config.trials or AUTO_TRIALS[-1]
        return Plan(memorization.member_masks(together, trials, config.seed, config.folds), known)
    if config.protocol == "split" and (roles is None or not np.isin(roles, ("both", "f", "g")).any()):
        given = None if roles is None else roles == "reference"
        roles = protocol.split_roles(together, config.seed, None if labels is None else list(labels), given)
    if roles is None:
        raise AuditError("train is checkpoints; name the field or column that says what f and g saw: role")
    member, reference, offset = protocol.train_roles(roles, config.seed)
    roles = np.where(reference, "reference", np.where(roles == "", "none", roles).astype("<U9"))
    repeats = 1 if config.train == "checkpoints" else config.trials // 2
    return Plan(np.tile(member, (repeats, 1)), known, reference, offset, roles)


def held_out_with_groups(plan: Plan, together: Ints) -> Plan:
    """A finished run's plan with the samples added to it: one that leaves with a trained sample is not held out."""
    member, new = plan.member.copy(), ~plan.known
    for row in member:
        seen = np.bincount(together[row & plan.known], minlength=together.max(initial=-1) + 1) > 0
        row[new] = seen[together[new]]
    return replace(plan, member=member)


def enough_of(plan: Plan, learner: Learner, groups: Ints, job: Job) -> Plan:
    """The first trials of a plan: as many, of `AUTO_TRIALS`, as a reliability of `RELIABLE` takes.

    Masks and heads do not depend on how many trials follow: what is trained here is a part of the run.

    Args:
        plan: of the most trials.
        learner: heads or towers.
        groups: leave-together groups `[n]`.
        job: settings and folder.
    """
    for count in AUTO_TRIALS[:-1]:
        first = replace(plan, member=plan.member[:count])
        weights = memorization.trial_weights(first.member, job.config.folds)
        read = np.concatenate([part["consistency"] for part in _parts(learner, first, weights, groups, job)])
        values = memorization.remove_offsets(read, first.member, plan.offset)
        if memorization.reliability(values, first.member, job.config.folds) >= RELIABLE:
            return first
    return plan


def run_trials(
    plan: Plan,
    learner: Learner,
    names: tuple[str, ...],
    texts: tuple[str, ...],
    negatives: Negatives,
    plants: Mapping[str, Ints],
    job: Job,
) -> tuple[Trials, dict[str, Floats]]:
    """Trains all trials, or loads those that an interrupted run finished, and reads what they held out.

    Args:
        plan: masks over n samples in canonical order.
        learner: heads, towers or checkpoints.
        names: modalities, in the order of the embeddings.
        texts: those that are text.
        negatives: of the held-out measures; the last column of `repeats` holds the leave-together groups.
        plants: kind -> rows `[q, 2]`.
        job: settings and folder.

    Returns:
        (trials; plant kind -> held-out contrast `[p, q]`).
    """
    total, folds = len(plan.member), job.config.folds
    weights = memorization.trial_weights(plan.member, folds)
    groups = negatives.repeats[:, -1].cpu().numpy()
    parts = _parts(learner, plan, weights, groups, job)
    memory = sum(part["memory"] for part in parts) * np.float32(folds / total)
    memory = np.where((weights != 0).any(0), memory, np.nan).astype(np.float32)
    read = np.concatenate([part["consistency"] for part in parts])
    del parts  # the heads, or towers' embeddings, of all trials
    asked = Question(plan.member, modality_pairs(names), _text_sides(names, texts), negatives, _all_plants(plants))
    held_out = dict(job.run.once("held_out", lambda: read_trials(embedder(learner, job), asked)))
    planted = held_out.pop("planted")
    trials = Trials(plan.member, read, memory, held_out, folds, plan.offset, plan.roles)
    return trials, split_plants(planted, plants)


def _parts(learner: Learner, plan: Plan, weights: Floats, groups: Ints, job: Job) -> list[Kept]:
    """The part of each group of trials: loaded if it is finished, else made, here or elsewhere, and saved."""
    total = len(plan.member)
    found = {start: job.run.load(part_name(start)) for start in range(0, total, learner.group)}
    todo = [list(range(start, min(start + learner.group, total))) for start, part in found.items() if part is None]
    done = total - sum(map(len, todo))
    job.progress("train", done, total)
    work = functools.partial(_make_part, learner, plan, weights, groups)
    for numbers, part in (job.engine if learner.travels else LOCAL).each(work, todo):
        job.run.save(part_name(numbers[0]), **part)
        found[numbers[0]] = part
        done += len(numbers)
        job.progress("train", done, total)
    return [part for part in found.values() if part is not None]


def _make_part(learner: Learner, plan: Plan, weights: Floats, groups: Ints, numbers: list[int]) -> Kept:
    kept = learner.make(numbers, plan.member[numbers])
    return {**kept, **_describe(learner, kept, numbers, plan, weights, groups)}


def _all_plants(plants: Mapping[str, Ints]) -> Ints:
    return np.concatenate(list(plants.values()))


def split_plants(values: Floats, plants: Mapping[str, Ints]) -> dict[str, Floats]:
    """Kind -> its part of `[p, q]` values on all plants."""
    ends = np.cumsum([len(rows) for rows in plants.values()])[:-1]
    return dict(zip(plants, np.split(values, ends, axis=-1), strict=True))


def embedder(learner: Learner, job: Job) -> Callable[..., list[torch.Tensor]]:
    """(trial number, rows or None) -> unit embeddings per modality, from the finished parts of the run."""

    @functools.lru_cache(maxsize=8)
    def load(start: int) -> Kept:
        kept = job.run.load(part_name(start))
        if kept is None:
            raise RuntimeError(f"finished trials {start} are gone from {job.run.path}")
        return kept

    def embed(number: int, rows: Chosen = None) -> list[torch.Tensor]:
        return learner.embed(load(number - number % learner.group), number, 0, rows)

    return embed


def part_name(start: int) -> str:
    """Name of the part that begins with trial `start`."""
    return f"trials_{start:04d}"


def _text_sides(modalities: tuple[str, ...], texts: tuple[str, ...]) -> dict[int, int]:
    """Position of the pair -> which of its sides is text, for the pairs of a medium and a text."""
    found = {}
    for p, (a, b) in enumerate(modality_pairs(modalities)):
        if (modalities[a] in texts) != (modalities[b] in texts):
            found[p] = int(modalities[b] in texts)
    return found


def _describe(
    learner: Learner, kept: Kept, numbers: list[int], plan: Plan, weights: Floats, groups: Ints
) -> dict[str, np.ndarray]:
    """One group's consistency rows `[g, n]` and the sum of its memory terms `[m, m, n]`."""
    read, memory = [], np.float32(0)
    for number in numbers:
        views = [learner.embed(kept, number, view, None) for view in range(1, learner.views + 1)]
        own, terms = _consistency(views or [learner.embed(kept, number, 0, None)], number, plan, groups)
        read.append(own)
        memory = memory + weights[number] * terms
    return {"consistency": np.stack(read), "memory": np.asarray(memory, dtype=np.float32)}


def _consistency(views: list[list[torch.Tensor]], number: int, plan: Plan, groups: Ints) -> tuple[Floats, Floats]:
    """(consistency `[n]`, its terms `[m, m, n]` less the trial's offset) of one trial: means over views of scalars.

    Each view is used on both sides of the product, and is read against the same view of H.
    """
    outside = ~plan.member[number] & plan.known
    reference = outside if plan.reference is None else plan.reference
    terms = np.mean(
        [memorization.consistency_terms([e.cpu().numpy() for e in v], reference, groups) for v in views], axis=0
    )
    offset = outside if plan.offset is None else plan.offset
    centered = terms - np.nanmean(terms[:, :, offset], axis=2, keepdims=True)
    return memorization.over(terms).astype(np.float32), centered.astype(np.float32)
