"""What rivals are given: shapes checked, masks applied, exact neighbors."""

from __future__ import annotations

import numpy as np
import pytest

from audit_plugin.scoring.scores import robust_z
from benchmarks.materials import rival_scores
from benchmarks.rivals.contrastive import clip_similarity
from benchmarks.rivals.material import Material, Nearest, Rival, canonical, cosines_to, nearest, sum_of
from tests.rivals_fixtures import noisy_set, unit

EYE = np.eye(4, dtype=np.float32)


def test_neighbors_are_the_naive_ones():
    rng = np.random.default_rng(0)
    features = unit(rng.standard_normal((60, 5)))
    barred = rng.random((60, 60)) < 0.2
    barred |= barred.T
    found = nearest(features, barred, 7)
    for i in range(60):
        others = [j for j in range(60) if j != i and not barred[i, j]]
        others.sort(key=lambda j: -float(features[i] @ features[j]))
        assert found.rows[i].tolist() == others[:7]
        np.testing.assert_allclose(found.similarity[i], features[others[:7]] @ features[i], rtol=1e-5)
    assert found.use.all()


def test_blocks_change_nothing(monkeypatch):
    features = unit(np.random.default_rng(1).standard_normal((50, 6)))
    whole = nearest(features, None, 5)
    monkeypatch.setattr("benchmarks.rivals.material.BLOCK", 7)
    np.testing.assert_array_equal(nearest(features, None, 5).rows, whole.rows)
    np.testing.assert_allclose(cosines_to(features, whole.rows), whole.similarity, atol=1e-6)


def test_a_sum_counts_only_the_neighbors_that_there_are():
    near = Nearest(np.array([[1, 2], [2, 0], [0, 0]]), np.zeros((3, 2)), np.array([[1, 1], [1, 0], [0, 0]], dtype=bool))
    features = np.array([[1.0, 0], [0, 1], [0, 3]])
    np.testing.assert_array_equal(sum_of(features, near), [[0, 4], [0, 3], [0, 0]])


def test_a_row_with_few_allowed_neighbors_has_few():
    barred = np.ones((4, 4), dtype=bool)
    barred[0, 2] = barred[2, 0] = False
    found = nearest(unit(EYE + 0.1), barred)
    assert found.use.sum(1).tolist() == [1, 0, 1, 0]
    assert found.rows[0, 0] == 2
    np.testing.assert_array_equal(found.mean(np.ones(found.rows.shape)), [1, 0, 1, 0])


def test_duplicates_leave_out_the_row_itself_by_index():
    found = nearest(unit(np.array([[1.0, 0], [1, 0], [0, 1]])), None, 1)
    assert found.rows[:2, 0].tolist() == [1, 0]


def test_negatives_are_neither_self_nor_repeat_nor_unknown():
    similarity = np.zeros((4, 4), dtype=np.float32)
    similarity[0, 3] = np.nan
    repeats = np.zeros((4, 4), dtype=bool)
    repeats[1, 2] = repeats[2, 1] = True
    wanted = [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]]
    np.testing.assert_array_equal(Material(similarity, EYE, EYE, repeats).negatives, np.array(wanted, dtype=bool))


def test_repeats_are_no_neighbors_unless_they_vote_with_their_class():
    repeats = np.zeros((4, 4), dtype=bool)
    repeats[0, 1] = repeats[1, 0] = True
    features = unit(np.array([[1, 0.0], [1, 0.01], [0.8, 0.6], [0, 1]]))
    free = Material(features @ features.T, features, features, repeats)
    assert free.image_neighbors.rows[0, 0] == 2
    labeled = Material(features @ features.T, features, features, repeats, labels=np.array([0, 0, 1, 1]))
    assert labeled.image_neighbors.rows[0, 0] == 1
    copied = Material(features @ features.T, features, features, None, repeats, labels=np.array([0, 0, 1, 1]))
    assert copied.image_neighbors.rows[0, 0] == 2


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="losses is of shape"):
        Material(EYE, EYE, EYE, losses=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="margins is of shape"):
        Material(EYE, EYE, EYE, margins=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="repeats"):
        Material(EYE, EYE, EYE, np.zeros((4, 2), dtype=bool))
    with pytest.raises(ValueError, match="own pair"):
        Material(np.full((4, 4), np.nan), EYE, EYE)


def test_rows_are_cut_on_every_axis():
    material, _ = noisy_set(n=40, classes=True, concepts=4)
    keep = np.array([5, 3, 30])
    cut = material.rows(keep)
    np.testing.assert_array_equal(cut.similarity, material.similarity[keep][:, keep])
    np.testing.assert_array_equal(cut.margins, material.margins[:, keep])
    np.testing.assert_array_equal(cut.probabilities, material.probabilities[keep])
    assert cut.repeats is None


def test_a_grid_is_all_combinations():
    rival = Rival("x", len, {"a": (1, 2), "b": ("u", "v")})
    assert rival.tuned
    assert rival.points() == [{"a": 1, "b": "u"}, {"a": 1, "b": "v"}, {"a": 2, "b": "u"}, {"a": 2, "b": "v"}]
    assert Rival("x", len).points() == [{}]
    assert not Rival("x", len).tuned


def test_the_canonical_order_follows_the_rows():
    features = np.random.default_rng(0).standard_normal((30, 6))
    move = np.random.default_rng(1).permutation(30)
    np.testing.assert_array_equal(features[canonical(features)], features[move][canonical(features[move])])


def test_a_pair_without_a_second_similarity_enters_with_its_first():
    both, one = noisy_set(120, seed=1)[0], noisy_set(120, seed=2)[0]
    other = noisy_set(120, seed=3)[0]
    scores = rival_scores({("image", "text"): [both, other], ("image", "audio"): [one]}, {})
    first, second = scores["CLIP similarity"]
    by_hand = [clip_similarity(material) for material in (both, other, one)]
    np.testing.assert_array_equal(first, np.max([robust_z(by_hand[0]), robust_z(by_hand[2])], axis=0))
    np.testing.assert_array_equal(second, np.max([robust_z(by_hand[1]), robust_z(by_hand[2])], axis=0))
