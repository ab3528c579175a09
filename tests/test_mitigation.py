from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from audit_plugin.arrays import AuditError
from audit_plugin.trials.mitigation import RegroupedBatchSampler, RepresentationNoise, add_noise, most_memorized, ranked


def test_most_memorized_takes_the_highest_share_and_never_what_is_not_scored() -> None:
    scores = np.array([0.1, np.nan, 0.9, 0.5, np.inf, 0.9, -1.0])
    assert ranked(scores).tolist() == [2, 5, 3, 0, 6]
    assert most_memorized(scores, 0.4).tolist() == [2, 5]
    assert most_memorized(scores, 0.2).tolist() == [2]
    assert most_memorized(scores, 0).tolist() == []
    assert most_memorized(scores, 1).tolist() == [0, 2, 3, 5, 6]
    assert most_memorized(np.full(5, np.nan)).tolist() == []
    assert len(most_memorized(np.arange(1000.0))) == 50
    with pytest.raises(AuditError, match="share is 5"):
        most_memorized(scores, 5)


@given(
    size=st.integers(1, 60),
    batch=st.integers(1, 20),
    share=st.floats(0, 1),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_every_index_once_and_hot_only_with_hot(size: int, batch: int, share: float, epoch: int, seed: int) -> None:
    hot = most_memorized(np.random.default_rng(seed).random(size), share)
    sampler = RegroupedBatchSampler(size, batch, hot, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(i for b in batches for i in b) == list(range(size))
    assert all(1 <= len(b) <= batch and all(type(i) is int for i in b) for b in batches)
    assert all(len({i in set(hot.tolist()) for i in b}) == 1 for b in batches)
    assert sum(len(b) < batch for b in batches) <= 2


def test_the_order_follows_seed_and_epoch_and_mixes_the_kinds() -> None:
    sampler = RegroupedBatchSampler(200, 10, range(40), seed=3)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    assert first != list(RegroupedBatchSampler(200, 10, range(40), seed=4))
    sampler.set_epoch(0)
    assert first == list(sampler)
    kinds = [b[0] < 40 for b in first]
    assert sum(kinds) == 4
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


def test_hot_rows_may_be_named_later() -> None:
    sampler = RegroupedBatchSampler(20, 4)
    assert len(sampler) == 5
    sampler.set_hot([3, 4, 3])
    assert len(sampler) == 6
    assert [3, 4] in [sorted(b) for b in sampler]


def test_drop_last_keeps_full_batches_and_never_loses_all_hot_rows() -> None:
    sampler = RegroupedBatchSampler(25, 4, range(6), drop_last=True)
    assert [len(b) for b in sampler] == [4] * 5 == [4] * len(sampler)
    with pytest.raises(AuditError, match="drop_last would leave out all 3 hot"):
        RegroupedBatchSampler(25, 4, range(3), drop_last=True)
    with pytest.raises(AuditError, match="sample 25 of a set of 25"):
        RegroupedBatchSampler(25, 4, [1, 25])
    with pytest.raises(AuditError, match="sample -1"):
        RegroupedBatchSampler(25, 4, [-1])
    with pytest.raises(AuditError, match="batch_size is 0"):
        RegroupedBatchSampler(25, 0)


def test_a_data_loader_takes_the_sampler() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(11))
    loader = torch.utils.data.DataLoader(data, batch_sampler=RegroupedBatchSampler(11, 4, [1, 9]))
    assert len(loader) == 4
    assert sorted(torch.cat([b[0] for b in loader]).tolist()) == list(range(11))


def test_noise_hits_exactly_the_hot_rows_while_training() -> None:
    noise, x = RepresentationNoise(0.1), torch.randn(6, 32, requires_grad=True)
    hot = torch.tensor([True, False, False, True, False, False])
    noise.train()
    out = noise(x, hot)
    assert (out[~hot] == x[~hot]).all()
    assert (out[hot] != x[hot]).any(1).all()
    out.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert noise.eval()(x, hot) is x
    assert RepresentationNoise(0)(x, hot) is x
    with pytest.raises(ValueError, match="does not fit"):
        noise(x, hot[:3])
    with pytest.raises(AuditError, match="sigma is -1"):
        RepresentationNoise(-1)


@pytest.mark.parametrize(("dimension", "stated"), [(128, 0.66), (512, 0.40), (1024, 0.30)])
def test_what_the_papers_sigma_does_to_the_cosine(dimension: int, stated: float) -> None:
    torch.manual_seed(0)
    clean = torch.randn(2000, dimension)
    noisy = RepresentationNoise(0.1)(clean, torch.ones(2000, dtype=torch.bool))
    cosine = float((normalize(noisy, dim=-1) * normalize(clean, dim=-1)).sum(-1).mean())
    assert cosine == pytest.approx(stated, abs=0.006)
    assert cosine == pytest.approx(1 / math.sqrt(1 + dimension * 0.01), abs=0.006)


def test_noise_is_of_the_unit_vector_whatever_the_length() -> None:
    x, draw, hot = torch.randn(4, 16), torch.randn(4, 16), torch.ones(4, dtype=torch.bool)
    by_hand = normalize(normalize(x, dim=-1) + 0.3 * draw, dim=-1)
    for scale in (1e-3, 1.0, 1e3):
        out = normalize(add_noise(scale * x, hot, 0.3, draw), dim=-1)
        assert (out - by_hand).abs().max() < 1e-5
