"""Hostile shards: each case has good samples beside the bad one, and private files that nothing may read."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from audit_plugin.arrays import Samples
from audit_plugin.inputs.files import member_of
from audit_plugin.inputs.samples import read_samples

from .conftest import Chaos
from .hostile_files import Counts, png, private_folder

COLUMNS = {"image": "image", "text": "text"}
BLOCK = 512
Pieces = Sequence[bytes]


def member(name: str, data: bytes | str = b"", form: int = tarfile.GNU_FORMAT, **fields: object) -> bytes:
    """A header with its content."""
    raw = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form) + raw + bytes(-len(raw) % BLOCK)


def good(row: int) -> bytes:
    return member(f"g{row}.png", png()) + member(f"g{row}.txt", f"a green square, number {row}")


def patched(header: bytes, at: int, data: bytes) -> bytes:
    """The first block with other bytes, and the checksum made right again."""
    block = bytearray(header[:BLOCK])
    block[at : at + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + header[BLOCK:]


def pax(kind: bytes, **fields: str) -> bytes:
    """An extended header."""
    text = b""
    for name, value in fields.items():
        line = f" {name}={value}\n".encode()
        length = len(line) + len(str(len(line)))
        length += len(str(length)) != len(str(len(line)))
        text += str(length).encode() + line
    return member("pax", text, type=kind)


def pair(key: str, **fields: object) -> bytes:
    return member(f"{key}.txt", "bad") + member(f"{key}.json", json.dumps(fields))


BETWEEN: dict[str, tuple[Callable[[Path], bytes], Sequence[str]]] = {
    # name -> (what stands between good samples, reasons of its rows)
    "json path": (lambda private: pair("b", image=str(private / "secret.png")), ["a value of JSON"]),
    "json relative path": (lambda _: pair("b", image="private/secret.png"), ["a value of JSON"]),
    "json member value": (
        lambda private: pair("b", image=member_of(str(private / "secret.tar"), "0.png", 512, 500)),
        ["a value of JSON"],
    ),
    "json list of paths": (lambda private: pair("b", image=[str(private / "secret.png")]), ["a value of JSON"]),
    "json url": (lambda private: pair("b", image=f"file://{private}/secret.png"), ["a value of JSON"]),
    "json text over a member": (lambda _: pair("b", text={"a": 1}) + member("b.png", png()), []),
    "json of nesting": (lambda _: member("b.json", "[" * 200_000), ["cannot be used"]),
    "json nested object": (lambda _: member("b.json", '{"a":' * 100_000), ["cannot be used"]),
    "json of a huge number": (lambda _: member("b.json", '{"text": ' + "9" * 100_000 + "}"), ["cannot be used"]),
    "json of many captions": (
        lambda _: member("b.png", png()) + member("b.json", json.dumps({"text": ["x"] * 50_000})),
        ["a list of 50,000 texts"],
    ),
    "json surrogates": (lambda _: member("b.png", png()) + member("b.json", '{"text": "\\ud800"}'), []),
    "two json members": (
        lambda _: member("b.png", png()) + member("b.json", '{"text": "a"}') + member("b.JSON", '{"text": "b"}'),
        ["two members are its JSON"],
    ),
    "two images": (lambda _: member("b.png", png()) * 2 + member("b.txt", "b"), ["two members are its image"]),
    "text of 2 MB": (lambda _: member("b.png", png()) + member("b.txt", "x" * (2 << 20)), ["the limit is"]),
    "text not UTF-8": (lambda _: member("b.png", png()) + member("b.txt", b"caf\xe9"), ["cannot be used"]),
    "link": (
        lambda private: (
            member("b.png", type=tarfile.SYMTYPE, linkname=str(private / "secret.png")) + member("b.txt", "b")
        ),
        ["no image"],
    ),
    "link of a text": (
        lambda private: (
            member("b.txt", type=tarfile.SYMTYPE, linkname=str(private / "secret.txt")) + member("b.png", png())
        ),
        ["no text"],
    ),
    "hard link": (
        lambda private: (
            member("b.png", type=tarfile.LNKTYPE, linkname=str(private / "secret.png")) + member("b.txt", "b")
        ),
        ["no image"],
    ),
    "device": (lambda _: member("b.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5) + member("b.txt", "b"), []),
    "pipe": (lambda _: member("b.png", type=tarfile.FIFOTYPE) + member("b.txt", "b"), ["no image"]),
    "folder": (lambda _: member("b.png/", type=tarfile.DIRTYPE) + member("b.txt", "b"), ["no image"]),
    "absolute names": (lambda private: member(f"{private}/secret.png", png()) + member("b.txt", "b"), ["no image"]),
    "parent names": (lambda _: member("../private/secret.png", png()) + member("../../b.txt", "b"), ["no image"]),
    "names that act": (lambda _: member("b\x1b[31m\u202e\n=1.png", png()) + member("é;$(id).txt", "b"), ["no image"]),
    "name of 1 MB": (lambda _: member("b" * 1_000_000 + ".png", png()), ["its name has 1,000,004 bytes"]),
    "pax name of 500 kB": (lambda _: pax(b"x", path="b" * 500_000 + ".png") + member("b.png", png()), ["its name has"]),
    "name with a null": (lambda _: pax(b"x", path="b\0c.png") + member("b.png", png()), ["no text"]),
    "pax global names": (lambda _: pax(b"g", path="g0.png", size="999999") + member("b.png", png()), ["no text"]),
    "old sparse": (lambda _: patched(member("b.png", png()), 156, b"S") + member("b.txt", "b"), ["stored with holes"]),
    "pax sparse": (
        lambda _: (
            pax(b"x", **{"GNU.sparse.major": "1", "GNU.sparse.name": "b.png", "GNU.sparse.realsize": "9" * 18})
            + member("x.png", png())
            + member("b.txt", "b")
        ),
        ["stored with holes"],
    ),
    "unknown kind": (lambda _: patched(member("b.png", png()), 156, b"Q") + member("b.txt", "b"), ["no image"]),
    "nested tar": (lambda private: member("b.tar", (private / "secret.tar").read_bytes()) + member("b.txt", ""), []),
    "empty image": (lambda _: member("b.png", b"") + member("b.txt", "b"), []),
    "a key like a break": (lambda _: member("after g2.txt", "b") + member("after g2.png", png()), []),
}
AT_THE_END: dict[str, tuple[Callable[[], bytes], Sequence[str]]] = {
    # name -> (what follows good samples, reasons of the rows)
    "size over the end": (lambda: member("b.png", b"x")[:BLOCK], ["breaks off"]),
    "size over the end, declared": (lambda: patched(member("b.png", png()), 124, b"77777777777\0"), ["breaks off"]),
    "huge binary size": (lambda: patched(member("b.png", png()), 124, b"\x80" + b"\xff" * 11), ["breaks off"]),
    "negative binary size": (lambda: patched(member("b.png", png()), 124, b"\xff" * 12), ["a header is damaged"]),
    "size in letters": (lambda: patched(member("b.png", png()), 124, b"0x_1\xc2\xb2-5 \0 "), ["a header is damaged"]),
    "pax size of 10^30": (lambda: pax(b"x", size="9" * 30) + member("b.png", png()), ["an extended header is damaged"]),
    "pax size below 0": (lambda: pax(b"x", size="-512") + member("b.png", png()), ["an extended header is damaged"]),
    "pax line of 10^9": (lambda: member("p", b"999999999 path=b\n", type=b"x"), ["an extended header is damaged"]),
    "pax line of 0": (lambda: member("p", b"0 path=b\n" * 9, type=b"x"), ["an extended header is damaged"]),
    "pax header of 4 GB": (lambda: patched(member("p", b"", type=b"x"), 124, b"40000000000\0"), ["the limit is"]),
    "wrong checksum": (lambda: b"\xff" * BLOCK + good(9), ["a header is damaged"]),
    "zeros, then data": (lambda: bytes(BLOCK) + good(9), ["a header is damaged"]),
    "half a header": (lambda: member("b.png", png())[:200], ["in the middle of a header"]),
    "half a long name": (lambda: member("b" * 1000 + ".png", png())[: BLOCK + 300], ["in the middle of a header"]),
    "map without end": (
        lambda: patched(patched(member("b.png", b""), 156, b"S"), 482, b"\1") + (bytes(504) + b"\1" * 8) * 1000,
        ["in the middle of a header"],
    ),
}


def write(path: Path, *pieces: bytes) -> Path:
    path.write_bytes(b"".join(pieces))
    return path


def many(path: Path, count: int, piece: Callable[[int], bytes]) -> Path:
    """A shard of good samples and then `count` pieces."""
    with path.open("wb") as file:
        file.write(good(0) + good(1) + good(2))
        for at in range(count):
            file.write(piece(at))
        file.write(bytes(1024))
    return path


def whole_files(folder: Path, private: Path) -> dict[str, tuple[Path, str]]:
    """name -> (what is read as a manifest, a part of the sentence with which it is refused)."""
    loop, pipe = folder / "loop.tar", folder / "pipe.tar"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    (folder / "zero.tar").symlink_to("/dev/zero")
    with (folder / "holes.tar").open("wb") as file:
        file.truncate(1 << 40)
    packed = gzip.compress(good(0) + bytes(1024))
    return {
        "pipe": (pipe, "named pipe"),
        "device": (folder / "zero.tar", "a device"),
        "link to itself": (loop, "tar"),
        "folder in place of a shard": (folder, "unpack it first"),
        "1 TB of zeros": (folder / "holes.tar", "no column"),
        "gzip": (write(folder / "packed.tar", packed), "is compressed by gzip"),
        "zip": (write(folder / "zip.tar", b"PK\3\4" * 1000), "is a zip archive"),
        "empty": (write(folder / "empty.tar"), "cannot be read as a tar file"),
        "bombs of ranges": (folder / "{0..9}{0..999999999999}.tar", "stands for"),
        "null in the pattern": (Path(f"{folder}/a\0*.tar"), "tar"),
    }


def test_hostile_shards(chaos: Chaos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = private_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    counts = Counts(private)

    def reading(path: Path) -> Callable[[], Samples]:
        return lambda: read_samples(path, COLUMNS)

    for name, (make, reasons) in BETWEEN.items():
        path = write(tmp_path / "between.tar", good(0), good(1), make(private), good(2), bytes(1024))
        counts.run(name, reading(path), reasons=reasons)
    for name, (end, reasons) in AT_THE_END.items():
        path = write(tmp_path / "end.tar", good(0), good(1), good(2), end())
        counts.run(name, reading(path), reasons=reasons)
    (tmp_path / "whole").mkdir()
    for name, (path, refused) in whole_files(tmp_path / "whole", private).items():
        counts.run(name, reading(path), refused)
    link = tmp_path / "set" / "private.tar"
    link.parent.mkdir()
    link.symlink_to(private / "secret.tar")
    write(tmp_path / "set" / "good.tar", good(0), good(1), good(2), bytes(1024))
    confined = Counts(private, good=("g0", "g1", "g2"))
    # the shard itself is read, as the user named its folder; its media are not, as they lie outside of it
    outside = read_samples(link.parent, COLUMNS, media_root=link.parent).problems
    assert "outside of the media root" in " ".join(outside.values())
    counts.cases += confined.cases

    members = chaos.count(60_000, 1_100_000)
    empty = member("b.txt")
    named = many(tmp_path / "many.tar", members, lambda at: patched(empty, 0, b"%09d" % at))
    counts.run("very many members", reading(named), "more than 1,000,000" if members > 1_000_000 else "")
    header = pax(b"g", **{f"k{at}": "x" * 50 for at in range(10_000)})
    headers = chaos.count(20, 2000)
    counts.run("very many global headers", reading(many(tmp_path / "g.tar", headers, lambda _: header)))
    header = member("L", b"n" * (1 << 20), type=b"L")
    counts.run("very many long names", reading(many(tmp_path / "l.tar", chaos.count(20, 500), lambda _: header)))
    same = member("b.txt", "x" * 100)
    counts.run("one name very often", reading(many(tmp_path / "s.tar", chaos.count(5000, 500_000), lambda _: same)))
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    chaos.record("hostile_shards", counts.cases, "hostile inputs", **counts.check())
