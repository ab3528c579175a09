from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.scoring.leaks import KINDS, MOST_SPLITS, find_leaks, kind_of

rows = st.lists(
    st.tuples(
        st.sampled_from(["train", "train2017", "test", "Val", "web", "crawl", ""]), st.integers(0, 8), st.integers(0, 8)
    ),
    max_size=30,
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
            if a and b and kind_of(a) != kind_of(b) and group[i] == group[j]
        ]
        names = {split for meet in meets for split in meet[2:]} - {a}
        assert leaks.other_splits[i] == ", ".join(sorted(names))
        place = KINDS.index(kind_of(a)) if kind_of(a) in KINDS else 0
        earlier = [name for name in {*splits} if kind_of(name) in KINDS[:place]]
        copies = {j for group in groups.values() for j, b in enumerate(splits) if b in earlier and group[i] == group[j]}
        assert (leaks.source[i] in copies) is bool(copies)
        first = min((KINDS.index(kind_of(splits[j])) for j in copies), default=None)
        assert not copies or KINDS.index(kind_of(splits[leaks.source[i]])) == first
        shared.update(dict.fromkeys(meets))
    counts = {}
    for _, _, a, b in shared:
        counts[a, b] = counts.get((a, b), 0) + 1
    assert {(a, b): count for a, b, count in leaks.pairs} == counts
    assert [count for *_, count in leaks.pairs] == sorted(counts.values(), reverse=True)
    assert bool(leaks.note) is any(leaks.other_splits)


def test_a_leak_is_reported_and_repeats_inside_a_split_are_none() -> None:
    splits = ["train"] * 3 + ["test"] * 3 + [""]
    leaks = find_leaks(splits, {"image": np.array([0, 0, 1, 1, 2, 3, 0])})
    assert leaks.other_splits.tolist() == ["", "", "test", "train", "", "", ""]
    assert leaks.pairs == (("test", "train", 1),)
    assert leaks.note == (
        "2 samples have a copy in another split (media: 1 in both test and train): "
        "scores on the later one will be too high"
    )
    assert find_leaks(["train"] * 7, {"image": np.zeros(7, int)}).note == ""


def test_rows_name_the_splits_of_their_copies() -> None:
    splits = ["train", "test", "val", "train", "", "test"]
    groups = {"image": np.array([0, 0, 0, 1, 1, 2])}
    assert find_leaks(splits, groups).other_splits.tolist() == ["test, val", "train, val", "test, train", "", "", ""]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "train",
            [
                "train",
                "Train",
                " TRAIN ",
                "train2017",
                "training",
                "my_train",
                "train-clean-100",
                "train_b",
                "trainA",
                "trainval",
                "train_val",
            ],
        ),
        ("val", ["val", "valid", "validation", "dev", "val2017", "minival", "my-dev"]),
        (
            "test",
            [
                "test",
                "Testing",
                "test2017",
                "eval",
                "evaluation",
                "holdout",
                "held.test",
                "test-dev",
                "test_dev",
                "devtest",
                "testB",
                "heldout",
                "held-out",
                "held_out_test",
            ],
        ),
    ],
)
def test_the_words_of_a_name_tell_what_a_split_is_for(kind: str, names: list[str]) -> None:
    assert [name for name in names if kind_of(name) != kind] == []


def test_a_name_that_tells_nothing_is_a_kind_of_its_own() -> None:
    names = ["web", "unlabeled2017", "latest", "retrieval", "contest", "train_test", "2017", "split 1", "device_a"]
    names += ["non-train", "not_train", "excluded_from_train", "trains of Italy", "value", "testimonials", "holdings"]
    assert [name for name in names if kind_of(name) in KINDS] == []


def test_nothing_is_flagged_where_names_do_not_tell_what_is_trained_on() -> None:
    splits = ["unlabeled2017", "train2017", "test2017"] + ["unlabeled2017"] * 10
    leaks = find_leaks(splits, {"image": np.array([0, 0, 1, 1, *range(2, 11)])})
    assert leaks.source.tolist() == [-1] * 13  # the largest split proposes no removal of what is trained on
    assert leaks.other_splits.tolist()[:4] == ["train2017", "unlabeled2017", "unlabeled2017", "test2017"]
    assert leaks.note.endswith(
        "whether these are trained on is not known (unlabeled2017): no sample of them is called a leak"
    )


def test_parts_of_one_kind_are_no_leak_of_each_other() -> None:
    splits = ["train-clean-100", "train-clean-360", "Train", "train"]
    leaks = find_leaks(splits, {"image": np.zeros(4, int)})
    assert leaks.other_splits.tolist() == [""] * 4
    assert leaks.note == ""


def test_of_each_group_of_copies_the_splits_trained_on_keep_theirs() -> None:
    splits = ["test", "train", "val", "train", "test", "test", ""]
    leaks = find_leaks(splits, {"image": np.array([0, 0, 0, 1, 2, 2, 0]), "audio": np.array([0, 1, 2, 3, 3, 4, 3])})
    assert leaks.source.tolist() == [1, -1, 1, -1, 3, -1, -1]


def test_many_values_of_the_split_are_no_splits_and_many_pairs_are_counted() -> None:
    names = [f"part {number:04d}" for number in range(MOST_SPLITS)]
    leaks = find_leaks(names, {"image": np.zeros(len(names), int)})
    assert len(leaks.pairs) == MOST_SPLITS * (MOST_SPLITS - 1) // 2
    assert "; and 1,222 more pairs of splits" in leaks.note
    assert len(leaks.note) < 400
    leaks = find_leaks([f"row {number}" for number in range(20_000)], {"image": np.zeros(20_000, int)})
    assert leaks.pairs == ()
    assert leaks.note == "20,000 values of the split are too many for splits: samples in several of them are not told"
