"""What is known of the flags of misaligned pairs as they are now: one source for all who show it.

A person's labels are worth more than the model. A spot check counts the wrong pairs of the set whatever is flagged; its
precision is that of the flags that it was drawn from, so that it says nothing of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from audit_plugin.arrays import Bools, Floats
from audit_plugin.scoring.calibration import CONFIDENCE
from audit_plugin.scoring.wrong_pairs import Interval, own_precision, precision_of_flags, share_text

from .spot_check import SpotEstimate

UNKNOWN, TOO_FEW = "not known", "too few labels to tell"


@dataclass(frozen=True)
class FlagQuality:
    """Quality of the flags, and the number of wrong pairs.

    Attributes:
        flagged: rows that are flagged now.
        precision: share of them that are wrong pairs; None where nothing is known of these flags.
        wrong: number of wrong pairs in the set; None where nothing is known.
        is_checked: whether a person's labels say so, or the model.
        confidence: of the intervals.
    """

    flagged: int
    precision: Interval | None
    wrong: Interval | None
    is_checked: bool
    confidence: float

    @property
    def source(self) -> str:
        """`spot check, 90% intervals`."""
        return f"{'spot check' if self.is_checked else 'model-based'}, {self.confidence:.0%} intervals"

    @property
    def precision_text(self) -> str:
        """`93% (80% to 97%)`, or that it is not known."""
        if self.precision is None:
            return UNKNOWN
        return share_text(self.precision, TOO_FEW if self.is_checked else UNKNOWN)

    @property
    def wrong_text(self) -> str:
        """`about 93 (71 to 116)`, or that it is not known."""
        if self.wrong is None or self.wrong.high != self.wrong.high:  # NaN
            return UNKNOWN
        bounds = f"{self.wrong.low:,.0f} to {self.wrong.high:,.0f}"
        return f"about {self.wrong.value:,.0f} ({bounds})" if self.wrong.value == self.wrong.value else bounds

    @property
    def correct(self) -> int | None:
        """How many of the flagged rows are expected to be correct; None where that is not known."""
        if self.precision is None or not self.precision.tells or self.precision.value != self.precision.value:
            return None
        return round((1 - self.precision.value) * self.flagged)


def quality_of_flags(
    summary: Mapping[str, Any], scores: Floats, flagged: Bools, spot: SpotEstimate | None = None, is_own: bool = True
) -> FlagQuality:
    """What the spot check, or else the model of the audit, says of the rows that are flagged now.

    Args:
        summary: of the audit.
        scores: misalignment `[n]`, NaN where not scored.
        flagged: bool `[n]`, those from a threshold on.
        spot: of a spot check that was begun, or None.
        is_own: whether the audit flagged them, or a threshold that a person set or thinks of.
    """
    count = int(flagged.sum())
    if spot is not None:
        found = quality_of_spot_check(spot)
        return found if count == spot.flagged else replace(found, flagged=count, precision=None)
    found = quality_of_summary(summary)
    if is_own:
        return replace(found, flagged=count)
    return replace(found, flagged=count, precision=precision_of_flags(summary.get("estimated") or {}, scores, flagged))


def quality_of_summary(summary: Mapping[str, Any]) -> FlagQuality:
    """What the model of an audit says of the flags that the audit made."""
    estimated, count = summary.get("estimated") or {}, int((summary.get("flags") or {}).get("misaligned", 0))
    wrong = Interval(estimated["pairs"], *estimated["pairs_interval"]) if "pairs" in estimated else None
    return FlagQuality(count, own_precision(estimated), wrong, False, CONFIDENCE)


def quality_of_spot_check(spot: SpotEstimate) -> FlagQuality:
    """What a spot check says of the flags that it was drawn from."""
    return FlagQuality(spot.flagged, spot.precision, spot.wrong, True, spot.confidence)
