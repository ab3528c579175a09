"""Training dynamics: the library's own training, watched; margins and confidences against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from audit_plugin.trials.heads import TEMPERATURE, train_group
from benchmarks.rivals import dynamics
from benchmarks.rivals.dynamics import describe, draw_pool, train_dynamics
from benchmarks.rivals.tuning import auroc
from tests.rivals_fixtures import noisy_set, unit


def inputs_of(material):
    return [torch.from_numpy(v * np.float32(math.sqrt(v.shape[1]))) for v in (material.image, material.text)]


def test_description_by_hand():
    image = text = torch.eye(2)
    text = text * TEMPERATURE  # logits 1 on the diagonal, 0 beside it
    other = ~torch.eye(2, dtype=torch.bool)
    margin, confidence, loss = describe(image, text, torch.arange(2), other, both=True)
    np.testing.assert_allclose(margin, 1, rtol=1e-6)
    np.testing.assert_allclose(confidence, math.e / (math.e + 1), rtol=1e-6)
    np.testing.assert_allclose(loss, math.log(1 + 1 / math.e), rtol=1e-6)


@pytest.mark.parametrize("both", [True, False])
def test_description_is_the_naive_loop(both):
    rng = np.random.default_rng(0)
    n = 12
    image, text = (torch.from_numpy(unit(rng.standard_normal((n, 6)))) for _ in range(2))
    pool, other = torch.tensor([0, 3, 4, 9]), torch.from_numpy(rng.random((n, 4)) < 0.7)
    other[5] = False
    found = describe(image, text, pool, other, both)
    for i in range(n):
        rows = [int(pool[p]) for p in range(4) if other[i, p]]
        own = float(image[i] @ text[i]) / TEMPERATURE
        sides = [[float(image[i] @ text[j]) / TEMPERATURE for j in rows]]
        if both:
            sides.append([float(text[i] @ image[j]) / TEMPERATURE for j in rows])
        p = [1 / (1 + sum(math.exp(v - own) for v in side)) for side in sides]
        margin = [own - max(side) if side else 0 for side in sides]
        wanted = [np.mean(margin), np.mean(p), np.mean([-math.log(v) for v in p])]
        np.testing.assert_allclose([column[i] for column in found], wanted, rtol=1e-3, atol=1e-4)


def test_the_pool_is_seeded_small_and_free_of_repeats(monkeypatch):
    monkeypatch.setattr(dynamics, "POOL", 20)
    repeats = np.column_stack([np.arange(50) // 2, np.arange(50)])
    pool, other = draw_pool(repeats, None, seed=1)
    assert len(pool) == 20
    assert torch.equal(pool, draw_pool(repeats, None, seed=1)[0])
    assert not torch.equal(pool, draw_pool(repeats, None, seed=2)[0])
    wanted = (np.arange(50)[:, None] // 2) != (pool.numpy()[None] // 2)
    np.testing.assert_array_equal(other.numpy(), wanted)


def test_classes_are_held_against_one_prompt_each():
    pool, other = draw_pool(np.zeros((5, 1), dtype=int), np.array([2, 0, 2, 1, 0]), seed=0)
    assert pool.tolist() == [1, 3, 0]
    assert other[0].tolist() == [True, True, False]


def test_it_trains_as_the_library_does():
    material, _ = noisy_set(n=300, concepts=30)
    inputs, repeats = inputs_of(material), np.arange(300)[:, None]
    found = train_dynamics(inputs, repeats, epochs=3, seed=5)
    assert found.margins.shape == found.confidences.shape == (3, 300)
    heads = train_group(inputs, np.ones((1, 300), dtype=bool), [0], repeats, epochs=3, seed=5, size=300)
    image, text = heads.embed(inputs, 0)
    margin, confidence, loss = describe(image, text, *draw_pool(repeats, None, 5), both=True)
    np.testing.assert_allclose(found.margins[-1], margin, atol=1e-4)
    np.testing.assert_allclose(found.confidences[-1], confidence, atol=1e-5)
    np.testing.assert_allclose(found.losses[-1], loss, atol=1e-4)


def test_it_is_deterministic_and_finds_swaps():
    material, wrong = noisy_set()
    inputs, repeats = inputs_of(material), np.arange(400)[:, None]
    first, second = (train_dynamics(inputs, repeats, epochs=6, seed=0) for _ in range(2))
    np.testing.assert_array_equal(first.margins, second.margins)
    np.testing.assert_array_equal(first.losses, second.losses)
    assert auroc(-first.margins.mean(0), wrong) > 0.9
    assert auroc(-first.confidences.mean(0), wrong) > 0.9
    assert not np.array_equal(first.losses, train_dynamics(inputs, repeats, epochs=6, seed=1).losses)


def test_classes_learn_from_their_prompts():
    material, wrong = noisy_set(classes=True, concepts=10)
    prompts = unit(np.random.default_rng(0).standard_normal((10, 16)))[material.labels]
    inputs = [inputs_of(material)[0], torch.from_numpy(prompts * 4)]
    found = train_dynamics(inputs, material.labels[:, None], epochs=6, seed=0, labels=material.labels)
    assert auroc(-found.margins.mean(0), wrong) > 0.9
    assert found.confidences.min() >= 0
    assert found.confidences.max() <= 1
