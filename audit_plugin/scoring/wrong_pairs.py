"""How many pairs of a set are wrong, and how many of those that are flagged: the one source of these numbers.

The calibration knows for each edge e of its bins the share g(e) of the set that is good and scores at least as high,
under each of its hypotheses. Where the share f of the scored rows is flagged, all from a cut on, the precision of the
flags is

    precision = 1 - g(cut) / f

which falls as g rises, so that its median and its interval over the hypotheses are those of g. A summary keeps these
of every edge (`good_above`), so that whoever moves the threshold later is told the same as the audit would have told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, percent

if TYPE_CHECKING:
    from .calibration import Calibration

LEAST_SHARE = 0.005  # of which a lower bound says something
NONE_DISTINGUISHED = "none that can be distinguished from chance"
TELLS_NOTHING = 0.8  # width of the interval of a share from which on it says next to nothing


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; NaN where nothing is known."""

    value: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether a share is known well enough to be shown."""
        return bool(self.high - self.low < TELLS_NOTHING)  # False for NaN


def summarize_wrong_pairs(
    calibration: Calibration, scores: Floats, flagged: Bools, share_space: bool = False
) -> dict[str, Any]:
    """What a summary keeps of a calibration, JSON-ready; {} without a fit. All of it is model-based.

    `pairs`: number of wrong pairs among the `judged` ones, and its `pairs_interval`; `shares`: of the scored rows that
    are wrong like each kind of probe; `precision` of the flags, None without flags, and `precision_interval`;
    `good_above`: `edges` and, for each, the `share` of the scored rows that is good and scores as high, with its bounds
    `low` and `high`; `in_one_space`, where nothing of it held. Intervals are central 90% ones.

    Args:
        calibration: of the scores.
        scores: `[n]`, NaN where not scored.
        flagged: bool `[n]`, those from a cut on.
        share_space: whether encoders of a pair were trained for one space.
    """
    hypotheses = calibration.hypotheses
    if hypotheses is None:
        return {}
    n = int(np.isfinite(scores).sum())
    bounds = np.array([hypotheses.interval(column) for column in hypotheses.good_above.T])
    edges = {"edges": hypotheses.edges, "share": hypotheses.quantile(hypotheses.good_above, 0.5)}
    edges |= {"low": bounds[:, 0], "high": bounds[:, 1]}
    estimated = {
        "judged": n,
        "in_one_space": share_space,
        "pairs": round(n * calibration.share),
        "pairs_interval": [math.floor(n * calibration.interval[0]), math.ceil(n * calibration.interval[1])],
        "shares": {kind: round(share, 4) for kind, share in calibration.shares.items()},
        "good_above": {name: [_rounded(name, float(value), 6) for value in values] for name, values in edges.items()},
    }
    return estimated | precision_entries(precision_of_flags(estimated, scores, flagged))


def precision_entries(known: Interval | None) -> dict[str, Any]:
    """`precision` and `precision_interval` of a summary."""
    if known is None:
        return {"precision": None, "precision_interval": [None, None]}
    bounds = [_rounded("low", known.low, 4), _rounded("high", known.high, 4)]
    return {"precision": round(known.value, 4), "precision_interval": bounds}


def _rounded(name: str, value: float, digits: int) -> float:
    """A value with so many digits; the ends "low" and "high" of an interval are never rounded into it."""
    rounded = round(value, digits)
    if name == "low" and rounded > value:
        return round(rounded - 10**-digits, digits)
    if name == "high" and rounded < value:
        return round(rounded + 10**-digits, digits)
    return rounded


def precision_of_flags(estimated: Mapping[str, Any], scores: Floats, flagged: Bools) -> Interval | None:
    """Share of the flagged rows that are wrong, with its central 90%.

    None where nothing is flagged, or known: below the first edge the calibration does not model good pairs.

    Args:
        estimated: of a summary. Those of former versions know the precision of the audit's own flags alone: `{}` for
            other ones.
        scores: `[n]`, NaN where not scored.
        flagged: bool `[n]`, those from a cut on.
    """
    known, flagged = estimated.get("good_above"), flagged & np.isfinite(scores)
    if not flagged.any() or not known or (cut := scores[flagged].min()) < known["edges"][0]:
        return None
    flagged_share = flagged.sum() / np.isfinite(scores).sum()
    edge = int(np.searchsorted(known["edges"], cut, side="right")) - 1  # the one below: errs to less precision
    value, low, high = (
        float(np.clip(1 - known[name][edge] / flagged_share, 0, 1)) for name in ("share", "high", "low")
    )
    return Interval(value, low, high)


def own_precision(estimated: Mapping[str, Any]) -> Interval | None:
    """The precision of the audit's own flags; None where it is not known."""
    values = [estimated.get("precision"), *_pair(estimated.get("precision_interval"))]
    return Interval(*map(float, values)) if _are_numbers(values) else None


def share_text(share: Interval, unknown: str) -> str:
    """`93% (80% to 97%)`; `unknown` where nothing is known, or so little that a number would mislead."""
    if not share.tells:
        return unknown
    bounds = f"{percent(share.low)} to {percent(share.high)}"
    return f"{percent(share.value)} ({bounds})" if np.isfinite(share.value) else bounds


def reported_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The estimates of a summary that are reported; {} where it has none that can be read.

    Nor where encoders share a space, in which no bound held; audits of former versions do not say so, and of them those
    with the encoders `offline` are known not to.
    """
    estimated = summary.get("estimated")
    if not isinstance(estimated, Mapping):
        return {}
    is_separate = estimated.get("in_one_space", None if summary.get("encoder_name") != "offline" else False) is False
    numbers = [estimated.get("pairs"), *_pair(estimated.get("pairs_interval"))]
    return estimated if is_separate and _are_numbers(numbers) else {}


def least_share_text(share: Interval, unknown: str) -> str:
    """`at least 80%`, rounded down; `unknown` where the lower bound says nothing."""
    steps = 100 if share.low >= 0.01 else 1000
    whole = math.floor(share.low * steps + 1e-9)  # 0.58 * 100 is 57.99999999999999
    return f"at least {percent(whole / steps)}" if share.low >= LEAST_SHARE else unknown


def least_pairs_text(low: float, of_judged: str = "") -> str:
    """`at least 71 of 1,000`, or that none can be distinguished from chance."""
    return f"at least {math.floor(low):,}{of_judged}" if low >= 1 else NONE_DISTINGUISHED


def _pair(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) and len(values) == 2 else (None, None)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)
