from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.scoring.evidence import NEAR_MISS
from audit_plugin.scoring.evidence_weights import VOTE_WEIGHTS, choose_weights, detectability, separation
from audit_plugin.scoring.scores import WEIGHTS
from tests.core_fixtures import planted

PAIR = ("image", "text")


def parts_of(rng: np.random.Generator, n: int, shift: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: (rng.standard_normal(n) + shift.get(name, 0)).astype(np.float32) for name in
            ("contrast", "neighbors_a", "neighbors_b")}  # fmt: skip


def test_separation_is_the_share_of_ordered_pairs() -> None:
    samples, probes = np.array([0.0, 1.0, np.nan, 2.0]), np.array([1.5, np.nan, 9.0, -1.0])
    assert separation(samples, probes) == pytest.approx(np.mean([p > s for p in (1.5, 9.0, -1.0) for s in (0, 1, 2)]))
    assert separation(samples, np.array([np.nan])) == -1


def test_votes_that_separate_probes_get_weight_and_others_none() -> None:
    evidence, rng = planted().evidence, np.random.default_rng(0)
    n = len(evidence)
    useful = choose_weights(parts_of(rng, n, {}), parts_of(rng, 900, dict.fromkeys(WEIGHTS, 1.2)), None)
    useless = choose_weights(parts_of(rng, n, {}), parts_of(rng, 900, {"contrast": 2.0}), None)
    assert useful["neighbors_a"] >= 0.5
    assert useless["neighbors_a"] <= 0.06
    assert useful["contrast"] == useless["contrast"] == 1


def test_detectability_is_the_distance_of_two_normals() -> None:
    rng = np.random.default_rng(1)
    distance = detectability(rng.standard_normal(20_000), rng.standard_normal(20_000) + 1.3)
    assert distance == pytest.approx(1.3, abs=0.05)
    assert detectability(np.ones(5), np.zeros(5)) == 0


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.0), (0.8, 0.5), (1.6, 1.0), (2.5, 1.0)])
def test_frozen_encoders_weigh_as_much_as_they_separate(shift: float, expected: float) -> None:
    evidence, rng = planted().evidence, np.random.default_rng(2)
    names = ("contrast", "zero_shot", "neighbors_a", "neighbors_b")
    own = {name: rng.standard_normal(len(evidence)).astype(np.float32) for name in names}
    near = {name: rng.standard_normal(4000).astype(np.float32) for name in names}
    near["contrast"] += 1.6
    near["zero_shot"] += np.float32(shift)
    assert choose_weights(own, near, None)["zero_shot"] == pytest.approx(expected, abs=0.1)


def test_chosen_weights_are_within_a_hair_of_the_best() -> None:
    evidence = planted().evidence
    near = {name: values[0] for name, values in evidence.probe_evidence[NEAR_MISS].items()}
    own = evidence.parts[PAIR]
    chosen = evidence.weights[PAIR]
    assert chosen == choose_weights(own, near, None)
    assert chosen["neighbors_a"] in VOTE_WEIGHTS


def test_every_pair_and_probe_has_all_evidence() -> None:
    evidence = planted(3).evidence
    held_out = evidence.held_out
    pairs, n = len(evidence.pairs), len(evidence)
    assert set(evidence.weights) == set(evidence.pairs)
    for name in WEIGHTS:
        assert held_out[name].shape == (pairs, n)
        for kind, rows in evidence.probe_pairs.items():
            assert evidence.probe_evidence[kind][name].shape == (pairs, len(rows))


def test_added_samples_do_not_choose() -> None:
    evidence = planted().evidence
    near = {name: values[0] for name, values in evidence.probe_evidence[NEAR_MISS].items()}
    known = np.arange(len(evidence)) < 200
    own = {name: values.copy() for name, values in evidence.parts[PAIR].items()}
    before = choose_weights(own, near, known)
    for values in own.values():
        values[~known] += 50
    assert choose_weights(own, near, known) == before
