from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from audit_plugin.scoring import linear
from audit_plugin.scoring.linear import (
    FOLDS,
    MAX_CLASSES,
    REPEATS,
    SAMPLES_PER_CLASS,
    STRENGTHS,
    are_classes,
    class_margin,
    cross_fit,
    predict_classes,
    unit_predictions,
)


def linear_set(
    n: int = 200, d: int = 12, q: int = 5, noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sources `[n, d]` and targets `[n, q]`, a noisy linear function of them."""
    rng = np.random.default_rng(seed)
    source = (rng.standard_normal((n, d)) + 1).astype(np.float32)
    target = source @ rng.standard_normal((d, q)) + noise * rng.standard_normal((n, q))
    return source, target.astype(np.float32)


@pytest.mark.parametrize("n", [40, 900])  # fewer rows than numbers, and more
def test_any_number_of_threads_gives_the_same_bytes(n: int) -> None:
    source, target = linear_set(n, 300, 40)
    threads = torch.get_num_threads()
    fits = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            fits.append(cross_fit(source, target, np.arange(n), None, 0))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert {fit.weights.tobytes() for fit in fits} == {fits[0].weights.tobytes()}
    assert {fit.source.tobytes() for fit in fits} == {fits[0].source.tobytes()}


def naive_predictions(
    source: np.ndarray, target: np.ndarray, folds: np.ndarray, strength: float, known: np.ndarray
) -> np.ndarray:
    """The mean over the divisions of scikit-learn's ridge regression, fitted without each fold in turn."""
    unit = np.square(source[known] - source[known].mean(0)).sum() / min(known.sum(), source.shape[1])
    out = np.zeros(target.shape)
    for of_sample in folds:
        for fold in range(FOLDS):
            rows = known & (of_sample != fold)
            ridge = Ridge(alpha=strength * unit).fit(source[rows], target[rows])
            out[of_sample == fold] += ridge.predict(source[of_sample == fold])
    return out / len(folds)


def best_strength(source: np.ndarray, target: np.ndarray, folds: np.ndarray, known: np.ndarray) -> float:
    """The strength with the least squared error out of fold, in the first division."""
    first = folds[:1]
    errors = [
        np.square(naive_predictions(source, target, first, strength, known) - target)[known].sum()
        for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmin(errors))]


@pytest.mark.parametrize(("n", "d"), [(200, 12), (40, 60)])  # more samples than dimensions, and fewer
@pytest.mark.parametrize("noise", [0.1, 20.0])
def test_predictions_are_those_of_ridge_regressions_without_the_fold(n: int, d: int, noise: float) -> None:
    source, target = linear_set(n, d, noise=noise)
    known = np.arange(n) % 7 != 0
    fit = cross_fit(source, target, np.arange(n), known, seed=0)
    strength = best_strength(source, target, fit.folds, known)
    expected = naive_predictions(source, target, fit.folds, strength, known)
    np.testing.assert_allclose(fit.predict(), expected, atol=2e-3 * np.abs(target).max())
    assert fit.folds.shape == (REPEATS, n)
    np.testing.assert_allclose(fit.predict(np.array([5, 3])), fit.predict()[[5, 3]], atol=1e-4)


def test_the_own_target_and_those_of_the_group_have_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "STRENGTHS", (1.0,))  # all samples choose it together
    source, target = linear_set()
    groups = np.arange(len(source)) // 2
    before = cross_fit(source, target, groups, None, seed=0)
    other = target.copy()
    other[4] += 100
    after = cross_fit(source, other, groups, None, seed=0)
    np.testing.assert_allclose(after.predict()[4:6], before.predict()[4:6], atol=1e-3)
    for folds, now, then in zip(before.folds, after.weights, before.weights, strict=True):
        np.testing.assert_allclose(now[folds[4]], then[folds[4]], atol=1e-3)
        assert np.abs(now[(folds[4] + 1) % FOLDS] - then[(folds[4] + 1) % FOLDS]).max() > 0.1
    assert (before.folds[:, 0::2] == before.folds[:, 1::2]).all()


def test_samples_that_are_not_known_change_nothing() -> None:
    source, target = linear_set()
    known = np.arange(len(source)) < 150
    before = cross_fit(source, target, np.arange(len(source)), known, seed=0)
    source[~known], target[~known] = 9, -9
    after = cross_fit(source, target, np.arange(len(source)), known, seed=0)
    np.testing.assert_array_equal(before.predict()[known], after.predict()[known])


def test_a_linear_target_is_predicted_and_noise_is_not() -> None:
    source, target = linear_set(noise=0.01)
    direction = target - target.mean(0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    linear = unit_predictions(cross_fit(source, target, np.arange(len(source)), None, 0))
    assert (linear * direction).sum(1).mean() > 0.99
    noise = np.random.default_rng(3).standard_normal(target.shape).astype(np.float32)
    fit = cross_fit(source, noise, np.arange(len(source)), None, 0)
    assert abs((unit_predictions(fit) * noise).sum(1).mean()) < 0.3
    assert np.abs(fit.predict() - noise.mean(0)).max() < 1  # shrunk toward the mean


@pytest.mark.parametrize("constant", ["source", "target"])
def test_of_what_cannot_be_learned_there_is_no_direction(constant: str) -> None:
    """Rounding must not be scaled up to unit length."""
    for seed in range(10):
        source, target = linear_set(50, seed=seed)
        table = source if constant == "source" else target
        table[:] = table[0]
        assert (unit_predictions(cross_fit(source, target, np.arange(50), None, 0)) == 0).all()


def test_a_single_group_is_in_no_fit_and_has_no_direction() -> None:
    source, target = linear_set(50)
    fit = cross_fit(source, target, np.zeros(50, int), None, 0)
    assert (unit_predictions(fit) == 0).all()
    assert np.isfinite(fit.predict()).all()


def class_set(n: int = 300, wrong: int = 30, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, given classes of which the first `wrong` are of another class, true classes."""
    rng = np.random.default_rng(2)
    true = rng.integers(0, classes, n)
    source = (3 * np.eye(classes, 16)[true] + rng.standard_normal((n, 16))).astype(np.float32)
    given_classes = true.copy()
    given_classes[:wrong] = (true[:wrong] + rng.integers(1, classes, wrong)) % classes
    return source, given_classes, true


def test_wrong_classes_have_the_largest_margins_and_their_true_class_is_named() -> None:
    source, given_classes, true = class_set()
    fit = cross_fit(source, given_classes, np.arange(300), None, 0)
    named = predict_classes(fit, given_classes, None)
    scores = fit.predict()
    for row in (0, 7, 299):
        others = np.delete(scores[row], given_classes[row])
        assert named.margin[row] == pytest.approx(others.max() - scores[row, given_classes[row]], abs=1e-6)
    assert (np.argsort(-named.margin)[:20] < 30).all()
    assert (named.best == true)[:30].mean() > 0.8
    assert ((named.margin > 0) == (named.best != given_classes)).all()


def test_the_probability_of_a_class_is_how_often_it_is_given() -> None:
    source, given_classes, _ = class_set(2000, 200)
    named = predict_classes(cross_fit(source, given_classes, np.arange(2000), None, 0), given_classes, None)
    right = named.best == given_classes
    assert named.probability.mean() == pytest.approx(right.mean(), abs=0.05)
    sure = named.probability > np.median(named.probability)
    assert right[sure].mean() > right[~sure].mean()
    assert ((named.probability >= 1 / 4 - 1e-6) & (named.probability <= 1)).all()


def test_samples_that_are_not_known_change_no_probability() -> None:
    source, given_classes, _ = class_set()
    known = np.arange(300) < 200
    fit = cross_fit(source, given_classes, np.arange(300), known, 0)
    others = np.where(known, given_classes, (given_classes + 1) % 4)
    before, after = (predict_classes(fit, classes, known) for classes in (given_classes, others))
    np.testing.assert_array_equal(after.probability, before.probability)
    assert (after.margin[known] == before.margin[known]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 7), st.integers(0, 10_000))
def test_a_margin_is_above_zero_where_another_class_is_best(rows: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, given_classes = rng.standard_normal((rows, classes)), rng.integers(0, classes, rows)
    margin = class_margin(scores, given_classes)
    assert ((margin > 0) == (scores.argmax(1) != given_classes)).all()
    shifted = class_margin(scores + 3.0, given_classes)
    np.testing.assert_allclose(shifted, margin, atol=1e-5)


def test_texts_are_classes_where_there_are_few() -> None:
    n = 20 * SAMPLES_PER_CLASS
    assert are_classes(np.arange(n) % 20)
    assert not are_classes(np.arange(n) % 21)
    assert not are_classes(np.zeros(n, int))
    assert not are_classes(np.zeros(0, int))
    many = (MAX_CLASSES + 1) * SAMPLES_PER_CLASS
    assert not are_classes(np.arange(many) % (MAX_CLASSES + 1))


def test_of_many_samples_one_division_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = linear_set()
    several = cross_fit(source, target, np.arange(200), None, 0)
    monkeypatch.setattr(linear, "MANY_SAMPLES", 200)
    one = cross_fit(source, target, np.arange(200), None, 0)
    assert (len(several.folds), len(one.folds)) == (REPEATS, 1)
    np.testing.assert_array_equal(one.weights[0], several.weights[0])
    assert np.corrcoef(one.predict().ravel(), several.predict().ravel())[0, 1] > 0.99


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="groups"):
        cross_fit(np.zeros((5, 2), np.float32), np.zeros((5, 2), np.float32), np.zeros(4, int), None, 0)
