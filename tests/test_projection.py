from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from audit_plugin.neighbors import projection
from audit_plugin.neighbors.projection import MAX_DIM, fit_projection, project, two_directions
from tests.core_fixtures import unit


def principal(vectors: np.ndarray, whitening: float) -> np.ndarray:
    """The vectors in their own projection."""
    return project(vectors, fit_projection(vectors, whitening))


def cone(n: int = 200, d: int = 20) -> np.ndarray:
    """Unit rows in a thin cone, with directions of very different width."""
    rng = np.random.default_rng(0)
    return unit(5 + rng.standard_normal((n, d)) * np.logspace(0, -1.5, d))


def test_the_view_is_the_textbook_projection() -> None:
    x = cone()
    centered = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    _, singular, basis = np.linalg.svd(centered, full_matrices=False)
    for whitening in (0.0, 0.5, 1.0):
        want = centered @ basis.T * (singular / np.sqrt(len(x))) ** -whitening
        want /= np.linalg.norm(want, axis=1, keepdims=True)
        got = principal(x, whitening)
        np.testing.assert_allclose(got @ got.T, want @ want.T, atol=2e-3)  # up to signs of the axes


def test_the_threads_of_the_library_change_nothing() -> None:
    x = unit(np.random.default_rng(0).standard_normal((600, 500)))
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads, user_api="blas"):
            found.append(fit_projection(x, 0.5).basis.tobytes())
    assert len(set(found)) == 1


def test_rows_are_unit_float32_and_no_wider_than_asked() -> None:
    for n, d, q in ((200, 20, 20), (60, 40, 15), (16, 40, 8), (1200, 300, MAX_DIM)):
        x = unit(np.random.default_rng(1).standard_normal((n, d)))
        view = principal(x, 0.5)
        assert (view.shape, view.dtype) == ((n, min(q, d)), np.float32)
        np.testing.assert_allclose(np.linalg.norm(view, axis=1), 1, atol=1e-5)


def test_the_cone_is_opened() -> None:
    x = cone()
    assert (x @ x.T).mean() > 0.9
    view = principal(x, 0.5)
    assert abs((view @ view.T).mean()) < 0.05


def test_full_whitening_makes_all_directions_equally_wide() -> None:
    x = np.random.default_rng(2).standard_normal((4000, 6)) * np.array([9, 5, 3, 1, 0.5, 0.1])
    spread = principal(x.astype(np.float32), 1.0).std(0)
    assert spread.max() / spread.min() < 1.1
    plain = principal(x.astype(np.float32), 0.0).std(0)
    assert plain.max() / plain.min() > 10


@pytest.mark.parametrize("n", [1, 2, 15])
def test_few_or_equal_rows_have_no_direction_and_no_nan(n: int) -> None:
    equal = principal(np.tile(unit(np.ones((1, 5))), (n, 1)), 0.5)
    assert np.isfinite(equal).all()
    assert (equal == 0).all()
    few = principal(unit(np.random.default_rng(0).standard_normal((n, 5))), 0.5)
    assert np.isfinite(few).all()


def test_the_order_of_rows_does_not_matter() -> None:
    x, order = cone(), np.random.default_rng(3).permutation(200)
    a, b = principal(x, 0.5)[order], principal(x[order], 0.5)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=5e-3)


def test_a_fit_on_a_draw_of_the_rows_is_close_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit(np.random.default_rng(4).standard_normal((3000, 6)) * np.array([9, 7, 5, 3, 2, 1]))
    full = principal(x, 0.5)
    monkeypatch.setattr(projection, "FIT_ROWS", 1500)
    drawn = principal(x, 0.5)
    assert (drawn == principal(x, 0.5)).all()
    assert (drawn != full).any()
    assert np.abs(drawn @ drawn[:200].T - full @ full[:200].T).mean() < 0.05


def test_rows_that_come_later_are_seen_as_the_first_were() -> None:
    x = cone()
    fitted = fit_projection(x[:150], 0.5)
    later = project(x, fitted)
    np.testing.assert_allclose(later[:150], principal(x[:150], 0.5), atol=1e-6)
    np.testing.assert_allclose(project(x[150:], fitted), later[150:], atol=1e-6)  # whatever else comes with them
    np.testing.assert_allclose(np.linalg.norm(later, axis=1), 1, atol=1e-5)
    assert fitted.basis.shape == (20, 20)
    assert (project(fitted.mean[None], fitted) == 0).all()  # the center has no direction


def test_a_projection_of_nothing_is_wide_enough_for_its_rows() -> None:
    empty = np.zeros((0, 7), np.float32)
    assert project(empty, fit_projection(empty, 0.5)).shape == (0, 7)


def test_the_input_is_left_alone() -> None:
    x = cone()
    copy = x.copy()
    principal(x, 0.5)
    assert (x == copy).all()


def test_two_directions_are_those_of_a_plain_decomposition() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 6)) * [5, 3, 1, 0.5, 0.2, 0.1]
    places = two_directions(vectors.astype(np.float32))
    centered = vectors - vectors.mean(0)
    left, size, _ = np.linalg.svd(centered, full_matrices=False)
    expected = left[:, :2] * size[:2] / (size[0] / np.sqrt(50))
    assert np.abs(places) == pytest.approx(np.abs(expected), abs=1e-4)
    assert two_directions(np.ones((3, 1))).tolist() == [[0, 0]] * 3
