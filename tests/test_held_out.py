from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.scoring import contrast, held_out
from audit_plugin.scoring.contrast import draw_pool, make_negatives
from audit_plugin.scoring.held_out import TEMPERATURE, Question, embed_held_out, read_trials
from tests.core_fixtures import unit
from tests.test_contrast import near_of, repeats_of, with_owner

N, R = 50, 6


def trials(m: int = 2, seed: int = 0) -> list[list[torch.Tensor]]:
    """R trials' unit embeddings per modality: a common truth and each trial's own noise."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((N, 6))
    return [[torch.from_numpy(unit(truth + rng.standard_normal((N, 6)))).float() for _ in range(m)] for _ in range(R)]


def question(member: np.ndarray, m: int = 2, known: np.ndarray | None = None) -> Question:
    pairs = [(a, b) for a in range(m) for b in range(a + 1, m)]
    probes = np.array([[0, 9], [7, 2], [12, 30]])
    is_known = np.ones(N, bool) if known is None else known
    repeats = np.concatenate([repeats_of(N), np.arange(N)[:, None]], axis=1)  # a third modality repeats nothing
    return Question(member, pairs, {0: 1}, make_negatives(repeats, near_of(N), is_known, 3, "cpu"), probes)


def masks(seed: int = 1) -> np.ndarray:
    half = np.random.default_rng(seed).random((R // 2, N)) < 0.5
    return np.stack([half, ~half], 1).reshape(R, N)


def embed_of(embeddings: list[list[torch.Tensor]]):
    return lambda number, rows=None: [e if rows is None else e[rows] for e in embeddings[number]]


def similarity(embeddings: list[list[torch.Tensor]], member: np.ndarray, a: int, b: int) -> np.ndarray:
    """Mean cosine over the trials that left both out, pair by pair."""
    out = np.full((N, N), np.nan)
    for i in range(N):
        for j in range(N):
            values = [
                float(embeddings[t][a][i] @ embeddings[t][b][j])
                for t in range(R)
                if not member[t, i] and not member[t, j]
            ]
            out[i, j] = np.mean(values) if values else np.nan
    return out


def naive_contrast(s: np.ndarray, i: int, j: int, probe: bool = False) -> float:
    repeats = repeats_of(N)
    copies = [np.bincount(column)[column] for column in repeats.T]

    def log_mean(row: int, values: np.ndarray) -> float:
        others = [values[k] for k in range(N) if np.isfinite(values[k]) and not (repeats[row] == repeats[k]).any()]
        return float(np.logaddexp.reduce(np.array(others) / TEMPERATURE) - np.log(len(others)))

    forward, backward = log_mean(i, s[i]), log_mean(j, s[:, j])
    if probe:
        forward = with_owner(forward, s[i, i], copies[1][i], N, TEMPERATURE)
        backward = with_owner(backward, s[j, j], copies[0][j], N, TEMPERATURE)
    return TEMPERATURE / 2 * (forward + backward) - s[i, j]


@pytest.mark.parametrize("block", [9, 1024])
def test_measures_are_those_of_the_mean_held_out_similarity(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "BLOCK_ROWS", block)
    embeddings, member = trials(), masks()
    measures = read_trials(embed_of(embeddings), question(member))
    s = similarity(embeddings, member, 0, 1)
    np.testing.assert_allclose(measures["cosine"][0], np.diag(s), atol=1e-5)
    np.testing.assert_allclose(measures["contrast"][0], [naive_contrast(s, i, i) for i in range(N)], atol=1e-4)
    np.testing.assert_allclose(
        measures["planted"][0], [naive_contrast(s, i, j, probe=True) for i, j in question(member).probes], atol=1e-4
    )
    fit = [s[np.isfinite(s[:, i]), i] for i in range(N)]
    np.testing.assert_allclose(measures["generality"][0], [v.mean() / v.std() for v in fit], rtol=1e-3)


def test_a_part_of_the_rows_as_pool_gives_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, member = trials(), masks()
    full = read_trials(embed_of(embeddings), question(member))
    monkeypatch.setattr(contrast, "draw_pool", lambda rows, seed: draw_pool(rows, seed, 40))
    sampled = question(member)
    assert sampled.negatives.hard.shape == (N, 8)
    part = read_trials(embed_of(embeddings), sampled)
    np.testing.assert_allclose(part["cosine"], full["cosine"], atol=1e-6)
    assert np.corrcoef(part["contrast"][0], full["contrast"][0])[0, 1] > 0.95


def test_pairs_of_three_modalities_are_read_like_pairs_of_two() -> None:
    embeddings, member = trials(3), masks()
    measures = read_trials(embed_of(embeddings), question(member, 3))
    for at, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        alone = read_trials(embed_of([[e[a], e[b]] for e in embeddings]), question(member))
        for name in ("cosine", "contrast"):
            np.testing.assert_allclose(measures[name][at], alone[name][0], atol=1e-5)
        assert np.isfinite(measures["planted"][at]).any()
    assert np.isnan(measures["generality"][1:]).all()  # only pairs of a medium and a text


def test_a_sample_in_every_trial_is_not_read() -> None:
    embeddings, member = trials(), masks()
    member[:, 4] = True
    measures = read_trials(embed_of(embeddings), question(member))
    for name in ("cosine", "contrast", "generality"):
        assert np.isnan(measures[name][0, 4])
        assert np.isfinite(np.delete(measures[name][0], 4)).all()


def test_added_samples_are_compared_with_the_known_ones_only() -> None:
    embeddings, member = trials(), masks()
    known = np.arange(N) < 40
    measures = read_trials(embed_of(embeddings), question(member, known=known))
    s = similarity(embeddings, member, 0, 1)
    s[:, ~known] = np.where(np.eye(N, dtype=bool)[:, ~known], s[:, ~known], np.nan)
    assert measures["contrast"][0, 12] == pytest.approx(_one_sided(embeddings, member, known, 12), abs=1e-4)
    assert np.isfinite(measures["contrast"]).all()


def _one_sided(embeddings: list[list[torch.Tensor]], member: np.ndarray, known: np.ndarray, row: int) -> float:
    s, repeats = similarity(embeddings, member, 0, 1), repeats_of(N)
    others = [k for k in range(N) if known[k] and not (repeats[row] == repeats[k]).any()]
    logs = [np.logaddexp.reduce(v[np.isfinite(v)] / TEMPERATURE) - np.log(np.isfinite(v).sum())
            for v in (s[row, others], s[others, row])]  # fmt: skip
    return float(TEMPERATURE / 2 * sum(logs) - s[row, row])


def test_rows_side_by_side_have_the_mean_held_out_similarity() -> None:
    embeddings, member = trials(), masks()
    rows, columns = np.array([7, 3, 7]), np.array([12, 30])
    media, captions = (embed_held_out(embed_of(embeddings), member, (0, 1), chosen) for chosen in (rows, columns))
    s = similarity(embeddings, member, 0, 1)
    np.testing.assert_allclose(media.similarity(captions), s[rows][:, columns], atol=1e-5)
    trained = embed_held_out(embed_of(embeddings), member | True, (0, 1), rows)
    assert np.isnan(trained.similarity(trained)).all()


def test_only_what_a_trial_held_out_is_embedded() -> None:
    embeddings, member = trials(), masks()
    asked = []

    def embed(number: int, rows: torch.Tensor) -> list[torch.Tensor]:
        asked.append((number, rows))
        return embed_of(embeddings)(number, rows)

    whole, measures = read_trials(embed_of(embeddings), question(member)), read_trials(embed, question(member))
    for name, values in whole.items():
        np.testing.assert_array_equal(measures[name], values)
    assert {number for number, _ in asked} == set(range(R))
    assert not any(member[number, rows].any() for number, rows in asked)


def test_a_trial_that_held_nothing_out_says_nothing() -> None:
    embeddings, member = trials(), masks()
    member[2] = True
    others = np.arange(R) != 2
    rest = [e for e, is_other in zip(embeddings, others, strict=True) if is_other]
    measures = read_trials(embed_of(embeddings), question(member))
    for name, values in read_trials(embed_of(rest), question(member[others])).items():
        np.testing.assert_array_equal(measures[name], values)
