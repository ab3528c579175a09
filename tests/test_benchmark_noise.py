from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from benchmarks import noise as bench
from benchmarks import sets
from benchmarks.noise import contradicts, copied, nearest, permuted, plant, vague_captions
from benchmarks.sets import Entry, PairSet

ANIMALS = ("cat", "dog", "horse", "cow", "sheep", "goat", "pig", "duck", "goose", "hen")
COLORS = ("red", "green", "blue", "black")


def made(captions=1):
    """40 pictures of colored animals; the colors are the categories."""
    texts = [f"a {color} {animal}" for color in COLORS for animal in ANIMALS]
    ids = [f"p{i}" for i in range(len(texts)) for _ in range(captions)]
    words = [f"{text}, take {c}" if captions > 1 else text for text in texts for c in range(captions)]
    return PairSet(
        "made",
        tuple(ids),
        {"image": tuple(f"/{key}.png" for key in ids), "text": tuple(words)},
        tuple(text.split()[1] for text in words),
        tuple(i % captions for i in range(len(ids))) if captions > 1 else (),
    )


def classes():
    labels = tuple("3849"[i % 4] for i in range(120))
    media = {"image": tuple(f"/{i}.png" for i in range(120)), "text": tuple(f"a {label}" for label in labels)}
    groups = tuple("38" if label in "38" else "49" for label in labels)
    return PairSet("classes", tuple(map(str, range(120))), media, groups, labels=labels)


def four():
    clean = made()
    more = {m: tuple(f"/{key}.{m}" for key in clean.ids) for m in ("audio", "video")}
    return replace(clean, media={**clean.media, **more})


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("noise", ["random", "category", "hard"])
@pytest.mark.parametrize("how", ["permuted", "copied"])
def test_the_truth_says_which_rows_are_wrong_and_whose_text_they_have(noise, how, rate):
    clean = made()
    planted = plant(clean, noise, rate, how, 3)
    texts = planted.samples.media["text"]
    count = round(rate * len(clean))
    assert planted.wrong.sum() in ((count,) if how == "copied" else (count, count + count % 2))
    assert planted.samples.media["image"] == clean.media["image"]
    for i, (wrong, source, culprit) in enumerate(zip(planted.wrong, planted.source, planted.culprit, strict=True)):
        assert wrong == (source >= 0) == (culprit == "text") == (texts[i] != clean.media["text"][i])
        assert texts[i] == clean.media["text"][source if wrong else i]
        if wrong:
            assert planted.wrong[source] == (how == "permuted")
            assert noise != "category" or clean.category[source] == clean.category[i]
    assert max(Counter(texts).values()) == (2 if how == "copied" else 1)
    assert (Counter(texts) == Counter(clean.media["text"])) == (how == "permuted")


def test_near_misses_are_among_the_ten_nearest_texts():
    clean = made()
    features = bench.text_features(clean.media["text"])
    similar = features @ features.T
    np.fill_diagonal(similar, -np.inf)
    for how in ("permuted", "copied"):
        planted = plant(clean, "hard", 0.3, how, 0)
        for row in np.flatnonzero(planted.wrong):
            assert (similar[row] > similar[row, planted.source[row]]).sum() < 10
    random = plant(clean, "random", 0.3, "permuted", 0)
    ranks = [(similar[i] > similar[i, random.source[i]]).sum() for i in np.flatnonzero(random.wrong)]
    assert max(ranks) >= 10


def test_nearest_takes_the_most_similar_candidates_only():
    features = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    candidates = ~np.eye(4, dtype=bool)
    candidates[0, 1] = False
    found = nearest(features, candidates, 1)
    assert np.argwhere(found).tolist() == [[0, 2], [1, 2], [2, 1], [3, 2]]
    candidates[3] = False
    assert not nearest(features, candidates, 2)[3].any()


@given(st.integers(4, 40), st.integers(0, 2**32 - 1), st.data())
def test_trading_is_a_permutation_that_keeps_to_what_is_allowed(n, seed, data):
    rng = np.random.default_rng(seed)
    allowed = (rng.random((n, n)) < 0.7) & ~np.eye(n, dtype=bool)
    count = data.draw(st.integers(0, n // 2))
    for choose in (permuted, copied):
        try:
            source = choose(allowed, count, np.random.default_rng(seed))
        except AuditError:
            continue
        assert all(allowed[i, j] for i, j in source.items())
        assert len(source) == count + (count % 2 if choose is permuted else 0)
        assert len(set(source.values())) == len(source)
        assert not set(source) ^ set(source.values()) if choose is permuted else not set(source) & set(source.values())


def test_trades_are_not_all_between_two():
    source = permuted(~np.eye(60, dtype=bool), 40, np.random.default_rng(0))
    assert sum(source[source[i]] == i for i in source) < 20


def test_captions_of_one_picture_are_never_traded_and_pictures_stay():
    clean = made(captions=5)
    for noise in ("random", "category", "hard"):
        planted = plant(clean, noise, 0.4, "permuted", 1)
        assert planted.samples.ids == clean.ids
        assert planted.samples.caption == clean.caption
        assert planted.samples.media["image"] == clean.media["image"]
        assert Counter(planted.samples.media["text"]) == Counter(clean.media["text"])
        assert all(clean.ids[i] != clean.ids[planted.source[i]] for i in np.flatnonzero(planted.wrong))
        assert planted.wrong.sum() == 80


@pytest.mark.parametrize("how", ["permuted", "copied"])
def test_labels_flip_to_any_class_or_to_the_one_they_are_taken_for(how):
    clean = classes()
    flips = {noise: plant(clean, noise, 0.4, how, 0) for noise in ("random", "category")}
    for noise, planted in flips.items():
        assert planted.wrong.sum() == 48
        given_labels = planted.samples.labels
        assert planted.samples.media["text"] == tuple(f"a {label}" for label in given_labels)
        assert [a != b for a, b in zip(given_labels, clean.labels, strict=True)] == planted.wrong.tolist()
        taken_for = {"3": "8", "8": "3", "4": "9", "9": "4"}
        pairs = {(clean.labels[i], given_labels[i]) for i in np.flatnonzero(planted.wrong)}
        assert (pairs <= set(taken_for.items())) == (noise == "category")
        assert (Counter(given_labels) == Counter(clean.labels)) == (how == "permuted")


def test_one_of_several_modalities_is_replaced_each_equally_often():
    clean = four()
    for how in ("permuted", "copied"):
        planted = plant(clean, "modality", 0.4, how, 0)
        assert Counter(planted.culprit) == {"": 24, "image": 4, "text": 4, "audio": 4, "video": 4}
        for modality, values in planted.samples.media.items():
            own = clean.media[modality]
            changed = [i for i, value in enumerate(values) if value != own[i]]
            assert changed == [i for i, name in enumerate(planted.culprit) if name == modality]
            assert all(values[i] == own[planted.source[i]] for i in changed)
            assert (Counter(values) == Counter(own)) == (how == "permuted")
    assert Counter(plant(clean, "modality", 0.15, "copied", 0).culprit)[""] == 34


def test_vague_captions_are_many_and_nobody_owns_one():
    assert len(set(vague_captions())) == len(vague_captions()) == 480
    clean = made()
    planted = plant(clean, "vague", 0.5, seed=0)
    new = [planted.samples.media["text"][i] for i in np.flatnonzero(planted.wrong)]
    assert len(set(new)) == len(new) == 20
    assert set(new) <= set(vague_captions())
    assert set(planted.source) == {-1}
    assert set(planted.culprit) == {"", "text"}


@pytest.fixture
def registered(monkeypatch):
    clean = made()
    others = [*clean.media["text"][:30], *(f"a white {animal}" for animal in ANIMALS)]
    monkeypatch.setitem(sets.SETS, "made", Entry("development", lambda _: clean, lambda _: others))
    return clean


def test_texts_from_outside_belong_to_no_row(registered):
    planted = plant(registered, "random", 0.25, "outside", 0)
    new = {planted.samples.media["text"][i] for i in np.flatnonzero(planted.wrong)}
    assert planted.wrong.sum() == len(new) == 10
    assert new == {f"a white {animal}" for animal in ANIMALS}
    assert set(planted.source) == {-1}
    # With fewer texts than rows each comes equally often.
    more = plant(registered, "random", 0.5, "outside", 0)
    counts = Counter(more.samples.media["text"][i] for i in np.flatnonzero(more.wrong))
    assert set(counts.values()) == {2}


def test_a_class_set_has_no_label_where_its_text_is_from_outside():
    planted = plant(classes(), "vague", 0.2, seed=0)
    assert [label == "" for label in planted.samples.labels] == planted.wrong.tolist()


def test_a_text_is_wrong_only_where_it_contradicts_what_is_shown():
    shown = ({"hat": "red", "mood": "sad"}, {"hat": "red", "mood": "silly"}, {"hat": "blue", "mood": "sad"})
    said = ({"hat": "red"}, {"hat": "red", "mood": "silly"}, {"mood": "sad"})
    media = {"image": ("/a", "/b", "/c"), "text": ("in red", "silly in red", "sad")}
    clean = PairSet("hats", ("a", "b", "c"), media, ("", "", ""), shown=shown, named=said)
    assert contradicts(clean).tolist() == [[False, True, False], [False, False, True], [True, True, False]]


def test_equal_seeds_plant_equal_sets_and_none_plants_nothing():
    clean = made()
    for noise, how in (("random", "permuted"), ("category", "copied"), ("vague", "permuted")):
        texts = [plant(clean, noise, 0.3, how, seed).samples.media["text"] for seed in (0, 0, 1)]
        assert texts[0] == texts[1] != texts[2]
    for planted in (plant(clean, "none", 0.4), plant(clean, "random", 0.0)):
        assert planted.samples.media == dict(clean.media)
        assert not planted.wrong.any()
        assert set(planted.source) == {-1}
        assert set(planted.culprit) == {""}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("loud", 0.1, "permuted"), "noise is 'loud'"),
        (("random", 0.1, "stolen"), "how is 'stolen'"),
        (("random", 0.6, "permuted"), "rate is 0.6"),
        (("hard", 0.1, "outside"), "texts from outside"),
        (("modality", 0.1, "permuted"), "needs three"),
    ],
)
def test_values_that_cannot_work_are_named(values, said):
    with pytest.raises(AuditError, match=said):
        plant(made(), *values)


def test_sets_that_cannot_be_traded_are_refused():
    clean = made()
    alike = replace(clean, media={**clean.media, "text": ("a cat",) * 40})
    for how in ("permuted", "copied"):
        with pytest.raises(AuditError, match="lower the rate"):
            plant(alike, "random", 0.2, how)
    with pytest.raises(AuditError, match="has classes"):
        plant(classes(), "hard", 0.1)
