from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError, Features
from audit_plugin.config import AuditConfig
from audit_plugin.store import RunFolder
from audit_plugin.trials.heads import TRIAL_GROUP
from audit_plugin.trials.learners import (
    fixed_learner,
    head_inputs,
    head_projections,
    heads_learner,
    trained_heads_learner,
)
from audit_plugin.trials.multimem import member_masks
from audit_plugin.trials.run import Job, Learner, TrialPlan, part_name
from tests.core_fixtures import unit

N = 48
CONFIG = AuditConfig(trials=10, epochs=2)
PLAN = TrialPlan(member_masks(np.arange(N), 10, 0), np.ones(N, bool))
ALONE = np.arange(N)[:, None]
NAMES = ("image", "text", "audio")


def features(n: int = N) -> Features:
    """Modalities of different width, as encoders have them."""
    rng = np.random.default_rng(0)
    vectors = {name: unit(rng.standard_normal((n, dim))) for name, dim in zip(NAMES, (14, 9, 20), strict=True)}
    return Features(vectors, np.ones((n, 3), bool))


@pytest.fixture
def job(tmp_path: Path):
    with RunFolder(tmp_path / "run", {}) as run:
        yield Job(CONFIG, "cpu", run, lambda *_: None)


def heads(job: Job, views: int = 0) -> Learner:
    given = features()
    return heads_learner(given, [given] * views, head_projections(given), ALONE, PLAN, job)


def fixed(job: Job, views: int = 0) -> Learner:
    rng = np.random.default_rng(1)
    models = [
        [{name: unit(rng.standard_normal((N, 7))) for name in NAMES} for _ in range(views + 1)] for _ in range(10)
    ]
    return fixed_learner("nothing: brought along", models, job)


def groups_of(learner: Learner) -> list[list[int]]:
    starts = range(0, len(PLAN.member), learner.trials_per_part)
    return [list(range(start, min(start + learner.trials_per_part, len(PLAN.member)))) for start in starts]


# --- what every learner keeps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [heads, fixed])
@pytest.mark.parametrize("views", [0, 2])
def test_embeddings_are_unit_rows_for_every_trial_and_view(make: Callable[..., Learner], views: int, job: Job) -> None:
    learner = make(job, views)
    assert learner.augmented == views
    assert len(learner.trained) > 10
    seen = []
    for numbers in groups_of(learner):
        kept = learner.make(numbers, PLAN.member[numbers])
        for number in numbers:
            for view in range(views + 1):
                embeddings = learner.embed(learner.load(kept), number, view)
                assert len(embeddings) == len(NAMES)
                assert len({e.shape for e in embeddings}) == 1
                for e in embeddings:
                    assert (len(e), e.dtype) == (N, torch.float32)
                    torch.testing.assert_close(e.norm(dim=1), torch.ones(N))
                seen.append(embeddings[0].numpy().tobytes())
    assert len(set(seen)) == len(seen) == 10 * (views + 1)  # trials differ, and so do the views


@pytest.mark.parametrize("make", [heads, fixed])
def test_what_is_kept_suffices_to_embed_again(make: Callable[..., Learner], job: Job) -> None:
    """Through the run folder, by a learner that made nothing: that is how a run is resumed."""
    first, second = make(job, 1), make(job, 1)
    for numbers in groups_of(first):
        kept = first.make(numbers, PLAN.member[numbers])
        job.run.save(part_name(numbers[0]), **kept)
        loaded = job.run.load(part_name(numbers[0]))
        assert loaded is not None
        for number in numbers:
            for view in (0, 1):
                one_part, other_part = first.load(kept), second.load(loaded)
                for one, two in zip(
                    first.embed(one_part, number, view), second.embed(other_part, number, view), strict=True
                ):
                    assert torch.equal(one, two)


# --- heads ---------------------------------------------------------------------------------------------------------


def test_equal_settings_make_equal_heads(job: Job) -> None:
    numbers = [0, 1]
    one, two = (heads(job).make(numbers, PLAN.member[numbers]) for _ in range(2))
    assert set(one) == set(two)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_inputs_have_mean_square_one_whatever_the_width() -> None:
    given = features()
    for x in head_inputs(given, head_projections(given), "cpu"):
        assert float((x * x).mean()) == pytest.approx(1, abs=1e-5)


def test_the_last_group_may_be_smaller(job: Job) -> None:
    learner = heads(job)
    assert groups_of(learner) == [list(range(TRIAL_GROUP)), [8, 9]]
    kept = learner.make([8, 9], PLAN.member[8:])
    assert kept["head_0_0"].shape[0] == 2
    assert not torch.equal(learner.embed(learner.load(kept), 8, 0)[0], learner.embed(learner.load(kept), 9, 0)[0])


def test_the_noise_of_a_view_is_the_same_for_every_trial_and_run(job: Job) -> None:
    one, two = heads(job, 2), heads(job, 2)
    kept = one.make([0], PLAN.member[:1])
    for view in (1, 2):
        assert torch.equal(one.embed(one.load(kept), 0, view)[1], two.embed(two.load(kept), 0, view)[1])
    assert not torch.equal(one.embed(one.load(kept), 0, 1)[1], one.embed(one.load(kept), 0, 2)[1])
    plain, noisy = (one.embed(one.load(kept), 0, view)[1] for view in (0, 1))
    assert 0.8 < float((plain * noisy).sum(1).mean()) < 0.9999


# --- heads of a finished run ---------------------------------------------------------------------------------------


def test_kept_heads_read_samples_that_they_were_not_made_for(job: Job) -> None:
    learner, given = heads(job), features()
    for numbers in groups_of(learner):
        job.run.save(part_name(numbers[0]), **learner.make(numbers, PLAN.member[numbers]))
    rng = np.random.default_rng(2)
    more = Features(
        {m: np.concatenate([v, unit(rng.standard_normal((5, v.shape[1])))]) for m, v in given.vectors.items()},
        np.ones((N + 5, 3), bool),
    )
    later = trained_heads_learner(more, head_projections(given), job.run, job)
    assert later.make([0], PLAN.member[:1]) == {}  # nothing is trained
    for number in (0, 9, 3):
        arrays = job.run.load(part_name(number // 8 * 8))
        assert arrays is not None
        for old, new in zip(learner.embed(learner.load(arrays), number, 0), later.embed({}, number, 0), strict=True):
            torch.testing.assert_close(new[:N], old, atol=1e-6, rtol=0)
            torch.testing.assert_close(new[N:].norm(dim=1), torch.ones(5))


def test_heads_that_are_gone_are_named(job: Job) -> None:
    given = features()
    learner = trained_heads_learner(given, head_projections(given), job.run, job)
    with pytest.raises(AuditError, match="trials 8 and following in .* are gone or damaged; run the audit"):
        learner.embed({}, 9, 0)
