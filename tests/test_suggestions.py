from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from audit_plugin.arrays import Features
from audit_plugin.config import AuditConfig
from audit_plugin.evidence import Gathered, Rows, gather
from audit_plugin.held_out import TEMPERATURE
from audit_plugin.learners import head_inputs, head_projections
from audit_plugin.memorization import member_masks
from audit_plugin.store import RunFolder
from audit_plugin.suggestions import candidate_contrast, suggest
from audit_plugin.training import TRIAL_GROUP, Heads
from audit_plugin.trials import Job
from tests.core_fixtures import heads, unit

N, SWAPPED = 150, 16
PAIR, SEED = ("image", "text"), 0
CAPTIONS = [f"caption {row}" for row in range(N)]  # as written: those of the first 16 rows went round
TRUE = np.r_[np.roll(np.arange(SWAPPED), 1), np.arange(SWAPPED, N)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gathered, Job]]:
    """A trained set in which the captions of the first rows went round; the last two rows share their text."""
    rng = np.random.default_rng(4)
    hidden = rng.standard_normal((N, 6))
    image, text = (hidden @ rng.standard_normal((6, 20)) + 0.3 * rng.standard_normal((N, 20)) for _ in range(2))
    text[:SWAPPED] = np.roll(text[:SWAPPED], -1, axis=0)
    text[-1] = text[-2]
    contents = {"image": np.arange(N), "text": np.r_[np.arange(N - 1), N - 2]}
    features = Features({"image": unit(image), "text": unit(text)}, np.ones((N, 2), bool))
    with RunFolder(tmp_path_factory.mktemp("run") / "run", {}) as run:
        job = Job(AuditConfig(trials=12, epochs=25), "cpu", run, lambda *_: None)
        rows = Rows(contents, dict.fromkeys(PAIR, ""), {"text": np.full(N, 5)})
        yield gather(features, rows, heads(features, job), job), job


def marked(*rows: int) -> np.ndarray:
    return np.isin(np.arange(N), rows)


def test_swapped_rows_get_their_own_caption_back(made: tuple[Gathered, Job]) -> None:
    found = suggest(made[0], marked(*range(SWAPPED)), CAPTIONS, SEED)
    assert found.dtype == object
    right = [found[row] == CAPTIONS[TRUE[row]] for row in range(SWAPPED) if found[row]]
    assert len(right) > SWAPPED / 4  # only what fits like the set's better half is proposed
    assert np.mean(right) > 0.9
    assert not any(found[SWAPPED:])


def test_rows_that_fit_get_none(made: tuple[Gathered, Job]) -> None:
    found = suggest(made[0], marked(*range(SWAPPED, SWAPPED + 40)), CAPTIONS, SEED)
    assert np.mean(found != "") < 0.05
    assert not any(suggest(made[0], marked(), CAPTIONS, SEED))


def test_the_present_caption_is_never_proposed_not_even_from_another_row(made: tuple[Gathered, Job]) -> None:
    captions = [*CAPTIONS[:-1], CAPTIONS[-2]]
    found = suggest(made[0], np.ones(N, bool), captions, SEED)
    assert (found != "").any()
    assert all(proposed != present for proposed, present in zip(found, captions, strict=True))


def test_candidates_are_weighed_by_trials_that_saw_neither(made: tuple[Gathered, Job]) -> None:
    """The double loop over trials and cells, from the heads on disk."""
    gathered, job = made
    rows, pool = np.array([0, 3, 40]), np.arange(0, N, 2)
    got = candidate_contrast(gathered, PAIR, rows, pool)
    features = Features(gathered.evidence.vectors, np.ones((N, 2), bool))
    inputs = head_inputs(features, head_projections(features), "cpu")
    member = member_masks(gathered.evidence.leave_together, job.config.trials, job.config.seed)
    values: dict[tuple[int, int], list[float]] = {}
    for trial in range(job.config.trials):
        arrays = job.run.load(f"trials_{trial // TRIAL_GROUP * TRIAL_GROUP:04d}")
        assert arrays is not None
        left, right = Heads.from_arrays(arrays, 2, "cpu").embed(inputs, trial % TRIAL_GROUP)
        near = (left @ right.T / TEMPERATURE).double()
        theirs = [j for j in pool if not member[trial, j]]
        size = np.log(len(theirs) - 1)
        for a, i in enumerate(rows):
            for b, j in enumerate(pool):
                if not member[trial, i] and not member[trial, j]:
                    captions, media = [c for c in theirs if c != j], [r for r in theirs if r != i]
                    ways = torch.logsumexp(near[i, captions], 0) + torch.logsumexp(near[media, j], 0) - 2 * size
                    values.setdefault((a, b), []).append(float(TEMPERATURE * (0.5 * ways - near[i, j])))
    for a, b in np.ndindex(got.shape):
        if (a, b) in values:
            assert got[a, b] == pytest.approx(np.mean(values[a, b]), abs=2e-3)
        else:
            assert np.isnan(got[a, b])


def test_untrained_sets_and_sets_without_a_medium_get_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = Features({name: unit(rng.standard_normal((8, 4))) for name in PAIR}, np.ones((8, 2), bool))
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(AuditConfig(trials=2, epochs=1), "cpu", run, lambda *_: None)
        numbers = dict.fromkeys(PAIR, np.arange(8))
        rows = Rows(numbers, dict.fromkeys(PAIR, ""), {"text": np.ones(8, int)})
        few = gather(features, rows, heads(features, job), job)
        assert suggest(few, np.ones(8, bool), CAPTIONS[:8], SEED).tolist() == [""] * 8
