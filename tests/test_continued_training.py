from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.trials.continued_training import Recipe, _batches, train_heads
from audit_plugin.trials.heads import Heads
from tests.core_fixtures import unit

N, DIM = 96, 12
ALONE = np.arange(N, dtype=np.int32)[:, None]
ALL = np.arange(N)


def inputs() -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, DIM))
    looks = [hidden + 0.4 * rng.standard_normal((N, DIM)) for _ in range(2)]
    return [torch.from_numpy(unit(v) * np.float32(np.sqrt(DIM))) for v in looks]


def rank(heads: Heads, at: int, rows: np.ndarray) -> float:
    a, b = (e[torch.from_numpy(rows)] for e in heads.embed(inputs(), at))
    similarity = a @ b.T
    return float((similarity > similarity.diagonal()[:, None]).sum(1).float().mean())


def apart(left: Heads, i: int, right: Heads, j: int) -> float:
    return max(
        float((a - b).abs().max()) for a, b in zip(left.embed(inputs(), i), right.embed(inputs(), j), strict=True)
    )


def test_it_learns_and_goes_on_from_a_start() -> None:
    base = train_heads(inputs(), [ALL], [0], ALONE, Recipe(5))
    further = train_heads(inputs(), [ALL], [0], ALONE, Recipe(20), base)
    assert rank(further, 0, ALL) < rank(base, 0, ALL) < N / 8
    still = train_heads(inputs(), [ALL], [0], ALONE, Recipe(1, learning_rate=0.0), base)
    assert apart(still, 0, base, 0) == 0


def test_one_stream_one_result_whatever_the_company() -> None:
    some = np.delete(ALL, [3, 50, 70])
    together = train_heads(inputs(), [ALL, some, ALL, ALL], [0, 0, 0, 1], ALONE, Recipe(3))
    alone = train_heads(inputs(), [some], [0], ALONE, Recipe(3, size=N))
    assert apart(together, 0, together, 2) == 0
    assert apart(together, 1, alone, 0) < 2e-3
    assert apart(together, 0, together, 1) > 1e-3
    assert apart(together, 0, together, 3) > 0.1


def test_rows_that_two_lists_share_come_in_the_same_order() -> None:
    some = np.delete(ALL, [3, 50, 70])
    rng = lambda: np.random.default_rng(0)
    (full, _), *_ = _batches(N, [ALL, some], Recipe(1), [rng(), rng()])
    assert sorted(full[0]) == list(range(N))
    assert [r for r in full[0] if r in some] == full[1][: len(some)].tolist()
    assert not set(full[1]) & {3, 50, 70}


def hot_rows(*lists: list[int]) -> np.ndarray:
    hot = np.zeros((len(lists), N), dtype=bool)
    for at, rows in enumerate(lists):
        hot[at, rows] = True
    return hot


def test_regrouping_begins_at_its_epoch_and_keeps_hot_rows_apart() -> None:
    hot = hot_rows([1, 2, 3], [7, 8, 9])
    rng = [np.random.default_rng(s) for s in (0, 1)]
    steps = list(_batches(N, [ALL, ALL], Recipe(4, hot=hot, regroup=True, from_epoch=2), rng))
    assert [late for _, late in steps] == [False, False, True, True, True, True]
    for at in range(2):
        mixed = [len(set(hot[at, step[at]])) for step, _ in steps]
        assert mixed == [2, 2, 1, 1, 1, 1]
    late = [step for step, late in steps if late]
    assert sorted(np.concatenate([s[0] for s in late])) == sorted([*range(N)] * 2)
    with pytest.raises(ValueError, match="equally many"):
        train_heads(inputs(), [ALL, ALL], [0, 1], ALONE, Recipe(1, hot=hot_rows([1], [2, 3]), regroup=True))


def test_noise_keeps_the_hot_rows_from_being_fitted() -> None:
    wrong = [5, 20, 40, 60, 80, 90]
    x = inputs()
    x[1][wrong] = x[1][np.roll(wrong, 1)]
    hot = hot_rows(wrong)

    def own(recipe: Recipe) -> tuple[float, float]:
        a, b = train_heads(x, [ALL], [0], ALONE, recipe).embed(x, 0)
        cosine = (a * b).sum(1).numpy()
        return float(cosine[wrong].mean()), float(np.delete(cosine, wrong).mean())

    sigma = {0: 0.2, 1: 0.2}
    plain, noisy, every = (
        own(r) for r in (Recipe(30), Recipe(30, hot=hot, noise=sigma), Recipe(30, noise=sigma, noise_on="all"))
    )
    assert plain[0] - noisy[0] > 2 * (plain[1] - noisy[1])
    assert abs(every[1] - noisy[1]) > 0.1  # treats the clean rows too


def test_noise_that_never_comes_changes_nothing() -> None:
    plain = train_heads(inputs(), [ALL], [0], ALONE, Recipe(3))
    hot = hot_rows([1, 2])
    for recipe in (
        Recipe(3, hot=hot, noise={0: 0.5}, from_epoch=3),
        Recipe(3, noise={0: 0.5}),
        Recipe(3, hot=hot),
        Recipe(3, hot=hot, regroup=True, from_epoch=3),
    ):
        assert apart(plain, 0, train_heads(inputs(), [ALL], [0], ALONE, recipe), 0) == 0
    assert apart(plain, 0, train_heads(inputs(), [ALL], [0], ALONE, Recipe(3, hot=hot, noise={0: 0.5})), 0) > 1e-3
