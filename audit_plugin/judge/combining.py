"""Which pairs a judge is asked about, and what its answers make of our probabilities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints

CONTROL_SHARE = 0.25  # of the pairs that are asked about
# Beta priors of the judge's rates, worth five answers each: of a judge that is right about 8 of 10.
FALSE_ALARM_PRIOR, SENSITIVITY_PRIOR = (1.0, 4.0), (4.0, 1.0)
STEPS = 100
LEAST_CONTROL = 5  # answered control pairs, below which the prior would say how often the judge errs
SIGNIFICANT = 0.05  # of the test that the judge's answers have to do with our probabilities
CERTAIN = 1e-4  # no pair is surer than this before it is judged


class JudgeRates(NamedTuple):
    """How often a judge calls a pair wrong, as estimated by `combine`: of right pairs, and of wrong ones."""

    false_alarms: float
    sensitivity: float


def choose_pairs(
    misalignment: Floats, names: Sequence[tuple[str, int]], eligible: Bools, budget: int
) -> tuple[Ints, Ints]:
    """(most suspicious rows, highest misalignment first; random rows of the others), `budget` in all.

    Neither depends on the order of the rows, and a larger budget asks about nearly all pairs of a smaller one again.

    Args:
        misalignment: `[n]`.
        names: `[n]`, id and caption of each row.
        eligible: bool `[n]`, rows that may be sent.
        budget: number of pairs at most, at least 1.
    """
    rows = np.flatnonzero(eligible & np.isfinite(misalignment)).tolist()
    budget = max(1, min(budget, len(rows)))
    control = min(round(CONTROL_SHARE * budget), budget - 1)
    ranked = sorted(rows, key=lambda row: (-float(misalignment[row]), names[row]))
    suspicious, others = ranked[: budget - control], ranked[budget - control :]
    drawn = sorted(others, key=lambda row: hashlib.sha256(repr(names[row]).encode("utf-8", "replace")).digest())
    return np.array(suspicious, dtype=np.int64), np.array(drawn[:control], dtype=np.int64)


def combine(probability: Floats, says_wrong: Bools, is_control: Bools) -> tuple[Floats, JudgeRates | None]:
    """(probability of being wrong after the answers `[q]`, the judge's rates), by Bayes' rule; see `update`.

    It assumes that p is calibrated, and that of right pairs, and of wrong ones, the judge's answer does not depend on
    our score: pairs that both find hard make it too sure. The judge's confidence in itself is not used.

    Nothing changes, and there are no rates, where the judge may toss coins: with fewer than `LEAST_CONTROL` control
    pairs, or where the pairs that it calls wrong have no significantly higher p than the others (Mann-Whitney, one
    side): a judge that knows anything must agree with calibrated probabilities more often than by chance.

    Args:
        probability: `[q]` of the pairs with an answer, NaN where unknown, which it stays.
        says_wrong: bool `[q]`.
        is_control: bool `[q]`, pairs that were drawn at random.
    """
    from scipy.stats import mannwhitneyu

    known = np.isfinite(probability)
    before = np.clip(np.asarray(probability, dtype=np.float64), CERTAIN, 1 - CERTAIN)
    called_wrong, called_right = before[known & says_wrong], before[known & ~says_wrong]
    out = np.array(probability, dtype=np.float32)
    if (known & is_control).sum() < LEAST_CONTROL or not len(called_wrong) or not len(called_right):
        return out, None
    if mannwhitneyu(called_wrong, called_right, alternative="greater").pvalue > SIGNIFICANT:
        return out, None
    after, rates = update(before[known], says_wrong[known], is_control[known])
    out[known] = after
    return out, rates


def update(before: Floats, says_wrong: Bools, is_control: Bools) -> tuple[Floats, JudgeRates]:
    """(probabilities after the answers `[q]`, the judge's rates).

    With p a pair's probability before, a the judge's false-alarm rate and s its sensitivity:

        p' = p s / (p s + (1 - p) a)                                if it says that the pair is wrong
        p' = p (1 - s) / (p (1 - s) + (1 - p) (1 - a))              if it says that the pair fits

    Nobody tells which pairs are wrong, so the rates are those that agree with the p': a is the mean of a Beta
    distribution, of the prior's counts and of those of the random control pairs, each counted as right with weight
    1 - p'; s is the same of all pairs, counted as wrong with weight p' (nearly no control pair is wrong). They are
    iterated from the prior on (EM).

    Args:
        before: p, `[q]`, between 0 and 1.
        says_wrong: bool `[q]`.
        is_control: bool `[q]`.
    """
    everywhere = np.ones(len(before), dtype=bool)
    after, alarms, hits = before, np.array(FALSE_ALARM_PRIOR), np.array(SENSITIVITY_PRIOR)
    for _ in range(STEPS):
        a, s = alarms[0] / alarms.sum(), hits[0] / hits.sum()
        if_wrong, if_right = np.where(says_wrong, s, 1 - s), np.where(says_wrong, a, 1 - a)
        after = before * if_wrong / (before * if_wrong + (1 - before) * if_right)
        alarms = FALSE_ALARM_PRIOR + _counts(1 - after, says_wrong, is_control)
        hits = SENSITIVITY_PRIOR + _counts(after, says_wrong, everywhere)
    return after, JudgeRates(float(alarms[0] / alarms.sum()), float(hits[0] / hits.sum()))


def _counts(weight: Floats, says_wrong: Bools, counted: Bools) -> Floats:
    """`[2]`: weights of the counted pairs that are called wrong, and of those that are called right."""
    return np.array([weight[counted & says_wrong].sum(), weight[counted & ~says_wrong].sum()])
