from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audit_plugin.arrays import ROLES, AuditError
from audit_plugin.trials import split_protocol
from audit_plugin.trials.split_protocol import group_report, split_roles, train_roles


def counts(roles: np.ndarray) -> dict[str, int]:
    return {role: int((roles == role).sum()) for role in ROLES}


# --- the draw ------------------------------------------------------------------------------------------------------


def test_sizes_without_groups() -> None:
    expected = {"both": 600, "f": 100, "g": 100, "none": 100, "reference": 100}
    assert counts(split_roles(np.arange(1000), 0)) == expected


def test_the_reference_has_at_most_a_thousand() -> None:
    assert counts(split_roles(np.arange(20_000), 0)) == {
        "both": 13_000,
        "f": 2_000,
        "g": 2_000,
        "none": 2_000,
        "reference": 1_000,
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=60, max_size=160), st.integers(0, 5))
def test_groups_keep_one_role_and_f_and_g_stay_equal(sizes: list[int], seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(seed).permutation(len(groups))  # groups need not be contiguous
    roles = split_roles(groups[order], seed)
    for group in range(len(sizes)):
        assert len(set(roles[groups[order] == group])) == 1
    found = counts(roles)
    assert sum(found.values()) == len(groups)
    tenth = round(0.1 * len(groups))
    assert all(tenth - 3 <= found[role] <= tenth for role in ("f", "g", "none", "reference"))
    assert abs(found["f"] - found["g"]) <= 3


def test_the_names_of_groups_do_not_matter_but_the_seed_does() -> None:
    groups = np.random.default_rng(0).integers(0, 120, 400)
    renamed = np.random.default_rng(1).permutation(1000)[groups]
    np.testing.assert_array_equal(split_roles(groups, 3), split_roles(renamed, 3))
    assert (split_roles(groups, 3) != split_roles(groups, 4)).any()


def test_every_sample_is_a_candidate_equally_often() -> None:
    drawn = np.mean([split_roles(np.arange(50), seed) == "f" for seed in range(400)], axis=0)
    assert abs(drawn.mean() - 0.1) < 1e-9
    assert drawn.min() > 0.03  # binomial(400, .1): 4.7 standard deviations below the mean
    assert drawn.max() < 0.18


def test_the_reference_is_balanced_over_classes() -> None:
    labels = ["common"] * 800 + ["rare"] * 150 + ["single"] * 50
    roles = split_roles(np.arange(1000), 0, labels)
    found = {name: int((roles[np.array(labels) == name] == "reference").sum()) for name in set(labels)}
    # a third each would be 33 or 34, but at most half of a class leaves: 25 of "single", and the others share 75
    assert found["single"] == 25
    assert sorted((found["common"], found["rare"])) == [37, 38]


def test_more_classes_than_places_gives_each_at_most_one() -> None:
    labels = [str(row // 4) for row in range(400)]
    roles = split_roles(np.arange(400), 0, labels)
    taken = np.bincount(np.arange(400)[roles == "reference"] // 4, minlength=100)
    assert taken.sum() == 40
    assert taken.max() == 1


def test_a_balanced_reference_keeps_groups_whole() -> None:
    groups, labels = np.arange(600) // 2, [str(row % 2) for row in range(600)]  # every group holds both classes
    roles = split_roles(groups, 0, labels)
    assert (roles[0::2] == roles[1::2]).all()
    assert counts(roles)["reference"] == 60


def test_equal_shares_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert split_protocol._equal_shares(np.array([1, 5, 9]), 9, rng).tolist() == [1, 4, 4]
    assert split_protocol._equal_shares(np.array([1, 2, 3]), 9, rng).tolist() == [1, 2, 3]
    assert sorted(split_protocol._equal_shares(np.array([9, 9, 9]), 10, rng).tolist()) == [3, 3, 4]
    assert split_protocol._equal_shares(np.array([0, 0]), 4, rng).tolist() == [0, 0]


@pytest.mark.parametrize("groups", [np.zeros(0, int), np.arange(12), np.zeros(500, int), np.arange(500) // 100])
def test_too_little_to_split(groups: np.ndarray) -> None:
    with pytest.raises(AuditError, match="--protocol ensemble"):
        split_roles(groups, 0)


# --- given roles ---------------------------------------------------------------------------------------------------


def test_named_roles() -> None:
    member, reference, offset = train_roles(("both", "f", "g", "none", "", "reference"))
    assert member.tolist() == [[True, True, False, False, False, False], [True, False, True, False, False, False]]
    assert reference.tolist() == [False, False, False, False, False, True]
    assert offset.tolist() == [False, False, False, True, True, False]


def test_without_a_reference_half_of_the_unseen_serve() -> None:
    roles = ("f", "g", *["none"] * 21, *["both"] * 10)
    member, reference, offset = train_roles(roles, seed=1)
    assert (reference.sum(), offset.sum()) == (10, 11)
    assert not (member[0] & member[1])[:23].any()
    assert not (reference & offset).any()
    assert ((reference | offset) == (np.array(roles) == "none")).all()
    np.testing.assert_array_equal(train_roles(roles, seed=1)[1], reference)
    assert (train_roles(roles, seed=2)[1] != reference).any()


def test_a_drawn_split_gives_models_of_equal_size() -> None:
    member, reference, offset = train_roles(split_roles(np.arange(500), 0))
    assert member.sum(1).tolist() == [350, 350]
    assert (reference.sum(), offset.sum()) == (50, 50)
    assert (member.any(0).astype(int) + reference + offset == 1).all()


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (("both", "g", "none", "none"), "role f"),
        (("both", "f", "none", "none"), "role g"),
        (("f", "g", "both"), "role none"),
        (("f", "g", "none"), "role none"),
        (("f", "g", "reference"), "role none"),
    ],
)
def test_roles_that_cannot_be_compared(roles: tuple[str, ...], missing: str) -> None:
    with pytest.raises(AuditError, match=missing):
        train_roles(roles)


# --- the statistics ------------------------------------------------------------------------------------------------

ROWS = ["f", "f", "f", "g", "g", "g", "both", "both", "both", "none", "none", "reference"]
FIRST = [1.0, 2.0, 3.0, -1.0, -2.0, -1.5, 0.1, -0.1, 0.3, 0.0, 0.3, np.nan]
SECOND = [2.0, 3.0, 4.0, -2.0, -3.0, -2.5, 0.0, 0.2, 0.1, 0.1, -0.1, np.nan]


def test_group_means_by_hand() -> None:
    found = group_report(np.array([FIRST, SECOND]), ROWS)
    candidate = found["groups"]["candidate"]
    # repeats' means 2 and 3: mean 2.5, standard error .5, t(.975, 1) = 12.706
    assert candidate["mean"] == pytest.approx(2.5)
    assert (candidate["low"], candidate["high"]) == pytest.approx((2.5 - 6.3531, 2.5 + 6.3531), abs=1e-4)
    assert candidate["sd"] == pytest.approx(1.0)  # 1, 2, 3 and 2, 3, 4
    assert candidate["n"] == 3
    assert found["repeats"] == 2
    # independent: -1.5 and -2.5, so the sums with the candidates' means are .5 and .5
    assert found["mirror"] == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_welch_as_scipy_has_it() -> None:
    rng = np.random.default_rng(0)
    roles = rng.choice(["both", "f", "g", "none"], 400, p=[0.7, 0.1, 0.1, 0.1])
    values = rng.normal(np.where(roles == "f", 0.3, 0), np.where(roles == "f", 2, 1), (5, 400))
    found = group_report(values, roles)["tests"]
    assert list(found) == ["candidate_shared", "shared_independent", "shared_external"]
    mean = values.mean(0)
    for (a, b), got in zip((("f", "both"), ("both", "g"), ("both", "none")), found.values(), strict=True):
        left, right = mean[roles == a], mean[roles == b]
        error = np.sqrt(left.var(ddof=1) / len(left) + right.var(ddof=1) / len(right))
        assert got["t"] == pytest.approx((left.mean() - right.mean()) / error)
        assert got["p"] == pytest.approx(stats.ttest_ind(left, right, equal_var=False).pvalue)


def test_swapping_f_and_g_mirrors_everything() -> None:
    rng = np.random.default_rng(1)
    roles = rng.choice(["both", "f", "g", "none"], 300)
    values = rng.normal(size=(4, 300))
    swapped = np.array([{"f": "g", "g": "f"}.get(role, role) for role in roles])
    one, other = group_report(values, roles), group_report(-values, swapped)
    assert one["groups"]["candidate"]["mean"] == pytest.approx(-other["groups"]["independent"]["mean"])
    assert one["mirror"]["mean"] == pytest.approx(-other["mirror"]["mean"])
    assert one["tests"]["candidate_shared"]["t"] == pytest.approx(other["tests"]["shared_independent"]["t"])


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        # a repeat's own shift is what an interval over samples would miss
        values = rng.normal(1, 1, (5, 1)) + rng.normal(0, 1, (5, 20))
        group = group_report(values, ["f"] * 20)["groups"]["candidate"]
        hits += group["low"] <= 1 <= group["high"]
    assert 0.92 <= hits / 400 <= 0.98


def test_what_cannot_be_computed_is_none() -> None:
    found = group_report(np.array([[1.0, -1.0, 0.0]]), ["f", "g", "both"])
    assert found["groups"]["candidate"] == {"mean": 1.0, "low": None, "high": None, "sd": None, "n": 1}
    assert found["groups"]["external"] == {"mean": None, "low": None, "high": None, "sd": None, "n": 0}
    assert found["tests"]["candidate_shared"] == {"t": None, "p": None}
    assert found["mirror"] == {"mean": 0.0, "low": None, "high": None}
    same = group_report(np.zeros((2, 4)), ["f", "f", "both", "both"])
    assert same["tests"]["candidate_shared"] == {"t": None, "p": None}


def test_a_reference_that_was_chosen_is_kept_with_its_groups_and_the_rest_is_drawn() -> None:
    groups = np.arange(200) // 2
    chosen = np.isin(np.arange(200), [0, 11, 40, 41])
    roles = split_roles(groups, 3, reference=chosen)
    assert np.flatnonzero(roles == "reference").tolist() == [0, 1, 10, 11, 40, 41]
    assert [(roles == role).sum() for role in ("none", "f", "g")] == [20, 20, 20]
