"""Trains the trials of a run: which samples each one sees, and how consistent it finds each sample.

Trials are trained group by group; each group is a resumable part of the run, from which any trial can embed again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, SampleFacts, Trials, count_text
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import Progress
from audit_plugin.store import RunFolder

from . import multimem, split_protocol
from .engines import LOCAL, Engine

MIN_SAMPLES = 32  # complete samples below which nothing is trained
MIN_GROUPS = 16  # leave-together groups below which halves of them say nothing
AUTO_TRIALS = (16, 32, 64, 128)  # whole groups of trials, whose parts any larger number shares
RELIABLE = 0.8  # reliability of MultiMem from which trials are enough

TrialArrays = Mapping[str, np.ndarray]  # what is stored of a group of trials: weights, or embeddings
SampleRows: TypeAlias = torch.Tensor | None  # int64 `[q]`, or all samples


@dataclass(frozen=True)
class Job:
    """What every stage of a run needs: settings, device, folder of finished parts, progress, execution backend."""

    config: AuditConfig
    device: str
    run: RunFolder
    progress: Progress
    engine: Engine = LOCAL


@dataclass(frozen=True)
class TrialPlan:
    """Which trial is trained on which samples, and against which it is read: attributes as in `Trials`."""

    member: Bools
    known: Bools
    reference: Bools | None = None
    offset_rows: Bools | None = None
    roles: Any = None

    @property
    def usual_members(self) -> int:
        """Mean number of members of a trial, which sets the steps of an epoch."""
        return int(self.member.sum()) // len(self.member)


def _as_stored(arrays: TrialArrays) -> TrialArrays:
    return arrays


@dataclass(frozen=True)
class Learner:
    """How trials come about."""

    trained: str  # the sentence on what was trained, for people
    trials_per_part: int  # trials that are made together: one resumable part
    # (trial numbers, their member masks [g, n]) -> arrays to store
    make: Callable[[list[int], Bools], dict[str, np.ndarray]]
    # (what `load` makes of those arrays, trial number, view, samples or None) -> unit embeddings [n, o] per modality;
    # view 0 is the sample as it is, 1 to `augmented` are augmented
    embed: Callable[[Any, int, int, SampleRows], list[torch.Tensor]]
    augmented: int = 0  # views of each sample besides itself
    load: Callable[[TrialArrays], Any] = _as_stored  # stored arrays -> what stays in memory, on the device that embeds
    parts_in_memory: int | None = None  # at most so many; None: all
    travels: bool = False  # `make` and `embed` may run in another process


# (plan, shared_ids `[n, c]`: samples that are equal in any column are not negatives) -> how the trials come about
Learn = Callable[[TrialPlan, Ints], Learner]


def train_trials(
    learn: Learn, facts: SampleFacts, leave_together: Ints, job: Job, plan: TrialPlan | None = None
) -> tuple[Trials | None, list[str]]:
    """Trains all trials of a run, or loads those that an interrupted run finished.

    Args:
        learn: heads, towers or checkpoints.
        facts: of n samples in canonical order.
        leave_together: groups `[n]` that share a side of every trial.
        job: of the run.
        plan: masks of a finished run, to which samples were added, or None: drawn here.

    Returns:
        (the trials, None where there are too few samples to train on, or one modality; notes for people).
    """
    if len(facts.space) < 2:
        return None, [f"only {', '.join(facts.space)} is audited"]
    groups = int(leave_together.max(initial=-1)) + 1
    if len(facts) < MIN_SAMPLES or groups <= MIN_GROUPS:
        note = (
            f"{count_text(len(facts), 'usable sample')} in {count_text(groups, 'group')}: "
            f"too few to train on (at least {MIN_SAMPLES} needed)"
        )
        return None, [note]
    shared_ids = facts.shared_ids(leave_together)
    if plan is not None:
        plan = hold_out_groups(plan, leave_together)
        return run_plan(plan, learn(plan, shared_ids), leave_together, job), []
    plan = plan_trials(leave_together, job.config, facts.roles, facts.labels)
    learner = learn(plan, shared_ids)
    if not job.config.trials:
        plan = shorten_plan(plan, learner, leave_together, job)
    return run_plan(plan, learner, leave_together, job), []


def plan_trials(groups: Ints, config: AuditConfig, roles: Any = None, labels: Any = None) -> TrialPlan:
    """The masks of a run, drawn over leave-together groups `[n]`.

    Args:
        groups: in canonical order.
        config: protocol, number of trials, folds, seed.
        roles: `[n]` of the user, or None. In a split they may name the reference H alone.
        labels: `[n]` classes that balance the reference samples of a drawn split, or None.
    """
    known = np.ones(len(groups), dtype=bool)
    if config.protocol == "ensemble" and config.train != "checkpoints":
        trials = config.trials or AUTO_TRIALS[-1]
        return TrialPlan(multimem.member_masks(groups, trials, config.seed, config.folds), known)
    if config.protocol == "split" and (roles is None or not np.isin(roles, ("both", "f", "g")).any()):
        reference = None if roles is None else roles == "reference"
        roles = split_protocol.split_roles(groups, config.seed, None if labels is None else list(labels), reference)
    if roles is None:
        raise AuditError("train is checkpoints; name the field or column that says what f and g saw: role")
    member, reference, offset = split_protocol.train_roles(roles, config.seed)
    roles = np.where(reference, "reference", np.where(roles == "", "none", roles).astype("<U9"))
    repeats = 1 if config.train == "checkpoints" else config.trials // 2
    return TrialPlan(np.tile(member, (repeats, 1)), known, reference, offset, roles)


def hold_out_groups(plan: TrialPlan, groups: Ints) -> TrialPlan:
    """A finished run's plan in which an added sample is a member where a trained sample of its group is."""
    member, added = plan.member.copy(), ~plan.known
    group_count = groups.max(initial=-1) + 1
    for members in member:  # bool [n] of one trial, changed in place
        trained_groups = groups[members & plan.known]
        is_trained = np.bincount(trained_groups, minlength=group_count) > 0  # by group
        members[added] = is_trained[groups[added]]
    return replace(plan, member=member)


def shorten_plan(plan: TrialPlan, learner: Learner, groups: Ints, job: Job) -> TrialPlan:
    """The first trials of a plan: as many, of `AUTO_TRIALS`, as a reliability of `RELIABLE` takes.

    Masks and heads do not depend on how many trials follow: what is trained here is a part of the run.
    """
    for count in AUTO_TRIALS[:-1]:
        first = replace(plan, member=plan.member[:count])
        consistency, _ = _train(first, learner, groups, job)
        values = multimem.remove_offsets(consistency, first.member, plan.offset_rows)
        if multimem.reliability(values, first.member, job.config.folds) >= RELIABLE:
            return first
    return plan


def run_plan(plan: TrialPlan, learner: Learner, groups: Ints, job: Job) -> Trials:
    """All trials of a plan over samples of leave-together groups `[n]`."""
    consistency, multimem_terms = _train(plan, learner, groups, job)

    @functools.lru_cache(maxsize=learner.parts_in_memory)
    def load(start: int) -> Any:
        arrays = dict(load_part(job.run, start))
        del arrays["consistency"], arrays["memory"]  # numbers for all samples, which were read above
        return learner.load(arrays)

    def embed(number: int, rows: SampleRows = None) -> list[torch.Tensor]:
        return learner.embed(load(number - number % learner.trials_per_part), number, 0, rows)

    folds, trained = job.config.folds, learner.trained
    return Trials(
        consistency=consistency, multimem_terms=multimem_terms, folds=folds, embed=embed, trained=trained, **vars(plan)
    )


def _train(plan: TrialPlan, learner: Learner, groups: Ints, job: Job) -> tuple[Floats, Floats]:
    """(consistency `[r, n]`, MultiMem's terms `[m, m, n]`) from the part of each group of trials.

    A part is loaded if it is finished, else made, in this process or another, and saved.
    """
    total, folds = len(plan.member), job.config.folds
    weights = multimem.trial_weights(plan.member, folds)
    parts = {start: job.run.load(part_name(start)) for start in range(0, total, learner.trials_per_part)}
    todo = [
        list(range(start, min(start + learner.trials_per_part, total))) for start, part in parts.items() if part is None
    ]
    done = total - sum(len(numbers) for numbers in todo)
    job.progress("train", done, total)
    engine = job.engine if learner.travels else LOCAL
    for numbers, part in engine.each(functools.partial(_make_part, learner, plan, weights, groups), todo):
        job.run.save(part_name(numbers[0]), **part)
        parts[numbers[0]] = part
        done += len(numbers)
        job.progress("train", done, total)
    finished = [part for part in parts.values() if part is not None]
    # mean over blocks of trials; NaN where a sample was on one side alone in every block
    terms = sum(part["memory"] for part in finished) * np.float32(folds / total)
    multimem_terms = np.where((weights != 0).any(0), terms, np.nan).astype(np.float32)
    return np.concatenate([part["consistency"] for part in finished]), multimem_terms


def _make_part(
    learner: Learner, plan: TrialPlan, weights: Floats, groups: Ints, numbers: list[int]
) -> dict[str, np.ndarray]:
    """One group's arrays, its consistency `[g, n]` and the weighted sum of its terms `[m, m, n]`."""
    arrays = learner.make(numbers, plan.member[numbers])
    models = learner.load(arrays)
    consistency, multimem_terms = [], np.float32(0)
    for number in numbers:
        # as an argument, so that one trial's embeddings are gone before the next one's are made
        own, terms = _consistency(_views(learner, models, number), number, plan, groups)
        consistency.append(own)
        multimem_terms = multimem_terms + weights[number] * terms
    return {**arrays, "consistency": np.stack(consistency), "memory": np.asarray(multimem_terms, dtype=np.float32)}


def _views(learner: Learner, models: Any, number: int) -> list[list[torch.Tensor]]:
    """Embeddings per modality of each augmented view of all samples by one trial, or of the samples as they are."""
    augmented = [learner.embed(models, number, view, None) for view in range(1, learner.augmented + 1)]
    return augmented or [learner.embed(models, number, 0, None)]


def part_name(start: int) -> str:
    """Name of the part that begins with trial `start`."""
    return f"trials_{start:04d}"


def load_part(run: RunFolder, start: int) -> TrialArrays:
    """The finished part that begins with trial `start`.

    Raises:
        AuditError: it was deleted from the run's folder, or damaged, after it was finished.
    """
    arrays = run.load(part_name(start))
    if arrays is None:
        raise AuditError(
            f"trials {start} and following in {run.path} are gone or damaged; run the audit that made them again: it "
            "trains these again and nothing else"
        )
    return arrays


def _consistency(views: list[list[torch.Tensor]], number: int, plan: TrialPlan, groups: Ints) -> tuple[Floats, Floats]:
    """(consistency `[n]`, its terms `[m, m, n]` less the trial's offset) of one trial: means over views of scalars.

    Each view is used on both sides of the product, and is read against the same view of H.
    """
    outside = ~plan.member[number] & plan.known
    reference = outside if plan.reference is None else plan.reference
    by_view = [multimem.terms_of_embeddings(view, reference, groups) for view in views]
    terms = np.mean(by_view, axis=0)
    offset = outside if plan.offset_rows is None else plan.offset_rows
    centered = terms - np.nanmean(terms[:, :, offset], axis=2, keepdims=True)
    return multimem.sum_terms(terms).astype(np.float32), centered.astype(np.float32)
