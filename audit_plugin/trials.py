"""Runs the trials group by group: train, describe what was not seen, keep sums. Every group is a resumable part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from . import memorization, protocol
from .arrays import AuditError, Bools, Floats, Ints, Trials, modality_pairs
from .config import AuditConfig
from .embedding import Progress
from .held_out import MEASURES, Negatives, describe_trial, reference_fit
from .store import RunFolder

REFERENCES = 256

Kept = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """What every stage of a run needs: settings, device, the folder of finished parts, whom to tell of progress."""

    config: AuditConfig
    device: str
    run: RunFolder
    progress: Progress


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
        embed: (those arrays, trial number, view) -> unit embeddings `[n, o]` per modality. View 0 is the sample as
            it is, 1 to `views` are augmented.
        views: augmented views.
    """

    trained: str
    group: int
    make: Callable[[list[int], Bools], dict[str, np.ndarray]]
    embed: Callable[[Kept, int, int], list[torch.Tensor]]
    views: int = 0


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
        return Plan(memorization.member_masks(together, config.trials, config.seed, config.folds), known)
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


def run_trials(
    plan: Plan,
    learner: Learner,
    names: tuple[str, ...],
    texts: tuple[str, ...],
    negatives: Negatives,
    plants: Mapping[str, Ints],
    job: Job,
) -> tuple[Trials, dict[str, Floats]]:
    """Trains all trials, or loads those that an interrupted run finished.

    Args:
        plan: masks over n samples in canonical order.
        learner: heads, towers or checkpoints.
        names: modalities, in the order of the embeddings.
        texts: those that are text.
        negatives: of the held-out measures; the last column of `repeats` holds the leave-together groups.
        plants: kind -> rows `[q, 2]`.
        job: settings and folder.

    Returns:
        (trials; plant kind -> mean held-out contrast `[p, q]`).
    """
    total, folds = len(plan.member), job.config.folds
    weights = memorization.trial_weights(plan.member, folds)
    sides = _text_sides(names, texts)
    references = np.sort(np.random.default_rng((job.config.seed, 13)).permutation(int(plan.known.sum()))[:REFERENCES])
    planted = np.concatenate(list(plants.values()))
    reader = _Reader(plan, weights, negatives, planted, sides, references, modality_pairs(names))
    parts = []
    for start in range(0, total, learner.group):
        job.progress("train", start, total)
        numbers = list(range(start, min(start + learner.group, total)))

        def make(numbers: list[int] = numbers) -> dict[str, np.ndarray]:
            kept = learner.make(numbers, plan.member[numbers])
            return kept | _describe(learner, kept, numbers, reader)

        parts.append(job.run.once(part_name(start), make))
    job.progress("train", total, total)
    held_out = {name: _mean(parts, name) for name in MEASURES} | {"generality": _generality(parts, sides, plan)}
    memory = sum(part["memory"] for part in parts) * np.float32(folds / total)
    memory = np.where((weights != 0).any(0), memory, np.nan).astype(np.float32)
    read = np.concatenate([part["consistency"] for part in parts])
    trials = Trials(plan.member, read, memory, held_out, folds, plan.offset, plan.roles)
    contrast = _mean(parts, "plants")
    ends = np.cumsum([len(rows) for rows in plants.values()])[:-1]
    return trials, dict(zip(plants, np.split(contrast, ends, axis=1), strict=True))


def part_name(start: int) -> str:
    """Name of the part that begins with trial `start`."""
    return f"trials_{start:04d}"


@dataclass(frozen=True)
class _Reader:
    """What a trained trial is asked: see `run_trials`."""

    plan: Plan
    weights: Floats
    negatives: Negatives
    planted: Ints
    sides: list[tuple[int, int]]
    references: Ints
    pairs: list[tuple[int, int]]


def _text_sides(modalities: tuple[str, ...], texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """(position of the pair, position of its text) for the pairs of a medium and a text."""
    found = []
    for p, (a, b) in enumerate(modality_pairs(modalities)):
        if (modalities[a] in texts) != (modalities[b] in texts):
            found.append((p, a if modalities[a] in texts else b))
    return found


def _describe(learner: Learner, kept: Kept, numbers: list[int], reader: _Reader) -> dict[str, np.ndarray]:
    """One group's consistency rows and memory terms, and sums and counts `[p, n]` of its held-out measures."""
    n, p = reader.plan.member.shape[1], len(reader.pairs)
    out: dict[str, Any] = {"consistency": np.zeros((len(numbers), n), np.float32), "memory": np.float32(0)}
    for name in (*MEASURES, "plants"):
        size = len(reader.planted) if name == "plants" else n
        out[f"{name}_sum"], out[f"{name}_count"] = np.zeros((p, size)), np.zeros((p, size))
    out |= {f"fit_{at}": np.zeros((n, len(reader.references)), np.float32) for at, _ in reader.sides}
    for row, number in enumerate(numbers):
        views = [learner.embed(kept, number, view) for view in range(1, learner.views + 1)]
        plain = learner.embed(kept, number, 0)
        out["consistency"][row], memory = _consistency(views or [plain], number, reader)
        out["memory"] = out["memory"] + memory
        _add_held_out(out, plain, number, reader)
    return out


def _consistency(views: list[list[torch.Tensor]], number: int, reader: _Reader) -> tuple[Floats, Floats]:
    """(consistency `[n]`, weighted memory terms `[m, m, n]`) of one trial: means over the views of scalars.

    Each view is used on both sides of the product, and is read against the same view of H.
    """
    plan = reader.plan
    outside = ~plan.member[number] & plan.known
    reference = outside if plan.reference is None else plan.reference
    groups = reader.negatives.repeats[:, -1].cpu().numpy()
    terms = np.mean(
        [memorization.consistency_terms([e.cpu().numpy() for e in v], reference, groups) for v in views], axis=0
    )
    offset = outside if plan.offset is None else plan.offset
    centred = terms - np.nanmean(terms[:, :, offset], axis=2, keepdims=True)
    return memorization.over(terms).astype(np.float32), (reader.weights[number] * centred).astype(np.float32)


def _add_held_out(out: dict[str, Any], embeddings: list[torch.Tensor], number: int, reader: _Reader) -> None:
    """Adds one trial's held-out measures, plants and reference fits to the group's sums."""
    member, known = reader.plan.member[number], reader.plan.known
    for p, pair in enumerate(reader.pairs):
        measures, contrast = describe_trial(embeddings, pair, member, known, reader.negatives, reader.planted)
        for name, values in {**measures, "plants": contrast}.items():
            there = np.isfinite(values)
            out[f"{name}_sum"][p] += np.where(there, values, 0)
            out[f"{name}_count"][p] += there
    for p, text in reader.sides:
        a, b = reader.pairs[p]
        medium = embeddings[a if text == b else b]
        out[f"fit_{p}"] += reference_fit(embeddings[text], medium, member, reader.references)


def _mean(parts: list[dict[str, np.ndarray]], name: str) -> Floats:
    """`[p, n]` mean over all trials that gave a value; NaN where none did."""
    total, count = (sum(part[f"{name}_{what}"] for part in parts) for what in ("sum", "count"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, dtype=np.float32)


def _generality(parts: list[dict[str, np.ndarray]], sides: list[tuple[int, int]], plan: Plan) -> Floats:
    """`[p, n]`: mean over spread of a text's held-out fit to the reference media; NaN for pairs without a text."""
    pairs = parts[0]["cosine_sum"].shape[0]
    out = np.full((pairs, plan.member.shape[1]), np.nan, dtype=np.float32)
    times = (~plan.member).sum(0)[:, None]
    held = np.where(times > 0, times, np.nan)
    for p, _ in sides:
        fit = sum(part[f"fit_{p}"] for part in parts) / held
        out[p] = fit.mean(1) / np.maximum(fit.std(1), 1e-6)
    return out
