"""Rules that turn scores into flags, actions and reasons. Applied after scoring: a new threshold recomputes nothing.

*Likeness* of two texts is the inner product of their rows of `Evidence.projections`: 1 for equal ones, about 0 for
unrelated ones, since projections are centered. Numbers below were chosen on the development sets (docs/detection.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Bools, Floats, Ints, dense_ids

from .named_modality import named_modalities
from .outliers import count_user_groups, outlier_cut
from .scores import of_known, robust_z

if TYPE_CHECKING:
    from .evidence import Evidence

UNRELATED_LIKENESS = 0.5  # of texts, below which they are nearer to unrelated than to equal
# A placeholder is in more than max(10, 0.1%) samples, with at least five different texts.
PLACEHOLDER_SAMPLES = 10
PLACEHOLDER_SHARE = 0.001
PLACEHOLDER_TEXTS = 5
PLAUSIBLE = 0.0  # misalignment up to which a caption may be right: the better half of a set
CONFLICT_Z = 1.0  # misalignment by which a caption fits clearly worse than the best of its content
RANDOM_LIKENESS = 0.15  # of two texts drawn at random, at most
CONTRADICTION_LIKENESS = 0.25  # wrong texts reach 0.23; of captions of one picture 2% lie below
MIN_CAPTIONS = 4  # of one content: from here on each caption is judged against the others
# A caption is odd if its misalignment exceeds the others' median by ODD_EXCESS + ODD_SLOPE * its mean likeness to them.
ODD_SLOPE, ODD_EXCESS = 10.0, 1.5
SHORT = 0.75  # of the median number of words


# The rule of a flag: (score columns with `probability` and `false_positive_rate` of `calibration`, `[n]` each, NaN: not
# scored; evidence of the set; share of clean samples that may be flagged) -> bool `[n]`.
Rule = Callable[[Mapping[str, Floats], "Evidence", float], Bools]
# A rule that takes the known samples (bool `[n]`, None: all) instead of evidence, so that it applies to stored results.
RateRule = Callable[[Mapping[str, Floats], Bools | None, float], Bools]


@dataclass(frozen=True)
class Flag:
    """One entry of the table.

    Attributes:
        kind: the tag, and the column `is_{kind}`.
        label: for people.
        help: one line: what the flag means.
        score: the column that ranks the flagged rows; "": misalignment.
        tail: raised where a score lies in the tail beyond the false-positive rate.
        rule: the function.
        by_rate: the same for results that are stored, or None: it takes more than their columns.
    """

    kind: str
    label: str
    help: str
    score: str
    tail: bool
    rule: Rule
    by_rate: RateRule | None = None

    @property
    def movable(self) -> bool:
        """Whether users can set another threshold on `score`."""
        return self.tail and bool(self.score)


FLAGS: dict[str, Flag] = {}


def flag(label: str, help: str, *, score: str = "", tail: bool = False) -> Callable[[Rule], Rule]:
    """Adds the decorated rule to `FLAGS` under its own name; see `Flag` for the arguments."""

    def add(rule: Rule) -> Rule:
        kind = rule.__name__
        FLAGS[kind] = Flag(kind, label, help, score, tail, rule)
        return rule

    return add


def flag_by_rate(label: str, help: str, *, score: str) -> Callable[[RateRule], RateRule]:
    """Adds the decorated rule to `FLAGS` as that of a movable flag, which `AuditResult.rethreshold` applies as well."""

    def add(by_rate: RateRule) -> RateRule:
        def rule(columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> Bools:
            return by_rate(columns, evidence.known, rate)

        kind = by_rate.__name__
        FLAGS[kind] = Flag(kind, label, help, score, True, rule, by_rate)
        return by_rate

    return add


def movable_flags() -> dict[str, str]:
    """Kind of flag whose threshold users can set -> the score that it is compared with."""
    return {entry.kind: entry.score for entry in FLAGS.values() if entry.movable}


def tail_cut(values: Floats, rate: float) -> float:
    """The value that a share `rate` of clean samples exceeds, from a logistic tail fitted to the set's bulk.

    median + width * log((1 - rate) / rate). The width is read at the upper quartile, where up to a quarter of bad
    samples cannot reach it, and at the lower one for sets with a long lower side; a tail heavier than logistic flags
    more than `rate`, a lighter one less.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 4:
        return float("inf")
    q25, median, q75 = np.quantile(finite, [0.25, 0.5, 0.75])
    width = max(q75 - median, 0.5 * (q75 - q25)) / np.log(3)  # log(0.75 / 0.25) of a logistic distribution
    return float(median + max(width, 1e-6) * np.log((1 - rate) / rate))


def raise_flags(columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> dict[str, Bools]:
    """Flag kind -> bool `[n]`, in the order of `FLAGS`; see `Rule`."""
    return {kind: entry.rule(columns, evidence, rate) for kind, entry in FLAGS.items()}


@flag_by_rate("Misaligned", "The sample's modalities do not belong together", score="misalignment")
def misaligned(columns: Mapping[str, Floats], _known: Bools | None, rate: float) -> Bools:
    """Scores that at most a share `rate` of good pairs reaches."""
    return flag_misaligned(columns["false_positive_rate"], rate)


@flag_by_rate(
    "Memorized", "A model trained on the set memorizes it more than nearly all good samples", score="multimem"
)
def memorized(columns: Mapping[str, Floats], _known: Bools | None, rate: float) -> Bools:
    """MultiMem beyond that of the good samples."""
    return exceeds(columns["multimem"], memorized_cut(columns, rate))


def memorized_cut(columns: Mapping[str, Floats], rate: float) -> float:
    """The MultiMem that a share `rate` of the good samples exceeds; infinity where none has one.

    Each sample counts with its probability of being right (1 where it is unknown). Wrong pairs are memorized the most:
    among all samples they would raise the cut above themselves. Clean sets differ in how skewed MultiMem is, so it is
    no multiple of a deviation either.
    """
    values = np.asarray(columns["multimem"])
    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return float("inf")
    rows = rows[np.argsort(values[rows], kind="stable")]
    right = 1 - np.nan_to_num(columns["probability"][rows], nan=0.0) if "probability" in columns else np.ones(len(rows))
    share = np.cumsum(right) / max(right.sum(), 1e-12)  # of the good samples, up to each
    return float(values[rows[np.flatnonzero(share >= min(1 - rate, share[-1]))[0]]])


@flag_by_rate("Outlier", "Unlike everything else in the set", score="outlier")
def outlier(columns: Mapping[str, Floats], known: Bools | None, rate: float) -> Bools:
    """Outlier scores beyond the tail of the known samples."""
    return exceeds(columns["outlier"], outlier_cut(of_known(columns["outlier"], known), rate))


@flag("Duplicate", "Exact or near-duplicate of another sample's image, audio or video", score="duplicate")
def duplicate(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """In a duplicate group with another sample; captions of one sample do not repeat each other."""
    flagged = np.zeros(len(evidence), dtype=bool)
    for group in evidence.copy_groups.values():
        flagged |= count_user_groups(group, evidence.user_groups) > 1
    return flagged


@flag("Conflict", "Duplicate of another sample's image, audio or video, with a contradicting caption")
def conflict(columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> Bools:
    """Of rows with one content and contradicting captions, those that fit worse; placeholders are not a conflict."""
    worst_good = tail_cut(of_known(columns["misalignment"], evidence.known), rate)
    return flag_conflicts(evidence, columns["misalignment"], placeholder(columns, evidence, rate), worst_good)


@flag("Placeholder", "One image, audio or video that appears in many rows with unrelated texts")
def placeholder(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """One content in more than max(10, 0.1%) samples, whose texts are as unrelated as texts drawn at random."""
    flagged = np.zeros(len(evidence), dtype=bool)
    owners, texts = evidence.user_groups, evidence.text_modalities
    limit = max(PLACEHOLDER_SAMPLES, PLACEHOLDER_SHARE * len(np.unique(owners)))
    for name, content in evidence.contents.items():
        if name in texts or not texts:
            continue
        frequent = count_user_groups(content, owners) > limit
        for number in np.unique(content[frequent]):
            rows = np.flatnonzero(content == number)
            flagged[rows] |= all(
                _are_unrelated(evidence.projections[t][rows], evidence.contents[t][rows]) for t in texts
            )
    return flagged


@flag("Vague", "A caption that fits almost everything in the set", tail=True)
def vague(_columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> Bools:
    """Short texts that fit all media a little and none much: brevity and generality together beyond the set's bulk."""
    flagged = np.zeros(len(evidence), dtype=bool)
    if evidence.trials is None:
        return flagged
    for position, pair in enumerate(evidence.pairs):
        generality = evidence.held_out["generality"][position]
        if not np.isfinite(generality).any():
            continue
        for text in set(pair) & set(evidence.text_modalities):
            words = evidence.words[text]
            brevity = -np.log1p(words.astype(np.float32))
            vagueness = robust_z(generality) + robust_z(brevity)
            is_short = words < SHORT * np.median(words)
            flagged |= exceeds(vagueness, tail_cut(vagueness, rate)) & is_short
    return flagged


def exceeds(values: Floats | float, cut: Floats | float) -> Bools:
    """bool `[n]`; NaN never exceeds."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values > cut)


def flag_misaligned(false_positive_rate: Floats, rate: float) -> Bools:
    """Scores that at most a share `rate` of good pairs reaches (`calibration.calibrate`)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(false_positive_rate <= rate)


def exact_duplicates(evidence: Evidence) -> tuple[Bools, Bools]:
    """(is the representative, has an exact duplicate): bool `[n]` each, by the contents of all modalities together.

    The representative is the first sample with its contents, with all of its rows.
    """
    if not len(evidence):
        return np.zeros(0, bool), np.zeros(0, bool)
    contents = dense_ids(*evidence.contents.values())
    _, first = np.unique(contents, return_index=True)
    owners = evidence.user_groups
    return owners == owners[first[contents]], count_user_groups(contents, owners) > 1


def _are_unrelated(vectors: Floats, content: Ints) -> bool:
    """Whether g texts are several, and nearer to unrelated (mean likeness 0) than to equal (1).

    Equal texts count as often as they occur: ten labels with one image are unrelated, one product's text and a few
    variants of it are not.
    """
    if len(np.unique(content)) < PLACEHOLDER_TEXTS:
        return False
    # Mean of <v_i, v_j> over i != j, from |sum_i v_i|^2 = g + sum_{i != j} <v_i, v_j>
    total, g = vectors.sum(0, dtype=np.float64), len(vectors)
    mean_likeness = (total @ total - g) / (g * (g - 1))
    return bool(mean_likeness < UNRELATED_LIKENESS)


def flag_conflicts(evidence: Evidence, misalignment: Floats, placeholders: Bools, worst_good: float) -> Bools:
    """Rows whose image, audio or video another row has with an unrelated text that fits it better.

    Of the rows of one group of copies, the best being the one with the lowest misalignment:

    1. Another sample's caption is accepted if it fits as well as the best or is `PLAUSIBLE`.
    2. A caption of the best row's own sample is accepted unless it fits worse than the best by `CONFLICT_Z` and worse
       than `worst_good`, the misalignment beyond which few good pairs lie. Unscored captions are accepted.
    3. A text like an accepted one is accepted. The others are flagged.
    4. But of `MIN_CAPTIONS` or more rows, those of samples with several captions are flagged if they fit worse than the
       others usually do and say something else (`_is_odd_caption`), and only then.

    Groups that hold a placeholder (bool `[n]`) or have no misalignment at all (NaN in `[n]`) are not a conflict.
    """
    flagged = np.zeros(len(evidence), dtype=bool)
    if not evidence.text_modalities:
        return flagged
    for group in evidence.copy_groups.values():
        order = np.argsort(group, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            scored = np.isfinite(misalignment[rows]).any()
            if len(rows) >= 2 and scored and not placeholders[rows].any():
                flagged[rows] |= _conflicts_in_group(evidence, misalignment[rows], rows, worst_good)
    return flagged


def _conflicts_in_group(evidence: Evidence, misalignment: Floats, rows: Ints, worst_good: float) -> Bools:
    """bool `[g]` for the rows of one duplicate group and their misalignment `[g]`."""
    owners, best = evidence.user_groups[rows], int(np.nanargmin(misalignment))
    lowest = misalignment[best]
    texts = [evidence.projections[text][rows] for text in evidence.text_modalities]
    likeness = np.max([vectors @ vectors.T for vectors in texts], axis=0)  # [g, g], of the most similar text

    # Accepted by fit: captions of the best row's own sample more easily than another sample's.
    same_sample = owners == owners[best]
    limit = np.where(same_sample, np.maximum(worst_good, lowest + CONFLICT_Z), np.maximum(PLAUSIBLE, lowest))
    accepted = ~exceeds(misalignment, limit)  # an unscored caption too: nothing speaks against it
    # Accepted for their likeness to an accepted text, and so on: the worse the fit, the more likeness is asked for.
    clearly_worse = UNRELATED_LIKENESS if len(rows) == 2 else CONTRADICTION_LIKENESS
    required = np.where(exceeds(misalignment, lowest + CONFLICT_Z), clearly_worse, RANDOM_LIKENESS)
    while (alike := ~accepted & (likeness[:, accepted].max(1) >= required)).any():
        accepted |= alike
    if len(rows) < MIN_CAPTIONS:
        return ~accepted
    several_captions = (owners[:, None] == owners).sum(1) > 1
    return np.where(several_captions, _is_odd_caption(misalignment, likeness), ~accepted)


def _is_odd_caption(misalignment: Floats, likeness: Floats) -> Bools:
    """bool `[g]`: of g captions of one content, those that fit worse than the others and resemble them less."""
    g = len(misalignment)
    others_median = np.full(g, np.nan)
    for row in range(g):
        others = np.delete(misalignment, row)
        if np.isfinite(others).any():
            others_median[row] = np.nanmedian(others)
    mean_likeness = (likeness.sum(1) - likeness.diagonal()) / (g - 1)
    excess = misalignment - others_median - ODD_SLOPE * mean_likeness
    return exceeds(excess, ODD_EXCESS) & exceeds(misalignment, PLAUSIBLE)


def propose_actions(
    flags: Mapping[str, Bools], suggestions: Any, representative: Bools, exact: Bools, scores: Mapping[str, Floats]
) -> tuple[Any, Any]:
    """Proposed action and reason per sample, by precedence; object arrays `[n]`.

    Args:
        flags: kind -> bool `[n]`.
        suggestions: `[n]` texts, "" where there is none above the margin.
        representative: bool `[n]`, of the first of its exact duplicates.
        exact: bool `[n]`, has an exact duplicate: another sample that is equal in all modalities.
        scores: score columns, quoted in the reasons.
    """
    n = len(representative)
    action, reason = np.full(n, "keep", dtype=object), np.full(n, "", dtype=object)
    has_suggestion = np.array([bool(suggestion) for suggestion in suggestions], dtype=bool)
    rules = (  # weakest first: each overwrites the ones before it
        (
            flags["memorized"],
            "keep",
            "fits, but is memorized: rare, so keep it and collect more like it, or regroup it",
        ),
        (flags["vague"], "keep", "caption fits almost everything"),
        (flags["conflict"], "review", "same medium as another sample, contradicting caption"),
        (flags["outlier"], "review", _quote("unlike the rest of the set (outlier {:.1f})", scores["outlier"])),
        (flags["misaligned"], "review", _quote("media do not fit (misalignment {:.1f})", scores["misalignment"])),
        (flags["misaligned"] & has_suggestion, "relabel", "media do not fit, and another caption fits clearly better"),
        (exact & ~representative, "remove", "exact duplicate of another sample"),
        (flags["placeholder"], "remove", "placeholder: one medium in many rows with unrelated texts"),
    )
    for rows, rule_action, rule_reason in rules:
        action[rows] = rule_action
        reason[rows] = np.broadcast_to(np.asarray(rule_reason, dtype=object), n)[rows]
    reason[flags["misaligned"] & flags["memorized"]] += "; a model memorizes it"
    return action, reason


def _quote(sentence: str, values: Floats) -> Any:
    return np.array([sentence.format(value) for value in values], dtype=object)


def reflag(columns: Mapping[str, NDArray[Any]], flags: Mapping[str, Bools]) -> dict[str, NDArray[Any]]:
    """The columns that change with some flags, from the `columns` of a result alone.

    They are the flag columns, `action`, and `reason`, `culprit` and `driver` if a result has them. `flags`: flag column
    (`is_outlier`, ...) -> bool `[n]`, what it becomes. A failed row keeps its flags. A proposed removal of a duplicate
    or placeholder stays, as do repairs of the join and what is proposed for rows whose flags do not change.
    """
    differs = np.logical_or.reduce([values != columns[name] for name, values in flags.items()])
    if "failure" in columns:
        differs &= columns["failure"] == ""
    changed: dict[str, NDArray[Any]] = {n: np.where(differs, values, columns[n]) for n, values in flags.items()}
    changes = differs & (columns["action"] != "remove")
    if "repair" in columns:
        changes &= columns["repair"] == ""  # rests on many rows together, not on the flags of this one
    rows = np.flatnonzero(changes)

    def of_rows(name: str, missing: Any) -> NDArray[Any]:
        column = changed.get(name, columns.get(name))
        return np.full(len(rows), missing) if column is None else column[rows]

    row_flags = {kind: of_rows(f"is_{kind}", False) for kind in FLAGS}
    scores = {name: of_rows(name, np.nan) for name in ("misalignment", "outlier")}
    not_exact = np.zeros(len(rows), dtype=bool)  # an exact duplicate that is to be removed keeps its action
    action, reason = propose_actions(row_flags, of_rows("suggestion", ""), ~not_exact, not_exact, scores)
    for name, values in (("action", action), ("reason", reason)):
        if name in columns:  # a column without any value was not written
            changed[name] = columns[name].copy()
            changed[name][rows] = values
    all_flags = {
        kind: changed.get(f"is_{kind}", columns.get(f"is_{kind}", np.zeros(len(differs), bool))) for kind in FLAGS
    }
    for name, values in named_modalities(columns, all_flags).items():
        if name in columns:
            changed[name] = np.where(differs, values, columns[name])
    return changed
