"""Rules that turn scores into flags, actions and reasons. Applied after scoring: a new threshold recomputes nothing.

*Likeness* of two texts is the inner product of their rows of `Evidence.projections`: 1 for equal ones, about 0 for
unrelated ones, since projections are centered. Numbers below were chosen on the development sets (docs/detection.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Bools, Floats, Ints, dense_ids

from .leaks import KINDS, kind_of
from .outliers import count_user_groups, outlier_cut
from .problem_texts import leak_text
from .scores import of_known, robust_z
from .tails import tail_cut

if TYPE_CHECKING:
    from .evidence import Evidence

# Columns of what was found beside scores (`problem_texts`)
PROBLEMS = ("copy_of", "leak_of", "text_problem", "image_problem", "box_problem")
UNRELATED_LIKENESS = 0.5  # of texts, below which they are nearer to unrelated than to equal
# A placeholder is in more than max(10, 0.1%) samples, with at least five different texts.
PLACEHOLDER_SAMPLES = 10
PLACEHOLDER_SHARE = 0.001
PLACEHOLDER_TEXTS = 5
# Mean likeness of the media of one text, below which they have nothing in common: between that of media drawn at random
# and that of media of one class or category (benchmarks/checks.py). The upper end of a 95% interval must lie below it.
UNRELATED_MEDIA, MEDIA_Z = 0.005, 1.645
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


@flag("Likely copy", "Cropped, mirrored, bordered or gray copy of another sample's image", score="duplicate")
def likely_copy(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """An altered copy of another image, by features and pixels (`neighbors.altered_copies`)."""
    return np.asarray(evidence.altered_copies.source >= 0)


@flag("Leak", "Its image, audio or video is in a split that models are trained on as well", score="duplicate")
def leak(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """A copy is in a split that comes before the sample's own: train, val or dev, test (`leaks.kind_of`)."""
    return np.asarray(evidence.leaks.source >= 0)


@flag("Conflict", "Duplicate of another sample's image, audio or video, with a contradicting caption")
def conflict(columns: Mapping[str, Floats], evidence: Evidence, rate: float) -> Bools:
    """Of rows with one content and contradicting captions, those that fit worse; placeholders are not a conflict."""
    worst_good = tail_cut(of_known(columns["misalignment"], evidence.known), rate)
    return flag_conflicts(evidence, columns["misalignment"], placeholder(columns, evidence, rate), worst_good)


@flag("Placeholder", "One image, audio or video that appears in many rows with unrelated texts")
def placeholder(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """One content in more than max(10, 0.1%) samples, whose texts are as unrelated as texts drawn at random."""
    texts = evidence.text_modalities
    media = [name for name in evidence.contents if name not in texts]
    return _repeated(evidence, media, texts, _are_unrelated)


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


@flag("Boilerplate", "One text in many rows with images, audio or videos that have nothing in common")
def boilerplate(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """One text in more than max(10, 0.1%) samples, whose media are surely as unrelated as media drawn at random."""
    from .linear import are_classes  # which loads torch

    texts = [name for name in evidence.text_modalities if not are_classes(evidence.contents[name])]
    media = [name for name in evidence.contents if name not in evidence.text_modalities]
    return _repeated(evidence, texts, media, _have_nothing_in_common)  # a class may be anything


def _repeated(
    evidence: Evidence, names: Sequence[str], beside: Sequence[str], judge: Callable[[Floats, Ints], bool]
) -> Bools:
    """bool `[n]`: contents of some modalities in more than max(10, 0.1%) samples, by what stands beside them.

    Flagged where `judge` (projections `[g, d]` and content ids `[g]` of the rows of a content) holds for all modalities
    `beside` them, of which there must be one.
    """
    flagged = np.zeros(len(evidence), dtype=bool)
    owners = evidence.user_groups
    limit = max(PLACEHOLDER_SAMPLES, PLACEHOLDER_SHARE * len(np.unique(owners)))
    for name in names if beside else ():
        content = evidence.contents[name]
        frequent = count_user_groups(content, owners) > limit
        for number in np.unique(content[frequent]):
            rows = np.flatnonzero(content == number)
            flagged[rows] |= all(
                judge(evidence.projections[other][rows], evidence.contents[other][rows]) for other in beside
            )
    return flagged


@flag("Text problem", "The text is damaged, or holds markup, an address, a file name, advertising, or is not a caption")
def text_problem(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """A check of any of the row's texts found something (`text_checks`)."""
    return _any_text(evidence, "problems")


@flag("Image problem", "The image is blurred, dark, bright, nearly empty, or of an odd size or shape, or has a border")
def image_problem(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """A check of the image's pixels found something (`image_checks`)."""
    return np.asarray(evidence.image_problems.problems != "", dtype=bool)


@flag("Box problem", "The box reaches beyond the image, is tiny, a second one of an object, or odd for its class")
def box_problem(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """A check of the box of an object found something (`box_checks`)."""
    return evidence.box_problems.has_any


@flag("Personal data", "The text holds an e-mail address, phone number, payment card or bank account")
def personal(_columns: Mapping[str, Floats], evidence: Evidence, _rate: float) -> Bools:
    """Any of the row's texts holds personal data (`text_checks`)."""
    return _any_text(evidence, "personal")


def _any_text(evidence: Evidence, what: str) -> Bools:
    flagged = np.zeros(len(evidence), dtype=bool)
    for found in evidence.text_problems.values():
        flagged |= getattr(found, what) != ""
    return flagged


def exceeds(values: Floats | float, cut: Floats | float) -> Bools:
    """bool `[n]`; NaN never exceeds."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values > cut)


def flag_misaligned(false_positive_rate: Floats, rate: float) -> Bools:
    """Scores that at most a share `rate` of good pairs reaches (`calibration.calibrate`)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(false_positive_rate <= rate)


def why_removed(evidence: Evidence, ids: Sequence[str]) -> NDArray[Any]:
    """Object `[n]`: why a sample repeats what another one of `ids` `[n]` holds exactly, and may go; "" for none.

    Of those with one image, audio or video in several splits, those in the split that is trained on stay. Of samples
    that are equal in all modalities one stays, with all of its rows: first one that is no such leak, then one that is
    known (an extension only reads these again), in a split whose kind is told, in any other, in none, and then the
    first. Where a kind is not told, one of each split stays.
    """
    n, source = len(evidence), evidence.exact_leaks.source
    kinds = np.array([kind_of(split) for split in evidence.splits or [""] * n], dtype=object)
    is_told = np.isin(kinds, KINDS)
    is_new = np.zeros(n, dtype=bool) if evidence.known is None else ~evidence.known
    order = np.lexsort((np.arange(n), kinds == "", ~is_told, is_new, source >= 0))
    copied = np.stack([copied_from(evidence, order), copied_from(evidence, order, dense_ids(kinds.tolist()))], axis=1)
    why = np.full(n, "", dtype=object)
    for row, others in enumerate(copied.tolist()):
        pairs = [[row, other] for other in others if other >= 0]
        if any(is_told[p].all() or len({*kinds[p]}) == 1 or (kinds[p] == "").any() for p in pairs):
            why[row] = "exact duplicate of another sample"
    for row in np.flatnonzero(source >= 0).tolist():
        why[row] = leak_text(evidence, ids, row, source)
    return why


def copied_from(evidence: Evidence, order: Ints, parts: Ints | None = None) -> Ints:
    """int64 `[n]`: a row of another sample with the same contents of all modalities; -1 for none.

    Of samples with equal contents, that of the row which comes first in `order` (a permutation of the n rows) is copied
    by the others; where `parts` `[n]` are given, within each part.
    """
    if not len(evidence):
        return np.zeros(0, dtype=np.int64)
    within = [] if parts is None else [parts]
    contents, owners = dense_ids(*evidence.contents.values(), *within), evidence.user_groups
    first = order[np.unique(contents[order], return_index=True)[1]][contents]
    return np.where(owners == owners[first], -1, first)


def _are_unrelated(vectors: Floats, content: Ints) -> bool:
    """Whether g texts are several, and nearer to unrelated (mean likeness 0) than to equal (1).

    Equal texts count as often as they occur: ten labels with one image are unrelated, one product's text and a few
    variants of it are not.
    """
    if len(np.unique(content)) < PLACEHOLDER_TEXTS:
        return False
    return mean_likeness(vectors) < UNRELATED_LIKENESS


def _have_nothing_in_common(vectors: Floats, content: Ints) -> bool:
    """Whether at least `PLACEHOLDER_TEXTS` different media surely have a mean likeness below `UNRELATED_MEDIA`.

    Few media of one category may have less by chance: 9% of draws of 11 photographs of one kind of clothing.
    """
    _, first = np.unique(content, return_index=True)
    return len(first) >= PLACEHOLDER_TEXTS and likeness_bound(vectors[first]) < UNRELATED_MEDIA


def mean_likeness(vectors: Floats) -> float:
    """Mean of <v_i, v_j> over i != j of g unit rows, from |sum_i v_i|^2 = g + sum_{i != j} <v_i, v_j>."""
    total, g = vectors.sum(0, dtype=np.float64), len(vectors)
    return float((total @ total - g) / (g * (g - 1)))


def likeness_bound(vectors: Floats) -> float:
    """Upper end of the one-sided 95% interval of the mean likeness of g unit rows: mean + z s / sqrt(g (g - 1) / 2).

    s² is the mean of <v_i, v_j>² over i != j, the variance of the likeness of unrelated rows, whose pairs are
    uncorrelated. O(g d min(g, d)).
    """
    g, d = vectors.shape
    products = vectors @ vectors.T if g <= d else vectors.T @ vectors  # of equal Frobenius norm
    square_sum = float(np.square(products, dtype=np.float64).sum()) - g
    return mean_likeness(vectors) + MEDIA_Z * float(np.sqrt(2 * max(square_sum, 0.0))) / (g * (g - 1))


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
    flags: Mapping[str, Bools],
    suggestions: Any,
    cleaned: Bools,
    removals: NDArray[Any],
    scores: Mapping[str, Floats],
    found: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Proposed action and reasons per sample; object arrays `[n]`.

    The action is that of the first rule below that holds; the reasons are those of all that hold, in their order.

    Args:
        flags: kind -> bool `[n]`.
        suggestions: `[n]` texts, "" where there is none above the margin.
        cleaned: bool `[n]`, the suggestion is the row's own text, cleaned, and not another one.
        removals: object `[n]`, see `why_removed`.
        scores: score columns, quoted in the reasons.
        found: `PROBLEMS` -> what was found `[n]`, quoted as well.
    """
    n = len(removals)
    has_suggestion = np.array([bool(suggestion) for suggestion in suggestions], dtype=bool)
    quoted = {
        name: np.array([text or name.replace("_", " ") for text in texts], object) for name, texts in found.items()
    }
    does_not_fit = _quote("media do not fit (misalignment {:.1f})", scores["misalignment"])
    has_other, is_cleaned = has_suggestion & ~cleaned, has_suggestion & cleaned & flags["text_problem"]
    is_doubted = flags["memorized"] & has_other & ~flags["misaligned"]
    rules = (  # strongest first
        (flags["placeholder"], "remove", "placeholder: one medium in many rows with unrelated texts"),
        (removals != "", "remove", removals),
        (flags["misaligned"] & has_other, "relabel", "media do not fit, and another text fits clearly better"),
        (flags["misaligned"] & ~has_other, "review", does_not_fit),
        (is_cleaned, "relabel", quoted["text_problem"]),
        ((flags["text_problem"] | flags["personal"]) & ~is_cleaned, "review", quoted["text_problem"]),
        (flags["leak"] & (removals == ""), "review", quoted["leak_of"]),
        (flags["box_problem"], "review", quoted["box_problem"]),
        (flags["image_problem"], "review", quoted["image_problem"]),
        (flags["likely_copy"], "review", quoted["copy_of"]),
        (flags["outlier"], "review", _quote("unlike the rest of the set (outlier {:.1f})", scores["outlier"])),
        (flags["conflict"], "review", "same medium as another sample, contradicting caption"),
        (flags["boilerplate"], "review", "one text in many rows with media that have nothing in common"),
        (is_doubted, "review", "another text may fit better"),
        (flags["vague"], "keep", "caption fits almost everything"),
    )
    action = np.full(n, "keep", dtype=object)
    reasons: list[list[str]] = [[] for _ in range(n)]
    for holds, rule_action, rule_reason in rules:
        of_rows = np.broadcast_to(np.asarray(rule_reason, dtype=object), n)
        for row in np.flatnonzero(holds):
            if not reasons[row]:
                action[row] = rule_action
            reasons[row].append(of_rows[row])
    for row in np.flatnonzero(flags["personal"]):
        if not any("personal data" in reason for reason in reasons[row]):
            reasons[row].append("the text holds personal data")
    alone = "fits, but is memorized: rare, so keep it and collect more like it, or regroup it"
    for row in np.flatnonzero(flags["memorized"]):
        reasons[row].append("a model memorizes it" if reasons[row] else alone)
    return action, np.array(["; ".join(of_row) for of_row in reasons], dtype=object)


def _quote(sentence: str, values: Floats) -> Any:
    return np.array([sentence.format(value) for value in values], dtype=object)
