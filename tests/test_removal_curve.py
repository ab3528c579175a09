from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.audit import removal_curve as core
from audit_plugin.audit.removal_curve import Trainable, default_amounts, interval, measure, recommend, removal_curve
from tests.core_fixtures import unit

TRAIN, BAD = 300, 60
ROWS = {"train": np.arange(TRAIN), "validation": np.arange(300, 400), "test": np.arange(400, 500)}


@lru_cache
def swapped() -> tuple[Trainable, np.ndarray]:
    """500 pairs that show one hidden vector each, and a score that knows the 60 training rows whose texts go round."""
    rng = np.random.default_rng(0)
    hidden, mix = rng.standard_normal((500, 8)), rng.standard_normal((8, 24))
    x = [hidden @ mix + 1.5 * rng.standard_normal((500, 24)) for _ in range(2)]
    wrong = rng.permutation(TRAIN)[:BAD]
    x[1][wrong] = np.roll(x[1][wrong], 1, axis=0)
    inputs = [torch.from_numpy(unit(v) * np.float32(np.sqrt(24))) for v in x]
    score = np.zeros(TRAIN)
    score[wrong] = 1 + rng.random(BAD)
    classes = (hidden[:, 0] > 0).astype(np.int64)
    return Trainable(inputs, np.arange(500, dtype=np.int32)[:, None], ROWS, (1,), classes), score


@lru_cache
def curve() -> dict[str, Any]:
    data, score = swapped()
    return removal_curve(data, {"planted": score, "blind": np.full(TRAIN, np.nan)}, [30, BAD], range(4), 20)


def gain(method: str, amount: int, side: str = "test") -> dict[str, Any]:
    return curve()["methods"][method]["amounts"][str(amount)][side]["retrieval_at_5"]["gain"]


def test_removing_the_planted_helps_and_random_removal_does_not() -> None:
    assert gain("planted", BAD)["low"] > 0
    assert gain("planted", BAD)["mean"] > gain("planted", 30)["mean"] > 0
    assert gain("planted", BAD)["mean"] > 3 * abs(gain("random", BAD)["mean"])
    best = curve()["methods"]["planted"]["recommended"]
    assert best["amount"] == BAD
    assert best["beats_control"]
    assert best["confirmed"]
    assert best["test_gain"] == gain("planted", BAD)
    assert best["test_gain_over_rows"]["mean"] == pytest.approx(best["test_gain"]["mean"], abs=1e-6)
    assert best["test_gain_over_rows"]["low"] > 0


def test_nothing_removed_is_the_control_to_the_byte() -> None:
    methods = curve()["methods"]
    assert len({json.dumps(m["amounts"]["0"]) for m in methods.values()}) == 1
    assert gain("planted", 0)["values"] == [0, 0, 0, 0]
    # a score that knows nothing removes nothing, and is trained as the control was
    for amount in (30, BAD):
        assert gain("blind", amount)["mean"] == pytest.approx(0, abs=0.004)
    assert methods["blind"]["recommended"]["amount"] in (0, 30)


def test_equal_calls_give_equal_reports_and_finished_seeds_are_kept() -> None:
    data, score = swapped()
    parts: dict[str, dict[str, np.ndarray]] = {}
    made: list[str] = []

    def once(name: str, make: Any) -> dict[str, np.ndarray]:
        if name not in parts:
            made.append(name)
            parts[name] = make()
        return parts[name]

    few = removal_curve(data, {"planted": score}, [30], range(2), 2, once)
    more = removal_curve(data, {"planted": score}, [30], range(3), 2, once)
    assert made == ["seed_0000", "seed_0001", "seed_0002"]
    again = removal_curve(data, {"planted": score}, [30], range(3), 2)
    assert json.dumps(again, allow_nan=False) == json.dumps(more, allow_nan=False)
    values = [r["methods"]["random"]["amounts"]["30"]["test"]["retrieval_at_5"]["values"] for r in (few, more)]
    assert values[0] == values[1][:2]


def test_what_cannot_work_is_said() -> None:
    data, score = swapped()
    with pytest.raises(AuditError, match="151 of 300 training rows"):
        removal_curve(data, {"planted": score}, [151], range(2), 1)
    with pytest.raises(AuditError, match="-1 of 300"):
        removal_curve(data, {"planted": score}, [-1], range(2), 1)
    with pytest.raises(AuditError, match="1 seed"):
        removal_curve(data, {"planted": score}, [1], [0], 1)
    assert default_amounts(1338) == [0, 13, 27, 54, 107, 201]
    assert default_amounts(10) == [0, 1, 2]


def test_retrieval_by_hand() -> None:
    """Eight rows on a circle: each is nearest to itself, unless the texts go round; a collapsed model finds nobody."""
    angle = torch.arange(8) * (torch.pi / 8)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    rows = np.arange(8)
    data = Trainable([], np.arange(8, dtype=np.int32)[:, None], {"train": rows}, (1,))

    def found(text: torch.Tensor, repeats: np.ndarray = data.shared_ids) -> float:
        return measure([circle, text], Trainable([], repeats, data.rows, (1,)), rows)[0]

    assert found(circle) == 1
    assert found(circle.flip(0)) == pytest.approx(naive(circle, circle.flip(0)))
    assert 0 < found(circle.flip(0)) < 1
    assert found(torch.ones(8, 2) / 2**0.5) < 1
    assert found(torch.ones(8, 2) / 2**0.5) == pytest.approx(naive(circle, torch.ones(8, 2) / 2**0.5))
    every_one_alike = np.stack([rows, np.zeros(8)], 1).astype(np.int32)
    assert found(circle.flip(0), every_one_alike) == 1


def naive(image: torch.Tensor, text: torch.Tensor) -> float:
    hits = []
    for a, b in ((image, text), (text, image)):
        s = (a @ b.T).numpy()
        hits += [sum(s[i, j] >= s[i, i] for j in range(len(s)) if j != i) < 5 for i in range(len(s))]
    return float(np.mean(hits))


def test_zero_shot_by_hand() -> None:
    text = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    image = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0], [0.6, 0.8]])
    rows = {"train": np.array([0, 2]), "test": np.array([1, 3, 4])}
    data = Trainable([], np.arange(5, dtype=np.int32)[:, None], rows, (1,), np.array([0, 0, 1, 1, 1]))
    assert core._zero_shot([image, text], data, rows["test"]) == pytest.approx(1 / 3)
    unknown = Trainable([], data.shared_ids, rows, (1,), np.array([0, 7, 1, -1, 1]))
    assert core._zero_shot([image, text], unknown, rows["test"]) == 1
    for nothing in (Trainable([], data.shared_ids, rows, (1,)), Trainable([], data.shared_ids, rows, (), data.classes)):
        assert np.isnan(core._zero_shot([image, text], nothing, rows["test"]))


def test_the_smallest_amount_within_one_standard_error_is_taken() -> None:
    control = np.array([[0.50], [0.52], [0.48], [0.50]])
    wobble = np.array([[0.01], [-0.01], [0.01], [-0.01]])  # standard error .0058
    assert recommend(np.hstack([control, control + 0.030, control + 0.034 + wobble])) == 1
    assert recommend(np.hstack([control, control + 0.020, control + 0.034 + wobble])) == 2
    assert recommend(np.hstack([control, control - 0.01, control - 0.02])) == 0
    assert recommend(np.hstack([control, control + 0.004 + wobble])) == 0
    assert recommend(np.hstack([control, control])) == 0


def test_the_interval_is_students() -> None:
    found = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found["mean"], found["values"]) == (3, [1, 2, 3, 4, 5])
    assert found["high"] - 3 == pytest.approx(2.776445 * 1.581139 / 5**0.5, rel=1e-5)
    assert found["low"] == pytest.approx(6 - found["high"])


def test_a_gain_is_confirmed_only_by_the_seeds_and_by_the_test_rows() -> None:
    measured = np.zeros((4, 2, 2, 3))
    measured[:, 1, :, 0] = 0.1 + np.array([0.0, 0.001, 0.002, 0.003])[:, None]  # every seed gains
    sure = np.stack([np.zeros(100), np.r_[np.ones(40), np.zeros(60)]])
    luck = np.stack([np.zeros(100), np.r_[np.ones(2), np.zeros(98)]])  # two rows of a hundred
    found = [core._method(measured, hits, [0, 1], [0, 5])["recommended"] for hits in (sure, luck)]
    assert [best["amount"] for best in found] == [5, 5]
    assert [best["confirmed"] for best in found] == [True, False]
    measured[:, 1, 1, 0] = [0.3, -0.3, 0.3, -0.2]  # the seeds disagree on the test rows
    assert not core._method(measured, sure, [0, 1], [0, 5])["recommended"]["confirmed"]
