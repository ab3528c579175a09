"""The scores and their table. Pure numpy; higher is more suspicious, `alignment` and `clip_score` excepted.

A score is one function here. It is handed the `Evidence` and returns its column, or several (suffix -> column, the
main one under ""). A score holds no threshold: rules that flag are in `flags.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from . import memorization
from .arrays import Bools, Floats, Ints, Neighbors, Trials, modality_pairs

OUTLIER_NEIGHBORS = 10
KERNEL = 0.07
DISTRUST = 2.0
NEIGHBOR_WEIGHT = 0.4


@dataclass(frozen=True)
class Evidence:
    """Everything that scores are made from, for n complete samples in canonical order.

    Attributes:
        vectors: modality -> unit features `[n, d_a]`.
        views: modality -> their partly whitened principal view `[n, q_a]`, in which neighbours were sought.
        neighbors: modality (and "joint") -> neighbours over distinct contents, `[n, k]`, cosines in the views.
        cosines: the same neighbours' cosines in the plain features, `[n, k]`.
        contents: modality -> content number `[n]`: equal means the same medium.
        groups: modality -> near-duplicate group `[n]`, for the modalities that are not text.
        leave_together: `[n]`: samples that share a side of every mask.
        trials: None when there were too few samples to train.
        space: modality -> name of the space its encoder embeds into, "" for its own.
        words: modality that is text -> number of words `[n]`.
        known: bool `[n]`, the samples that set the scale (all but those added to a finished run), or None: all.
    """

    vectors: Mapping[str, Floats]
    views: Mapping[str, Floats]
    neighbors: Mapping[str, Neighbors]
    cosines: Mapping[str, Floats]
    contents: Mapping[str, Ints]
    groups: Mapping[str, Ints]
    leave_together: Ints
    trials: Trials | None
    space: Mapping[str, str]
    words: Mapping[str, Ints]
    known: Bools | None = None

    def __len__(self) -> int:
        return len(self.leave_together)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.words)

    @functools.cached_property
    def parts(self) -> dict[tuple[str, str], dict[str, Floats]]:
        """`pair_evidence` of every pair: scores, plants and the run folder all ask for it, and it is the dear part."""
        return {pair: pair_evidence(self, pair) for pair in self.pairs}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(self.modalities[a], self.modalities[b]) for a, b in modality_pairs(self.modalities)]


Compute = Callable[[Evidence], Floats | dict[str, Floats]]


@dataclass(frozen=True)
class Score:
    """One entry of the table.

    Attributes:
        name: the column, and the prefix of its parts.
        label: for people.
        help: one line: what it says and how to read it.
        per: its parts: "" (none), "pair", "modality", or "attribution" (both, with three or more modalities).
        trained: needs trials.
        also: suffixes of further columns.
        compute: the function.
    """

    name: str
    label: str
    help: str
    per: str
    trained: bool
    also: tuple[str, ...]
    compute: Compute


SCORES: dict[str, Score] = {}


def score(
    label: str, help: str, *, per: str = "", trained: bool = False, also: tuple[str, ...] = ()
) -> Callable[[Compute], Compute]:
    """Adds the decorated function to `SCORES` under its own name."""

    def add(compute: Compute) -> Compute:
        name = compute.__name__
        SCORES[name] = Score(name, label, help, per, trained, also, compute)
        return compute

    return add


def compute_scores(evidence: Evidence) -> dict[str, Floats]:
    """All score columns `[n]` in the order of the table; NaN throughout where a score needs trials and has none."""
    columns: dict[str, Floats] = {}
    for entry in SCORES.values():
        if entry.trained and evidence.trials is None:
            values: dict[str, Floats] = {"": np.full(len(evidence), np.nan, dtype=np.float32)}
            values |= dict.fromkeys((*entry.also, *_parts_of(entry, evidence)), values[""])
        else:
            computed = entry.compute(evidence)
            values = computed if isinstance(computed, dict) else {"": computed}
        for suffix, column in values.items():
            columns["_".join(filter(None, (entry.name, suffix)))] = np.asarray(column, dtype=np.float32)
    return columns


def _parts_of(entry: Score, evidence: Evidence) -> list[str]:
    """Suffixes of a trained score's parts."""
    pairs = [f"{a}_{b}" for a, b in evidence.pairs]
    if entry.per == "attribution" and len(evidence.modalities) > 2:
        return pairs + [f"due_{name}" for name in evidence.modalities]
    return pairs if entry.per == "pair" else []


def robust_z(values: Floats, reference: Floats | None = None) -> Floats:
    """Distance from the median of `reference` (default: the values) in robust deviations; NaN stays NaN."""
    known = values if reference is None else reference
    known = known[np.isfinite(known)]
    if not len(known):
        return np.full_like(values, np.nan)
    median = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - median))
    return ((values - median) / max(spread, 1e-6)).astype(np.float32)


@score(
    "Misalignment",
    "How badly the sample's media fit each other, in robust deviations from the set's median; "
    "the worst pair of modalities counts",
    per="pair",
    trained=True,
)
def misalignment(evidence: Evidence) -> dict[str, Floats]:
    """Held-out contrast and neighbour disagreement of each pair, robustly standardised and added up."""
    parts = {pair: pair_misalignment(evidence, pair) for pair in evidence.pairs}
    worst = np.fmax.reduce(list(parts.values()))
    overall = worst if len(parts) == 1 else robust_z(worst, scale_of(worst, evidence))
    return {"": overall} | {f"{a}_{b}": values for (a, b), values in parts.items()}


def pair_misalignment(evidence: Evidence, pair: tuple[str, str]) -> Floats:
    """`[n]`: the combined score of one pair of modalities."""
    parts = evidence.parts[pair]
    return combine(parts, {name: scale_of(values, evidence) for name, values in parts.items()})


def scale_of(values: Floats, evidence: Evidence) -> Floats:
    """The values that set the scale: those of the known samples."""
    return values if evidence.known is None else values[evidence.known]


def combine(parts: Mapping[str, Floats], reference: Mapping[str, Floats] | None = None) -> Floats:
    """Contrast plus weighted neighbour disagreement, each standardised against `reference` (default: itself).

    Evidence that a sample lacks (all of its neighbours share its media) counts as the median.
    """
    weights = {"contrast": 1.0, "zero_shot": 1.0, "neighbors_a": NEIGHBOR_WEIGHT, "neighbors_b": NEIGHBOR_WEIGHT}
    total, weight = np.zeros_like(parts["contrast"]), 0.0
    for name, values in parts.items():
        standard = robust_z(values, None if reference is None else reference[name])
        total += weights[name] * np.where(np.isfinite(standard), standard, 0)
        weight += weights[name]
    return np.where(np.isfinite(parts["contrast"]), total / weight, np.nan).astype(np.float32)


def pair_evidence(evidence: Evidence, pair: tuple[str, str]) -> dict[str, Floats]:
    """Name -> `[n]`: the separate evidence on one pair, all higher = more suspicious."""
    a, b = pair
    position = evidence.pairs.index(pair)
    held_out = _trials(evidence).held_out
    distance = 1 - held_out["cosine"][position]
    parts = {"contrast": held_out["contrast"][position]}
    if "zero_shot" in held_out and np.isfinite(held_out["zero_shot"][position]).any():
        parts["zero_shot"] = held_out["zero_shot"][position]
    rows = np.arange(len(evidence))
    parts["neighbors_a"] = neighbor_disagreement(evidence, a, b, distance, rows, rows)
    parts["neighbors_b"] = neighbor_disagreement(evidence, b, a, distance, rows, rows)
    return parts


def neighbor_disagreement(
    evidence: Evidence, near: str, other: str, distance: Floats, left: Ints, right: Ints
) -> Floats:
    """How far a sample's `other` side is from the `other` sides of its neighbours in `near`.

    LEMoN's form (Zhang et al., arXiv 2407.18941):
    `sum_j w_j d(y, y_j) / sum_j w_j` with `w_j = exp(cos(x, x_j) / KERNEL - DISTRUST * distance_j)`: near
    neighbours count more, neighbours that are themselves suspect count less; dividing by the weights makes the
    scale independent of the encoder.

    Args:
        evidence: for views and neighbours.
        near: modality whose neighbours are asked.
        other: modality that is compared.
        distance: `[n]`, held-out distance of each sample's own pair.
        left: `[q]` rows whose `near` side is meant.
        right: `[q]` rows whose `other` side is meant (equal to `left` but for virtual pairs).

    Returns:
        float32 `[q]`; NaN without a neighbour outside the sample's own contents.
    """
    out = np.full(len(left), np.nan, dtype=np.float32)
    found = evidence.neighbors[near]
    view, content = evidence.views[other], evidence.contents
    known = np.where(np.isfinite(distance), distance, np.nanmedian(distance) if np.isfinite(distance).any() else 0)
    for start in range(0, len(left), 4096):
        i, j = left[start : start + 4096], right[start : start + 4096]
        index, cosine = found.indices[i], found.similarities[i]
        at = np.maximum(index, 0)
        use = (index >= 0) & (content[near][at] != content[near][i][:, None])
        use &= (at != i[:, None]) & (at != j[:, None])
        logits = np.where(use, cosine / KERNEL - DISTRUST * known[at], -np.inf)
        top = logits.max(1, initial=-1e30, keepdims=True)
        weight = np.where(use, np.exp(logits - top), 0)
        far = 1 - np.einsum("qd,qkd->qk", view[j], view[at])
        total = weight.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[start : start + 4096] = np.where(total > 0, (weight * far).sum(1) / total, np.nan)
    return out


@score(
    "MultiMem",
    "How much more consistent a trained model finds the sample when it was trained on it "
    "(arXiv 2606.22220), summed over all modalities; above 0 for any trained sample, far above the set's bulk "
    "when memorized",
    per="attribution",
    trained=True,
    also=("stderr", "mean"),
)
def multimem(evidence: Evidence) -> dict[str, Floats]:
    """The raw sum with its standard error, the mean over pairs, and with three or more modalities who drives it."""
    trials = _trials(evidence)
    raw, error = memorization.multimem(memorization.adjusted(trials), trials.member, trials.folds)
    pairs, without = attribution(evidence)
    parts: dict[str, Floats] = {"": raw, "stderr": error, "mean": np.mean(list(pairs.values()), axis=0)}
    if len(evidence.modalities) > 2:
        parts |= {f"{a}_{b}": values for (a, b), values in pairs.items()}
        parts |= {f"due_{name}": raw - values for name, values in without.items()}
    return parts


def attribution(evidence: Evidence) -> tuple[dict[tuple[str, str], Floats], dict[str, Floats]]:
    """(pair -> its two-modality MultiMem `[n]`; modality -> MultiMem of all the others `[n]`)."""
    memory, names = _trials(evidence).memory, evidence.modalities
    every = range(len(names))
    pairs = {p: memorization.over(memory, at) for p, at in zip(evidence.pairs, modality_pairs(names), strict=True)}
    return pairs, {name: memorization.over(memory, [a for a in every if a != at]) for at, name in enumerate(names)}


@score(
    "Alignment",
    "Held-out cross-modal consistency: a similarity, low means that models which never saw the "
    "sample find its media at odds",
    trained=True,
)
def alignment(evidence: Evidence) -> Floats:
    """Mean consistency over the trials in which the sample was not a member, offsets kept."""
    trials = _trials(evidence)
    return memorization.held_out_mean(trials.consistency, trials.member)


@score("CLIP score", "Plain cosine of the frozen encoders: a similarity, the baseline; only where they share a space")
def clip_score(evidence: Evidence) -> dict[str, Floats]:
    """Mean cosine over the pairs whose encoders share a space; no column without such a pair."""
    shared = [(a, b) for a, b in evidence.pairs if evidence.space[a] and evidence.space[a] == evidence.space[b]]
    if not shared:
        return {}
    return {"": np.mean([(evidence.vectors[a] * evidence.vectors[b]).sum(1) for a, b in shared], axis=0)}


@score(
    "Outlier",
    "Mean distance to the 10 nearest samples, duplicates counted once: the largest over modalities "
    "and the joint space, in robust deviations",
    per="modality",
)
def outlier(evidence: Evidence) -> dict[str, Floats]:
    """Mean k-NN distance over near-duplicate groups, standardised per modality."""
    distances = {name: mean_distance(evidence, name) for name in evidence.neighbors}
    parts = {name: robust_z(values, scale_of(values, evidence)) for name, values in distances.items()}
    return {"": np.fmax.reduce(list(parts.values()))} | {m: parts[m] for m in evidence.modalities}


def mean_distance(evidence: Evidence, name: str) -> Floats:
    """`[n]`: mean distance to the nearest `OUTLIER_NEIGHBORS` neighbours of other groups, one per group."""
    found = evidence.neighbors[name]
    group = evidence.groups.get(name, evidence.leave_together if name == "joint" else evidence.contents.get(name))
    if group is None:
        raise KeyError(name)
    near = np.where(found.indices >= 0, group[np.maximum(found.indices, 0)], -1)
    use = (near >= 0) & (near != group[:, None])
    order = np.argsort(np.where(use, near, -1), axis=1, kind="stable")  # the first of each group is its nearest
    ranked = np.take_along_axis(near, order, 1)
    repeat = np.zeros_like(use)
    np.put_along_axis(repeat, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    use &= ~repeat
    use &= np.cumsum(use, axis=1) <= OUTLIER_NEIGHBORS
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.where(use, 1 - evidence.cosines[name], 0).sum(1) / use.sum(1)).astype(np.float32)


@score("Duplicate", "Highest similarity to another sample in a modality that is not text: 1 is the same content")
def duplicate(evidence: Evidence) -> Floats:
    """Cosine of the frozen features to the nearest other content; 1 for an exact repeat."""
    best = np.full(len(evidence), np.nan, dtype=np.float32)
    for name, content in evidence.contents.items():
        if name in evidence.texts:
            continue
        cosine = np.fmax.reduce(evidence.cosines[name], axis=1)
        repeated = np.bincount(content)[content] > 1
        best = np.fmax(best, np.where(repeated, 1.0, np.minimum(cosine, 1.0)))
    return best


def _trials(evidence: Evidence) -> Trials:
    assert evidence.trials is not None, "compute_scores skips trained scores without trials"
    return evidence.trials
