from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.scoring.evidence import NEAR_MISS
from audit_plugin.scoring.evidence_weights import (
    CLASS_WEIGHTS,
    MAX_FROZEN_WEIGHT,
    detectability,
    separation,
    weigh_evidence,
)
from audit_plugin.scoring.scores import WEIGHTS
from tests.core_fixtures import planted

PAIR = ("image", "text")


def parts_of(n: int, seed: int, **shift: float) -> dict[str, np.ndarray]:
    """Kind of evidence -> standard normal values `[n]`, shifted."""
    rng = np.random.default_rng(seed)
    return {kind: (rng.standard_normal(n) + shift.get(kind, 0)).astype(np.float32) for kind in WEIGHTS}


def test_separation_is_the_share_of_ordered_pairs() -> None:
    samples, probes = np.array([0.0, 1.0, np.nan, 2.0]), np.array([1.5, np.nan, 9.0, -1.0])
    assert separation(samples, probes) == pytest.approx(np.mean([p > s for p in (1.5, 9.0, -1.0) for s in (0, 1, 2)]))
    assert separation(samples, np.array([np.nan])) == -1


def test_detectability_is_the_distance_of_two_normals() -> None:
    rng = np.random.default_rng(1)
    distance = detectability(rng.standard_normal(20_000), rng.standard_normal(20_000) + 1.3)
    assert distance == pytest.approx(1.3, abs=0.05)
    assert detectability(np.ones(5), np.zeros(5)) == 0


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, 0.0), (0.8, 0.25), (1.6, 1.0), (3.0, 3.5), (9.0, MAX_FROZEN_WEIGHT)]
)
def test_frozen_encoders_weigh_by_how_well_they_separate(shift: float, expected: float) -> None:
    near = parts_of(4000, 1, contrast=1.2, linear_a=1.6, zero_shot=shift)
    weights = weigh_evidence(parts_of(4000, 0), near, None, None)
    assert weights["zero_shot"] == pytest.approx(expected, rel=0.15, abs=0.02)
    assert {kind: w for kind, w in weights.items() if kind != "zero_shot"} == {
        kind: w for kind, w in WEIGHTS.items() if kind != "zero_shot"
    }


@pytest.mark.parametrize("side", [0, 1])
def test_the_classifier_says_the_most_on_classes(side: int) -> None:
    weights = weigh_evidence(parts_of(500, 0), parts_of(500, 1, contrast=1.0), None, side)
    assert max(weights, key=weights.__getitem__) == ("linear_b", "linear_a")[side]
    fixed = {kind: w for kind, w in weights.items() if kind != "zero_shot"}
    assert sorted(fixed.values()) == sorted(CLASS_WEIGHTS.values())


def test_evidence_that_there_is_not_has_no_weight() -> None:
    own = {kind: values for kind, values in parts_of(100, 0).items() if kind not in ("zero_shot", "neighbors_b")}
    assert set(weigh_evidence(own, own, None, None)) == set(own)


def test_every_pair_and_probe_has_all_evidence() -> None:
    evidence = planted(3).evidence
    held_out = evidence.held_out
    pairs, n = len(evidence.pairs), len(evidence)
    assert set(evidence.weights) == set(evidence.linear_fits) == set(evidence.pairs)
    for kind in WEIGHTS:
        assert held_out[kind].shape == (pairs, n)
        for probe_kind, rows in evidence.probe_pairs.items():
            assert evidence.probe_evidence[probe_kind][kind].shape == (pairs, len(rows))


def test_added_samples_do_not_choose() -> None:
    evidence = planted().evidence
    near = {kind: values[0] for kind, values in evidence.probe_evidence[NEAR_MISS].items()}
    own = {kind: values.copy() for kind, values in evidence.parts[PAIR].items()}
    near["zero_shot"], own["zero_shot"] = near["contrast"] * 0.5, own["contrast"].copy()
    known = np.arange(len(evidence)) < 200
    before = weigh_evidence(own, near, known, None)
    for values in own.values():
        values[~known] += 50
    assert weigh_evidence(own, near, known, None) == before


@pytest.mark.parametrize(("n", "trust"), [(40, 40 / 300), (150, 0.5), (300, 1.0), (900, 1.0)])
def test_weights_of_few_samples_are_shrunk_to_the_usual_ones(n: int, trust: float) -> None:
    own, near = parts_of(n, 0), parts_of(300, 1, contrast=1.2, zero_shot=9.0)
    weights = weigh_evidence(own, near, None, 1)
    assert weights["zero_shot"] == pytest.approx(WEIGHTS["zero_shot"] + trust * (MAX_FROZEN_WEIGHT - 0.5), abs=1e-3)
    for kind, of_classes in CLASS_WEIGHTS.items():
        assert weights[kind] == pytest.approx((1 - trust) * WEIGHTS[kind] + trust * of_classes, abs=1e-3)
