from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit_plugin.arrays import AuditError, Features, Trials, modality_pairs
from audit_plugin.config import AuditConfig
from audit_plugin.neighbors import exact_search
from audit_plugin.scoring.contrast import Negatives, make_negatives
from audit_plugin.scoring.evidence import text_sides
from audit_plugin.scoring.held_out import Question, read_trials
from audit_plugin.store import RunFolder
from audit_plugin.trials import learners, multimem
from audit_plugin.trials.heads import Heads
from audit_plugin.trials.learners import fixed_learner, head_inputs, head_projections
from audit_plugin.trials.run import Job, Learner, TrialArrays, TrialPlan, plan_trials, run_plan
from audit_plugin.trials.split_protocol import group_report
from tests.core_fixtures import heads, unit

N = 64
CONFIG = AuditConfig(trials=16, epochs=3)
PLANTS = {"random": np.stack([np.arange(10), np.arange(20, 30)], 1), "near": np.array([[1, 2], [3, 4], [5, 9]])}


SPLIT = replace(CONFIG, protocol="split", trials=10)


def features(names: tuple[str, ...] = ("image", "text"), n: int = N, noise: float = 0.2) -> Features:
    """Noisy looks at one hidden vector per row; the more noise, the more there is to be memorized."""
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((n, 4))
    looks = {name: hidden @ rng.standard_normal((4, 10)) + noise * rng.standard_normal((n, 10)) for name in names}
    vectors = {name: unit(look) for name, look in looks.items()}
    return Features(vectors, np.ones((n, len(names)), bool))


def read(given: Features, plan: TrialPlan, learner: Learner, job: Job,
         groups: np.ndarray | None = None) -> tuple[Trials, dict[str, np.ndarray]]:  # fmt: skip
    """The trials, and what they held out: `planted` on the probe pairs, one kind after the other."""
    negatives = negatives_of(given, groups)
    trials = run_plan(plan, learner, negatives.repeats[:, -1].numpy(), job)
    pairs, probes = modality_pairs(given.modalities), np.concatenate(list(PLANTS.values()))
    question = Question(plan.member, pairs, text_sides(given.modalities, {"text"}), negatives, probes)
    return trials, read_trials(trials.embed, question)


def negatives_of(given: Features, groups: np.ndarray | None = None) -> Negatives:
    rows = np.arange(len(given.present))
    repeats = np.stack([*(rows for _ in given.vectors), rows if groups is None else groups], 1)
    near = np.concatenate([exact_search(v, 5).indices for v in given.vectors.values()], 1)
    return make_negatives(repeats, near, np.ones(len(rows), bool), 0, "cpu")


def trained(
    folder: Path,
    config: AuditConfig = CONFIG,
    names: tuple[str, ...] = ("image", "text"),
    progress=lambda *_: None,
    groups: np.ndarray | None = None,
    views: int = 0,
    given: Features | None = None,
) -> tuple[Trials, dict[str, np.ndarray]]:
    """Heads trained on the toy features; `views` times the same features as views."""
    given = given or features(names)
    plan = plan_trials(np.arange(len(given.present)) if groups is None else groups, config)
    with RunFolder(folder, {}) as run:
        job = Job(config, "cpu", run, progress)
        learner = heads(given, job, (given,) * views)(plan, negatives_of(given, groups).repeats.numpy())
        return read(given, plan, learner, job, groups)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trials, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("trials") / "run"
    return folder, *trained(folder)


def test_shapes_and_kinds(done) -> None:
    _, trials, held_out = done
    assert trials.member.shape == trials.consistency.shape == (16, N)
    assert (trials.member[0::2] != trials.member[1::2]).all()
    assert trials.consistency.dtype == np.float32
    assert {name: v.shape for name, v in held_out.items()} == {
        "cosine": (1, N), "contrast": (1, N), "generality": (1, N), "planted": (1, 13)
    }  # fmt: skip
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in held_out.values())


def test_held_out_values_are_means_over_the_trials_that_did_not_see_the_sample(done) -> None:
    """Cosine and consistency again, from the heads on disk."""
    folder, trials, held_out = done
    given = features()
    inputs = head_inputs(given, head_projections(given), "cpu")
    cosine = []
    for trial in range(16):
        with np.load(folder / f"trials_{trial // 8 * 8:04d}.npz") as arrays:
            kept = Heads.from_arrays(dict(arrays), 2, "cpu")
        image, text = (e.numpy() for e in kept.embed(inputs, trial % 8))
        cosine.append((image * text).sum(1))
        consistency = multimem.consistency([image, text], ~trials.member[trial], np.arange(N))
        np.testing.assert_allclose(trials.consistency[trial], consistency, atol=1e-6)
    outside = ~trials.member
    expected = np.where(outside, cosine, 0).sum(0) / outside.sum(0)
    np.testing.assert_allclose(held_out["cosine"][0], expected, atol=1e-6)


def test_members_are_remembered(done) -> None:
    trials = done[1]
    values = multimem.remove_offsets(trials.consistency, trials.member)
    assert multimem.estimate_multimem(values, trials.member)[0].mean() > 0.01


def test_what_was_summed_up_for_all_samples_is_not_kept_with_the_heads(tmp_path: Path) -> None:
    given, groups, read_with = features(), np.arange(N), []
    plan = plan_trials(groups, CONFIG)
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(CONFIG, "cpu", run, lambda *_: None)
        learner = heads(given, job)(plan, negatives_of(given).repeats.numpy())

        def load(arrays: TrialArrays) -> Any:
            read_with.append(set(arrays))
            return learner.load(arrays)

        trials = run_plan(plan, replace(learner, load=load), groups, job)
        read_with.clear()
        for number in (0, 15):
            trials.embed(number)
    assert read_with == [{f"head_{a}_{i}" for a in range(2) for i in range(4)}] * 2


def test_one_trials_embeddings_are_gone_before_the_next_ones_are_made(tmp_path: Path) -> None:
    """Of many samples they are the largest tables there are: two at a time would set the peak of the memory."""
    given, alive = features(), []
    plan = plan_trials(np.arange(N), CONFIG)

    def embed(*_: Any) -> list[torch.Tensor]:
        alive.append(sum(reference() is not None for reference in made))
        embeddings = [torch.from_numpy(vectors.copy()) for vectors in given.vectors.values()]
        made.extend(weakref.ref(each) for each in embeddings)
        return embeddings

    made: list[weakref.ref[torch.Tensor]] = []
    learner = Learner("nothing", 8, lambda _numbers, _member: {"none": np.zeros(1)}, embed)
    with RunFolder(tmp_path / "run", {"test": "memory"}) as folder:
        run_plan(plan, learner, np.arange(N), Job(CONFIG, "cpu", folder, lambda *_: None))
    assert alive == [0] * 16


def test_a_trial_does_not_depend_on_how_many_there_are(done, tmp_path: Path) -> None:
    few, _ = trained(tmp_path / "run", replace(CONFIG, trials=8))
    np.testing.assert_array_equal(few.consistency, done[1].consistency[:8])
    np.testing.assert_array_equal(few.member, done[1].member[:8])


def same(one: tuple[Trials, dict[str, np.ndarray]], two: tuple[Trials, dict[str, np.ndarray]]) -> None:
    for name in ("member", "consistency", "multimem_terms"):
        np.testing.assert_array_equal(getattr(one[0], name), getattr(two[0], name))
    np.testing.assert_equal(one[1], two[1])


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, folds=4), SPLIT], ids=["halves", "folds", "split"])
def test_a_stopped_run_goes_on_after_its_last_group(config: AuditConfig, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def stop(*args) -> None:
        told.append(args)
        if args[1] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", config, progress=stop)
    assert told == [("train", 0, config.trials), ("train", 8, config.trials)]
    part = tmp_path / "run" / "trials_0000.npz"
    assert [p.name for p in part.parent.glob("*.npz")] == [part.name]
    then = part.stat().st_mtime_ns
    resumed = trained(tmp_path / "run", config)
    assert part.stat().st_mtime_ns == then
    same(resumed, trained(tmp_path / "whole", config))


def test_plants_fit_worse_than_pairs(done) -> None:
    held_out = done[2]
    assert np.nanmean(held_out["planted"][:, :10]) > np.nanmean(held_out["contrast"])


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    groups = np.arange(N) // 4
    trials, held_out = trained(tmp_path / "run", replace(CONFIG, trials=4, epochs=1), groups=groups)
    assert (trials.member == trials.member[:, groups * 4]).all()
    assert np.isfinite(trials.consistency).all()
    # rows 1, 2 are of one group, always held out together; 3, 4 are not, and only in trials without both
    assert np.isfinite(held_out["planted"][0, 10])


def test_only_pairs_of_a_medium_and_a_text_have_a_generality(tmp_path: Path) -> None:
    _, held_out = trained(tmp_path / "run", replace(CONFIG, trials=4, epochs=1), ("image", "text", "audio"))
    assert held_out["cosine"].shape == (3, N)
    known = np.isfinite(held_out["generality"]).all(1)
    assert known.tolist() == [True, False, True]  # image-text, image-audio, and text-audio, text first
    assert text_sides(("image", "text"), {"text"}) == {0: 1}
    assert text_sides(("image", "audio"), set()) == {}


# --- MultiMem's terms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, folds=4), SPLIT], ids=["halves", "folds", "split"])
@pytest.mark.parametrize("names", [("image", "text"), ("image", "text", "audio")])
def test_the_kept_terms_add_up_to_multimem(config: AuditConfig, names: tuple[str, ...], tmp_path: Path) -> None:
    trials, _ = trained(tmp_path / "run", replace(config, epochs=2), names)
    whole, _ = multimem.estimate_multimem(multimem.adjusted_consistency(trials), trials.member, trials.folds)
    assert trials.multimem_terms.shape == (len(names), len(names), N)
    np.testing.assert_allclose(multimem.sum_terms(trials.multimem_terms), whole, atol=1e-5)
    once = trials.member.any(0) & ~trials.member.all(0)
    assert (np.isfinite(whole) == once).all()
    np.testing.assert_allclose(np.diagonal(trials.multimem_terms).sum(1)[~once], np.nan)
    assert once.sum() == (N if config.protocol == "ensemble" else 12)


def test_a_part_of_the_terms_is_the_run_read_without_a_modality(tmp_path: Path) -> None:
    """MultiMem of any modalities, again from the embeddings alone: others are left out of v and of its reference."""
    names = ("image", "text", "audio")
    given = features(names)
    plan = plan_trials(np.arange(N), replace(CONFIG, trials=4))
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(replace(CONFIG, trials=4), "cpu", run, lambda *_: None)
        learner = heads(given, job)(plan, negatives_of(given).repeats.numpy())
        trials, _ = read(given, plan, learner, job)
        arrays = run.load("trials_0000")
        assert arrays is not None
        embeddings = [[e.numpy() for e in learner.embed(learner.load(arrays), trial, 0)] for trial in range(4)]
    for chosen in [*modality_pairs(names), (0, 1, 2)]:
        values = np.stack([
            multimem.consistency([e[a] for a in chosen], ~member, np.arange(N))
            for e, member in zip(embeddings, plan.member, strict=True)
        ])  # fmt: skip
        want, _ = multimem.estimate_multimem(multimem.remove_offsets(values, plan.member), plan.member)
        np.testing.assert_allclose(multimem.sum_terms(trials.multimem_terms, chosen), want, atol=1e-5)


def test_ranks_agree_with_clipmem_on_trained_pairs(tmp_path: Path) -> None:
    """With two modalities MultiMem and CLIPMem differ by same-modality terms only; see test_multimem."""
    given = features()
    config = replace(CONFIG, trials=16, epochs=20)
    plan = plan_trials(np.arange(N), config)
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(config, "cpu", run, lambda *_: None)
        learner = heads(given, job)(plan, negatives_of(given).repeats.numpy())
        trials, _ = read(given, plan, learner, job)
        align = []
        for trial, member in enumerate(plan.member):
            arrays = run.load(f"trials_{trial // 8 * 8:04d}")
            assert arrays is not None
            image, text = (e.numpy() for e in learner.embed(learner.load(arrays), trial, 0))
            align.append((image * text).sum(1) - image @ text[~member].mean(0) - text @ image[~member].mean(0))
    clipmem, _ = multimem.estimate_multimem(multimem.remove_offsets(np.stack(align), plan.member), plan.member)
    ours = multimem.sum_terms(trials.multimem_terms)
    ranks = [np.argsort(np.argsort(values)) for values in (ours, clipmem)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    assert min(ours.mean(), clipmem.mean()) > 0


# --- views ---------------------------------------------------------------------------------------------------------


def looks(n: int = N, views: int = 3) -> list[list[dict[str, np.ndarray]]]:
    """Two models' unit embeddings of a plain sample and of `views` augmented ones."""
    rng = np.random.default_rng(3)
    return [[{m: unit(rng.standard_normal((n, 6))) for m in ("image", "text")} for _ in range(views + 1)]
            for _ in range(2)]  # fmt: skip


def read_both(folder: Path, models: list[list[dict[str, np.ndarray]]]) -> tuple[Trials, dict[str, np.ndarray]]:
    plan = TrialPlan(multimem.member_masks(np.arange(N), 2, 0), np.ones(N, bool))
    with RunFolder(folder, {}) as run:
        job = Job(replace(CONFIG, trials=2), "cpu", run, lambda *_: None)
        return read(features(), plan, fixed_learner("nothing", models, job), job)


def read_fixed(folder: Path, models: list[list[dict[str, np.ndarray]]]) -> Trials:
    return read_both(folder, models)[0]


def test_consistency_over_views_is_the_mean_of_each_views_scalar(tmp_path: Path) -> None:
    models = looks()
    trials = read_fixed(tmp_path / "all", models)
    single = [read_fixed(tmp_path / str(view), [[m[view]] for m in models]) for view in range(1, 4)]
    np.testing.assert_allclose(trials.consistency, np.mean([s.consistency for s in single], axis=0), atol=1e-6)
    np.testing.assert_allclose(trials.multimem_terms, np.mean([s.multimem_terms for s in single], axis=0), atol=1e-6)
    # the embeddings' mean would be something else, and so would be the plain sample
    blurred = [[{m: np.mean([v[m] for v in model[1:]], axis=0) for m in model[0]}] for model in models]
    assert np.abs(read_fixed(tmp_path / "blurred", blurred).consistency - trials.consistency).max() > 0.1
    assert np.abs(read_fixed(tmp_path / "plain", [[m[0]] for m in models]).consistency - trials.consistency).max() > 0.1


def test_a_view_stands_on_both_sides_of_the_product(tmp_path: Path) -> None:
    models = looks(views=1)
    trials = read_fixed(tmp_path / "run", models)
    for model, member, got in zip(models, trials.member, trials.consistency, strict=True):
        view = list(model[1].values())
        np.testing.assert_allclose(got, multimem.consistency(view, ~member, np.arange(N)), atol=1e-6)


def test_equal_views_are_as_one(tmp_path: Path) -> None:
    models = looks(views=1)
    one = read_fixed(tmp_path / "one", models)
    two = read_fixed(tmp_path / "two", [[*m, m[1]] for m in models])
    np.testing.assert_array_equal(one.consistency, two.consistency)
    np.testing.assert_array_equal(one.multimem_terms, two.multimem_terms)


def test_views_do_not_touch_what_is_held_out(tmp_path: Path) -> None:
    models = looks()
    many, none = read_both(tmp_path / "many", models), read_both(tmp_path / "none", [[m[0]] for m in models])
    np.testing.assert_equal(many[1], none[1])


def test_views_that_change_nothing_change_nothing(done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "FEATURE_NOISE", 0.0)
    same(trained(tmp_path / "run", views=2), (done[1], done[2]))
    monkeypatch.setattr(learners, "FEATURE_NOISE", 0.1)
    noisy, _ = trained(tmp_path / "noisy", views=2)
    assert (noisy.consistency != done[1].consistency).all(1).any()
    assert np.corrcoef(noisy.consistency.ravel(), done[1].consistency.ravel())[0, 1] > 0.9


# --- the paper's split ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read_split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trials, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("split") / "run"
    return trained(folder, replace(SPLIT, epochs=20), given=features(n=300, noise=1.5))


@pytest.fixture(scope="module")
def split(read_split: tuple[Trials, dict[str, np.ndarray]]) -> Trials:
    return read_split[0]


def test_the_groups_of_a_split_score_as_the_paper_says(split: Trials) -> None:
    values = multimem.adjusted_consistency(split)
    groups = group_report(values[0::2] - values[1::2], split.roles)["groups"]
    mean = {name: group["mean"] for name, group in groups.items()}
    assert mean["candidate"] > 0.05
    assert mean["independent"] < -0.05
    assert groups["candidate"]["low"] > 0 > groups["independent"]["high"]
    assert abs(mean["shared"]) < 0.25 * mean["candidate"]
    assert mean["external"] == pytest.approx(0, abs=1e-7)  # the offset is theirs
    assert mean["candidate"] == pytest.approx(-mean["independent"], rel=0.5)


def test_a_split_scores_candidates_and_mirrors_independent_samples(split: Trials) -> None:
    score, error = multimem.estimate_multimem(multimem.adjusted_consistency(split), split.member)
    roles = split.roles
    assert (np.isfinite(score) == np.isin(roles, ["f", "g"])).all()
    assert (np.isfinite(error) == np.isfinite(score)).all()
    assert score[roles == "f"].mean() > 0.05
    assert score[roles == "g"].mean() > 0.05  # saw g against saw not: positive as well


def test_masks_of_a_split_follow_the_roles_and_the_reference_is_nobodys(split: Trials, read_split) -> None:
    roles, member = split.roles, split.member
    assert len(member) == 10
    assert (member[0::2] == np.isin(roles, ["both", "f"])).all()
    assert (member[1::2] == np.isin(roles, ["both", "g"])).all()
    assert (split.offset_rows == (roles == "none")).all()
    assert {r: int((roles == r).sum()) for r in set(roles)} == {
        "both": 180,
        "f": 30,
        "g": 30,
        "none": 30,
        "reference": 30,
    }
    held = multimem.mean_as_non_member(split.consistency, member)
    assert (np.isfinite(held) == (roles != "both")).all()  # no model held these out
    assert (np.isfinite(read_split[1]["contrast"][0]) == (roles != "both")).all()


def test_consistency_of_a_split_is_read_against_its_fixed_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    roles = np.array(["both"] * 30 + ["f"] * 10 + ["g"] * 10 + ["none"] * 6 + ["reference"] * 8)
    models = looks(views=0)
    config = replace(CONFIG, protocol="split", trials=2)
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(config, "cpu", run, lambda *_: None)
        plan = plan_trials(rng.permutation(N), config, roles)
        trials, _ = read(features(), plan, fixed_learner("nothing", models, job), job)
    assert (plan.roles == roles).all()
    for model, got in zip(models, trials.consistency, strict=True):
        want = multimem.consistency(list(model[0].values()), roles == "reference", np.arange(N))
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_given_roles_without_a_reference_halve_the_unseen() -> None:
    roles = np.array(["both"] * 20 + ["f"] * 10 + ["g"] * 10 + [""] * 24, dtype=object)
    plan = plan_trials(np.arange(N), replace(SPLIT, trials=6), roles)
    assert (plan.roles[:40] == roles[:40]).all()
    assert set(plan.roles[40:]) == {"none", "reference"}
    assert plan.reference is not None
    assert plan.offset_rows is not None
    assert plan.reference[40:].sum() == plan.offset_rows[40:].sum() == 12
    assert plan.member.shape == (6, N)
    with pytest.raises(AuditError, match="no row has the role g"):
        plan_trials(np.arange(N), SPLIT, np.where(roles == "g", "f", roles))


def test_a_split_takes_the_users_reference_or_all_their_roles(tmp_path: Path) -> None:
    split = replace(CONFIG, protocol="split", trials=4)
    only = np.full(N, "", dtype=object)
    only[:6] = "reference"
    plan = plan_trials(np.arange(N), split, only)
    assert plan.reference is not None
    assert np.flatnonzero(plan.reference).tolist() == list(range(6))
    assert plan.member.sum(1).tolist() == [plan.member[0].sum()] * 4
    every = np.array([("both", "f", "g", "none", "reference")[i % 5] for i in range(N)], dtype=object)
    plan = plan_trials(np.arange(N), split, every)
    assert (plan.member[0] == np.isin(every, ("both", "f"))).all()
    assert (plan.member[1] == np.isin(every, ("both", "g"))).all()


def test_checkpoints_need_to_know_who_saw_what() -> None:
    with pytest.raises(AuditError, match="name the field or column that says what f and g saw: role"):
        plan_trials(np.arange(N), replace(CONFIG, train="checkpoints"))
