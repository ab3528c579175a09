"""Rules that turn scores into flags, actions and reasons. Applied after scoring: a new threshold recomputes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Bools, Floats, Ints
from .scores import Evidence, robust_z, scale_of

UNRELATED = 0.5
PLACEHOLDER_ROWS = 10
PLACEHOLDER_SHARE = 0.001
CONFLICT_Z = 1.0
SHORT = 0.75


@dataclass(frozen=True)
class Flag:
    """One kind of finding: tag word, label for people, one line of help."""

    kind: str
    label: str
    help: str


FLAGS = {
    f.kind: f
    for f in (
        Flag("misaligned", "Misaligned", "The sample's media do not belong together"),
        Flag("memorized", "Memorized", "A model trained on the set would memorize it far more than the set's bulk"),
        Flag("outlier", "Outlier", "Unlike everything else in the set"),
        Flag("duplicate", "Duplicate", "Same or nearly the same medium as another sample"),
        Flag("conflict", "Conflict", "Same medium as another sample, but with a caption that contradicts the other's"),
        Flag("placeholder", "Placeholder", "One medium that stands in many rows with unrelated texts"),
        Flag("vague", "Vague", "A caption that fits almost everything"),
    )
}


def tail_cut(values: Floats, rate: float) -> float:
    """The value that a share `rate` of clean samples exceeds, from a logistic tail fitted to the set's bulk.

    The tail's width is read at the upper quartile, where up to a quarter of bad samples cannot reach it, and at the
    lower one for sets with a long lower side; a tail heavier than logistic flags more than `rate`, a lighter one less.
    """
    known = values[np.isfinite(values)]
    if len(known) < 4:
        return float("inf")
    quarter, median, three = np.quantile(known, [0.25, 0.5, 0.75])
    scale = max(three - median, 0.5 * (three - quarter)) / np.log(3)
    return float(median + max(scale, 1e-6) * np.log((1 - rate) / rate))


def raise_flags(columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> dict[str, Bools]:
    """Flag kind -> bool `[n]`, in the order of `FLAGS`.

    Args:
        columns: score columns, `probability` and `false_alarm` (see `plants.wrong_share`), `[n]`, NaN: not scored.
        evidence: of the set.
        rate: share of clean samples that a flag may hit.
    """
    found = {
        "misaligned": misaligned(columns["probability"], columns["false_alarm"], rate),
        "memorized": above(columns["multimem"], tail_cut(columns["multimem"], rate)),
        "outlier": above(columns["outlier"], tail_cut(scale_of(columns["outlier"], evidence), rate)),
        "duplicate": duplicated(evidence),
        "placeholder": placeholder(evidence),
        "vague": vague(evidence, rate),
    }
    found["conflict"] = conflict(evidence, columns["misalignment"], found["placeholder"])
    return {kind: found[kind] for kind in FLAGS}


def above(values: Floats | float, cut: Floats | float) -> Bools:
    """bool `[n]`; NaN is never above."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values > cut)


def misaligned(probability: Floats, false_alarm: Floats, rate: float) -> Bools:
    """More likely wrong than right by the mixture fit, and exceeded by at most a share `rate` of good pairs."""
    return above(probability, 0.5) & above(rate, false_alarm)


def duplicated(evidence: Evidence) -> Bools:
    """In a near-duplicate group of two or more in a modality that is not text."""
    out = np.zeros(len(evidence), dtype=bool)
    for group in evidence.groups.values():
        out |= np.bincount(group)[group] > 1
    return out


def placeholder(evidence: Evidence) -> Bools:
    """One medium in more than max(10, 0.1 %) rows whose texts are as unrelated as texts drawn at random."""
    n = len(evidence)
    out = np.zeros(n, dtype=bool)
    for name, content in evidence.contents.items():
        if name in evidence.texts:
            continue
        sizes = np.bincount(content)
        for medium in np.flatnonzero(sizes > max(PLACEHOLDER_ROWS, PLACEHOLDER_SHARE * n)):
            rows = np.flatnonzero(content == medium)
            texts = evidence.texts
            out[rows] = bool(texts) and all(_unrelated(evidence.views[t], evidence.contents[t], rows) for t in texts)
    return out


def _unrelated(view: Floats, content: Ints, rows: Ints) -> bool:
    """Whether the rows' texts mostly differ, and are nearer to unrelated (0 after centring) than to the same (1)."""
    first = np.unique(content[rows], return_index=True)[1]
    if len(first) <= len(rows) / 2:
        return False
    total, k = view[rows[first]].sum(0, dtype=np.float64), len(first)
    return bool((total @ total - k) / (k * (k - 1)) < UNRELATED)


def conflict(evidence: Evidence, misalignment: Floats, placeholders: Bools) -> Bools:
    """Members of a near-duplicate group whose texts contradict each other under held-out alignment.

    A group conflicts if one of its texts fits clearly worse than its best one and the two are unrelated; several
    captions that all fit are no conflict. All rows of the contradiction's worse side are flagged.
    """
    out = np.zeros(len(evidence), dtype=bool)
    for group in evidence.groups.values():
        order = np.argsort(group, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            if len(rows) < 2 or placeholders[rows].any():
                continue
            fit = np.where(np.isfinite(misalignment[rows]), misalignment[rows], np.inf)
            best = rows[fit.argmin()]
            far = np.ones(len(rows), dtype=bool)
            for text in evidence.texts:
                far &= evidence.views[text][rows] @ evidence.views[text][best] < UNRELATED
            worse = np.isfinite(fit) & (fit > fit.min() + CONFLICT_Z)
            out[rows] |= far & worse
    return out


def vague(evidence: Evidence, rate: float) -> Bools:
    """Texts that fit all media a little, none much, and are short for the set: all three beyond its bulk."""
    out = np.zeros(len(evidence), dtype=bool)
    if evidence.trials is None:
        return out
    for position, pair in enumerate(evidence.pairs):
        generality = evidence.trials.held_out["generality"][position]
        for text in (m for m in pair if m in evidence.words and np.isfinite(generality).any()):
            brevity = -np.log1p(evidence.words[text].astype(np.float32))
            short = evidence.words[text] < SHORT * np.median(evidence.words[text])
            values = robust_z(generality) + robust_z(brevity)
            out |= above(values, tail_cut(values, rate)) & short
    return out


def decide(
    flags: Mapping[str, Bools], suggestions: Any, representative: Bools, exact: Bools, scores: Mapping[str, Floats]
) -> tuple[Any, Any]:
    """Proposed action and reason per sample, by precedence; object arrays `[n]`.

    Args:
        flags: kind -> bool `[n]`.
        suggestions: `[n]` texts, "" where there is none above the margin.
        representative: bool `[n]`, first of its exact repeats.
        exact: bool `[n]`, repeats another sample in all modalities.
        scores: score columns, quoted in the reasons.
    """
    n = len(representative)
    action, reason = np.full(n, "keep", dtype=object), np.full(n, "", dtype=object)
    suggested = np.array([bool(s) for s in suggestions], dtype=bool)
    shown = flags["memorized"] | flags["vague"]
    why_shown = np.where(flags["memorized"], "memorized far more than the set's bulk", "caption fits almost everything")
    rules = (  # weakest first: each overwrites the ones before it
        (shown, "keep", why_shown),
        (flags["conflict"], "review", "same medium as another sample, contradicting caption"),
        (flags["outlier"], "review", _quote("unlike the rest of the set (outlier {:.1f})", scores["outlier"])),
        (flags["misaligned"], "review", _quote("media do not fit (misalignment {:.1f})", scores["misalignment"])),
        (flags["misaligned"] & suggested, "relabel", "media do not fit, and another caption fits clearly better"),
        (exact & ~representative, "remove", "exact duplicate of another sample"),
        (flags["placeholder"], "remove", "placeholder: one medium in many rows with unrelated texts"),
    )
    for rows, what, why in rules:
        action[rows] = what
        reason[rows] = np.broadcast_to(np.asarray(why, dtype=object), n)[rows]
    return action, reason


def _quote(sentence: str, values: Floats) -> Any:
    return np.array([sentence.format(value) for value in values], dtype=object)
