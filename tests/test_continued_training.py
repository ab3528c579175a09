from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.trials.continued_training import SharedShuffles, TrainingSchedule, train_heads
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
    base = train_heads(inputs(), [ALL], [0], ALONE, TrainingSchedule(5))
    further = train_heads(inputs(), [ALL], [0], ALONE, TrainingSchedule(20), base)
    assert rank(further, 0, ALL) < rank(base, 0, ALL) < N / 8
    still = train_heads(inputs(), [ALL], [0], ALONE, TrainingSchedule(1, learning_rate=0.0), base)
    assert apart(still, 0, base, 0) == 0


def test_one_stream_one_result_whatever_the_company() -> None:
    fewer = np.delete(ALL, [3, 50, 70])
    together = train_heads(inputs(), [ALL, fewer, ALL, ALL], [0, 0, 0, 1], ALONE, TrainingSchedule(3))
    alone = train_heads(inputs(), [fewer], [0], ALONE, TrainingSchedule(3, size=N))
    assert apart(together, 0, together, 2) == 0
    assert apart(together, 1, alone, 0) < 2e-3
    assert apart(together, 0, together, 1) > 1e-3
    assert apart(together, 0, together, 3) > 0.1


def test_any_number_of_threads_gives_equal_bytes() -> None:
    usual, trained = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            base = train_heads(inputs(), [ALL, ALL[:40], ALL[20:]], [0, 0, 1], ALONE, TrainingSchedule(2))
            further = train_heads(inputs(), [ALL, ALL, ALL[5:]], [0, 1, 1], ALONE, TrainingSchedule(2), base)
            trained.append(b"".join(v.tobytes() for heads in (base, further) for v in heads.arrays().values()))
    finally:
        torch.set_num_threads(usual)
    assert len(set(trained)) == 1


def test_rows_that_two_lists_share_come_in_the_same_order() -> None:
    fewer = np.delete(ALL, [3, 50, 70])
    rng = lambda: np.random.default_rng(0)
    full, *_ = SharedShuffles(N, [ALL, fewer], [rng(), rng()]).next_epoch()
    assert sorted(full[0]) == list(range(N))
    assert [r for r in full[0] if r in fewer] == full[1][: len(fewer)].tolist()
    assert not set(full[1]) & {3, 50, 70}


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="rows 1, seeds 2"):
        train_heads(inputs(), [ALL], [0, 1], ALONE, TrainingSchedule(1))
    with pytest.raises(ValueError, match="shared_ids 95, modality 0 96"):
        train_heads(inputs(), [ALL], [0], ALONE[1:], TrainingSchedule(1))
