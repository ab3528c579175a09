"""Simulated spot checks: coverage and width of the 90% intervals, what the refit gains, and searches for a threshold.

Each set is a list of scores, flags and the truth, fixed; only the rows that are drawn for review change. Real ones are
audits of the Twitter emoji with permuted captions, drawn ones follow two normal curves. Run as
`python -m benchmarks.spot_check [--checks 200]`. Expected: every coverage at 0.9 or above but for
the noise of 200 checks, since the tests are exact; and the precision asked for kept by as many searches.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin import run_audit
from audit_plugin.arrays import Bools, Floats
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.samples import read_samples
from audit_plugin.review.spot_check import estimate, plan_spot_check
from audit_plugin.review.threshold_search import search_threshold
from benchmarks.data import manifest
from benchmarks.record import write_report
from benchmarks.spot_refit import refit

RATES = (0.02, 0.1, 0.2)
QUANTITIES = ("precision", "missed", "wrong", "recall")
PRECISION = 0.9  # that searches ask for
LABELS = (40, 100)  # after which they end
FIRST_SEED = 100_000  # of the searches here; the constants of the search were chosen with others, and on other sets


@dataclass(frozen=True)
class Case:
    """What a spot check is made of, for n rows: flags, scores, the model's probability, and the truth."""

    name: str
    flagged: Bools
    scores: Floats
    probability: Floats
    wrong: Bools


def audits(vendor: str, trials: int) -> Iterator[Case]:
    """One audit per share of wrong captions."""
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            path = manifest(vendor, noise="random", rate=rate, copied=False, seed=0, out=folder)
            config = AuditConfig(image="image", text="caption", encoder="offline", trials=trials, device="cpu")
            result = run_audit(read_samples(path, {"image": "image", "text": "caption"}), config)
            with open(path.with_name("truth.csv"), encoding="utf-8") as file:
                wrong = np.array([row["is_swapped"] == "1" for row in csv.DictReader(file)])
        columns = result.columns
        yield Case(
            f"{vendor}, {rate:.0%} wrong",
            result.flagged("misaligned"),
            columns["misalignment"],
            columns["probability"],
            wrong,
        )


def drawn() -> Iterator[Case]:
    """Sets whose wrong rows score `shift` deviations higher; the model knows the shift and the share (at least 1%)."""
    for name, n, rate, shift, flags in (
        ("clear", 2000, 0.1, 4.0, 0.1),
        ("blurred", 2000, 0.1, 2.0, 0.1),
        ("no signal", 2000, 0.1, 0.0, 0.05),
        ("nothing wrong", 2000, 0.0, 3.0, 0.02),
        ("all flags wrong", 2000, 0.2, 30.0, 0.1),
        ("small set", 90, 0.1, 2.0, 0.05),
        ("large set", 100_000, 0.05, 3.0, 0.05),
        ("no flags", 2000, 0.05, 2.0, 0.0),
    ):
        yield draw_case(name, n, rate, shift, flags)


def searched() -> Iterator[Case]:
    """Sets of searches for a threshold, drawn as those of `drawn`."""
    for name, n, rate, shift in (
        ("separated, 10% wrong", 2000, 0.1, 4.0),
        ("blurred, 10% wrong", 2000, 0.1, 2.0),
        ("nearly no signal", 2000, 0.1, 0.5),
        ("rare, 1% wrong", 5000, 0.01, 4.0),
        ("many, 30% wrong", 2000, 0.3, 3.0),
    ):
        yield draw_case(name, n, rate, shift, rate)


def draw_case(name: str, n: int, rate: float, shift: float, flags: float) -> Case:
    """A set of two normal curves whose highest share `flags` is flagged."""
    rng = np.random.default_rng(len(name))
    wrong = rng.random(n) < rate
    scores = rng.standard_normal(n) + shift * wrong
    flagged = np.zeros(n, dtype=bool)
    flagged[np.argsort(-scores)[: int(flags * n)]] = True
    believed = max(rate, 0.01)
    odds = believed / (1 - believed) * np.exp(np.clip(shift * scores - shift**2 / 2, -30, 30))
    return Case(name, flagged, scores, odds / (1 + odds), wrong)


def simulate(case: Case, checks: int) -> dict[str, Any]:
    """Coverage and mean width per quantity over `checks` spot checks, and what the refit does to the probabilities."""
    truth = true_values(case)
    bounds = {name: np.zeros((checks, 2)) for name in QUANTITIES}
    fits = []
    for seed in range(checks):
        plan = plan_spot_check(case.flagged, case.scores, seed=seed)
        verdicts = ["wrong" if w else "right" for w in case.wrong[plan.rows]]
        estimates = estimate(plan, verdicts)
        for name in QUANTITIES:
            interval = getattr(estimates, name)
            bounds[name][seed] = interval.low, interval.high
        fits.append(probability_errors(refit(plan, verdicts, case.probability).probability, case.wrong))
    known = [name for name in QUANTITIES if np.isfinite(truth[name])]
    covered = {
        name: (bounds[name][:, 0] <= truth[name] + 1e-9) & (truth[name] <= bounds[name][:, 1] + 1e-9) for name in known
    }
    share_error, loss = np.mean(fits, axis=0)
    before = probability_errors(case.probability, case.wrong)
    return {
        "set": case.name,
        "rows": len(case.wrong),
        "flagged": int(case.flagged.sum()),
        "truth": {name: round(truth[name], 4) for name in known},
        "coverage": {name: round(float(covered[name].mean()), 4) for name in known},
        "width": {name: round(float(np.ptp(bounds[name], axis=1).mean()), 4) for name in known},
        "error_of_wrong_share": {"model": round(before[0], 4), "refit": round(float(share_error), 4)},
        "log_loss": {"model": round(before[1], 4), "refit": round(float(loss), 4)},
    }


def simulate_searches(case: Case, searches: int) -> dict[str, Any]:
    """What searches for a threshold of precision `PRECISION` keep, cost and find, per number of labels."""
    best = best_found(case)
    answers = {row: "wrong" if wrong else "right" for row, wrong in enumerate(case.wrong.tolist())}
    outcomes = {}
    for size in LABELS:
        results = [
            search_threshold(case.scores, answers, PRECISION, case.probability, size, FIRST_SEED + number)
            for number in range(searches)
        ]
        found = np.array([case.wrong[case.scores >= result.threshold].sum() for result in results])
        rows = np.array([result.rows for result in results])
        labeled = [result.labeled for result in results]
        outcomes[str(size)] = {
            "kept": round(float(np.mean(found >= PRECISION * rows - 1e-9)), 4),
            "without_threshold": round(float(np.mean(rows == 0)), 4),
            "labels": {"median": float(np.median(labeled)), "most": max(labeled)},
            "rows": float(np.median(rows)),
            "found_of_best": round(float(found.mean() / best), 4) if best else None,
        }
    return {"set": case.name, "rows": len(case.wrong), "wrong": int(case.wrong.sum()), "best": best, "after": outcomes}


def best_found(case: Case) -> int:
    """Wrong rows at or above the lowest threshold that has precision `PRECISION`; 0 if none has."""
    found = np.cumsum(case.wrong[np.argsort(-case.scores, kind="stable")])
    enough = found >= PRECISION * np.arange(1, len(found) + 1) - 1e-9
    return int(found[enough].max(initial=0))


def true_values(case: Case) -> dict[str, float]:
    """The quantities themselves; NaN where there is nothing that they could be the share of."""
    flagged, wrong = case.flagged, case.wrong
    parts = {
        "precision": (wrong & flagged, flagged),
        "missed": (wrong & ~flagged, ~flagged),
        "recall": (wrong & flagged, wrong),
    }
    shares = {name: float(a.sum() / b.sum()) if b.any() else float("nan") for name, (a, b) in parts.items()}
    return {**shares, "wrong": float(wrong.sum())}


def probability_errors(probability: Floats, wrong: Bools) -> tuple[float, float]:
    """(absolute error of the expected share of wrong rows, mean log loss)."""
    p = np.clip(probability.astype(np.float64), 1e-4, 1 - 1e-4)
    loss = -np.where(wrong, np.log(p), np.log(1 - p)).mean()
    return float(abs(np.mean(probability, dtype=np.float64) - wrong.mean())), float(loss)


def main() -> None:
    """Simulates all sets and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", default="twitter")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--checks", type=int, default=200)
    options = parser.parse_args()
    rows, searches = [], []
    audited = list(audits(options.vendor, options.trials))
    for case in (*searched(), *audited):
        searches.append(simulate_searches(case, options.checks))
        print(json.dumps(searches[-1]), flush=True)
    for case in (*drawn(), *audited):
        rows.append(simulate(case, options.checks))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "checks": options.checks,
        "lowest": min(v for row in rows for v in row["coverage"].values()),
        "sets": rows,
        "searches": searches,
    }
    write_report("spot-check", "Coverage and width of the 90% intervals of simulated spot checks", report)


if __name__ == "__main__":
    main()
