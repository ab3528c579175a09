"""What is known of the flags of misaligned pairs as they are now: one source for all who show it.

Of what the model estimates only lower bounds are reported: wrong pairs unlike any probe pair are not in its estimates,
and upper bounds did not hold (docs/detection.md). Where encoders share a space that they were trained for, the lower
ones did not hold either, and nothing is reported. A person's labels are worth more than the model. A spot check counts
the wrong pairs of the set whatever is flagged; its precision is that of the flags that it was drawn from, so that it
says nothing of others. A calibration says something of the flags of its own threshold, and nothing of the whole set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from audit_plugin.arrays import Bools, Floats, count_text
from audit_plugin.scoring.calibration import CONFIDENCE
from audit_plugin.scoring.wrong_pairs import (
    LEAST_SHARE,
    Interval,
    least_pairs_text,
    least_share_text,
    own_precision,
    precision_of_flags,
    reported_of,
    share_text,
)

from .spot_check import SpotEstimate
from .threshold_search import CONFIDENCE as CALIBRATED

UNKNOWN, TOO_FEW = "not known", "too few labels to tell"


@dataclass(frozen=True)
class Calibration:
    """A threshold that a person's labels were found to keep a precision at (`threshold_search`).

    Attributes:
        precision: share of the flagged rows that are wrong, at least, with the probability `CONFIDENCE`.
        threshold: of the misalignment; rows: at or above it, of which the labels were drawn.
        labeled: labels of rows at or above the threshold; wrong: those of them that are wrong.
    """

    precision: float
    threshold: float
    rows: int
    labeled: int
    wrong: int

    @property
    def share(self) -> Interval:
        """The share of the labels that are wrong, but no less than the bound that is guaranteed; no upper bound."""
        value = self.wrong / self.labeled if self.labeled else float("nan")
        return Interval(max(value, self.precision), self.precision, 1.0)


@dataclass(frozen=True)
class FlagQuality:
    """Quality of the flags, and the number of wrong pairs.

    Attributes:
        flagged: rows that are flagged now.
        precision: share of them that are wrong pairs; None where nothing is known of these flags.
        wrong: number of wrong pairs in the set; None where nothing is known.
        judged: number of pairs of which `wrong` is: not of rows that were not scored or came later; of lists of texts
            the model judges each text, and a spot check the worst one. None in audits of former versions.
        is_checked: whether a person's labels of a spot check say so, or the model.
        confidence: of the intervals.
        labels: of a calibration of these flags, which `precision` is of; 0 where there was none.
    """

    flagged: int
    precision: Interval | None
    wrong: Interval | None
    judged: int | None
    is_checked: bool
    confidence: float
    labels: int = 0

    @property
    def source(self) -> str:
        """`spot check, 90% intervals`; of flags that were calibrated, how sure the lower bound is."""
        source = f"spot check, {self.confidence:.0%} intervals" if self.is_checked else "model-based, not checked"
        if not self.labels:
            return source
        about = f"calibrated with {count_text(self.labels, 'label')}: the lower bound holds with {CALIBRATED:.0%}"
        return f"{about}; the whole set: {source}" if self.wrong is not None else about

    @property
    def precision_text(self) -> str:
        """`93% (80% to 97%)` by labels, `at least 80%` by the model, or that it is not known."""
        if self.precision is None:
            return UNKNOWN
        if self.is_model_based:
            return least_share_text(self.precision, UNKNOWN)
        return share_text(self.precision, TOO_FEW if self.is_checked else UNKNOWN)

    @property
    def wrong_text(self) -> str:
        """`about 93 of 1,000 (71 to 116)`, by the model `at least 71 of 1,000`, or that it is not known."""
        if self.wrong is None or self.wrong.high != self.wrong.high:  # NaN
            return UNKNOWN
        if not self.is_checked:
            return least_pairs_text(self.wrong.low, self.of_judged)
        bounds = f"{self.wrong.low:,.0f} to {self.wrong.high:,.0f}"
        if self.wrong.value != self.wrong.value:
            return f"{bounds}{self.of_judged}"
        return f"about {self.wrong.value:,.0f}{self.of_judged} ({bounds})"

    @property
    def of_judged(self) -> str:
        """` of 1,000`; "" where that is not known."""
        return "" if self.judged is None else f" of {self.judged:,}"

    @property
    def is_model_based(self) -> bool:
        """Whether the precision is the model's, and no label has a part in it."""
        return not self.is_checked and not self.labels

    @property
    def correct_text(self) -> str:
        """`about 3 of them are`, by the model `at most 3 of them are`: probably correct; "" where that is not known."""
        precision = self.precision
        if precision is None or (self.is_model_based and precision.low < LEAST_SHARE):
            return ""
        if not self.is_model_based and (not precision.tells or precision.value != precision.value):
            return ""
        if self.is_model_based:
            most = math.ceil((1 - precision.low) * self.flagged - 1e-9)  # .2 of 5 are 1.0000000000000004
            return f"at most {count_text(most, 'of them is', 'of them are')}"
        return f"about {count_text(round((1 - precision.value) * self.flagged), 'of them is', 'of them are')}"


def quality_of_flags(
    summary: Mapping[str, Any],
    scores: Floats,
    flagged: Bools,
    spot: SpotEstimate | None = None,
    is_own: bool = True,
    calibration: Calibration | None = None,
) -> FlagQuality:
    """What the spot check, or else the model of the audit, says of the rows that are flagged now.

    Args:
        summary: of the audit.
        scores: misalignment `[n]`, NaN where not scored.
        flagged: bool `[n]`, those from a threshold on.
        spot: of a spot check that was begun, or None.
        is_own: whether the audit flagged them, or a threshold that a person set or thinks of.
        calibration: of the threshold of these flags, or None. A spot check of them says more: an interval.
    """
    count = int(flagged.sum())
    if spot is not None:
        found = quality_of_spot_check(spot)
        if count == spot.flagged:
            return found
        found = replace(found, flagged=count, precision=None)
    else:
        found = quality_of_summary(summary)
        estimated = reported_of(summary)
        precision = found.precision if is_own else precision_of_flags(estimated, scores, flagged)
        found = replace(found, flagged=count, precision=precision)
    if calibration is None or count != calibration.rows:  # rows came or went since the labels were drawn
        return found
    return replace(found, precision=calibration.share, labels=calibration.labeled)


def quality_of_summary(summary: Mapping[str, Any]) -> FlagQuality:
    """What the model of an audit says of the flags that the audit made."""
    estimated, count = reported_of(summary), int((summary.get("flags") or {}).get("misaligned", 0))
    wrong = Interval(estimated["pairs"], *estimated["pairs_interval"]) if "pairs" in estimated else None
    return FlagQuality(count, own_precision(estimated), wrong, estimated.get("judged"), False, CONFIDENCE)


def quality_of_spot_check(spot: SpotEstimate) -> FlagQuality:
    """What a spot check says of the flags that it was drawn from."""
    return FlagQuality(spot.flagged, spot.precision, spot.wrong, spot.judged, True, spot.confidence)
