from __future__ import annotations

import functools
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import Samples
from audit_plugin.encoders import precision
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.embed import digest_contents, embed, silent
from audit_plugin.encoders.precision import BF16_SUFFIX, bf16_speedup, choose_precision, known_key, known_precision
from audit_plugin.store import FeatureCache, sealed_json
from audit_plugin.store.inventory import chosen, delete, inventory

WHO = EncoderIdentity("toy", bf16=True)
TEXTS = tuple(f"text {i}" for i in range(9))
SECONDS = 0.03  # of a pass in full precision


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a chip that is good at bf16: the toys below say how good."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "bf16_speedup", lambda _device: 4.0)


class Toy:
    """An encoder whose bf16 form is `gain` times as fast and turns its features by an angle."""

    def __init__(self, gain: float = 3.0, cosine: float = 1.0) -> None:
        self.gain, self.cosine, self.loads, self.low = gain, cosine, 0, 0

    def load(self) -> dict[str, Encoder]:
        self.loads += 1

        def prepare(text: str) -> list[np.ndarray]:
            return [np.frombuffer(text.encode().ljust(8), dtype=np.uint8).astype(np.int64)]

        return {"text": Encoder(WHO, 4, prepare, self.encode, lambda: self.encode_low)}

    def encode(self, batch: np.ndarray) -> np.ndarray:
        time.sleep(SECONDS)
        return np.stack([np.cos(batch.sum(1)), np.sin(batch.sum(1))], 1).astype(np.float32)

    def encode_low(self, batch: np.ndarray) -> np.ndarray:
        self.low += 1
        time.sleep(SECONDS / self.gain)
        angle = batch.sum(1) + np.arccos(self.cosine)
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def run(toy: Toy, choice: str = "auto", texts: tuple[str, ...] = TEXTS, former_key: str = ""):
    """(what was settled, the features)."""
    samples = Samples(texts, {"text": texts})
    contents = digest_contents(samples, silent)
    load = functools.cache(toy.load)
    chosen = choose_precision(samples, contents, {"text": WHO}, load, choice, "cpu", {"text": former_key})
    keys = {"text": chosen.identities["text"].key}
    return chosen, embed(samples, contents, keys, chosen.load, silent).features.vectors["text"]


def test_faster_and_close_is_taken_and_remembered() -> None:
    toy = Toy(gain=3.0, cosine=0.9995)
    chosen, features = run(toy)
    assert chosen.identities["text"].key == "toy" + BF16_SUFFIX
    (note,) = chosen.notes
    assert note.startswith("encoder text computes in bf16, ")
    assert "(cosine to it at least 0.9995)" in note
    assert len(FeatureCache("toy" + BF16_SUFFIX).known()) == 9
    assert FeatureCache("toy").known() == set()  # what the trial encoded at full precision is not mixed in
    assert toy.loads == 1
    again = Toy(gain=0.1, cosine=0.0)  # which nobody asks any more
    chosen, repeated = run(again)
    assert (chosen.notes, again.loads) == ((note,), 0)
    assert repeated.tobytes() == features.tobytes()
    assert known_key(WHO, "auto", "cpu") == "toy" + BF16_SUFFIX


@pytest.mark.parametrize(
    ("toy", "why"),
    [
        (Toy(gain=1.0), r"encoder text stays fp32: bf16 was \d\.\d times as fast"),
        (Toy(cosine=0.99), "encoder text stays fp32: features in bf16 have a cosine of only 0.9900 to it"),
        (Toy(cosine=float("nan")), "encoder text stays fp32: features in bf16 have a cosine of only nan to it"),
    ],
)
def test_what_is_not_faster_or_not_close_stays_and_says_why(toy: Toy, why: str) -> None:
    chosen, _ = run(toy)
    assert chosen.identities["text"] == WHO
    assert re.fullmatch(why, chosen.notes[0])
    assert len(FeatureCache("toy").known()) == 9
    assert run(Toy())[0].notes == chosen.notes  # remembered with its reason
    assert known_key(WHO, "auto", "cpu") == "toy"


def test_a_chip_without_fast_bf16_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda _device: 0.25)
    toy = Toy()
    chosen, _ = run(toy)
    assert chosen.notes == ("encoder text stays fp32: this machine multiplies bf16 only 0.2 times as fast",)
    assert toy.low == 0


@pytest.mark.parametrize(("choice", "key"), [("fp32", "toy"), ("bf16", "toy" + BF16_SUFFIX)])
def test_a_precision_that_was_asked_for_is_not_tried(choice: str, key: str) -> None:
    chosen, _ = run(Toy(gain=0.5, cosine=0.5), choice)
    assert (chosen.identities["text"].key, chosen.notes) == (key, ())
    assert known_precision(WHO, "auto", "cpu") is None  # nor is it a rule for others


@pytest.mark.parametrize("key", ["toy", "toy" + BF16_SUFFIX])
def test_a_run_that_is_continued_keeps_its_precision(key: str) -> None:
    assert run(Toy(gain=3.0 if key == "toy" else 1.0), former_key=key)[0].identities["text"].key == key
    assert known_precision(WHO, "auto", "cpu", "another encoder") is None


def test_known_features_ask_for_no_trial() -> None:
    """An earlier run at full precision: nothing has to be loaded, and nothing is encoded twice."""
    run(Toy(), "fp32")
    toy = Toy()
    chosen, _ = run(toy, texts=TEXTS[:4])
    assert (chosen.identities["text"], chosen.notes, toy.loads) == (WHO, (), 0)


def test_an_encoder_without_such_a_form_stays_as_it_is() -> None:
    plain = EncoderIdentity("plain")
    for choice in ("auto", "bf16"):
        assert known_precision(plain, choice, "cpu").precision == "fp32"


def test_damaged_records_are_tried_anew(tmp_path: Path) -> None:
    run(Toy())
    (record,) = (tmp_path / "precision").iterdir()
    for content in ("", "[]", '{"color": "red"}', "null"):
        record.write_text(content)
        assert known_precision(WHO, "auto", "cpu") is None
    assert run(Toy(), texts=("new",))[0].identities["text"].key == "toy" + BF16_SUFFIX
    assert known_precision(WHO, "auto", "cpu").precision == "bf16"


def test_another_kind_of_machine_decides_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    run(Toy())
    monkeypatch.setattr(precision, "chip_name", lambda _device: "another chip")
    assert known_precision(WHO, "auto", "cpu") is None


def test_texts_that_cannot_be_read_are_no_trial() -> None:
    samples = Samples(("0",), {"text": (" ",)})
    contents = digest_contents(samples, silent)
    toy = Toy()
    assert choose_precision(samples, contents, {"text": WHO}, toy.load, "auto", "cpu").identities == {"text": WHO}
    assert toy.loads == 0


def test_the_chip_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    start = time.perf_counter()
    assert bf16_speedup("cpu") > 0
    assert time.perf_counter() - start < 10


def test_stored_precisions_are_listed_with_their_encoder_marked_as_used_and_pruned() -> None:
    run(Toy())
    (entry,) = [entry for entry in inventory() if entry.kind == "precision choice"]
    assert (entry.source, entry.size) == ("toy", entry.path.stat().st_size)
    assert entry.path.parent.name == "precision"
    os.utime(entry.path, (0, 0))
    assert [old.path for old in chosen(inventory(), older_than=60)] == [entry.path]
    assert known_precision(WHO, "auto", "cpu") is not None
    (used,) = [entry for entry in inventory() if entry.kind == "precision choice"]
    assert chosen([used], older_than=60) == []
    assert delete(used) == entry.size
    assert known_precision(WHO, "auto", "cpu") is None


def test_precisions_of_former_versions_and_damaged_ones_are_listed_and_nothing_else_in_their_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "precision"
    folder.mkdir()
    former = {"precision": "fp32", "why": ""}
    (folder / f"{'1' * 24}.json").write_bytes(sealed_json(former, "precision"))
    (folder / f"{'2' * 24}.json").write_text("{")
    (folder / "notes.json").write_text("{}")
    (folder / f"{'3' * 24}.json").symlink_to(folder / "notes.json")
    (folder / f"{'4' * 24}.json").mkdir()
    assert sorted((entry.path.name[0], entry.kind, entry.source) for entry in inventory()) == [
        ("1", "precision choice", ""),
        ("2", "precision choice", ""),
    ]
    for entry in inventory():
        delete(entry)
    assert sorted(path.name[0] for path in folder.iterdir()) == ["3", "4", "n"]
