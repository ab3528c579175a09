"""Sources on remote storage: fetched once, as the user names them, and nothing else; read like local files."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote as quoted

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError, Samples
from audit_plugin.inputs.patterns import is_gone
from audit_plugin.inputs.remote import addresses, copied, is_remote, mirror, name_of, network, shown
from audit_plugin.inputs.samples import read_samples
from audit_plugin.store.inventory import delete, gone, inventory
from tests.remote_fixtures import Site, serving, wait_until

pytest.importorskip("aiohttp", reason="web servers are read by aiohttp, of the extra remote")
ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {"image": "image", "text": "caption"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(network, "WAITS", (0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's storage in memory, empty."""
    import fsspec

    storage = fsspec.filesystem("memory")
    storage.store.clear()
    yield storage
    storage.store.clear()


def manifest(*images: str, key: str = "r") -> bytes:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["id", "image", "caption"])
    table.writerows([f"{key}{row}", image, f"caption {row}"] for row, image in enumerate(images))
    return out.getvalue().encode()


def publish(site: Site, pictures: list[str], rows: int = 3, folder: str = "/data") -> str:
    """Puts a manifest with its pictures on a server; its address."""
    names = [f"images/{row} of #7?.png" for row in range(rows)]  # signs that addresses need quoted
    for row, name in enumerate(names):
        site.files[f"{folder}/{name}"] = Path(pictures[row]).read_bytes()
    site.files[f"{folder}/pairs.csv"] = manifest(*names)
    return f"{site.url}{folder}/pairs.csv"


def contents(samples: Samples) -> list[bytes | None]:
    return [Path(path).read_bytes() if path else None for path in samples.media["image"]]


def stored(cache: Path) -> list[str]:
    """Paths of all files that were fetched, from their folder on."""
    return sorted(
        str(path.relative_to(copy / "files"))
        for copy in (cache / "remote").glob("*")
        for path in (copy / "files").rglob("*")
        if path.is_file()
    )


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "is_address"),
    [
        ("s3://b/x.csv", True),
        ("HTTPS://h/x.csv", True),
        ("memory://b/x", True),
        ("pairs.csv", False),
        ("file:///tmp/x.csv", False),
        ("/a/s3://b", False),
        ("C:\\x.csv", False),
    ],
)
def test_what_is_an_address(source: str, is_address: bool) -> None:
    assert is_remote(source) is is_address


def test_a_path_cannot_hold_an_address() -> None:
    with pytest.raises(AuditError, match=r"a Path cannot hold the address 's3://b/x\.csv'; pass it as text"):
        is_remote(Path("s3://b/x.csv"))


def test_a_file_address_is_a_path(tmp_path: Path, pictures: list[str]) -> None:
    (tmp_path / "m.csv").write_bytes(manifest(pictures[0]))
    assert read_samples((tmp_path / "m.csv").as_uri(), COLUMNS).media["image"] == (pictures[0],)


@pytest.mark.parametrize(
    ("url", "folder", "name", "query"),
    [
        ("s3://b/data/x.csv", "s3://b/data", "x.csv", ""),
        ("s3://b/data/", "s3://b/data", "", ""),
        ("s3://b", "s3://b", "", ""),
        ("s3://b/a/train-?.csv", "s3://b/a", "train-?.csv", ""),
        ("s3://b/*/x.csv", "s3://b", "*/x.csv", ""),
        ("gs://b/s/{00..11}.tar", "gs://b/s", "{00..11}.tar", ""),
        ("https://h/x.csv?sig=1#a", "https://h", "x.csv", "?sig=1"),
        ("https://u:p@h:8/d/x.csv", "https://u:p@h:8/d", "x.csv", ""),
        ("hf://datasets/u/r@main/x.csv", "hf://datasets/u/r@main", "x.csv", ""),
        ("https://h/@scope/x.csv", "https://h/@scope", "x.csv", ""),
    ],
)
def test_the_parts_of_an_address(url: str, folder: str, name: str, query: str) -> None:
    address = addresses.parsed(url)
    assert (address.folder, address.name, address.query) == (folder, name, query)


@pytest.mark.parametrize("url", ["https://u:se/cret@h/x.csv", "https://u:12/cret@h/x", "https:///x", "https://h:x/y"])
def test_a_web_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(AuditError) as refusal:
        addresses.parsed(url)
    assert "cret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["zip://a.csv::s3://b/x.zip", "s3:///x.csv"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(AuditError, match="more than one address|names no folder"):
        addresses.parsed(url)


PLAIN = st.text("abcz09._-", min_size=1, max_size=8).filter(lambda part: part.strip("."))


@given(user=PLAIN, password=PLAIN, host=PLAIN, path=st.lists(PLAIN, max_size=3), signature=PLAIN)
def test_no_secret_is_shown(user: str, password: str, host: str, path: list[str], signature: str) -> None:
    way = "".join(f"/{part}" for part in path)
    secret = f"S3CR3T{password}"
    for protocol in ("https", "http"):
        url = f"{protocol}://{user}:{secret}@{host}{way}?X-Amz-Signature={secret}{signature}#{secret}"
        assert shown(url) == f"{protocol}://{host}{way}"
        assert shown(shown(url)) == shown(url)
    assert shown(f"sftp://{user}:{secret}@{host}{way}") == f"sftp://{host}{way}"


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "b c", "%2e%2e", "%2F", "..%2f..", "\0", "x\\y", "?", "#"]), max_size=5
    )
)
def test_what_lies_below_a_folder_stays_there(parts: list[str]) -> None:
    for folder in ("https://h/d", "/b/d"):
        path = addresses.below(folder, f"{folder}/{'/'.join(parts)}")
        assert os.path.normpath(os.path.join("/root", path)).startswith("/root")
        assert not {"..", ".", ""} & set(path.split("/")) or path == ""
        if path:
            assert addresses.below(folder, addresses.within(folder, path)) == path


# --- what is fetched -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_manifest_with_its_media(site: Site, pictures: list[str], cache: Path, ranges: bool, sizes: bool) -> None:
    site.ranges, site.sizes = ranges, sizes
    url = publish(site, pictures)
    site.files["/data/other.png"] = b"not named"
    samples = read_samples(url, COLUMNS)
    assert contents(samples) == [Path(path).read_bytes() for path in pictures[:3]]
    assert samples.source == f"manifest {url}"
    assert not samples.problems
    assert stored(cache) == [*(f"images/{row} of #7?.png" for row in range(3)), "pairs.csv"]
    assert "4 files" in samples.notes[-1]


def test_the_same_is_not_fetched_again_and_what_changed_is(site: Site, pictures: list[str]) -> None:
    url = publish(site, pictures)
    read_samples(url, COLUMNS)
    site.asked.clear()
    assert "4 were in the cache" in read_samples(url, COLUMNS).notes[-1]
    assert site.fetched() == {}
    changed, gone_now = "/data/images/0 of #7?.png", "/data/images/1 of #7?.png"
    site.files[changed] = Path(pictures[9]).read_bytes()
    del site.files[gone_now]
    samples = read_samples(url, COLUMNS)
    assert contents(samples) == [Path(pictures[9]).read_bytes(), None, Path(pictures[2]).read_bytes()]
    assert samples.problems == {1: f"{site.url + quoted(gone_now)!r} does not exist"}
    assert changed in site.fetched()


def test_what_a_server_tells_nothing_about_is_fetched_again(site: Site, pictures: list[str]) -> None:
    site.versions = False
    url = publish(site, pictures)
    read_samples(url, COLUMNS)
    site.files["/data/images/0 of #7?.png"] = bytes(reversed(Path(pictures[0]).read_bytes()))  # of the same size
    assert contents(read_samples(url, COLUMNS))[0] == site.files["/data/images/0 of #7?.png"]


def test_a_file_that_is_not_as_it_was_written_is_fetched_again(site: Site, pictures: list[str]) -> None:
    url = publish(site, pictures)
    samples = read_samples(url, COLUMNS)
    Path(samples.media["image"][0] or "").write_bytes(b"cut")
    Path(samples.media["image"][1] or "").unlink()
    assert contents(read_samples(url, COLUMNS)) == [Path(path).read_bytes() for path in pictures[:3]]


def test_rows_name_nothing_outside_of_the_folder(memory: Any, pictures: list[str], cache: Path) -> None:
    picture = Path(pictures[0]).read_bytes()
    for path in ("/b/data/in.png", "/b/secret.png", "/etc/hosts"):
        memory.pipe(path, picture)
    names = ("in.png", "../secret.png", "/etc/hosts", "memory://b/secret.png", "https://h/x.png", "file:///etc/hosts")
    memory.pipe("/b/data/m.csv", manifest(*names, "memory://b/data/in.png", "memory://b/data/../secret.png"))
    samples = read_samples("memory://b/data/m.csv", COLUMNS)
    assert contents(samples) == [picture, *[None] * 5, picture, None]
    assert samples.problems[1] == "column 'image' names a file outside of memory://b/data"
    assert "holds a URL" in samples.problems[3]
    assert sorted(samples.problems) == [1, 2, 3, 4, 5, 7]
    assert stored(cache) == ["in.png", "m.csv"]


def test_a_local_manifest_fetches_nothing(site: Site, pictures: list[str], tmp_path: Path, cache: Path) -> None:
    publish(site, pictures)
    (tmp_path / "m.csv").write_bytes(manifest(pictures[0], f"{site.url}/data/images/0.png"))
    samples = read_samples(tmp_path / "m.csv", COLUMNS)
    assert "holds a URL" in samples.problems[1]
    assert not site.asked
    assert not (cache / "remote").exists()


def test_media_of_a_folder_of_ones_own(site: Site, pictures: list[str], tmp_path: Path, cache: Path) -> None:
    site.files["/d/m.csv"] = manifest("0.png", "1.png")
    for row in range(2):
        (tmp_path / f"{row}.png").write_bytes(Path(pictures[row]).read_bytes())
    samples = read_samples(f"{site.url}/d/m.csv", COLUMNS, media_root=tmp_path)
    assert samples.media["image"] == (str(tmp_path / "0.png"), str(tmp_path / "1.png"))
    assert stored(cache) == ["m.csv"]


def test_media_with_own_embeddings_are_not_fetched(
    site: Site, pictures: list[str], tmp_path: Path, cache: Path
) -> None:
    import numpy as np

    url = publish(site, pictures)
    np.save(tmp_path / "x.npy", np.eye(3, 4, dtype=np.float32))
    samples = read_samples(url, COLUMNS, embeddings=f"image={tmp_path}/x.npy")
    assert len(samples.vectors["image"]) == 3
    assert stored(cache) == ["pairs.csv"]


def test_many_media_are_listed_in_one_question(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in range(60):
        memory.pipe(f"/b/i/{row}.png", b"x%d" % row)
    memory.pipe("/b/m.csv", manifest(*(f"i/{row}.png" for row in range(61))))
    asked = []
    info = type(memory).info
    monkeypatch.setattr(type(memory), "info", lambda self, path, **more: asked.append(path) or info(self, path, **more))
    samples = read_samples("memory://b/m.csv", COLUMNS)
    assert asked.count("/b/i/7.png") <= 1, "a question per file, besides those of its copying"
    assert samples.problems == {60: "'memory://b/i/60.png' does not exist"}
    assert len(stored(cache)) == 61


@pytest.mark.parametrize("in_memory", [True, False])
def test_folders(in_memory: bool, memory: Any, site: Site, pictures: list[str], cache: Path) -> None:
    files = {f"{name}/{row} x.png": pictures[row] for row, name in enumerate(["red", "red", "blue"])}
    put = memory.pipe if in_memory else site.files.__setitem__
    for path, picture in files.items():
        put(f"/b/set/{path}", Path(picture).read_bytes())
    put("/b/set/.hidden/x.png", b"x")
    put("/b/other.png", b"x")
    url = ("memory://b/set" if in_memory else f"{site.url}/b/set") + "/"
    samples = read_samples(url)
    assert sorted(samples.media["text"]) == ["blue", "red", "red"]
    assert stored(cache) == sorted(files)
    (memory.store if in_memory else site.files).pop("/b/set/red/0 x.png")
    assert len(read_samples(url)) == 2
    assert stored(cache) == sorted(set(files) - {"red/0 x.png"})


def test_patterns(memory: Any, cache: Path) -> None:
    for number in range(3):
        memory.pipe(f"/b/train-{number}.csv", manifest(f"{number}.png", key=f"{number}-"))
        memory.pipe(f"/b/{number}.png", b"x%d" % number)
    memory.pipe("/b/test-0.csv", manifest("0.png", key="t"))
    for pattern, count in (
        ("train-*.csv", 3),
        ("train-[01].csv", 2),
        ("train-{1..7}.csv", 2),
        ("{train,test}-0.csv", 2),
    ):
        samples = read_samples(f"memory://b/{pattern}", COLUMNS)
        assert len(samples) == count, pattern
        assert not samples.problems
    memory.rm("/b/train-0.csv")
    assert len(read_samples("memory://b/train-*.csv", COLUMNS)) == 2
    with pytest.raises(AuditError, match=r"'memory://b/none-\*\.csv' names no file"):
        read_samples("memory://b/none-*.csv", COLUMNS)
    memory.pipe("/b/deep/er/train-9.csv", manifest("x.png"))
    with pytest.raises(AuditError, match="means something else on a disk"):
        read_samples("memory://b/**/train-9.csv", COLUMNS)


def test_messages_name_the_address_and_not_the_cache(memory: Any, cache: Path) -> None:
    memory.pipe("/b/set/x.bin", b"x")
    with pytest.raises(AuditError, match=r"'memory://b/set/' holds nothing that is known \(1 \.bin\)"):
        read_samples("memory://b/set/")


def test_shards(site: Site, pictures: list[str], cache: Path) -> None:
    for number in range(2):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for suffix, data in (("png", Path(pictures[number]).read_bytes()), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"k{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        site.files[f"/s/{number:02d}.tar"] = out.getvalue()
    samples = read_samples(f"{site.url}/s/{{00..01}}.tar", {"image": "image", "text": "text"})
    assert samples.ids == ("k0", "k1")
    assert stored(cache) == ["00.tar", "01.tar"]


def test_a_folder_of_a_hostile_server(site: Site, pictures: list[str], cache: Path) -> None:
    picture = Path(pictures[0]).read_bytes()
    site.files |= {"/d/red/0.png": picture, "/d/blue/1.png": picture, "/secret.png": b"x", "/e/x.png": b"x"}
    loops = ["./", "/d/", "../", "../../", "loop/", "//evil.example/x/", "https://evil.example/d/x.png"]
    outside = [
        "../secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "/secret.png",
        "a/../../secret.png",
        "red/../0.png",
    ]
    site.links["/d/"] = ["red/", "blue/", *loops, *outside, "x?y=/../../secret.png"]
    site.links["/d/loop/"] = ["../", "loop/", "./"]
    site.links |= {f"/d/{'loop/' * depth}": ["loop/"] for depth in range(2, 40)}
    samples = read_samples(f"{site.url}/d/")
    assert len(samples) == 2
    assert stored(cache) == ["blue/1.png", "red/0.png"]
    assert not any("secret" in path for path in site.fetched())


@pytest.mark.parametrize("name", ["%2e%2e%2fabout.json", "..%2f..%2fx", "a%5c..%5cx", "{..,x}/about.json"])
def test_an_address_writes_nothing_outside_of_its_copy(name: str, site: Site, cache: Path) -> None:
    # names as they are, where the server would take them so
    site.files |= {f"/d/{path}": b"id,image\n1,x\n" for path in ("../about.json", "../../x", "a\\..\\x", "x")}
    site.files["/about.json"] = b"[]"
    with pytest.raises(AuditError):
        read_samples(f"{site.url}/d/{name}", COLUMNS)
    assert stored(cache) == []
    known = {"about.json", ".lock"}
    assert {path.name for path in cache.rglob("*") if path.is_file()} <= known
    for about in cache.rglob("about.json"):
        assert b"seal" in about.read_bytes()


def test_ranges_of_a_web_server_are_asked_for_at_once(site: Site) -> None:
    site.files |= {f"/s/m-{number}.csv": manifest("x.png", key=f"{number}-") for number in range(0, 80, 2)}
    assert len(read_samples(f"{site.url}/s/m-{{0..79}}.csv", COLUMNS)) == 40
    site.status["/s/m-4.csv"] = 403
    with pytest.raises(AuditError, match="m-4.csv' may not be read"):
        read_samples(f"{site.url}/s/m-{{0..79}}.csv", COLUMNS)


def test_names_that_no_disk_takes_cost_their_rows(site: Site) -> None:
    names = ["a", "a/b.png", "x" * 300 + ".png", "c.png"]
    site.files |= {f"/d/{name}": b"x" + name[:9].encode() for name in names}
    site.files["/d/m.csv"] = manifest(*names)
    samples = read_samples(f"{site.url}/d/m.csv", COLUMNS)
    assert len(samples.problems) == 2
    assert all("cannot be stored under its name" in reason for reason in samples.problems.values())
    assert samples.media["image"][3]


def test_limits(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/b/m.csv", manifest("1.png", "2.png"))
    memory.pipe("/b/1.png", b"x" * 5000)
    memory.pipe("/b/2.png", b"x" * 10)
    monkeypatch.setattr("audit_plugin.inputs.remote.MAX_BYTES", 1000)
    samples = read_samples("memory://b/m.csv", COLUMNS)
    assert samples.problems == {0: "'memory://b/1.png' has 5.0 kB, and the limit of a file is 1.0 kB"}
    monkeypatch.setattr(mirror, "MAX_TOTAL", 100)
    memory.pipe("/b/2.png", b"x" * 101)
    with pytest.raises(AuditError, match="2 files of 5.1 kB are to be fetched, and the limit of a source is 100 B"):
        read_samples("memory://b/m.csv", COLUMNS)
    monkeypatch.setattr(mirror, "MAX_TOTAL", 10**12)
    monkeypatch.setattr(mirror, "SPARE", 10**18)
    with pytest.raises(AuditError, match="0 B are free in .*set AUDIT_PLUGIN_CACHE to a folder of another disk"):
        read_samples("memory://b/m.csv", COLUMNS)


def test_a_file_without_a_size_ends_at_the_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.sizes = False
    site.files |= {"/d/m.csv": manifest("1.png"), "/d/1.png": b"x" * 10**6}
    monkeypatch.setattr("audit_plugin.inputs.remote.MAX_BYTES", 1000)
    assert "has more than 1.0 kB, the limit of a file" in read_samples(f"{site.url}/d/m.csv", COLUMNS).problems[0]


def test_progress_names_files_and_bytes(memory: Any) -> None:
    memory.pipe("/b/m.csv", manifest("1.png", "2.png"))
    for row in (1, 2):
        memory.pipe(f"/b/{row}.png", bytes(6 * 10**6))
    steps: list[tuple[str, int, int]] = []
    read_samples("memory://b/m.csv", COLUMNS, progress=lambda *step: steps.append(step))
    first = next(step for step in steps if "2 files" in step[0])
    assert first == ("fetch 2 files, 12.0 MB, of memory://b (limits: 4.3 GB a file, 2.0 TB in all), MB", 0, 12)
    assert steps[-1] == (first[0], 12, 12)


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_files_that_may_not_be_read_cost_their_rows(site: Site, pictures: list[str]) -> None:
    url = publish(site, pictures)
    paths = [f"/data/images/{row} of #7?.png" for row in range(3)]
    site.status |= {paths[0]: 403, paths[1]: 500}
    problems = read_samples(url, COLUMNS).problems
    assert sorted(problems) == [0, 1]
    assert site.url + quoted(paths[0]) in problems[0]
    assert "may not be read (status 403)" in problems[0]
    assert "cannot be read (status 500)" in problems[1]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "does not exist"), (401, "may not be read"), (403, "may not be read"), (503, "cannot be reached")],
)
def test_a_manifest_that_cannot_be_had(site: Site, status: int, reason: str) -> None:
    site.status["/m.csv"] = status
    with pytest.raises(AuditError, match=reason) as refusal:
        read_samples(f"{site.url}/m.csv?X-Amz-Signature=S3CR3T", COLUMNS)
    assert f"{site.url}/m.csv" in str(refusal.value)
    assert "S3CR3T" not in str(refusal.value)
    assert refusal.value.__suppress_context__


def test_a_connection_that_breaks_off_is_tried_again(site: Site, pictures: list[str]) -> None:
    url = publish(site, pictures)
    path = "/data/images/1 of #7?.png"
    site.cut[path] = 2
    assert contents(read_samples(url, COLUMNS))[1] == site.files[path]
    assert site.fetched()[path] == 3


def test_what_breaks_off_each_time_keeps_what_came_before(site: Site, pictures: list[str], cache: Path) -> None:
    url = publish(site, pictures)
    path = "/data/images/1 of #7?.png"
    site.cut[path] = 3
    with pytest.raises(AuditError, match=r"127\.0\.0\.1:\d+ cannot be reached, or breaks off .*3 tries.*kept"):
        read_samples(url, COLUMNS)
    assert "images/1 of #7?.png" not in stored(cache)
    assert not list(cache.glob("remote/*/parts/*"))
    site.asked.clear()
    assert len(contents(read_samples(url, COLUMNS))) == 3
    assert "/data/pairs.csv" not in site.fetched()


def test_a_server_that_stalls(site: Site, pictures: list[str], monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(network, "SILENT_SECONDS", 0.3)
    url = publish(site, pictures)
    site.stalled.add("/data/images/2 of #7?.png")
    with pytest.raises(AuditError, match="no answer in time, 3 tries"):
        read_samples(url, COLUMNS)
    assert "images/2 of #7?.png" not in stored(cache)


def test_a_server_that_is_not_there() -> None:
    with serving() as site:
        url = f"{site.url}/m.csv"
    with pytest.raises(AuditError, match=r"127\.0\.0\.1:\d+ cannot be reached.*check the network"):
        read_samples(url, COLUMNS)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://b/x.csv", r's3:// needs the package s3fs: pip install "audit-plugin\[remote\]", or pip install s3fs'),
        ("https://h/x.csv", 'https:// needs the package aiohttp: pip install "audit-plugin'),
        ("abfs://b/x.csv", "abfs:// needs the package adlfs: pip install adlfs"),
        ("nosuch://b/x.csv", "nosuch:// is no storage that fsspec knows; it knows s3://"),
    ],
)
def test_a_missing_package_is_named(url: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("fsspec.registry")
    for name in ("s3fs", "aiohttp", "adlfs", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, name, None)
    for protocol in ("s3", "https", "abfs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(AuditError, match=sentence):
        read_samples(url, COLUMNS)


def test_two_processes_do_not_fetch_into_one_folder(memory: Any) -> None:
    memory.pipe("/b/m.csv", manifest("1.png"))
    with (
        mirror.Mirror("memory://b", memory, lambda *_: None),
        pytest.raises(AuditError, match="is being fetched by another process"),
    ):
        read_samples("memory://b/m.csv", COLUMNS)


def test_a_killed_fetch_goes_on_where_it_stopped(site: Site, pictures: list[str], cache: Path) -> None:
    url = publish(site, pictures)
    stalled = "/data/images/2 of #7?.png"
    site.stalled.add(stalled)
    code = f"from audit_plugin.inputs.samples import read_samples; read_samples({url!r}, {COLUMNS!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_until(lambda: site.fetched().get(stalled) and len(stored(cache)) == 3, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "images/2 of #7?.png" not in stored(cache)
    assert len(list(cache.glob("remote/*/parts/*"))) == 1
    site.stalled.clear()
    site.asked.clear()
    assert contents(read_samples(url, COLUMNS)) == [Path(path).read_bytes() for path in pictures[:3]]
    assert stalled in site.fetched()
    assert len(site.fetched()) <= 2, "a file may have been whole, and not in the journal yet"
    assert not list(cache.glob("remote/*/parts/*"))


def test_an_interrupt_loses_nothing(site: Site, pictures: list[str], cache: Path, tmp_path: Path) -> None:
    url = publish(site, pictures)
    site.stalled.add("/data/images/2 of #7?.png")
    command = ["-m", "audit_plugin", "score", url, "--image", "image", "--text", "caption", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *command], env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
    wait_until(lambda: len(stored(cache)) == 3, 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted; run the same command again to resume" in said
    assert len(stored(cache)) == 3


@pytest.fixture
def large(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a manifest of five blocks."""
    monkeypatch.setattr(mirror, "BLOCK", 1000)
    monkeypatch.setattr(mirror, "LARGE", 4000)
    site.files["/d/m.csv"] = manifest(*(f"{row:03d}.png" for row in range(500)))[:4500] + b"\n"
    return f"{site.url}/d/m.csv"


def rows_of(url: str) -> int:
    return len(read_samples(url, COLUMNS, media_root="/"))


def test_a_large_file_goes_on_after_its_last_block(site: Site, large: str, cache: Path) -> None:
    rows = rows_of(large)
    assert [site.parts["/d/m.csv", start] for start in range(0, 5000, 1000)] == [1] * 5
    site.files["/d/m.csv"] = site.files["/d/m.csv"].replace(b"caption 7", b"CAPTION 7")
    site.parts.clear()
    site.broken["/d/m.csv", 3000] = 3
    with pytest.raises(AuditError, match="3 tries"):
        rows_of(large)
    assert [path.stat().st_size for path in cache.glob("remote/*/parts/*")] == [3000]
    assert site.parts["/d/m.csv", 2000] == 1
    assert rows_of(large) == rows
    assert site.parts["/d/m.csv", 2000] == 1
    assert next(cache.glob("remote/*/files/m.csv")).read_bytes() == site.files["/d/m.csv"]
    assert not list(cache.glob("remote/*/parts/*"))


def test_blocks_of_a_former_version_are_not_used(site: Site, large: str, cache: Path) -> None:
    site.broken["/d/m.csv", 2000] = 3
    with pytest.raises(AuditError, match="3 tries"):
        rows_of(large)
    site.files["/d/m.csv"] = site.files["/d/m.csv"].replace(b"caption 7", b"CAPTION 7")
    rows_of(large)
    assert next(cache.glob("remote/*/files/m.csv")).read_bytes() == site.files["/d/m.csv"]
    assert not list(cache.glob("remote/*/parts/*"))


def test_a_large_file_that_changes_meanwhile_is_fetched_again(site: Site, large: str, cache: Path) -> None:
    new = site.files["/d/m.csv"].replace(b"caption 7", b"CAPTION 7")
    site.becomes["/d/m.csv", 3000] = new
    with pytest.raises(
        AuditError, match="changed meanwhile, 3 tries"
    ):  # as long as it is not the version that was listed
        rows_of(large)
    rows_of(large)
    assert next(cache.glob("remote/*/files/m.csv")).read_bytes() == new


@pytest.mark.parametrize("tells_ranges", [True, False])
def test_a_large_file_of_a_server_without_ranges(site: Site, large: str, tells_ranges: bool, cache: Path) -> None:
    site.ranges, site.tells_ranges = False, tells_ranges
    assert rows_of(large) > 100
    assert next(cache.glob("remote/*/files/m.csv")).read_bytes() == site.files["/d/m.csv"]


def test_a_journal_that_was_cut_off_costs_one_file(site: Site, pictures: list[str], cache: Path) -> None:
    url = publish(site, pictures)
    read_samples(url, COLUMNS)
    journal = next(cache.glob("remote/*/fetched.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-20])
    site.asked.clear()
    assert not read_samples(url, COLUMNS).problems
    assert len(site.fetched()) == 1
    site.asked.clear()
    read_samples(url, COLUMNS)
    assert site.fetched() == {}


# --- secrets -------------------------------------------------------------------------------------------------------


def test_secrets_reach_the_server_and_nothing_else(
    site: Site, pictures: list[str], cache: Path, tmp_path: Path
) -> None:
    site.user = "ann:S3CR3T"
    url = publish(site, pictures).replace("http://", "http://ann:S3CR3T@")
    out = tmp_path / "scores.parquet"
    done = invoke("score", f"{url}?token=S3CR3T", "--out", out, "--encoder", "offline", "--trials", 4, "--epochs", 2)
    assert "S3CR3T" not in done
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert b"S3CR3T" not in path.read_bytes(), path
        assert "S3CR3T" not in str(path)
    assert json.loads(out.with_suffix(".json").read_text())["manifest"] == f"{site.url}/data/pairs.csv"


def test_signed_addresses_share_what_was_fetched(site: Site, pictures: list[str]) -> None:
    site.files["/d/rows.jsonl"] = b"".join(
        json.dumps({"text": f"t{row}", "image": f"{row}.png"}).encode() + b"\n" for row in range(2)
    )
    for signature in ("Signature=one", "Signature=two"):
        site.signature = signature
        samples = read_samples(f"{site.url}/d/rows.jsonl?{signature}")
        assert len(samples) == 2
        assert "may not be read (status 403)" in samples.problems[0], "the signature is that of one file"
    assert site.fetched()["/d/rows.jsonl"] == 1


# --- the command line ----------------------------------------------------------------------------------------------


def invoke(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.output


@pytest.fixture
def scored(memory: Any, pictures: list[str], tmp_path: Path) -> Path:
    """Scores of a manifest in memory."""
    for row in range(12):
        memory.pipe(f"/b/data/i/{row}.png", Path(pictures[row]).read_bytes())
    memory.pipe("/b/data/pairs.csv", manifest(*(f"i/{row}.png" for row in range(12))))
    out = tmp_path / "out" / "scores.parquet"
    out.parent.mkdir()
    quick = ("--encoder", "offline", "--trials", 4, "--epochs", 2)
    said = invoke("score", "memory://b/data/pairs.csv", *quick, "--out", out)
    assert "fetch 12 files" in said
    return out


def test_score_report_export_and_import_find_it_again_without_the_network(
    scored: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(scored.with_suffix(".json").read_text())["manifest"] == "memory://b/data/pairs.csv"
    memory.store.clear()
    said = invoke("report", scored, "--out", scored.with_suffix(".html"))
    assert "manifest, as recorded in scores.json: memory://b/data/pairs.csv; media are read from" in said
    page = scored.with_suffix(".html").read_text()
    assert "caption " in page
    assert "<img" in page
    said = invoke(
        "export", scored, "--to", scored.parent / "clean", "--format", "webdataset", "--keep", "outlier,duplicate"
    )
    assert "manifest, as recorded in scores.json: memory://b/data/pairs.csv" in said
    assert "memory://b/data/pairs.csv" in (scored.parent / "clean" / "audit.md").read_text()
    assert list((scored.parent / "clean").glob("*.tar"))
    with pytest.raises(AssertionError, match="does not exist"):
        invoke("report", scored, "--manifest", "memory://b/data/pairs.csv", "--out", scored.parent / "r.html")


@pytest.mark.fiftyone
def test_import_reads_the_copy_in_the_cache(scored: Path, memory: Any) -> None:
    import fiftyone as fo

    memory.store.clear()
    said = invoke("import", scored, "--dataset", "of-remote", "--others", 5)
    assert "manifest, as recorded in scores.json: memory://b/data/pairs.csv" in said
    dataset = fo.load_dataset("of-remote")
    assert all(Path(path).is_file() for path in dataset.values("filepath"))
    dataset.delete()


def test_a_named_manifest_is_fetched_where_the_cache_was_emptied(scored: Path, cache: Path) -> None:
    for entry in inventory():
        if entry.kind == "fetched files":
            delete(dataclasses.replace(entry, used=0))
    assert stored(cache) == []
    assert "is not in the cache any more" in invoke("export", scored, "--to", scored.parent / "a.csv", code=2)
    assert "captions and images are left out" in invoke("report", scored, "--out", scored.parent / "r.html")
    invoke("export", scored, "--to", scored.parent / "a.csv", "--manifest", "memory://b/data/pairs.csv")
    assert "r3" in (scored.parent / "a.csv").read_text()
    assert len(stored(cache)) == 13


def test_a_summary_from_elsewhere_fetches_nothing(scored: Path, site: Site, pictures: list[str]) -> None:
    summary = json.loads(scored.with_suffix(".json").read_text())
    summary["manifest"] = publish(site, pictures)
    scored.with_suffix(".json").write_text(json.dumps(summary))
    assert "without captions and images" in invoke("report", scored, "--out", scored.parent / "r.html")
    assert "is not in the cache any more" in invoke("export", scored, "--to", scored.parent / "a.csv", code=2)
    assert not site.asked


def test_the_cache_lists_and_prunes_what_was_fetched(scored: Path, cache: Path, memory: Any) -> None:
    entries = [entry for entry in inventory() if entry.kind == "fetched files"]
    assert [entry.source for entry in entries] == ["memory://b/data"]
    assert entries[0].size >= sum(len(file.getvalue()) for file in memory.store.values())
    assert "memory://b/data" in invoke("cache")
    assert gone(inventory(), is_gone) == []  # the run of an address is nobody's loss
    with pytest.raises(AuditError, match="within the last 10 minutes"):
        delete(entries[0])
    (cache / "remote" / entries[0].path.name / "mine.txt").touch()
    assert delete(dataclasses.replace(entries[0], used=0)) == entries[0].size
    assert [path.name for path in entries[0].path.rglob("*")] == ["mine.txt"]


def test_links_in_the_cache_are_not_followed(scored: Path, cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x.txt").write_text("mine")
    entry = next(entry for entry in inventory() if entry.kind == "fetched files")
    (entry.path / "files" / "link").symlink_to(precious, target_is_directory=True)
    delete(dataclasses.replace(entry, used=0))
    assert (precious / "x.txt").read_text() == "mine"


def test_names_of_sources_in_summaries(tmp_path: Path) -> None:
    assert name_of("https://u:p@h/x.csv?sig=1") == "https://h/x.csv"
    assert name_of(tmp_path / "a" / ".." / "m.csv") == str(tmp_path / "m.csv")
    with pytest.raises(AuditError, match="is not in the cache any more"):
        copied("s3://b/x.csv")
