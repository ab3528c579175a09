"""Conditions on the result of an audit under which a build fails, and how they are judged.

A number that is estimated is judged by the lower end of its central 90% interval, so that chance alone fails no build:

- misaligned: the number of wrong pairs of the calibration's mixture (`scoring.calibration`), of the rows scored. Of
  rows that were scored with the models of another run there is no such estimate: as for the next ones.
- other flags that are raised in the tail of a score (memorized, outlier, vague): of n rows without a fault up to
  F ~ binomial(n, false-positive rate) are flagged by chance, so flagged - F have one, and at least
  max(0, flagged - (95% quantile of F)).

Everything else (duplicate, conflict, placeholder, leak, failed) is measured, and judged by the number itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.inputs.rows import brief
from audit_plugin.scoring.calibration import CONFIDENCE
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.wrong_pairs import reported_of

LEAK, FAILED, MISALIGNED = "leak", "failed", "misaligned"
KINDS = (*FLAGS, FAILED)
CONDITION = re.compile(r"\s*([a-z_]+)\s*(>=|>)\s*(\d{1,12}(?:\.\d{1,6})?)\s*(%?)\s*", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """`kind > limit`, or `kind >= limit`: what fails a build.

    Attributes:
        kind: one of `KINDS`.
        limit: a number of rows, or a percentage of them.
        is_percentage: which of the two.
        or_equal: the limit itself fails too.
    """

    kind: str
    limit: float
    is_percentage: bool
    or_equal: bool

    def __str__(self) -> str:
        return f"{self.kind} {'>=' if self.or_equal else '>'} {self.limit:.12g}{'%' if self.is_percentage else ''}"


@dataclass(frozen=True)
class Judgment:
    """How one condition was judged.

    Attributes:
        condition: what was asked.
        rows: number of rows that percentages are of.
        number: of rows that are of the kind, measured or estimated; NaN where it is unknown.
        interval: central 90% of an estimated number; None of one that is measured or unknown.
        problem: why the number is unknown; "" where it is known.
    """

    condition: Condition
    rows: int
    number: float
    interval: tuple[float, float] | None = None
    problem: str = ""

    @property
    def judged(self) -> float:
        """The number that is compared with the limit: the lower end of the interval, where there is one."""
        return self.number if self.interval is None else self.interval[0]

    @property
    def fails(self) -> bool:
        """Whether the condition holds, or cannot be judged: what is not known passes no gate."""
        condition, value = self.condition, self.judged
        if self.problem:
            return True
        if condition.is_percentage:
            value = 100 * value / max(self.rows, 1)
        # 2% of 150 rows are 3 rows, which floating-point numbers must not make 3.0000000000000004
        is_equal = bool(np.isclose(value, condition.limit, rtol=1e-9, atol=0))
        return condition.or_equal if is_equal else value > condition.limit

    def sentence(self) -> str:
        """The number, its interval, and by what it was judged; or why it could not be."""
        if self.problem:
            return self.problem
        counted = f"{self._in_words(self.number)} of {count_text(self.rows, 'row')}"
        if self.interval is None:
            return f"{counted}, measured"
        low, high = map(self._in_words, self.interval)
        if self.condition.kind == MISALIGNED:  # whose upper end is not reported
            return f"at least {low} of {count_text(self.rows, 'row')}, estimated"
        return f"about {counted}, estimated ({CONFIDENCE:.0%} interval {low} to {high}); judged by the lower end"

    def _in_words(self, number: float) -> str:
        return f"{number:,.0f} ({number / max(self.rows, 1):.2%})"


def parse_conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions of `--fail-if`, each once: every text holds one or more, separated by commas.

    Raises:
        AuditError: a text that is no condition, or an unknown kind.
    """
    conditions = dict.fromkeys(_parse(part) for text in texts for part in text.split(","))
    return tuple(conditions)


def _parse(text: str) -> Condition:
    found = CONDITION.fullmatch(text)
    if not found:
        raise AuditError(
            f"--fail-if {brief(text)} is not a condition; write a kind, > or >=, and a number of rows or a percentage, "
            "such as: misaligned > 2%"
        )
    kind, comparison, number, percent = found.groups()
    if kind not in KINDS:
        raise AuditError(f"--fail-if names {kind!r}, which an audit does not count; use one of {', '.join(KINDS)}")
    if percent and float(number) > 100:
        raise AuditError(f"--fail-if {brief(text)} can never hold; give a percentage of at most 100")
    return Condition(kind, float(number), bool(percent), comparison == ">=")


def judge(
    conditions: Sequence[Condition], columns: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[Judgment, ...]:
    """Judges the conditions by a result.

    Args:
        conditions: see `parse_conditions`.
        columns: of the result, each `[n]`: flags, scores, `leak`, `failure`; one without any value may be missing.
        summary: of the result, for the estimates and the false-positive rate.
    """
    return tuple(_judge(condition, columns, summary) for condition in conditions)


def _judge(condition: Condition, columns: Mapping[str, Any], summary: Mapping[str, Any]) -> Judgment:
    n = len(next(iter(columns.values()), ()))
    kind, flagged = condition.kind, _count(columns, condition.kind)
    if kind == LEAK and LEAK not in columns and not (summary.get("config") or {}).get("split"):
        return Judgment(condition, n, np.nan, problem="no column of data splits was named for the audit; use --split")
    if kind == MISALIGNED:
        scored = np.isfinite(np.asarray(columns.get("misalignment", np.full(n, np.nan)), dtype=np.float64))
        n = int(scored.sum())
        if not n:
            return Judgment(condition, n, np.nan, problem="no row has a misalignment; the column 'failure' says why")
        # rows that extend another run were no part of its estimate
        if "extends" not in summary:
            return _judge_wrong_pairs(condition, n, summary)
    if kind in FLAGS and FLAGS[kind].tail:
        return _judge_tail(condition, n, flagged, summary)
    return Judgment(condition, n, flagged)


def _count(columns: Mapping[str, Any], kind: str) -> int:
    """Rows of a kind; of leaks, those on either side."""
    if kind in FLAGS and kind != LEAK:
        return int(np.asarray(columns.get(f"is_{kind}", ()), dtype=bool).sum())
    return sum(bool(text) for text in columns.get("failure" if kind == FAILED else LEAK, ()))


def _judge_wrong_pairs(condition: Condition, n: int, summary: Mapping[str, Any]) -> Judgment:
    """By the lower end of the calibration's estimate."""
    if estimate := reported_of(summary):
        low, high = map(float, estimate["pairs_interval"])
        return Judgment(condition, n, float(estimate["pairs"]), (low, high))
    problem = (
        "the summary has no estimate of wrong pairs, which takes 20 scored rows, trials, and encoders that do not "
        "share a space (--encoder offline); another kind of finding can be judged"
    )
    return Judgment(condition, n, np.nan, problem=problem)


def _judge_tail(condition: Condition, n: int, flagged: int, summary: Mapping[str, Any]) -> Judgment:
    """By what is flagged beyond the false positives that chance may bring."""
    from scipy.stats import binom

    rate = summary.get("false_positive_rate")
    if not isinstance(rate, float) or not 0 < rate < 1:
        return Judgment(condition, n, np.nan, problem="the summary does not name the false-positive rate of the flags")
    by_chance = binom.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], n, rate)
    high, low = np.maximum(flagged - by_chance, 0)
    return Judgment(condition, n, max(flagged - n * rate, 0), (float(low), float(high)))
