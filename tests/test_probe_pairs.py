from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring.probe_pairs import draw_probe_pairs
from audit_plugin.scoring.scores import compute_scores, pair_misalignment
from tests.core_fixtures import planted, probe_scores_of


def drawn(seed: int = 0, n: int = 80) -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    near = [rng.integers(-1, n, (n, 6)) for _ in range(2)]
    together, contents = np.sort(rng.integers(0, n // 3, n)), rng.integers(0, n // 2, (n, 2))
    return draw_probe_pairs(near, together, contents, seed), near, together, contents


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_probe_is_a_pair_of_unrelated_rows(seed: int) -> None:
    probes, near, together, contents = drawn(seed)
    for kind, rows in probes.items():
        left, right = rows.T
        assert (right >= 0).all()
        assert (together[left] != together[right]).all()
        assert (contents[left] != contents[right]).all()
        assert len(set(left.tolist())) == len(left)
        if kind == "neighborhood":
            assert all(j in near[0][i] or j in near[1][i] for i, j in rows)
            assert any(j not in near[0][i] for i, j in rows)  # of both modalities


def test_equal_seeds_draw_equal_probes() -> None:
    one, same, other = drawn(1)[0], drawn(1)[0], drawn(2)[0]
    assert all((one[kind] == same[kind]).all() for kind in one)
    assert any(one[kind].tolist() != other[kind].tolist() for kind in one)


@pytest.mark.parametrize("m", [2, 3])
def test_a_real_pair_as_probe_gets_its_own_score(m: int) -> None:
    evidence = planted(m).evidence
    columns = compute_scores(evidence)
    for a, b in evidence.pairs:
        got = pair_misalignment(evidence, (a, b), evidence.parts[a, b])
        np.testing.assert_allclose(got, columns[f"misalignment_{a}_{b}"], atol=1e-4)


def test_probes_are_on_the_scale_of_the_known_samples() -> None:
    whole = planted().evidence
    evidence = replace(whole, known=np.arange(len(whole)) < 200)
    added = {name: values[200:] for name, values in evidence.parts["image", "text"].items()}
    got = pair_misalignment(evidence, ("image", "text"), added)
    np.testing.assert_allclose(got, compute_scores(evidence)["misalignment"][200:], atol=1e-4)


@pytest.mark.parametrize("kind", ["random", "neighborhood"])
def test_probes_score_like_wrong_pairs(kind: str) -> None:
    evidence, rows = planted().evidence, planted().rows
    got = probe_scores_of(evidence, kind, ("image", "text"))
    real = compute_scores(evidence)["misalignment"]
    known = got[np.isfinite(got)]
    assert len(known) > 100
    assert np.mean(known > np.quantile(real[rows["clean"]], 0.9)) > 0.9
    if kind == "random":
        assert np.median(known) == pytest.approx(np.median(real[rows["swapped"]]), rel=0.35)
