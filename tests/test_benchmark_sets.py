from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.synthetic.sentences import describe
from benchmarks import drawn, sets
from benchmarks.sets import SETS, Entry, PairSet, load_set, outside_captions


def vendor(folder, name, entries):
    """A vendor's package in small: (file, name, category)."""
    (folder / f"{name}/img/{name}/64").mkdir(parents=True)
    listed = [{"image": f"{e[0]}.png", "name": e[1], "category": e[2], f"has_img_{name}": True} for e in entries]
    (folder / f"{name}/emoji.json").write_text(json.dumps(listed))
    for stem, *_ in entries:
        Image.new("RGB", (4, 4)).save(folder / f"{name}/img/{name}/64/{stem}.png")


@pytest.fixture
def data(tmp_path):
    vendor(tmp_path, "google", [("1f34e", "RED APPLE", "Food"), ("002a-fe0f", "KEYCAP", "Symbols")])
    (tmp_path / "openmoji/data").mkdir(parents=True)
    (tmp_path / "openmoji/png").mkdir()
    known = [("1F34E", "apple"), ("2A", "asterisk"), ("E0AB", "fern"), ("1F44B-1F3FB", "waving hand: light skin tone")]
    entries = [{"hexcode": key, "annotation": name, "group": "g"} for key, name in known]
    (tmp_path / "openmoji/data/openmoji.json").write_text(json.dumps(entries))
    for key, _ in known:
        Image.new("RGB", (4, 4)).save(tmp_path / f"openmoji/png/{key}.png")
    return tmp_path


def numbered(n=30, captions=1):
    ids = tuple(f"p{i // captions}" for i in range(n))
    media = {"image": tuple(f"/{key}.png" for key in ids), "text": tuple(f"text {i}" for i in range(n))}
    return PairSet("numbered", ids, media, ("",) * n, tuple(i % captions for i in range(n)) if captions > 1 else ())


def test_development_and_report_sets_are_told_apart():
    roles = {role: {name for name, entry in SETS.items() if entry.role == role} for role in ("development", "report")}
    assert roles["development"] == {"twitter", "facebook", "persons", "glyphs", "clothing"}
    photographs = {"foods", "stamps", "activities", "sky"}
    assert roles["report"] == {"google", "openmoji", "four", "digits", "five", "five_one"} | photographs


def test_a_vendors_set_has_absolute_paths_and_no_skin_tones(data):
    google, openmoji = load_set("google", data=data), load_set("openmoji", data=data)
    assert google.media["text"] == ("red apple", "keycap")
    assert google.category == ("Food", "Symbols")
    assert openmoji.media["text"] == ("apple", "asterisk", "fern")
    for path in (*google.media["image"], *openmoji.media["image"]):
        assert Path(path).is_absolute()
        assert Path(path).is_file()


def test_names_from_outside_are_of_emoji_that_the_set_has_not_under_any_name(data):
    assert outside_captions("google", data) == ["fern"]


def test_a_subset_takes_whole_pictures_in_the_sets_order(monkeypatch):
    for captions in (1, 5):
        whole = numbered(30, captions)
        monkeypatch.setitem(SETS, "numbered", Entry("development", lambda _, w=whole: w, lambda _: []))
        part = load_set("numbered", 10, seed=1)
        assert len(part) == 10
        assert set(Counter(part.ids).values()) == {captions}
        assert list(part.media["text"]) == sorted(part.media["text"], key=lambda text: int(text.split()[1]))
        assert part == load_set("numbered", 10, seed=1) != load_set("numbered", 10, seed=2)
        assert load_set("numbered", 30) == load_set("numbered") == whole
    with pytest.raises(AuditError, match="rows is 5"):
        load_set("numbered", 5)


def test_an_unknown_set_is_named():
    with pytest.raises(AuditError, match="no set 'apple'"):
        load_set("apple")


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match="1 values of category for 2 ids"):
        PairSet("odd", ("a", "b"), {"text": ("x", "y")}, ("c",))
    with pytest.raises(ValueError, match="0 values of text for 2 ids"):
        PairSet("odd", ("a", "b"), {"text": ()}, ("c", "d"))


def test_persons_have_five_true_captions_that_name_different_things(tmp_path, monkeypatch):
    drawer = sets._drawn("few", lambda folder: drawn.persons(folder, 12, "few", 5))
    clean = drawer(tmp_path)
    assert len(clean) == 60 == len(set(clean.media["text"]))
    assert clean.caption == tuple(range(5)) * 12
    assert len(set(clean.media["image"])) == 12
    for at in range(0, 60, 5):
        assert len({frozenset(said) for said in clean.named[at : at + 5]}) == 5
    for shown, said in zip(clean.shown, clean.named, strict=True):
        assert said.items() <= shown.items()
        assert len(said) >= 4
    assert Image.open(clean.media["image"][0]).size == (256, 256)
    again = sets._drawn("again", lambda folder: drawn.persons(folder, 12, "few", 5))(tmp_path)
    assert again.media["text"] == clean.media["text"]
    assert Path(again.media["image"][7]).read_bytes() == Path(clean.media["image"][7]).read_bytes()
    monkeypatch.setitem(SETS, "five", Entry("report", lambda _: clean, lambda _: []))
    first = SETS["five_one"].load(tmp_path)
    assert first.name == "five_one"
    assert first.caption == ()
    assert first.media["text"] == clean.media["text"][::5]


def test_one_caption_per_person_is_no_caption_column(tmp_path):
    clean = sets._drawn("few", lambda folder: drawn.persons(folder, 6, "few"))(tmp_path)
    assert clean.caption == ()
    assert len(set(clean.ids)) == 6


def test_sentences_that_run_out_are_an_error_and_not_an_endless_search(monkeypatch):
    monkeypatch.setattr(drawn, "describe", lambda _person, _rng: ("a man", {"head": "bald"}))
    monkeypatch.setattr(drawn, "TRIES", 20)
    assert describe is not drawn.describe
    with pytest.raises(RuntimeError, match="only 1 of 2"):
        drawn._sentences(None, 2, set(), None)


def test_glyphs_are_of_all_classes_and_drawn_alike_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "GLYPHS", 68)
    one, two = (sets._drawn(name, drawn.glyphs)(tmp_path) for name in ("one", "two"))
    assert Counter(Counter(one.labels).values()) == {2: 34}
    assert all(label in group for label, group in zip(one.labels, one.category, strict=True))
    assert dict(zip(one.labels, one.media["text"], strict=True))["7"] == "the digit seven"
    assert dict(zip(one.labels, one.media["text"], strict=True))["A"] == "the letter A"
    for a, b in zip(one.media["image"], two.media["image"], strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()
    pixels = [np.asarray(Image.open(path)) for path in one.media["image"]]
    assert {p.shape for p in pixels} == {(96, 96, 3)}
    assert min(p.std() for p in pixels) > 10


def test_every_class_stands_in_one_group_of_classes_taken_for_it():
    assert sorted("".join(drawn.DIGIT_GROUPS)) == list("0123456789")
    assert max(Counter("".join(drawn.GLYPH_GROUPS)).values()) == 1
    assert min(len(group) for group in (*drawn.GLYPH_GROUPS, *drawn.DIGIT_GROUPS)) == 2


def test_digits_are_the_scanned_ones_with_their_names(tmp_path):
    from sklearn.datasets import load_digits

    clean = sets._drawn("digits", drawn.digits)(tmp_path)
    known = load_digits()
    assert len(clean) == 1797
    assert clean.labels == tuple(map(str, known.target))
    assert clean.media["text"][3] == "a handwritten three"
    small = np.asarray(Image.open(clean.media["image"][3]).resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(small.ravel(), known.images[3].ravel())[0, 1] > 0.95


def test_a_set_is_drawn_once_and_seen_only_when_whole(tmp_path):
    calls = []

    def draw(folder):
        calls.append(folder)
        assert not (tmp_path / "set").exists()
        (folder / "rows.json").write_text("[]")

    def fail(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn.once(tmp_path / "set", fail)
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert (drawn.once(tmp_path / "set", draw) / "rows.json").is_file()
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_captions_of_other_persons_are_many_and_different():
    texts = drawn.person_captions(50, "outside")
    assert len(set(texts)) == len(texts) >= 49


def test_the_real_sets_that_are_here_have_their_known_size():
    known = {"twitter": 1911, "google": 1911, "openmoji": 2460}
    here = {name for name in known if (sets.DATA / name).is_dir()}  # none on a fresh checkout: 100 MB to fetch
    assert {name: len(load_set(name)) for name in here} == {name: known[name] for name in here}
