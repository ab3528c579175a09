"""Rules that turn scores into flags, actions and reasons. Applied after scoring: a new threshold recomputes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints

from .outliers import count_user_groups, outlier_cut
from .scores import Evidence, robust_z, scale_of

UNRELATED = 0.5
PLACEHOLDER_ROWS = 10
PLACEHOLDER_SHARE = 0.001
PLACEHOLDER_TEXTS = 5
PLAUSIBLE = 0.0  # misalignment up to which a caption may be right: the better half of a set
CONFLICT_Z = 1.0
FOREIGN = 0.15  # likeness of two texts drawn at random, at most
CAPTIONS = 4  # so many of one picture are judged by what the others say
ALIKE, ODD = 10.0, 1.5  # how far a caption fits worse than the others, less so many times its mean likeness to them
CONTRADICTS = 0.25  # likeness of texts: wrong ones reach 0.23; 2 % of captions of one picture lie below
SHORT = 0.75


@dataclass(frozen=True)
class Flag:
    """One kind of flag.

    Attributes:
        kind: the tag, and the column `is_{kind}`.
        label: for people.
        help: one line: what the flag means.
        score: the column that ranks the flagged rows; "": misalignment.
        tail: raised where a score lies in the tail beyond the false-positive rate. With `score`, users can move its
            threshold.
    """

    kind: str
    label: str
    help: str
    score: str = ""
    tail: bool = False


FLAGS = {
    f.kind: f
    for f in (
        Flag("misaligned", "Misaligned", "The sample's media do not belong together", "misalignment", tail=True),
        Flag(
            "memorized",
            "Memorized",
            "A model trained on the set would memorize it far more than the set's bulk",
            "multimem",
            tail=True,
        ),
        Flag("outlier", "Outlier", "Unlike everything else in the set", "outlier", tail=True),
        Flag("duplicate", "Duplicate", "Same or nearly the same medium as another sample", "duplicate"),
        Flag("conflict", "Conflict", "Same medium as another sample, but with a caption that contradicts the other's"),
        Flag("placeholder", "Placeholder", "One medium that appears in many rows with unrelated texts"),
        Flag("vague", "Vague", "A caption that fits almost everything", tail=True),
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
        columns: score columns, `probability` and `false_positive_rate` (`calibration`), `[n]`, NaN: not scored.
        evidence: of the set.
        rate: share of clean samples that a flag may hit.
    """
    found = {
        "misaligned": flag_misaligned(columns["false_positive_rate"], rate),
        "memorized": exceeds(columns["multimem"], tail_cut(columns["multimem"], rate)),
        "outlier": exceeds(columns["outlier"], outlier_cut(scale_of(columns["outlier"], evidence), rate)),
        "duplicate": flag_duplicates(evidence),
        "placeholder": flag_placeholders(evidence),
        "vague": flag_vague(evidence, rate),
    }
    cut = tail_cut(scale_of(columns["misalignment"], evidence), rate)
    found["conflict"] = flag_conflicts(evidence, columns["misalignment"], found["placeholder"], cut)
    return {kind: found[kind] for kind in FLAGS}


def exceeds(values: Floats | float, cut: Floats | float) -> Bools:
    """bool `[n]`; NaN is never above."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values > cut)


def flag_misaligned(false_positive_rate: Floats, rate: float) -> Bools:
    """Scores that at most a share `rate` of good pairs reaches, by the mixture fit (`calibration.calibrate`)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(false_positive_rate <= rate)


def duplicate_groups(evidence: Evidence) -> dict[str, Ints]:
    """Modality that is not text -> groups of one medium's copies `[n]`, told from look-alikes where that was done."""
    return {name: evidence.copies.get(name, group) for name, group in evidence.groups.items()}


def flag_duplicates(evidence: Evidence) -> Bools:
    """In a group of copies of two or more samples, in a modality that is not text; captions of one sample are one."""
    out = np.zeros(len(evidence), dtype=bool)
    for group in duplicate_groups(evidence).values():
        out |= count_user_groups(group, evidence.owners) > 1
    return out


def exact_duplicates(evidence: Evidence) -> tuple[Bools, Bools]:
    """(first of its exact repeats, another sample repeats it), `[n]`, over all modalities together."""
    table = np.stack(list(evidence.contents.values()), axis=1)
    if not len(table):
        return np.zeros(0, bool), np.zeros(0, bool)
    _, first, number = np.unique(table, axis=0, return_index=True, return_inverse=True)
    number, owners = number.reshape(-1), evidence.owners
    return owners == owners[first[number]], count_user_groups(number, owners) > 1


def flag_placeholders(evidence: Evidence) -> Bools:
    """One medium in more than max(10, 0.1 %) samples whose texts are as unrelated as texts drawn at random."""
    out = np.zeros(len(evidence), dtype=bool)
    least = max(PLACEHOLDER_ROWS, PLACEHOLDER_SHARE * len(np.unique(evidence.owners)))
    for name, content in evidence.contents.items():
        if name in evidence.texts:
            continue
        often = count_user_groups(content, evidence.owners) > least
        for medium in np.unique(content[often]):
            rows = np.flatnonzero(content == medium)
            texts = evidence.texts
            out[rows] = bool(texts) and all(_unrelated(evidence.views[t], evidence.contents[t], rows) for t in texts)
    return out


def _unrelated(view: Floats, content: Ints, rows: Ints) -> bool:
    """Whether the rows have several texts, nearer to unrelated (0 after centering) than to the same (1).

    Equal texts count as often as they stand there: ten labels under one medium are unrelated, one product's text and
    a few variants of it are not.
    """
    if len(np.unique(content[rows])) < PLACEHOLDER_TEXTS:
        return False
    total, k = view[rows].sum(0, dtype=np.float64), len(rows)
    return bool((total @ total - k) / (k * (k - 1)) < UNRELATED)


def flag_conflicts(evidence: Evidence, misalignment: Floats, placeholders: Bools, cut: float) -> Bools:
    """Rows whose medium another row shares with an unrelated text that fits it better under held-out alignment.

    Of two samples with one picture and unrelated captions one is wrong, unless both fit: the worse one is flagged
    when it is not `PLAUSIBLE`. Captions of one sample differ by nature: where there are `CAPTIONS` of a picture, one
    must fit worse than the others usually do and say something else (`_odd_caption`); of fewer, it must fit worse
    than the best by `CONFLICT_Z` and worse than `cut`. A text like one that stands is left alone.

    Args:
        evidence: of the set.
        misalignment: `[n]`, NaN: not scored.
        placeholders: bool `[n]`, rows that are no conflict.
        cut: misalignment beyond which few good pairs lie.
    """
    out = np.zeros(len(evidence), dtype=bool)
    for group in duplicate_groups(evidence).values():
        order = np.argsort(group, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            if (
                evidence.texts
                and len(rows) >= 2
                and not placeholders[rows].any()
                and np.isfinite(misalignment[rows]).any()
            ):
                out[rows] |= _contradicts(evidence, misalignment[rows], rows, cut)
    return out


def _contradicts(evidence: Evidence, fit: Floats, rows: Ints, cut: float) -> Bools:
    """bool `[g]` for the rows of one group: neither plausible nor like a text that stands."""
    owners, best = evidence.owners[rows], int(np.nanargmin(fit))
    likeness = np.max([evidence.views[text][rows] @ evidence.views[text][rows].T for text in evidence.texts], axis=0)
    own, clear = owners == owners[best], fit > fit[best] + CONFLICT_Z
    accepted = ~exceeds(fit, np.where(own, np.maximum(cut, fit[best] + CONFLICT_Z), np.maximum(PLAUSIBLE, fit[best])))
    unlike = np.where(clear, UNRELATED if len(rows) == 2 else CONTRADICTS, FOREIGN)
    while (alike := ~accepted & (likeness[:, accepted].max(1) >= unlike)).any():
        accepted |= alike
    if len(rows) < CAPTIONS:
        return ~accepted
    several = (owners[:, None] == owners).sum(1) > 1
    return np.where(several, _odd_caption(fit, likeness), ~accepted)


def _odd_caption(fit: Floats, likeness: Floats) -> Bools:
    """bool `[g]`: of several captions of one picture, those that fit worse than the others and resemble them less."""
    rest = (np.delete(fit, row) for row in range(len(fit)))
    others = np.array(
        [np.median(values[np.isfinite(values)]) if np.isfinite(values).any() else np.nan for values in rest]
    )
    alike = (likeness.sum(1) - likeness.diagonal()) / (len(fit) - 1)
    return exceeds(fit - others - ALIKE * alike, ODD) & exceeds(fit, PLAUSIBLE)


def flag_vague(evidence: Evidence, rate: float) -> Bools:
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
            out |= exceeds(values, tail_cut(values, rate)) & short
    return out


def propose_actions(
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
