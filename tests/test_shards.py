from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError
from audit_plugin.inputs import files
from audit_plugin.inputs.files import MediaError, file_digest, member_of, name_of_member, open_medium
from audit_plugin.inputs.images import crop_of
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.inputs.readers import webdataset
from audit_plugin.inputs.samples import read_samples

COLUMNS = {"image": "image", "text": "text"}
Member = tuple[str, bytes | str]


def png(color: str = "red", side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, content: Sequence[Member], form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar file with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as shard:
        for name, data in content:
            info, raw = tarfile.TarInfo(name), data.encode() if isinstance(data, str) else data
            info.size = len(raw)
            shard.addfile(info, io.BytesIO(raw))
    return path


def two(key: str, color: str = "red", **fields: object) -> list[Member]:
    """A sample as img2dataset writes it."""
    fields = {"caption": f"said of {key}", "url": f"http://x/{key}", "key": key, **fields}
    return [(f"{key}.jpg", png(color)), (f"{key}.txt", f"the text of {key}"), (f"{key}.json", json.dumps(fields))]


def refusal(path: Path, columns: dict[str, str] = COLUMNS) -> str:
    with pytest.raises(AuditError) as caught:
        read_samples(path, columns)
    return str(caught.value)


# --- what shards hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_are_rows_and_media_are_read_where_they_lie(tmp_path: Path, form: int) -> None:
    path = pack(tmp_path / "00000.tar", [*two("000000000"), *two("000000001", "blue")], form)
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("000000000", "000000001")
    assert samples.media["text"] == ("the text of 000000000", "the text of 000000001")
    assert not samples.problems
    first, second = (v or "" for v in samples.media["image"])
    assert first.startswith(f"{path}::000000000.jpg@")
    with open_medium(second) as file:
        assert file.read() == png("blue")
    assert MODALITIES["image"].digest(second) == hashlib.sha256(png("blue")).hexdigest()
    assert MODALITIES["image"].read(second).getpixel((0, 0)) == (0, 0, 255)
    assert MODALITIES["image"].read(crop_of(second, (0.5, 0.5, 0.5, 0.5))).size == (4, 4)
    assert MODALITIES["video"].read(first)[0].getpixel((0, 0)) == (255, 0, 0)
    assert list(tmp_path.iterdir()) == [path]


def test_sounds_are_read_from_shards(tmp_path: Path, sounds: list[str]) -> None:
    path = pack(tmp_path / "s.tar", [("a.wav", Path(sounds[0]).read_bytes()), ("a.txt", "four tones")])
    value = read_samples(path, {"audio": "audio", "text": "text"}).media["audio"][0] or ""
    assert MODALITIES["audio"].digest(value) == file_digest(sounds[0])
    inside, outside = MODALITIES["audio"].read(value), MODALITIES["audio"].read(sounds[0])
    assert all(np.array_equal(a, b) for a, b in zip(inside.pieces, outside.pieces, strict=True))


def test_fields_of_json_are_columns_and_members_stand_above_them(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [*two("0", text="not this"), *two("1", caption=["one", "two"])])
    assert read_samples(path, COLUMNS).media["text"] == ("the text of 0", "the text of 1")
    listed = read_samples(path, {"image": "image", "text": "caption"}, group="url")
    assert (listed.ids, listed.caption) == (("0", "1", "1"), (0, 0, 1))
    assert listed.media["text"] == ("said of 0", "one", "two")
    assert listed.groups == ("http://x/0", "http://x/1", "http://x/1")
    assert refusal(path, {"image": "image", "text": "captoin"}).startswith(
        "a.tar has no column 'captoin'; did you mean 'caption'?"
    )


def test_folders_patterns_and_ranges_name_shards_in_order(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10):
        pack(tmp_path / "set" / f"{number:05d}.tar", two(f"{number:03d}"))
    (tmp_path / "set" / "00000.parquet").write_bytes(b"of img2dataset")
    (tmp_path / "set" / "00000_stats.json").write_text("{}")
    all_names = ("000", "001", "002", "010")
    assert read_samples(tmp_path / "set", COLUMNS).ids == all_names
    assert read_samples(tmp_path / "set" / "*.tar", COLUMNS).ids == all_names
    samples = read_samples(tmp_path / "set" / "{00001..00010}.tar", COLUMNS)
    assert samples.ids == all_names[1:]
    assert "7 of the 10 files that were named are not there, such as '00003.tar'" in samples.notes
    assert read_samples(tmp_path / "set" / "{00000,00002}.tar", COLUMNS).ids == ("000", "002")
    assert "names no file" in refusal(tmp_path / "set" / "{7..8}.tar")
    assert "does not exist" in refusal(tmp_path / "none.tar")


def test_keys_that_repeat_get_the_name_of_their_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack(tmp_path / f"{name}.tar", [*two("0"), *two("deep/1")])
    assert read_samples(tmp_path, COLUMNS).ids == ("a/0", "a/deep/1", "b/0", "b/deep/1")


# --- what is wrong with them ---------------------------------------------------------------------------------------


def test_one_bad_sample_does_not_take_its_neighbors_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 512)
    good = [("g.png", png()), ("g.txt", "good")]
    bad: list[Member] = [
        ("a.png", png()),
        ("a.txt", b"caf\xe9"),
        ("b.png", png()),
        ("b.json", "{"),
        ("c.png", png()),
        ("c.txt", "x" * 600),
        ("d.png", png()),
        ("d.jpg", png()),
        ("e.json", "[1]"),
        (".hidden", b"x"),
        ("f.txt", "no picture"),
    ]
    samples = read_samples(pack(tmp_path / "a.tar", [*bad, *good]), COLUMNS)
    assert samples.ids == ("a", "b", "c", "d", "e", "f", "g")
    whys = [samples.problems.get(row, "") for row in range(7)]
    assert [why.split(" cannot be used (")[0] for why in whys[:5]] == [
        "'a.txt'",
        "'b.json'",
        "'c.txt'",
        "'d.jpg'",
        "'e.json'",
    ]
    assert "600 bytes, the limit is 512" in whys[2]
    assert "two members are its image" in whys[3]
    assert whys[5:] == ["", ""]
    assert samples.media["image"][5] is None
    assert samples.media["text"][6] == "good"


@pytest.mark.parametrize("cut", [100, 600, 1500])
def test_a_shard_that_breaks_off_keeps_what_came_before(tmp_path: Path, cut: int) -> None:
    path = pack(tmp_path / "a.tar", [*two("0"), *two("1")])
    with tarfile.open(path) as shard:
        start = shard.getmember("1.jpg").offset
    path.write_bytes(path.read_bytes()[: start + cut])
    samples = read_samples(path, COLUMNS)
    assert samples.ids[0] == "0"
    assert "breaks off" in " ".join(samples.problems.values())
    assert 0 not in samples.problems


def test_a_text_that_is_cut_off_is_no_text(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [*two("0"), ("1.jpg", png()), ("1.txt", "a cat that is not on the sofa")])
    with tarfile.open(path) as shard:
        start = shard.getmember("1.txt").offset_data
    path.write_bytes(path.read_bytes()[: start + 10])
    samples = read_samples(path, COLUMNS)
    assert samples.media["text"] == ("the text of 0", None, None)
    assert samples.problems[1] == "'1.txt' cannot be used (the tar file ends too early)"


def test_garbage_in_the_middle_is_told_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [*two("0"), *two("1")])
    with tarfile.open(path) as shard:
        start = shard.getmember("1.jpg").offset
    data = bytearray(path.read_bytes())
    data[start : start + 512] = b"\xff" * 512
    path.write_bytes(bytes(data))
    samples = read_samples(path, COLUMNS)
    assert samples.ids == ("0", "after 0")
    assert samples.problems == {1: "a.tar breaks off after '0' (a header is damaged)"}


@pytest.mark.parametrize("data", [b"", b"no tar file at all" * 100, b"\x1f\x8b compressed"])
def test_what_is_no_tar_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    reason = "gzip -dc a.tar > unpacked.tar" if data.startswith(b"\x1f\x8b") else "cannot be read as a tar file"
    assert reason in refusal(path)


def test_a_member_beyond_the_end_or_the_limit_is_that_rows_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.tar", two("0"))
    for start, size, why in ((10**9, 5, "ends too early"), (0, files.MAX_BYTES + 1, "over the limit")):
        value = member_of(str(path), "0.jpg", start, size)
        for use in (MODALITIES["image"].digest, MODALITIES["video"].digest, MODALITIES["audio"].read):
            with pytest.raises(MediaError, match=why):
                use(value)
    with pytest.raises(MediaError, match="file not found"):
        file_digest(member_of(str(tmp_path / "gone.tar"), "0.jpg", 0, 1))
    with pytest.raises(MediaError, match="file is empty"):
        file_digest(member_of(str(path), "0.jpg", 0, 0))


def test_headers_that_claim_gigabytes_are_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("0")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT if info.size < 8**11 else tarfile.GNU_FORMAT) + bytes(4096))
    assert "the limit is" in refusal(path)


# --- hostile names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.png", "/etc/x.png", "a/../../../b.png", "x\n\x1b[31m;$(id).png", "é ü.png"]
)
def test_names_of_members_are_harmless(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "a.tar", [(name, png("blue")), (name.replace(".png", ".txt"), "blue")])
    value = read_samples(path, COLUMNS).media["image"][0] or ""
    assert value.startswith(f"{path}::")
    assert "/" not in value.removeprefix(str(path))
    assert value.isprintable()
    assert name_of_member(value).endswith(".png")
    assert not name_of_member(value).startswith("..")
    assert MODALITIES["image"].read(value).getpixel((0, 0)) == (0, 0, 255)


def test_links_and_devices_are_no_members(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, kind in (("0.txt", tarfile.SYMTYPE), ("1.txt", tarfile.LNKTYPE), ("2.txt", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            shard.addfile(info)
        info = tarfile.TarInfo("3.txt")
        info.size = 4
        shard.addfile(info, io.BytesIO(b"fine"))
    (row,) = webdataset.ShardSource(tmp_path / "a.tar").rows()
    assert row.cells == {"text": "fine", "id": "3"}


def test_a_file_whose_name_looks_a_little_like_a_member_is_a_file(tmp_path: Path) -> None:
    for name in ("a.tar::b.png", "a.tar::b.png@1", "b@1+2.png"):
        path = tmp_path / name
        path.write_bytes(png())
        assert name_of_member(str(path)) == ""
        assert file_digest(str(path)) == hashlib.sha256(png()).hexdigest()
