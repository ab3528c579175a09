"""The scores and their table. Pure numpy; higher is more suspicious, `alignment` and `clip_score` excepted.

A score is one function here. It is handed the `Evidence` and returns its column, or several (suffix -> column, the
main one under ""). A score holds no threshold: rules that flag are in `flags.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Bools, Floats, modality_pairs
from audit_plugin.trials.multimem import adjusted_consistency, estimate_multimem, mean_as_non_member, sum_terms

from . import outliers

if TYPE_CHECKING:
    from .evidence import Evidence

# Kinds of evidence on a pair: contrast under the trained heads and the frozen encoders, under what the neighbors of
# each side say, and under linear predictions of each side from the other. Weights chosen on the development sets, but
# for that of the frozen encoders, which `evidence_weights` reads from the probe pairs.
WEIGHTS = {
    "contrast": 1.0,
    "zero_shot": 0.5,
    "neighbors_a": 0.75,
    "neighbors_b": 0.75,
    "linear_a": 1.0,
    "linear_b": 1.0,
}

Compute = Callable[["Evidence"], Floats | dict[str, Floats]]


@dataclass(frozen=True)
class Score:
    """One entry of the table.

    Attributes:
        name: the column, and the prefix of its parts.
        label: for people.
        help: one line: what it says and how to read it.
        per: its parts: "" (none), "pair", "modality", or "attribution" (both, with three or more modalities).
        needs_trials: NaN without trained trials.
        also: suffixes of further columns.
        similarity: low values are the suspicious ones.
        plotted: the panel has a histogram of it.
        compute: the function.
    """

    name: str
    label: str
    help: str
    per: str
    needs_trials: bool
    also: tuple[str, ...]
    similarity: bool
    plotted: bool
    compute: Compute


SCORES: dict[str, Score] = {}


def score(
    label: str,
    help: str,
    *,
    per: str = "",
    needs_trials: bool = False,
    also: tuple[str, ...] = (),
    similarity: bool = False,
    plotted: bool = True,
) -> Callable[[Compute], Compute]:
    """Adds the decorated function to `SCORES` under its own name; see `Score` for the arguments."""

    def add(compute: Compute) -> Compute:
        name = compute.__name__
        SCORES[name] = Score(name, label, help, per, needs_trials, also, similarity, plotted, compute)
        return compute

    return add


def compute_scores(evidence: Evidence) -> dict[str, Floats]:
    """All score columns `[n]` in the order of the table; NaN throughout where a score needs trials and has none."""
    columns: dict[str, Floats] = {}
    for entry in SCORES.values():
        if entry.needs_trials and evidence.trials is None:
            values: dict[str, Floats] = {"": np.full(len(evidence), np.nan, dtype=np.float32)}
            values |= dict.fromkeys((*entry.also, *_parts_of(entry, evidence)), values[""])
        else:
            computed = entry.compute(evidence)
            values = computed if isinstance(computed, dict) else {"": computed}
        for suffix, column in values.items():
            name = f"{entry.name}_{suffix}" if suffix else entry.name
            columns[name] = np.asarray(column, dtype=np.float32)
    return columns


def _parts_of(entry: Score, evidence: Evidence) -> list[str]:
    """Suffixes of a trained score's parts."""
    pairs = [f"{a}_{b}" for a, b in evidence.pairs]
    if entry.per == "attribution" and len(evidence.modalities) > 2:
        return pairs + [f"due_{name}" for name in evidence.modalities]
    return pairs if entry.per == "pair" else []


def robust_scale(values: Floats) -> tuple[float, float]:
    """(median, robust deviation) of the finite values; NaN without any.

    The robust deviation is 1.4826 * median |v - median|, a normal distribution's standard deviation; at least 1e-6.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    median = np.median(finite)
    deviation = 1.4826 * np.median(np.abs(finite - median))
    return float(median), max(float(deviation), 1e-6)


def robust_z(values: Floats, reference: Floats | None = None) -> Floats:
    """Distance from the median of `reference` (default: the values) in robust deviations, float32; NaN stays NaN."""
    median, deviation = robust_scale(values if reference is None else reference)
    return ((values - median) / deviation).astype(np.float32)


@score(
    "Misalignment",
    "How badly the sample's modalities fit each other: the weighted mean of several kinds of evidence, each in robust "
    "deviations from the set's median; the largest over pairs of modalities",
    per="pair",
)
def misalignment(evidence: Evidence) -> dict[str, Floats]:
    """Of each pair the weighted mean of its kinds of evidence, each in robust deviations (`combine`); the largest.

    With three or more modalities the largest is itself put in robust deviations of the known samples. NaN where there
    is no evidence: without trials, without encoders that share a space, and of a single modality.
    """
    parts = {pair: pair_misalignment(evidence, pair) for pair in evidence.pairs}
    if not parts:
        return {"": np.full(len(evidence), np.nan, dtype=np.float32)}
    worst = np.fmax.reduce(list(parts.values()))
    overall = worst if len(parts) == 1 else robust_z(worst, of_known(worst, evidence.known))
    return {"": overall} | {f"{a}_{b}": values for (a, b), values in parts.items()}


def pair_misalignment(evidence: Evidence, pair: tuple[str, str], values: Mapping[str, Floats] | None = None) -> Floats:
    """`[n]`: the combined score of one pair of modalities, or `[q]` that of other values of its evidence.

    Other values (kind of evidence -> `[q]`), such as those of probe pairs, are put on the scale of the samples.
    """
    own = evidence.parts[pair]
    if not own:
        count = len(evidence) if values is None else len(next(iter(values.values())))
        return np.full(count, np.nan, dtype=np.float32)
    scale = {kind: of_known(of_samples, evidence.known) for kind, of_samples in own.items()}
    combined = own if values is None else {kind: values[kind] for kind in own}
    return combine(combined, scale, evidence.weights.get(pair))


def of_known(values: Floats, known: Bools | None) -> Floats:
    """The values `[n]` of the known samples, which set the scale; all where `known` is None."""
    return values if known is None else values[known]


def combine(
    parts: Mapping[str, Floats],
    reference: Mapping[str, Floats] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Floats:
    """`[n]`: weighted mean of the evidence, sum_k w_k z_k / sum_k w_k.

    NaN without a contrast under the trained heads, or where nothing was trained under the frozen encoders.

    Args:
        parts: kind of evidence k -> its values `[n]`. What a sample lacks (a side without a neighbor) counts as the
            median, z = 0.
        reference: k -> the values that z_k is standardized against (default: `parts`).
        weights: k -> w_k (default: `WEIGHTS`).
    """
    weights = weights or WEIGHTS
    required = parts["contrast" if "contrast" in parts else "zero_shot"]
    total, weight = np.zeros_like(required), 0.0
    for kind, values in parts.items():
        z = robust_z(values, None if reference is None else reference[kind])
        total += weights[kind] * np.where(np.isfinite(z), z, 0)
        weight += weights[kind]
    return np.where(np.isfinite(required), total / weight, np.nan).astype(np.float32)


def pair_evidence(held_out: Mapping[str, Floats], position: int) -> dict[str, Floats]:
    """Kind of evidence (of `WEIGHTS`) -> `[n]`: the evidence on the pair at a position, higher = more suspicious.

    Kinds that are defined for no sample are left out.
    """
    evidence = {kind: held_out[kind][position] for kind in WEIGHTS if kind in held_out}
    return {kind: v for kind, v in evidence.items() if kind == "contrast" or np.isfinite(v).any()}


@score(
    "MultiMem",
    "How much more consistent a model finds the sample when it was trained on it (arXiv 2606.22220), summed over all "
    "modalities; above 0 on average, far above most others when memorized; can rank rows almost as low alignment does",
    per="attribution",
    needs_trials=True,
    also=("stderr", "mean"),
)
def multimem(evidence: Evidence) -> dict[str, Floats]:
    """The raw sum with its standard error, the mean over pairs, and with three or more modalities who drives it."""
    trials = evidence.required_trials
    raw, error = estimate_multimem(adjusted_consistency(trials), trials.member, trials.folds)
    names = evidence.modalities
    of_pairs = [sum_terms(trials.multimem_terms, positions) for positions in modality_pairs(names)]
    parts: dict[str, Floats] = {"": raw, "stderr": error, "mean": np.mean(of_pairs, axis=0)}
    if len(names) > 2:
        parts |= {f"{a}_{b}": values for (a, b), values in zip(evidence.pairs, of_pairs, strict=True)}
        for position, name in enumerate(names):
            others = [other for other in range(len(names)) if other != position]
            parts[f"due_{name}"] = raw - sum_terms(trials.multimem_terms, others)
    return parts


@score(
    "Alignment",
    "Held-out cross-modal consistency, a similarity: low where models that never saw the sample find that its "
    "modalities do not match",
    needs_trials=True,
    similarity=True,
    plotted=False,
)
def alignment(evidence: Evidence) -> Floats:
    """Mean consistency over the trials in which the sample was not a member, offsets kept."""
    trials = evidence.required_trials
    return mean_as_non_member(trials.consistency, trials.member)


@score(
    "CLIP score",
    "Cosine similarity of the frozen encoders, the usual baseline; only where they share a space, or by the offline "
    "encoders in the space of words",
    similarity=True,
    plotted=False,
)
def clip_score(evidence: Evidence) -> dict[str, Floats]:
    """Mean cosine over the pairs that have a space (`Evidence.in_one_space`); no column without such a pair.

    In the space of words, both sides are centered first; a side that has no direction has a cosine of 0.
    """
    cosines = []
    for pair in evidence.pairs:
        if sides := evidence.in_one_space(pair):
            lengths = np.linalg.norm(sides[0], axis=1) * np.linalg.norm(sides[1], axis=1)
            cosines.append(np.einsum("nd,nd->n", *sides) / np.maximum(lengths, 1e-9))
    return {"": np.mean(cosines, axis=0)} if cosines else {}


@score(
    "Outlier",
    "Mean distance to the nearest 5% of the set, duplicates counted once, in units of the tail scale: the largest "
    "over the modalities and the joint space; texts with unusual spelling score higher",
    per="modality",
)
def outlier(evidence: Evidence) -> dict[str, Floats]:
    """Neighbor distance per modality and in all together, each in units of its own tail, then the largest (`outliers`).

    Texts that a class of samples shares have no distance. For texts: max(distance, (distance + surprise) / 2), both in
    units of their tail; NaN where both are unknown.
    """
    pool = evidence.known_rows

    def in_tail_units(values: Floats) -> Floats:
        return outliers.in_tail_units(values, of_known(values, evidence.known))

    parts: dict[str, Floats] = {}
    for name, vectors in evidence.vectors.items():
        content = evidence.contents[name]
        group = evidence.near_duplicates.get(name, content)
        distance = outliers.mean_neighbor_distance({name: vectors}, group, pool, evidence.device)
        if name in evidence.text_modalities:
            distance = np.where(outliers.is_individual(content), distance, np.nan)
        parts[name] = in_tail_units(distance)
        if name in evidence.text_surprise:
            surprise = in_tail_units(evidence.text_surprise[name])
            parts[name] = np.fmax(parts[name], in_tail_units((parts[name] + surprise) / 2))

    largest = np.fmax.reduce(list(parts.values()))
    if all(np.isfinite(values).all() for values in parts.values()):
        joint = outliers.mean_neighbor_distance(evidence.vectors, evidence.leave_together, pool, evidence.device)
        largest = np.fmax(largest, in_tail_units(joint))
    return {"": largest, **parts}


@score(
    "Duplicate",
    "Highest similarity to the image, audio or video of another sample; 1 is the same content",
    plotted=False,
)
def duplicate(evidence: Evidence) -> Floats:
    """Cosine of the frozen features to the nearest other content; 1 where another sample has the same content.

    Rows of one sample (its captions, or a group of the user's) do not repeat each other.
    """
    highest = np.full(len(evidence), np.nan, dtype=np.float32)
    groups = evidence.user_groups
    for name, content in evidence.contents.items():
        if name in evidence.text_modalities:
            continue
        neighbors = evidence.neighbors[name].indices  # [n, k]
        other_group = (neighbors >= 0) & (groups[np.maximum(neighbors, 0)] != groups[:, None])
        cosines = np.where(other_group, evidence.cosines(name), np.float32(np.nan))
        nearest = np.minimum(np.fmax.reduce(cosines, axis=1, initial=np.nan), 1.0)
        repeated = outliers.count_user_groups(content, groups) > 1
        highest = np.fmax(highest, np.where(repeated, 1.0, nearest))
    return highest
