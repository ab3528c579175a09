from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin import memorization
from audit_plugin.arrays import Features, Trials
from audit_plugin.config import AuditConfig
from audit_plugin.held_out import Negatives
from audit_plugin.neighbors import search
from audit_plugin.store import RunFolder
from audit_plugin.training import Heads
from audit_plugin.trials import Job, _text_sides, head_inputs, run_trials
from tests.core_fixtures import unit

N = 64
CONFIG = AuditConfig(trials=16, epochs=3)
PLANTS = {"random": np.stack([np.arange(10), np.arange(20, 30)], 1), "near": np.array([[1, 2], [3, 4], [5, 9]])}


def features(names: tuple[str, ...] = ("image", "text")) -> Features:
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((N, 4))
    vectors = {name: unit(hidden @ rng.standard_normal((4, 10)) + 0.2 * rng.standard_normal((N, 10))) for name in names}
    return Features(vectors, np.ones((N, len(names)), bool))


def trained(
    folder: Path,
    config: AuditConfig = CONFIG,
    names: tuple[str, ...] = ("image", "text"),
    progress=lambda *_: None,
    groups: np.ndarray | None = None,
) -> tuple[Trials, dict[str, np.ndarray]]:
    given = features(names)
    together = np.arange(N) if groups is None else groups
    repeats = np.stack([np.arange(N), np.arange(N), together], 1).astype(np.int32)
    near = np.concatenate([search(v, 5).indices for v in given.vectors.values()], 1)
    negatives = Negatives(torch.from_numpy(repeats), torch.from_numpy(near), config.seed)
    with RunFolder(folder, {}) as run:
        return run_trials(given, ("text",), repeats, negatives, PLANTS, Job(config, "cpu", run, progress))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trials, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("trials") / "run"
    return folder, *trained(folder)


def test_shapes_and_kinds(done) -> None:
    _, trials, plants = done
    assert trials.member.shape == trials.consistency.shape == (16, N)
    assert (trials.member[0::2] != trials.member[1::2]).all()
    assert trials.consistency.dtype == np.float32
    assert all(v.shape == (1, N) and v.dtype == np.float32 for v in trials.held_out.values())
    assert {name: values.shape for name, values in plants.items()} == {"random": (1, 10), "near": (1, 3)}
    assert all(np.isfinite(v).all() for v in trials.held_out.values())


def test_held_out_values_are_means_over_the_trials_that_did_not_see_the_sample(done) -> None:
    """Cosine and consistency again, from the heads on disk."""
    folder, trials, _ = done
    inputs = head_inputs(features(), "cpu")
    cosine = []
    for trial in range(16):
        with np.load(folder / f"trials_{trial // 8 * 8:04d}.npz") as arrays:
            heads = Heads.from_arrays(dict(arrays), 2, "cpu")
        image, text = (e.numpy() for e in heads.embed(inputs, trial % 8))
        cosine.append((image * text).sum(1))
        consistency = memorization.consistency([image, text], trials.member[trial], np.arange(N))
        np.testing.assert_allclose(trials.consistency[trial], consistency, atol=1e-6)
    outside = ~trials.member
    expected = np.where(outside, cosine, 0).sum(0) / outside.sum(0)
    np.testing.assert_allclose(trials.held_out["cosine"][0], expected, atol=1e-6)


def test_members_are_remembered(done) -> None:
    trials = done[1]
    values = memorization.remove_offsets(trials.consistency, trials.member)
    assert memorization.multimem(values, trials.member)[0].mean() > 0.01


def test_a_trial_does_not_depend_on_how_many_there_are(done, tmp_path: Path) -> None:
    few, _ = trained(tmp_path / "run", replace(CONFIG, trials=8))
    np.testing.assert_array_equal(few.consistency, done[1].consistency[:8])
    np.testing.assert_array_equal(few.member, done[1].member[:8])


def test_a_stopped_run_goes_on_after_its_last_group(done, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def stop(*args) -> None:
        told.append(args)
        if args[1] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", progress=stop)
    assert told == [("train", 0, 16), ("train", 8, 16)]
    part = tmp_path / "run" / "trials_0000.npz"
    assert [p.name for p in part.parent.glob("*.npz")] == [part.name]
    then = part.stat().st_mtime_ns
    trials, plants = trained(tmp_path / "run")
    assert part.stat().st_mtime_ns == then
    np.testing.assert_array_equal(trials.consistency, done[1].consistency)
    np.testing.assert_equal(dict(trials.held_out), dict(done[1].held_out))
    np.testing.assert_equal(plants, done[2])


def test_plants_fit_worse_than_pairs(done) -> None:
    _, trials, plants = done
    assert np.nanmean(plants["random"]) > np.nanmean(trials.held_out["contrast"])


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    groups = np.arange(N) // 4
    trials, plants = trained(tmp_path / "run", replace(CONFIG, trials=4, epochs=1), groups=groups)
    assert (trials.member == trials.member[:, groups * 4]).all()
    assert np.isfinite(trials.consistency).all()
    # rows 1, 2 are of one group, always held out together; 3, 4 are not, and only in trials without both
    assert np.isfinite(plants["near"][0, 0])


def test_only_pairs_of_a_medium_and_a_text_have_a_generality(tmp_path: Path) -> None:
    trials, _ = trained(tmp_path / "run", replace(CONFIG, trials=4, epochs=1), ("image", "text", "audio"))
    assert trials.held_out["cosine"].shape == (3, N)
    known = np.isfinite(trials.held_out["generality"]).all(1)
    assert known.tolist() == [True, False, False]  # image-text, image-audio, and text-audio, text first
    assert _text_sides(("image", "text"), ("text",)) == [(0, 1)]
    assert _text_sides(("image", "audio"), ()) == []
