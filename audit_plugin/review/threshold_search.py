"""A threshold that keeps a precision: which row a person labels next, and what the labels so far guarantee.

Rows are ranked by score. A cut k stands for the k highest rows; with R_k right ones (that is, no errors) among them,
its precision is 1 - R_k / k. The cuts k_1 < k_2 < ... are geometric and depend on the scores only.

Test of one cut. Let p be the precision asked for. The hypothesis "precision below p" means R_k >= floor((1 - p) k) + 1.
Rows are drawn from the cut in uniformly random order without replacement. The cut passes once there were m_e draws with
at most e right rows among them, for any e = 0, 1, ... The numbers m_0 <= m_1 <= ... are the smallest ones for which the
probability that the hypothesis ever passes is at most `level`; it is computed exactly, with the smallest R_k that the
hypothesis allows, since more right rows only make passing rarer. As it bounds the whole path, one may stop at any time.

Chain. From a start cut on, the cuts are tested in their order, each at the same level, until one does not pass. Let k*
be the first cut of the chain with a precision below p: an error needs that k* passes, so its probability is at most
`level`, however many cuts the chain has. One random order of all rows serves all cuts, so that labels are reused.

Attempts. If not even the start passes, another chain starts at half the cut. What was labeled is known then: right rows
are counted exactly, and the others are drawn in a fresh random order. Its level is taken from what the earlier
attempts left of 1 - `CONFIDENCE`. Given all that was known before, each attempt errs with at most its level; the sum of
the levels is the bound.

Guarantee: the rows at or above the threshold have a precision of p or more with probability `CONFIDENCE` or more, over
the random orders, for any set of rows and any truth. The model's probability only chooses where the chain starts. It
holds for each precision asked for, not for all of several at once; and a row is wrong if the person would label it so.

Which labels count: a label answers when the draw reaches its row, and never changes what is drawn. So a decision that a
person made earlier on a row of their own choice saves a question, and keeps the guarantee; one on a row that is not
drawn is not used, because chosen rows are no random sample.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Floats, Ints, count_text

from .spot_check import VERDICTS

CONFIDENCE = 0.9
SIZE = 40  # labels after which a search ends if it has a threshold
PATIENCE = 3  # times as many labels, after which it ends without one
SHARE = 0.9  # of the level that is left, for one attempt
FEWEST_RIGHT = 5  # right rows among the draws with which a test fails, at least: see `spending`
RATIO = 1.04  # between cuts
START_RISK, START_ROWS = 0.2, 2.5  # the start: see `_start`


@dataclass(frozen=True)
class ThresholdSearch:
    """What the labels so far say.

    Attributes:
        next_row: the row to label next; None if the search is over.
        threshold: the lowest score that keeps the precision; inf if there is none so far.
        rows: number of rows at or above it.
        labeled: labels that were used; wrong: those of them that are wrong.
        used: the rows with these labels, in the order in which they were drawn.
        about: number of labels at which the search is expected to end.
        read: number of highest rows that hold 80% of the wrong ones according to the model's probability; no interval
            belongs to it, as no row below the cuts was drawn. None without probabilities.
    """

    next_row: int | None
    threshold: float
    rows: int
    labeled: int
    wrong: int
    about: int
    read: int | None
    used: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A row to label, by its rank; the largest cut that passed, and labels that are missing for the next one."""

    rank: int
    passed: int
    missing: int


def search_threshold(
    scores: Floats,
    labels: Mapping[int, str],
    precision: float = 0.9,
    probability: Floats | None = None,
    size: int = SIZE,
    seed: int = 0,
) -> ThresholdSearch:
    """The next row to label, and the threshold that the labels guarantee; see the module for the proof.

    The labels are the whole state: the same ones give the same next row.

    Args:
        scores: `[n]`, higher is more suspicious. Rows with NaN are left out.
        labels: row -> "wrong", "right", or "unsure", which counts as right; "" as not labeled. Those of rows that were
            not drawn are not used.
        precision: share of the rows at or above the threshold that are wrong, at least.
        probability: `[n]` of being wrong, by a model; chooses the start, and has no part in the guarantee.
        size: labels after which a search ends if it has a threshold; without one, after `PATIENCE` times as many.
        seed: of the random orders, which depend on the order of the rows: pass them in canonical order.

    Raises:
        AuditError: a precision outside (0, 1), a size below 1, or an unknown label.
    """
    _check(labels, precision, size)
    scored = np.flatnonzero(np.isfinite(scores))
    ranked = scored[np.argsort(-scores[scored], kind="stable")]
    believed = None if probability is None else np.nan_to_num(probability[ranked].astype(np.float64))
    cuts = _cuts(np.asarray(scores[ranked], dtype=np.float64))
    questions = _questions(cuts, _start(cuts, believed, precision), precision, seed)
    used: dict[int, str] = {}
    next_row, about = None, 0
    try:
        question = next(questions)
        while len(used) < (size if question.passed else PATIENCE * size):
            row = int(ranked[question.rank])
            label = labels.get(row, "")
            if not label:
                next_row = row
                about = size if question.passed else min(len(used) + question.missing, PATIENCE * size)
                break
            used[row] = label
            question = questions.send(label == "wrong")
        passed = question.passed
    except StopIteration as end:
        passed = end.value
    threshold = float(scores[ranked[passed - 1]]) if passed else float("inf")
    read = None if believed is None else _rows_to_read(believed)
    wrong = [*used.values()].count("wrong")
    return ThresholdSearch(next_row, threshold, passed, len(used), wrong, max(about, len(used)), read, tuple(used))


def percent_text(share: float) -> str:
    """A share as it was given: 99.5% is not 100%."""
    return f"{100 * share:.10g}%"


def progress_text(search: ThresholdSearch, precision: float) -> str:
    """`12 of about 30 labels; threshold 2.10 keeps 90% so far`."""
    about = f" of about {search.about}" if search.next_row is not None else ""
    if not search.rows:
        return f"{search.labeled}{about} labels; no threshold is known to keep {percent_text(precision)} yet"
    return f"{search.labeled}{about} labels; threshold {search.threshold:.2f} keeps {percent_text(precision)} so far"


def guarantee_text(search: ThresholdSearch, precision: float) -> str:
    """What holds of the rows at or above the threshold of a search that has one."""
    return (
        f"with a probability of at least {CONFIDENCE:.0%} over the random draw, at least {percent_text(precision)} of "
        f"the {count_text(search.rows, 'sample')} with a misalignment of {search.threshold:.2f} or more are wrong"
    )


def _check(labels: Mapping[int, str], precision: float, size: int) -> None:
    if not 0 < precision < 1:
        raise AuditError(f"precision {precision} is not between 0 and 1; give for example 0.9")
    if size < 1:
        raise AuditError(f"the search ends after {size} labels; allow at least 1")
    if unknown := set(labels.values()) - set(VERDICTS):
        raise AuditError(f"label {min(unknown)!r} is unknown; use wrong, right, unsure, or leave it empty")


def _cuts(scores: Floats) -> Ints:
    """Numbers of highest rows, geometric, ascending `[c]`; rows of the same score are never parted.

    Args:
        scores: `[n]`, descending.
    """
    n = len(scores)
    if not n:
        return np.zeros(0, dtype=np.int64)
    sizes = np.geomspace(1, n, int(np.log(n) / np.log(RATIO)) + 2).round().astype(np.int64)
    return np.unique(np.searchsorted(-scores, -scores[sizes - 1], side="right"))


def _start(cuts: Ints, believed: Floats | None, precision: float) -> int:
    """Index of the cut that is tested first.

    The largest one at which the model expects fewer than `START_RISK` of the right rows that the precision allows; at
    least so large that it may have `START_ROWS` right rows, because a smaller one has to be labeled nearly whole.
    """
    smallest = int(np.searchsorted(cuts, START_ROWS / (1 - precision)))
    likely = smallest
    if believed is not None and len(cuts):
        right = np.cumsum(1 - believed)[cuts - 1]
        likely = int(np.flatnonzero(right <= START_RISK * (1 - precision) * cuts).max(initial=0))
    return max(0, min(len(cuts) - 1, max(smallest, likely)))


def _questions(cuts: Ints, start: int, precision: float, seed: int) -> Generator[_Question, bool, int]:
    """Asks whether rows are wrong, by their ranks; returns the largest cut that passed, 0 if none did."""
    wrong: dict[int, bool] = {}
    shares, left, attempt = spending(precision), 1 - CONFIDENCE, 0
    while len(cuts):
        level = SHARE * left if start else left
        order = np.random.default_rng((seed, 29, attempt)).permutation(cuts[-1])
        order = order[~np.isin(order, list(wrong))]
        known_right = np.array([rank for rank, is_wrong in wrong.items() if not is_wrong], dtype=np.int64)
        passed = 0
        for cut in cuts[start:].tolist():
            drawable = order[order < cut]
            right_allowed = int(np.floor((1 - precision) * cut + 1e-9)) - int((known_right < cut).sum())
            needed = labels_needed(right_allowed + 1, len(drawable), level, shares)
            if not (yield from _test(drawable, needed, wrong, passed)):
                break
            passed = cut
        if passed or not start:
            return passed
        left, attempt = left - level, attempt + 1
        start = min(start - 1, int(np.searchsorted(cuts, cuts[start] / 2)))
    return 0


def _test(
    order: Ints, needed: tuple[int, ...], wrong: dict[int, bool], passed: int
) -> Generator[_Question, bool, bool]:
    """Draws from a cut until it passes, or no longer can; answers are added to `wrong`, rank -> bool."""
    drawn = right = 0
    while right < len(needed):
        if drawn >= needed[right]:  # at the latest when all rows are drawn
            return True
        rank = int(order[drawn])
        if rank not in wrong:
            wrong[rank] = yield _Question(rank, passed, needed[right] - drawn)
        drawn += 1
        right += not wrong[rank]
    return False


def spending(precision: float) -> tuple[float, ...]:
    """Share of a test's level that may be spent with up to e right rows, for e = 0, ..., E - 1; with E rows it fails.

        share_e = 1 - (1 - 2.5 / E)^(e + 1), the last one 1        E = 50 (1 - p), at least `FEWEST_RIGHT`

    E grows with the right rows that a good cut may have: at p = 0.5 every second label may be a right row.
    """
    ends = max(FEWEST_RIGHT, round(50 * (1 - precision)))
    return (*(1 - (1 - 2.5 / ends) ** np.arange(1, ends)).tolist(), 1.0)


@functools.lru_cache(maxsize=4096)
def labels_needed(right: int, size: int, level: float, shares: tuple[float, ...]) -> tuple[int, ...]:
    """m_0 <= m_1 <= ...: draws after which a cut passes with e right rows among them.

    Of `size` rows at least `right` are right under the hypothesis. The probability that m_e draws with e right rows
    occur for any e is at most `level`: m_e is the first number at which the probability spent for 0, ..., e is within
    the share `shares[e]` of it. Empty if the hypothesis is certain, (0,) if it is impossible.
    """
    if right <= 0:
        return ()
    if right > size:
        return (0,)
    needed: list[int] = []
    # probability of e right rows among the draws so far, on paths that have not passed
    state = np.zeros(len(shares))
    state[0], spent = 1.0, 0.0
    seen = np.arange(len(shares))
    for drawn in range(size + 1):
        while len(needed) < len(shares) and spent + state[len(needed)] <= level * shares[len(needed)]:
            spent += state[len(needed)]
            state[len(needed)] = 0.0
            needed.append(drawn)
        if len(needed) == len(shares) or drawn == size:
            break
        next_right = np.clip((right - seen) / (size - drawn), 0, 1)
        grown = state * next_right
        state = state * (1 - next_right)
        state[1:] += grown[:-1]
    return tuple(needed)


def _rows_to_read(believed: Floats, recall: float = 0.8) -> int:
    """Number of highest rows that hold a share `recall` of the expected wrong ones."""
    total = np.cumsum(believed)
    return int(np.searchsorted(total, recall * total[-1]) + 1) if len(total) and total[-1] > 0 else 0
