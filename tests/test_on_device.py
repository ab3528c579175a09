"""What computes on a GPU, by the same code on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError, spearman
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import same_weights
from audit_plugin.encoders.devices import in_blocks, matmul_precision, use_matmul_precision
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.encoders.precision import bf16_identity
from audit_plugin.encoders.prompts import prompted_identities
from audit_plugin.encoders.registry import identify, load_encoders
from audit_plugin.neighbors import search
from audit_plugin.scoring import outliers
from audit_plugin.store import RunFolder
from audit_plugin.trials import heads as heads_module
from audit_plugin.trials import learners, multimem
from audit_plugin.trials.heads import Heads
from audit_plugin.trials.run import Job, run_plan
from benchmarks.gpu import pairs
from tests.core_fixtures import heads, unit
from tests.test_run_trials import N, features, negatives_of, plan_trials

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [2, 3])
def test_consistency_on_a_device_is_that_of_numpy(device: str, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multimem, "BLOCK", 16)
    rng = np.random.default_rng(0)
    embeddings = [unit(rng.standard_normal((50, 8))) for _ in range(m)]
    reference, groups = rng.random(50) < 0.4, rng.integers(0, 20, 50)
    on_device = [torch.from_numpy(e).to(device) for e in embeddings]
    terms = multimem.consistency_terms_on_device(on_device, reference, groups)
    np.testing.assert_allclose(terms, multimem.consistency_terms(embeddings, reference, groups), atol=1e-12)
    again = multimem.consistency_terms_on_device(on_device, reference, groups)
    assert again.tobytes() == terms.tobytes()
    alone = multimem.consistency_terms_on_device(on_device, groups == groups[0], groups)
    assert np.isnan(alone[0, 1, groups == groups[0]]).all(), "no reference outside the own group"


@pytest.mark.parametrize("device", DEVICES)
def test_outlier_distances_on_a_device_are_those_of_numpy(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "DEVICE_ROWS", 7)
    rng = np.random.default_rng(1)
    vectors = {name: unit(rng.standard_normal((60, 6))) for name in ("image", "text")}
    for group in (np.arange(60), rng.integers(0, 15, 60), np.zeros(60, np.int64)):
        expected = outliers.mean_neighbor_distance(vectors, group, np.arange(60))
        pool = np.unique(group)
        means = {name: outliers._group_means(v, np.searchsorted(pool, group), len(pool)) for name, v in vectors.items()}
        count = min(max(outliers.MIN_NEIGHBORS, round(outliers.NEIGHBOR_SHARE * len(pool))), len(pool))
        found = outliers.nearest_distance_on_device(vectors, means, group, pool, count, device)
        np.testing.assert_allclose(found, expected, atol=1e-5)


# --- a memory that is too small -------------------------------------------------------------------------------------


def too_small_for(rows: int, function: Any) -> Any:
    """The function, which runs out of memory with more rows in its first argument, and what it was called with."""

    def limited(x: torch.Tensor, *args: Any, **named: Any) -> Any:
        limited.sizes.append(x.shape[-2])
        if x.shape[-2] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(x, *args, **named)

    limited.sizes = []
    return limited


def test_blocks_are_halved_until_they_fit_and_stay_so() -> None:
    asked = []

    def block(start: int, end: int) -> list[int]:
        asked.append(end - start)
        if end - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(start, end))

    assert list(itertools.chain.from_iterable(in_blocks(block, 20, 16))) == list(range(20))
    assert asked == [16, 8, 4, *[2] * 10]
    assert in_blocks(block, 0, 16) == []
    with pytest.raises(AuditError, match=r"the GPU's memory is too small; .*--device cpu"):
        in_blocks(lambda *_: block(0, 4), 5, 5)


def test_products_for_neighbors_fit_into_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((300, 16)))
    usual = search._from_products("cpu", "float32", vectors, np.arange(300), 10)
    limited = too_small_for(20, torch.mm)
    monkeypatch.setattr(torch, "mm", limited)
    np.testing.assert_array_equal(search._from_products("cpu", "float32", vectors, np.arange(300), 10), usual)
    assert max(limited.sizes) > 20 >= limited.sizes[-1]


def test_embeddings_fit_into_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = [np.random.default_rng(0)]
    layers = heads_module.new_head(12, rng, torch.device("cpu"))
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((90, 12), dtype=np.float32))
    monkeypatch.setattr(heads_module, "READ_ROWS", 64)
    usual = Heads((layers,)).embed([x], 0)[0]
    limited = too_small_for(10, heads_module.head_outputs)
    monkeypatch.setattr(heads_module, "head_outputs", limited)
    torch.testing.assert_close(Heads((layers,)).embed([x], 0)[0], usual)
    assert max(limited.sizes) == 64


def test_outlier_distances_fit_into_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((50, 4)))
    arguments = ({"image": vectors}, {"image": vectors}, np.arange(50), np.arange(50), 10, "cpu")
    usual = outliers.nearest_distance_on_device(*arguments)
    limited = too_small_for(8, torch.Tensor.topk)
    monkeypatch.setattr(torch.Tensor, "topk", limited)
    np.testing.assert_allclose(outliers.nearest_distance_on_device(*arguments), usual, atol=1e-6)
    assert limited.sizes[0] == 50


# --- what stays on the device, and what is recorded -----------------------------------------------------------------


def test_heads_are_loaded_once_however_many_trials_there_are(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve groups of trials, read three times: each part is read from the disk and given to the device once."""
    config = AuditConfig(trials=96, epochs=1)
    given = features()
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(config, "cpu", run, lambda *_: None)
        plan = plan_trials(np.arange(N), config)
        learner = heads(given, job, ())(plan, negatives_of(given).repeats.numpy())
        trials = run_plan(plan, learner, np.arange(N), job)
        loaded = []
        usual = Heads.from_arrays
        monkeypatch.setattr(Heads, "from_arrays", staticmethod(lambda *a: loaded.append(1) or usual(*a)))
        for _ in range(3):
            for number in range(96):
                trials.embed(number)
    assert len(loaded) == 12


def test_rows_of_stored_embeddings_are_chosen_before_they_go_to_the_device() -> None:
    arrays = [np.arange(12, dtype=np.float32).reshape(6, 2)]
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(learners._rows_on_device(arrays, rows, "cpu")[0], torch.tensor([[8.0, 9.0], [2.0, 3.0]]))
    assert learners._rows_on_device(arrays, None, "cpu")[0].shape == (6, 2)
    assert learners._rows_on_device(arrays, rows, "meta")[0].shape == (2, 2)


def test_products_on_a_gpu_are_named_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert matmul_precision("auto", "cuda") == matmul_precision("bf16", "cuda") == "tf32"
    assert matmul_precision("fp32", "cuda") == "fp32"
    assert matmul_precision("tf32", "cuda") == "tf32", "what is chosen stays chosen"
    with use_matmul_precision("auto", "cuda"):
        assert torch.get_float32_matmul_precision() == "high"


def test_features_of_a_gpu_have_a_key_of_their_own() -> None:
    """Their last digits are others: a cache that both fill would make a run depend on what was encoded where."""
    here, there = (identify("offline", ("image", "text"), device) for device in ("cpu", "cuda"))
    assert here == {name: IDENTITIES[name] for name in here}, "what was encoded by a CPU stays known"
    for name in here:
        assert there[name].key != here[name].key
        assert same_weights(there[name].key, here[name].key)
        low = bf16_identity(there[name])
        assert low.key.endswith(":bf16"), "how the precision of a key is told"
        assert not same_weights(low.key, there[name].key)
    prompted = prompted_identities(there, ("a photo of a {}",))
    assert same_weights(prompted["text"].key, prompted_identities(here, ("a photo of a {}",))["text"].key)


@pytest.mark.parametrize("device", DEVICES)
def test_encoders_are_identified_as_they_are_loaded(device: str) -> None:
    loaded = load_encoders("offline", ("image", "text"), device)
    assert {name: encoder.identity for name, encoder in loaded.items()} == identify(
        "offline", ("image", "text"), device
    )


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
def test_scores_on_a_gpu_rank_as_those_on_the_cpu_and_repeat_to_the_byte(
    device: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    samples = pairs(400, 64)
    here, there, again = (
        run_audit(samples, AuditConfig(trials=16, device=where), run_dir=tmp_path / name).columns
        for name, where in (("a", "cpu"), ("b", device), ("c", device))
    )
    for name in ("misalignment", "multimem", "alignment", "outlier"):
        assert spearman(here[name], there[name]) >= 0.99
        assert there[name].tobytes() == again[name].tobytes()
