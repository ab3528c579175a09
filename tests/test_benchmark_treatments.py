from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.trials.continued_training import TrainingSchedule, train_heads
from benchmarks.multimem.treatments import Treatment, train_treated, treated_batches
from tests.test_continued_training import ALL, ALONE, N, apart, inputs


def hot_rows(*lists: list[int]) -> np.ndarray:
    hot = np.zeros((len(lists), N), dtype=bool)
    for at, rows in enumerate(lists):
        hot[at, rows] = True
    return hot


def test_regrouping_begins_at_its_epoch_and_keeps_hot_rows_apart() -> None:
    hot = hot_rows([1, 2, 3], [7, 8, 9])
    rng = [np.random.default_rng(s) for s in (0, 1)]
    steps = list(treated_batches(N, [ALL, ALL], Treatment(4, hot=hot, regroup=True, from_epoch=2), rng))
    assert [late for _, late in steps] == [False, False, True, True, True, True]
    for at in range(2):
        mixed = [len(set(hot[at, step[at]])) for step, _ in steps]
        assert mixed == [2, 2, 1, 1, 1, 1]
    late = [step for step, late in steps if late]
    assert sorted(np.concatenate([s[0] for s in late])) == sorted([*range(N)] * 2)
    with pytest.raises(ValueError, match="equally many"):
        train_treated(inputs(), [ALL, ALL], [0, 1], ALONE, Treatment(1, hot=hot_rows([1], [2, 3]), regroup=True))


def test_noise_keeps_the_hot_rows_from_being_fitted() -> None:
    wrong = [5, 20, 40, 60, 80, 90]
    x = inputs()
    x[1][wrong] = x[1][np.roll(wrong, 1)]
    hot = hot_rows(wrong)

    def own(treatment: Treatment) -> tuple[float, float]:
        a, b = train_treated(x, [ALL], [0], ALONE, treatment).embed(x, 0)
        cosine = (a * b).sum(1).numpy()
        return float(cosine[wrong].mean()), float(np.delete(cosine, wrong).mean())

    sigma = {0: 0.2, 1: 0.2}
    plain, noisy, noisy_everywhere = (
        own(r) for r in (Treatment(30), Treatment(30, hot=hot, noise=sigma), Treatment(30, noise=sigma, noise_on="all"))
    )
    assert plain[0] - noisy[0] > 2 * (plain[1] - noisy[1])
    assert abs(noisy_everywhere[1] - noisy[1]) > 0.1  # treats the clean rows too


def test_noise_that_never_comes_changes_nothing() -> None:
    plain = train_heads(inputs(), [ALL], [0], ALONE, TrainingSchedule(3))
    hot = hot_rows([1, 2])
    for treatment in (
        Treatment(3, hot=hot, noise={0: 0.5}, from_epoch=3),
        Treatment(3, noise={0: 0.5}),
        Treatment(3, hot=hot),
        Treatment(3, hot=hot, regroup=True, from_epoch=3),
    ):
        assert apart(plain, 0, train_treated(inputs(), [ALL], [0], ALONE, treatment), 0) == 0
    assert apart(plain, 0, train_treated(inputs(), [ALL], [0], ALONE, Treatment(3, hot=hot, noise={0: 0.5})), 0) > 1e-3
