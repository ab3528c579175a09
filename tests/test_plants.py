from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.plants import draw_plants, plant_scores, wrong_share
from audit_plugin.scores import compute_scores
from tests.core_fixtures import planted, plants_of


def drawn(seed: int = 0, n: int = 80) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    near = rng.integers(-1, n, (n, 6))
    together, contents = np.sort(rng.integers(0, n // 3, n)), rng.integers(0, n // 2, (n, 2))
    return draw_plants(near, together, contents, seed), near, together, contents


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_plant_is_a_pair_of_unrelated_rows(seed: int) -> None:
    plants, near, together, contents = drawn(seed)
    for kind, rows in plants.items():
        left, right = rows.T
        assert (right >= 0).all()
        assert (together[left] != together[right]).all()
        assert (contents[left] != contents[right]).all()
        assert len(set(left.tolist())) == len(left)
        if kind == "neighbourhood":
            assert all(j in near[i] for i, j in rows)


def test_equal_seeds_draw_equal_plants() -> None:
    one, again, other = drawn(1)[0], drawn(1)[0], drawn(2)[0]
    assert all((one[kind] == again[kind]).all() for kind in one)
    assert any(one[kind].tolist() != other[kind].tolist() for kind in one)


@pytest.mark.parametrize("m", [2, 3])
def test_a_real_pair_planted_gets_its_own_score(m: int) -> None:
    evidence = planted(m).evidence
    columns = compute_scores(evidence)
    rows = np.arange(len(evidence))
    for p, (a, b) in enumerate(evidence.pairs):
        held_out = evidence.trials.held_out
        both = np.stack([rows, rows], 1)
        got = plant_scores(evidence, (a, b), both, held_out["contrast"][p], held_out["zero_shot"][p])
        np.testing.assert_allclose(got, columns[f"misalignment_{a}_{b}"], atol=1e-4)


def test_plants_stand_on_the_scale_of_the_known_samples() -> None:
    whole = planted().evidence
    evidence = replace(whole, known=np.arange(len(whole)) < 200)
    rows = np.arange(200, len(evidence))
    held_out, both = evidence.trials.held_out, np.stack([rows, rows], 1)
    got = plant_scores(evidence, ("image", "text"), both, held_out["contrast"][0, rows], held_out["zero_shot"][0, rows])
    np.testing.assert_allclose(got, compute_scores(evidence)["misalignment"][rows], atol=1e-4)


@pytest.mark.parametrize("kind", ["random", "neighbourhood"])
def test_plants_score_like_wrong_pairs(kind: str) -> None:
    gathered, rows = planted().gathered, planted().rows
    got = plants_of(gathered, kind, ("image", "text"))
    real = compute_scores(gathered.evidence)["misalignment"]
    known = got[np.isfinite(got)]
    assert len(known) > 100
    assert np.mean(known > np.quantile(real[rows["clean"]], 0.9)) > 0.9
    if kind == "random":
        assert np.median(known) == pytest.approx(np.median(real[rows["swapped"]]), rel=0.35)


# --- the mixture ---------------------------------------------------------------------------------------------------


def mixture(share: float, seed: int = 3, n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bad = rng.random(n) < share
    scores = np.where(bad, rng.normal(6, 1.5, n), rng.logistic(0, 0.6, n)).astype(np.float32)
    return scores, bad, rng.normal(6, 1.5, 512).astype(np.float32)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_the_share_of_wrong_pairs_is_estimated(share: float) -> None:
    told = []
    for seed in range(8):
        scores, bad, plants = mixture(share, seed)
        got, probability, false_alarm = wrong_share(scores, plants)
        at = int(np.abs(scores - 2).argmin())  # where good pairs are rare and bad ones rarer
        told.append((got / bad.mean(), probability.mean() / bad.mean(), probability[bad].mean(),
                     probability[~bad].mean(), false_alarm[at] - (scores[~bad] >= scores[at]).mean()))  # fmt: skip
    ratio, total, on_bad, on_good, alarms = np.mean(told, axis=0)
    assert ratio == pytest.approx(1, abs=0.15)  # of one draw the noise is .13 at 3 %
    assert total == pytest.approx(1, abs=0.2)  # the probabilities add up to the number of wrong pairs
    assert on_bad > 0.7
    assert on_good < 0.03
    assert alarms == pytest.approx(0, abs=0.04)  # the share of good pairs above is what it says


def test_a_clean_set_has_hardly_a_wrong_pair() -> None:
    scores, _, plants = mixture(0.0)
    got, probability, _ = wrong_share(scores, plants)
    assert got < 0.01
    assert (probability > 0.5).mean() < 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 120), st.integers(20, 120))
def test_probabilities_rise_and_false_alarms_fall_with_the_score(seed: int, n: int, q: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n).astype(np.float32)
    plants = (rng.standard_normal(q) + rng.uniform(-1, 5)).astype(np.float32)
    scores[: n // 10], plants[:2] = np.nan, np.nan
    known = np.isfinite(scores)
    if known.sum() < 20 or q < 22:
        return
    share, probability, false_alarm = wrong_share(scores, plants)
    order = np.argsort(scores[known], kind="stable")
    assert 0 <= share <= 1
    for values in (probability, false_alarm):
        assert (np.isfinite(values) == known).all()
        assert values[known].min() >= 0
        assert values[known].max() <= 1
    assert (np.diff(probability[known][order]) >= -1e-6).all()


def test_too_few_to_fit_says_nothing() -> None:
    few, many = np.arange(5, dtype=np.float32), np.arange(500, dtype=np.float32)
    for scores, plants in ((few, many), (many, few), (many * np.nan, many), (many, many * np.nan)):
        share, probability, false_alarm = wrong_share(scores, plants)
        assert np.isnan(share)
        assert len(probability) == len(scores)
        assert np.isnan(probability).all()
        assert np.isnan(false_alarm).all()


def test_equal_scores_do_not_break_the_fit() -> None:
    share, probability, _ = wrong_share(np.zeros(100, np.float32), np.zeros(100, np.float32))
    assert 0 <= share <= 1
    assert np.isfinite(probability).all()
