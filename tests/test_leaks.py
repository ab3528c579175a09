from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring.leaks import find_leaks, trained_first

rows = st.lists(
    st.tuples(st.sampled_from(["train", "test", "val", ""]), st.integers(0, 8), st.integers(0, 8)), max_size=30
)


@settings(deadline=None)
@given(rows)
def test_leaks_are_what_comparing_every_two_rows_finds(table: list[tuple[str, int, int]]) -> None:
    splits = [row[0] for row in table]
    groups = {"image": np.array([r[1] for r in table], int), "audio": np.array([r[2] for r in table], int)}
    leaks = find_leaks(splits, groups)
    shared = {}
    for i, a in enumerate(splits):
        meets = [
            (name, group[i], *sorted((a, b)))
            for name, group in groups.items()
            for j, b in enumerate(splits)
            if a and b and a != b and group[i] == group[j]
        ]
        assert bool(leaks.other_splits[i]) == bool(meets)
        earlier = {"train": (), "val": ("train",), "test": ("train", "val")}.get(a, ())
        copies = {j for group in groups.values() for j, b in enumerate(splits) if b in earlier and group[i] == group[j]}
        first_split = min((earlier.index(splits[j]) for j in copies), default=None)
        assert (leaks.source[i] in copies) is bool(copies)
        assert not copies or earlier.index(splits[leaks.source[i]]) == first_split
        shared.update(dict.fromkeys(meets))
    counts = {}
    for _, _, a, b in shared:
        counts[a, b] = counts.get((a, b), 0) + 1
    assert leaks.pairs == tuple((a, b, count) for (a, b), count in sorted(counts.items()))
    assert bool(leaks.sentence()) is any(leaks.other_splits)


def test_a_leak_is_reported_and_repeats_inside_a_split_are_none() -> None:
    splits = ["train"] * 3 + ["test"] * 3 + [""]
    leaks = find_leaks(splits, {"image": np.array([0, 0, 1, 1, 2, 3, 0])})
    assert leaks.other_splits.tolist() == ["", "", "test", "train", "", "", ""]
    assert leaks.pairs == (("test", "train", 1),)
    assert leaks.sentence() == (
        "2 samples have a copy in another split (media: 1 in both test and train): test scores will be too high"
    )
    assert find_leaks(["train"] * 7, {"image": np.zeros(7, int)}).sentence() == ""


def test_rows_name_the_splits_of_their_copies() -> None:
    splits = ["train", "test", "val", "train", "", "test"]
    groups = {"image": np.array([0, 0, 0, 1, 1, 2])}
    assert find_leaks(splits, groups).other_splits.tolist() == ["test, val", "train, val", "test, train", "", "", ""]


@pytest.mark.parametrize(
    ("splits", "order"),
    [
        (["test", "train", "val"], ["train", "val", "test"]),
        (["Test", "validation", "TRAINING", "test_b"], ["TRAINING", "validation", "Test", "test_b"]),
        (["dev", "holdout", "train", ""], ["train", "dev", "holdout"]),
        (["b", "a", "b", "c", "c", "c"], ["c", "b", "a"]),  # of other names, the largest is trained on
        (["test", "web", "web", "web"], ["web", "test"]),
        ([], []),
    ],
)
def test_splits_are_ordered_by_what_is_trained_on(splits: list[str], order: list[str]) -> None:
    assert trained_first(splits) == order


def test_of_each_group_of_copies_the_splits_trained_on_keep_theirs() -> None:
    splits = ["test", "train", "val", "train", "test", "test", ""]
    leaks = find_leaks(splits, {"image": np.array([0, 0, 0, 1, 2, 2, 0]), "audio": np.array([0, 1, 2, 3, 3, 4, 3])})
    assert leaks.source.tolist() == [1, -1, 1, -1, 3, -1, -1]
