from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.samples import read_samples
from benchmarks.multimem import data as bench
from benchmarks.packages import unpack

speaks = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng, which speaks the names, is not installed")
FACES = [f"1f6{i:02x}" for i in range(40)]
STILL, TONED, UNKNOWN = "2705", "1f44b-1f3fb", "1f9ff-200d-1f9ff"


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def packed(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def picture(*colors, kind="WEBP", size=8):
    """An image with one frame per RGBA color."""
    frames = [Image.new("RGBA", (size, size), color) for color in colors]
    out = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:], "lossless": True, "exact": True} if len(frames) > 1 else {}
    frames[0].save(out, kind, **more)
    return out.getvalue()


def vendor_files(vendor, blue):
    stems = [*FACES, "002a-fe0f-20e3", STILL, TONED]
    entries = [{"name": f"Thing {i} face", "image": f"{stem}.png", "category": "ab"[i % 2], f"has_img_{vendor}": True}
               for i, stem in enumerate(stems)]  # fmt: skip
    drawn = {f"img/{vendor}/64/{stem}.png": picture((i, 0, blue, 255), kind="PNG") for i, stem in enumerate(stems)}
    return {"emoji.json": json.dumps(entries).encode(), **drawn}


def animations():
    """Four packages in small, with what the real ones have: stills, skin tones, names written in other ways."""
    moving = {stem: picture((i, 0, 0, 255), (0, i, 9, 255)) for i, stem in enumerate(FACES)}
    others = {"2a-fe0f-20e3": moving[FACES[9]], TONED: moving[FACES[8]], UNKNOWN: moving[FACES[7]]}
    others[STILL] = picture((1, 2, 3, 255))
    every = {f"assets/{stem}.webp": content for stem, content in (moving | others).items()} | {"assets/.gitkeep": b""}
    return [dict(list(every.items())[part::4]) | {"README.md": b"MIT", "big.bin": b"x"} for part in range(4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with the vendors' sets, and a program that packs the animations as npm does."""
    top = tmp_path_factory.mktemp("emoji")
    for vendor, blue in (("google", 0), ("twitter", 200)):
        archive = packed(top / f"{vendor}.tgz", vendor_files(vendor, blue))
        unpack(archive, top / "data" / vendor, bench.SOURCES[vendor].keep)
    for part, files in enumerate(animations(), 1):
        packed(top / f"{part}.tgz", files)
    (top / "bin").mkdir()
    npm = top / "bin/npm"
    npm.write_text(f'#!/bin/sh\npart=${{2%%@1.0.0}}\ncp "{top}/${{part##*-}}.tgz" "$5/anim.tgz"\n')
    npm.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{top / 'bin'}:/usr/bin:/bin")
        assert len(bench.emoji(top / "data")) == 41
    return top / "data"


def test_emoji_that_move_and_have_no_skin_tone_are_kept(made):
    found = bench.emoji(made)
    assert [entry.id for entry in found] == [*FACES, "002a-fe0f-20e3"]
    assert found[3].name == "thing 3 face"
    assert found[-1].video.name == "2a-fe0f-20e3.webp"
    for i, entry in enumerate(found[:-1]):
        assert Image.open(entry.image).convert("RGB").getpixel((0, 0)) == (i, 0, 0)
        assert Image.open(entry.video).convert("RGB").getpixel((0, 0)) == (i, 0, 0)
    kept = {path.name for path in (made / "fluent").rglob("*") if path.is_file()}
    assert len(kept) == len(FACES) + 3  # the keycap, the one that no vendor names, the README
    assert not kept & {f"{STILL}.webp", f"{TONED}.webp", "big.bin", ".gitkeep"}


@pytest.mark.parametrize(
    ("colors", "moving"),
    [
        ([(9, 9, 9, 255)], False),
        ([(9, 9, 9, 255), (9, 9, 9, 255), (9, 9, 200, 255)], True),
        ([(9, 9, 9, 0), (200, 9, 9, 0), (9, 200, 9, 0)], False),  # colors that nobody sees
        ([(255, 255, 255, 255), (255, 255, 255, 0), (255, 255, 255, 9)], False),  # white on white
    ],
)
def test_an_animation_moves_if_two_frames_look_different(colors, moving, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(picture(*colors))
    assert bench.moves(path) == moving


@speaks
def test_a_clean_set_is_one_whole_row_per_emoji(made, tmp_path):
    path = bench.four_modalities(tmp_path / "deep/out", data=made)
    rows, truth = read(path), read(path.with_name("truth.csv"))
    assert list(rows[0]) == ["id", "image", "text", "audio", "video", "category", "vendor"]
    assert list(truth[0]) == ["id", "fault", "source_id"]
    assert len(rows) == len(truth) == 41
    assert {(row["fault"], row["source_id"]) for row in truth} == {("none", "")}
    assert {row["vendor"] for row in rows} == {"google"}
    samples = read_samples(path, {name: name for name in bench.MODALITIES}, label="category")
    assert not samples.problems
    for name in ("image", "audio", "video"):
        assert all(Path(medium).is_file() for medium in samples.media[name])
        assert len(set(samples.media[name])) == 41
    assert samples.labels[:3] == ("a", "b", "a")


@speaks
@pytest.mark.parametrize("permuted", [True, False])
def test_the_truth_tells_every_fault_and_nothing_else_changed(permuted, made, tmp_path):
    faults = {"image": 0.1, "text": 0.05, "video": 0.15}
    clean = {row["id"]: row for row in read(bench.four_modalities(tmp_path / "a", data=made))}
    path = bench.four_modalities(tmp_path / "b", faults, 3, permuted, data=made)
    rows, truth = read(path), read(path.with_name("truth.csv"))
    kinds = [row["fault"] for row in truth]
    assert {kind: kinds.count(kind) for kind in bench.MODALITIES} == {"image": 4, "text": 2, "audio": 0, "video": 6}
    wrong = {row["id"]: row["fault"] for row in truth if row["fault"] != "none"}
    for row, known in zip(rows, truth, strict=True):
        expected = dict(clean[row["id"]])
        if row["id"] in wrong:
            expected[known["fault"]] = clean[known["source_id"]][known["fault"]]
            assert expected != clean[row["id"]]
            assert wrong.get(known["source_id"], "none") == (known["fault"] if permuted else "none")
        assert row == expected
    if permuted:
        for name in bench.MODALITIES:
            assert sorted(row[name] for row in rows) == sorted(row[name] for row in clean.values())


@speaks
def test_the_seed_decides(made, tmp_path):
    truths = [
        bench.four_modalities(tmp_path / str(i), {"audio": 0.1}, seed, data=made).with_name("truth.csv").read_bytes()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert truths[0] == truths[1] != truths[2]


@speaks
def test_duplicates_are_right_rows_in_another_drawing_and_voice(made, tmp_path):
    path = bench.four_modalities(tmp_path, {"text": 0.1}, duplicates=7, data=made)
    rows = {row["id"]: row for row in read(path)}
    truth = {row["id"]: row for row in read(path.with_name("truth.csv"))}
    assert len(rows) == 48
    twins = [key for key, row in truth.items() if row["fault"] == "duplicate"]
    assert len(twins) == 7
    assert list(rows)[41:] == twins
    for key in twins:
        twin, first = rows[key], rows[truth[key]["source_id"]]
        assert truth[first["id"]]["fault"] == "none"
        assert key == first["id"] + "-twitter"
        assert {name for name in twin if twin[name] != first[name]} == {"id", "image", "audio", "vendor"}
        assert Image.open(path.parent / twin["image"]).convert("RGB").getpixel((0, 0))[2] == 200
        assert Path(twin["audio"]).parent.name in bench.VOICES
        assert (path.parent / twin["audio"]).read_bytes() != (path.parent / first["audio"]).read_bytes()


@speaks
def test_every_voice_is_heard_as_one_of_its_own(tmp_path):
    entry = bench.Emoji("1f34e", "red apple", "Food", tmp_path, tmp_path)
    spoken = [bench.speak(entry, name, tmp_path) for name in bench.VOICES]
    assert len({path.read_bytes() for path in spoken}) == len(bench.VOICES) >= 4
    for path in spoken:
        with wave.open(str(path)) as sound:
            assert (sound.getsampwidth(), sound.getnchannels(), sound.getframerate()) == (2, 1, 22050)
            seconds = sound.getnframes() / sound.getframerate()
            assert 0.3 < seconds < 2
            assert np.abs(np.frombuffer(sound.readframes(-1), np.int16).astype(int)).max() > 3000


@speaks
def test_a_name_is_spoken_once_and_never_taken_for_an_option(tmp_path):
    entry = bench.Emoji("a", "--version", "x", tmp_path, tmp_path)
    path = bench.speak(entry, "en-us", tmp_path)
    written = path.stat().st_mtime_ns
    assert path.stat().st_size > 10_000
    assert bench.speak(entry, "en-us", tmp_path).stat().st_mtime_ns == written
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert bench.speak(bench.Emoji("a", "apple", "x", tmp_path, tmp_path), "en-us", tmp_path) != path


@speaks
def test_an_espeak_that_fails_is_named(tmp_path):
    entry = bench.Emoji("a", "apple", "x", tmp_path, tmp_path)
    with pytest.raises(AuditError, match="could not speak 'apple' as nobody .*does not exist"):
        bench.speak(entry, "nobody", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_espeak_one_sentence_names_the_package(monkeypatch, made, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AuditError, match="apt-get install espeak-ng"):
        bench.speak(bench.emoji(made)[0], "en-us", tmp_path)


def test_voices_follow_the_id_evenly_and_a_second_take_is_another_one():
    keys = [f"{i:x}" for i in range(6000)]
    counts = {name: [bench.voice(key) for key in keys].count(name) for name in bench.VOICES}
    assert all(850 < count < 1150 for count in counts.values())  # 1,000 each, 5 standard deviations
    assert all(bench.voice(key) != bench.voice(key, 1) for key in keys)
    assert bench.voice("1f300") == "en-us"  # the same on every machine


@given(st.integers(8, 60), st.booleans(), st.integers(0, 9), st.data())
def test_planned_faults_are_disjoint_and_change_the_name(n, permuted, seed, data):
    names = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    rates = {name: data.draw(st.sampled_from((0.0, 0.05, 0.1))) for name in bench.MODALITIES}
    try:
        plan = bench.plan_faults(names, rates, permuted, seed)
    except AuditError:
        return
    for modality, rate in rates.items():
        rows = {i for i, fault in plan.items() if fault.kind == modality}
        sources = [fault.source for fault in plan.values() if fault.kind == modality]
        count = round(rate * n)
        assert len(rows) == len(set(sources)) == (2 if permuted and count == 1 else count)
        assert set(sources) == rows if permuted else not set(sources) & set(plan)
    assert all(names[i] != names[fault.source] for i, fault in plan.items())


def test_rates_of_later_modalities_leave_earlier_ones_alone():
    names = [str(i) for i in range(100)]
    few = bench.plan_faults(names, {"image": 0.04}, True, 0)
    many = bench.plan_faults(names, dict.fromkeys(bench.MODALITIES, 0.04), True, 0)
    assert len(few) == 4
    assert few == {i: fault for i, fault in many.items() if fault.kind == "image"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"faults": {"smell": 0.1}}, "modality 'smell'"),
        ({"faults": {"text": 0.3}}, "rate of text faults is 0.3"),
        ({"duplicates": 99}, "duplicates is 99; it must lie between 0 and 41"),
        ({"duplicates": -1}, "duplicates is -1"),
    ],
)
def test_values_that_cannot_work_are_named(values, said, made, tmp_path):
    with pytest.raises(AuditError, match=said):
        bench.four_modalities(tmp_path, **values, data=made)


@speaks
def test_the_command_line_plants_in_each_modality(monkeypatch, made, tmp_path, capsys):
    monkeypatch.setattr(bench.four_modalities, "__defaults__", (*bench.four_modalities.__defaults__[:-1], made))
    assert bench.main(["--out", str(tmp_path), "--faults", "0.05", "--duplicates", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "manifest.csv")
    kinds = [row["fault"] for row in read(tmp_path / "truth.csv")]
    assert [kinds.count(kind) for kind in (*bench.MODALITIES, "duplicate")] == [2, 2, 2, 2, 2]
    assert bench.main(["--out", str(tmp_path), "--faults", "0.5"]) == 2
    assert "must lie between 0 and 0.25" in capsys.readouterr().err
