"""Refits model-based probabilities with the verdicts of a spot check: what the spot check benchmark compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.review.spot_check import SpotCheckPlan

PRIOR_SD = (2.0, 0.5)  # standard deviations of the prior on the shift and on the log slope of a refit


@dataclass(frozen=True)
class Refit:
    """Recalibrated probabilities.

    Attributes:
        probability: float32 `[n]`, NaN where there was none.
        share: expected share of wrong rows among those with a probability.
        threshold: the lowest probability from which on flags keep the allowed share of false ones; inf if none does.
        shift, slope: new log-odds = shift + slope * old log-odds.
    """

    probability: Floats
    share: float
    threshold: float
    shift: float
    slope: float


def refit(plan: SpotCheckPlan, verdicts: Sequence[str], probability: Floats, false_flags: float = 0.2) -> Refit:
    """Recalibrates model-based probabilities with the verdicts: logit q = shift + slope * logit p.

    Shift and log slope maximize the posterior under normal priors around no change (standard deviations `PRIOR_SD`), so
    that sixty verdicts do not overfit and none change nothing. Verdicts are not weighted: rows were drawn by the score
    alone, which the probability stands for.

    Args:
        plan: the rows drawn.
        verdicts: `[s]`, see `estimate`; only wrong and right ones are used.
        probability: `[n]` of being wrong, by the model.
        false_flags: allowed share of false flags.

    Raises:
        AuditError: no row has a probability.
    """
    from scipy.optimize import minimize

    known = np.isfinite(probability)
    if not known.any():
        raise AuditError("no sample has a model-based probability to refit; the set was too small to estimate one")
    inside = np.clip(np.where(known, probability, 0.5).astype(np.float64), 1e-4, 1 - 1e-4)
    log_odds = np.log(inside / (1 - inside))
    words = np.array(verdicts, dtype=object)
    used = np.isin(words, ("wrong", "right")) & known[plan.rows]
    reviewed_odds, wrong = log_odds[plan.rows[used]], (words[used] == "wrong").astype(np.float64)

    def negative_log_posterior(x: Floats) -> float:
        z = x[0] + np.exp(x[1]) * reviewed_odds
        # -log p(verdict) = log(1 + e^z) - wrong * z
        return float((np.logaddexp(0, z) - wrong * z).sum() + 0.5 * ((x / np.array(PRIOR_SD)) ** 2).sum())

    shift, log_slope = minimize(negative_log_posterior, np.zeros(2), method="BFGS").x
    slope = float(np.exp(log_slope))
    refitted = np.where(known, 1 / (1 + np.exp(-(shift + slope * log_odds))), np.nan).astype(np.float32)
    # expected share of false flags when the k most probable rows are flagged
    ranked = np.sort(refitted[known].astype(np.float64))[::-1]
    false_share = np.cumsum(1 - ranked) / np.arange(1, len(ranked) + 1)
    allowed = np.flatnonzero(false_share <= false_flags)
    threshold = float(ranked[allowed[-1]]) if len(allowed) else float("inf")
    return Refit(refitted, float(ranked.mean()), threshold, float(shift), slope)
