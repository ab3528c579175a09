from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.embed import Embedded, digest_contents, embed, thread_count
from audit_plugin.inputs.files import MediaError, text_digest
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.store import FeatureCache
from tests.media_fixtures import encode_contents

DIM = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))


# An encoder is two functions; these are small enough to check by hand.


def text_pieces(text: str) -> list[np.ndarray]:
    """One piece per sentence, padded to 4 or 12 codes."""
    if "unspeakable" in text:
        raise MediaError("cannot be said")
    pieces = []
    for part in text.split("."):
        codes = [ord(c) for c in part][:12]
        pieces.append(np.array(codes + [0] * ((4 if len(codes) <= 4 else 12) - len(codes)), dtype=np.int64))
    return pieces


def text_features(batch: np.ndarray) -> np.ndarray:
    """Awkward numbers of very different size, row by row; a row of NaN for texts with a percent sign."""
    out = np.stack(
        [np.sin(batch.astype(np.float64) @ np.arange(1, batch.shape[1] + 1) / (k + 1)) for k in range(DIM)], 1
    )
    out[(batch == ord("%")).any(1)] = np.nan
    return (out * 10.0 ** np.arange(DIM)).astype(np.float32)


TEXT = Encoder(EncoderIdentity("toy text"), 4, text_pieces, text_features)
IMAGE = Encoder(
    EncoderIdentity("toy image"),
    3,
    lambda image: [np.asarray(image.resize((1, 1)), dtype=np.float32).reshape(3) + 1],
    lambda batch: batch,
)
ENCODERS = {"image": IMAGE, "text": TEXT}


def run(media: Mapping[str, tuple], problems: Mapping[int, str] | None = None) -> tuple[Embedded, list[tuple]]:
    steps: list[tuple] = []
    n = len(next(iter(media.values())))
    samples = Samples(tuple(map(str, range(n))), media, problems=problems or {})
    contents = digest_contents(samples, lambda *what: steps.append(what))
    keys = {m: ENCODERS[m].identity.key for m in media}
    return embed(samples, contents, keys, lambda: ENCODERS, lambda *what: steps.append(what)), steps


def feature_of(text: str) -> np.ndarray:
    """The mean of the unit features of its pieces, as a unit row."""
    rows = np.concatenate([text_features(p[None]) for p in text_pieces(text)]).astype(np.float64)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
    return mean / np.linalg.norm(mean)


def test_features_are_unit_rows_in_row_order_repeats_included() -> None:
    texts = ("one", "two", "a longer text", "one", "x", "y", "z", "two. three. four")
    got, _ = run({"text": texts})
    # stored rounded to float16, fresh ones too
    np.testing.assert_allclose(got.features.vectors["text"], np.stack([feature_of(t) for t in texts]), atol=5e-4)
    assert got.features.present.all()
    assert got.encoded == {"text": 7}
    assert got.split_texts == 1
    assert got.failures == {}


def test_each_failure_is_its_rows_alone(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "navy").save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG nonsense")
    good = str(tmp_path / "good.png")
    none, empty, bad = (str(tmp_path / f"{name}.png") for name in ("none", "empty", "bad"))
    images = (good, none, empty, bad, None, good, good,
              good, str(tmp_path), good)  # fmt: skip
    texts = ("a", "b", "c", " ", "d", "unspeakable", "100 %", None, "e", "f")
    got, _ = run({"image": images, "text": texts}, problems={9: "row has too few columns"})
    assert got.failures == {
        1: "image: file not found",
        2: "image: file is empty (0 bytes)",
        3: "text: text is empty; image: not an image that can be read",
        4: "image: no value",
        5: "text: cannot be said",
        6: "text: encoder gave no finite numbers",
        7: "text: no value",
        8: "image: is a folder, not a file",
        9: "row has too few columns",
    }
    present = got.features.present
    assert present[:, 0].tolist() == [True, False, False, False, False, True, True, True, False, True]
    assert present[:, 1].tolist() == [True, True, True, False, True, False, False, False, True, True]
    for column, vectors in enumerate(got.features.vectors.values()):
        norms = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(norms, present[:, column], atol=1e-6)  # unit rows, zero where missing
    whole, _ = run({"image": (good,), "text": ("a",)})
    np.testing.assert_array_equal(whole.features.vectors["text"][0], got.features.vectors["text"][0])


def test_nothing_readable_is_no_error() -> None:
    got, _ = run({"image": ("/none/1.png", None), "text": ("", "  ")})
    assert set(got.failures) == {0, 1}
    assert not got.features.present.any()
    assert all(np.isfinite(v).all() for v in got.features.vectors.values())


def test_a_half_warm_cache_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = tuple(f"text {i}. and {'more ' * (i % 4)}. end {i}" for i in range(23))
    cold, _ = run({"text": texts})
    warm, _ = run({"text": texts})
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "other"))
    run({"text": texts[::3]})
    half, _ = run({"text": texts})
    assert (cold.encoded["text"], warm.encoded["text"], half.encoded["text"]) == (23, 0, 23 - 8)
    for other in (warm, half):
        assert other.features.vectors["text"].tobytes() == cold.features.vectors["text"].tobytes()


def test_the_pieces_of_a_text_are_added_up_in_their_own_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pieces of different shapes wait in different batches: which is full first must not change a bit of the mean."""
    base = "ab. the second. cd. the fourth one. ef. the sixth. gh. the eighth"
    last = max((f"{base} {i}" for i in range(99)), key=text_digest)  # contents are taken by digest: this one is last
    seen = set()
    for company in range(8):
        monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / str(company)))
        others = tuple(f"{i}" if company % 2 else f"longer {i}" for i in range(company))
        seen.add(run({"text": (last, *others)})[0].features.vectors["text"][0].tobytes())
    assert len(seen) == 1


def test_a_warm_cache_needs_no_encoder() -> None:
    run({"text": ("one", "two")})
    samples = Samples(("0", "1"), {"text": ("two", "one")})
    contents = digest_contents(samples, lambda *_: None)

    def load() -> Mapping[str, Encoder]:
        raise AssertionError("loaded for nothing")

    got = embed(samples, contents, {"text": "toy text"}, load, lambda *_: None)
    assert got.features.present.all()
    assert len(FeatureCache("toy text").known()) == 2


def test_progress_names_its_stages_and_reaches_the_end(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    _, reported = run({"image": (path,) * 6, "text": tuple("abcdef")})
    stages = list(dict.fromkeys(stage for stage, _, _ in reported))
    assert stages == ["read", "encode image", "encode text"]
    for stage in stages:
        steps = [(done, total) for name, done, total in reported if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert reported[0][2] == 12
    assert next(t for s, _, t in reported if s == "encode image") == 1  # six rows, one content


def test_a_canceled_run_loses_nothing() -> None:
    samples = Samples(tuple(map(str, range(20))), {"text": tuple(f"t{i}" for i in range(20))})
    contents = digest_contents(samples, lambda *_: None)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(samples, contents, {"text": "toy text"}, lambda: ENCODERS, stop)
    assert len(FeatureCache("toy text").known()) == 11
    assert run({"text": samples.media["text"]})[0].encoded == {"text": 9}


@pytest.mark.parametrize(("limit", "value"), [("SHARD_ROWS", 4), ("SHARD_SECONDS", 0.0)])
def test_what_was_encoded_is_stored_while_the_rest_is_not(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A killed run finds it: nothing can be written then."""
    monkeypatch.setattr(f"audit_plugin.encoders.embed.{limit}", value)
    samples = Samples(tuple(map(str, range(20))), {"text": tuple(f"t{i}" for i in range(20))})
    contents = digest_contents(samples, lambda *_: None)
    stored = []

    def watch(stage: str, done: int, total: int) -> None:
        stored.append((done, len(FeatureCache("toy text").known())))

    embed(samples, contents, {"text": "toy text"}, lambda: ENCODERS, watch)
    step = 4 if limit == "SHARD_ROWS" else 1
    assert stored == [(done, done // step * step) for done in range(21)]


# --- batches and memory --------------------------------------------------------------------------------------------


def short_of_memory(most: int, tried: list[int]) -> Encoder:
    """The toy encoder on a GPU that holds batches of `most` pieces; `tried` is told of each."""

    def encode(batch: np.ndarray) -> np.ndarray:
        tried.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("no memory")
        return text_features(batch)

    return Encoder(EncoderIdentity("toy text"), 16, text_pieces, encode)


def test_batches_are_halved_until_they_fit_and_it_is_told() -> None:
    texts = tuple(f"{i}" for i in range(40))
    samples = Samples(texts, {"text": texts})
    contents = digest_contents(samples, lambda *_: None)
    tried: list[int] = []
    encoders = {"text": short_of_memory(5, tried)}
    got = embed(samples, contents, {"text": "toy text"}, lambda: encoders, lambda *_: None)
    assert tried == [16, 8, *[4] * 10]  # found once, kept for the rest
    assert got.notes == tuple(
        f"the GPU's memory is too small for the usual batches; they were cut to {size}" for size in (8, 4)
    )
    np.testing.assert_allclose(got.features.vectors["text"], np.stack([feature_of(t) for t in texts]), atol=5e-4)


def test_a_gpu_without_memory_for_one_piece_is_told_with_its_remedy() -> None:
    with pytest.raises(AuditError, match=r"too small for encoder 'toy text'; close other programs .* --device cpu"):
        list(encode_contents("text", {text_digest("a"): "a"}, short_of_memory(0, [])))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9.31 GiB"), r"the memory is too small \(9.31 GiB could not be had\)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"),
            "memory is too small",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open"),
    ],
    ids=["memory", "torch", "files"],
)
def test_what_this_machine_lacks_is_no_fault_of_a_medium(error: Exception, message: str) -> None:
    """No row fails for it: the command ends with a sentence, and the same one resumes."""

    def lacking(_: str) -> list[np.ndarray]:
        raise error

    encoder = Encoder(EncoderIdentity("toy text"), 16, lacking, text_features)
    with pytest.raises(AuditError, match=message):
        list(encode_contents("text", {text_digest("a"): "a"}, encoder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODALITIES, "text", replace(MODALITIES["text"], digest=lacking))
        with pytest.raises(AuditError, match=message):
            digest_contents(Samples(("0",), {"text": ("a",)}), lambda *_: None)


@pytest.mark.parametrize(("overlap", "ahead"), [(True, 2), (False, 0)])
def test_the_next_batch_is_read_while_another_chip_encodes_one(overlap: bool, ahead: int) -> None:
    """The encoder waits for pieces of the batch after its own: without overlap they do not come."""
    prepared, waited = threading.Semaphore(0), []

    def prepare(text: str) -> list[np.ndarray]:
        prepared.release()
        return text_pieces(text)

    def encode(batch: np.ndarray) -> np.ndarray:
        if not waited:
            waited.extend(prepared.acquire(timeout=20) for _ in range(4 + ahead))  # of its own, and of the next
            waited.append(overlap or not prepared.acquire(timeout=0.2))
        return text_features(batch)

    encoder = Encoder(EncoderIdentity("toy text"), 4, prepare, encode, overlap=overlap)
    values = {text_digest(str(i)): str(i) for i in range(8)}
    assert len(list(encode_contents("text", values, encoder))) == 8
    assert waited == [True] * (4 + ahead + 1)


def test_there_is_always_a_worker() -> None:
    assert 1 <= thread_count() <= 8


def test_only_texts_count_as_split(tmp_path: Path) -> None:
    """A video has several pieces by nature."""
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    video = Encoder(EncoderIdentity("toy video"), 2, lambda fs: [IMAGE.prepare(f)[0] for f in fs], IMAGE.encode)
    samples = Samples(("0",), {"text": ("one. two",), "video": (str(tmp_path / "a.gif"),)})
    contents = digest_contents(samples, lambda *_: None)
    keys = {"text": "toy text", "video": "toy video"}
    got = embed(samples, contents, keys, lambda: {"text": TEXT, "video": video}, lambda *_: None)
    assert (got.split_texts, got.encoded) == (1, {"text": 1, "video": 1})
    rows = np.array([[256, 1, 1], [1, 1, 256]]) / np.linalg.norm([256, 1, 1])  # the mean of the frames' unit features
    np.testing.assert_allclose(got.features.vectors["video"][0], rows.sum(0) / np.linalg.norm(rows.sum(0)), atol=1e-2)


# --- augmented views -----------------------------------------------------------------------------------------------


def viewed(texts: tuple[str, ...], view: int) -> np.ndarray:
    samples = Samples(tuple(map(str, range(len(texts)))), {"text": texts})
    contents = digest_contents(samples, lambda *_: None)
    got = embed(samples, contents, {"text": "toy text"}, lambda: ENCODERS, lambda *_: None, view=view)
    assert got.features.present.all()
    return got.features.vectors["text"]


def test_views_are_other_features_of_the_same_contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = tuple(f"word{i} and more words here" for i in range(9))
    plain, first, second = (viewed(texts, view) for view in (0, 1, 2))
    assert {len(FeatureCache(key).known()) for key in ("toy text", "toy text:view1", "toy text:view2")} == {9}
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, second)
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "elsewhere"))
    # row by row, in another order and another batch: from content and number alone
    again = np.concatenate([viewed((text,), 1) for text in texts[::-1]])[::-1]
    np.testing.assert_array_equal(again, first)
    assert viewed((*texts[3:], "x"), 1)[:6].tobytes() == first[3:].tobytes()


def test_a_view_is_the_augmented_medium_encoded() -> None:
    text = "one two. three four. five six seven"
    rng = np.random.default_rng([int(text_digest(text), 16), 3])
    expected = feature_of(MODALITIES["text"].augment(text, rng))
    np.testing.assert_allclose(viewed((text,), 3)[0], expected, atol=5e-4)


def test_few_media_are_held_prepared_at_a_time() -> None:
    """Videos are large: what is read must not run far ahead of what is encoded."""
    alive, most = 0, 0

    class Piece(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def prepare(text: str) -> list[np.ndarray]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return [np.full(4, len(text), dtype=np.int64).view(Piece)]

    encoder = Encoder(EncoderIdentity("counting"), 2, prepare, text_features)
    texts = tuple(f"t{i}" for i in range(400))
    samples = Samples(texts, {"text": texts})
    contents = digest_contents(samples, lambda *_: None)
    embed(samples, contents, {"text": "counting"}, lambda: {"text": encoder}, lambda *_: None)
    assert most <= 6 * thread_count() + 6
