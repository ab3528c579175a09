"""The cache of features: what is stored, damaged, locked and found again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.store import FeatureCache, plain_error

IDENTITY = {"settings": {"seed": 0}, "data": "abc"}


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- features ------------------------------------------------------------------------------------------------------


def digest(number: int) -> str:
    return f"{number:064x}"


def test_features_come_back_from_several_shards(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    stored = {digest(i): np.full(3, i, np.float32) for i in range(4)}
    cache.append({k: stored[k] for k in (digest(0), digest(1))})
    cache.append({k: stored[k] for k in (digest(2), digest(3))})
    cache.append({})
    again = FeatureCache("key", tmp_path)
    assert again.known() == set(stored)
    assert again.missing([digest(3), digest(9), digest(0)]) == [digest(9)]
    rows, found = again.load([digest(3), digest(9), digest(0), "", digest(2), digest(3)])  # repeats, and two not there
    assert rows.dtype == np.float32
    assert rows.tolist() == [[3] * 3, [0] * 3, [0] * 3, [0] * 3, [2] * 3, [3] * 3]
    assert found.tolist() == [True, False, True, False, True, True]


def test_nothing_stored_and_nothing_wanted_are_no_errors(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    rows, found = cache.load([digest(1)])
    assert (rows.shape, found.tolist(), cache.missing([digest(1)])) == ((1, 1), [False], [digest(1)])
    cache.append({digest(1): np.ones(3, np.float32)})
    assert cache.load([])[0].shape[0] == 0
    assert cache.missing([]) == []


def test_any_rows_of_any_shards_come_back_as_one_by_one(tmp_path: Path) -> None:
    """Against a dict of what was stored, in random order, with repeats, strangers and shards of all sizes."""
    rng, cache, stored = np.random.default_rng(0), FeatureCache("key", tmp_path), {}
    for size in (1, 40, 7, 300, 2):
        part = {digest(int(rng.integers(2**60))): rng.standard_normal(6).astype(np.float32) for _ in range(size)}
        cache.append(part)
        stored |= part
    wanted = [str(d) for d in rng.choice([*stored, digest(1), digest(2), ""], 900)]
    rows, found = cache.load(wanted)
    for row, there, name in zip(rows, found, wanted, strict=True):
        assert there == (name in stored)
        assert row.tolist() == stored.get(name, np.zeros(6)).astype(np.float16).tolist()


def test_what_is_stored_takes_two_bytes_a_number(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(i): np.full(100, 0.1, np.float32) for i in range(50)})
    assert [p.stat().st_size for p in cache.path.glob("*.float16")] == [50 * 100 * 2]


def test_shards_of_former_versions_are_a_miss(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    np.save(cache.path / "a.npy", np.ones((1, 4), np.float32))
    np.save(cache.path / "a.keys.npy", np.array([digest(1)], dtype="S64"))
    assert cache.missing([digest(1)]) == [digest(1)]
    assert not cache.load([digest(1)])[1].any()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
def test_a_hundred_thousand_features_take_one_matrix_and_moments(tmp_path: Path) -> None:
    """A million are ten times as much."""
    code = f"""if True:
        import re, sys, time, numpy as np
        from pathlib import Path
        from audit_plugin.store import FeatureCache
        n, d = 100_000, 256
        def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
        names = [f"{{i * 2654435761 % 2**64:064x}}" for i in range(n)]
        cache = FeatureCache("key", Path({str(tmp_path)!r}))
        for start in range(0, n, 40_000):
            part = names[start : start + 40_000]
            cache.append(dict.fromkeys(part, np.full(d, start, np.float32)))
        before, start = peak(), time.perf_counter()
        rows, found = cache.load(names)
        print(found.all(), peak() - before, time.perf_counter() - start, rows.nbytes / 2**20)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    whole, extra, seconds, size = done.stdout.split()
    assert whole == "True"
    assert float(extra) < float(size) + 100  # digests as bytes, several times over, and one shard
    assert float(seconds) < 10


def test_encoders_do_not_see_each_others_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    FeatureCache("one encoder").append({digest(1): np.ones(2, np.float32)})
    assert FeatureCache("another encoder").missing([digest(1)]) == [digest(1)]
    assert FeatureCache("one encoder").missing([digest(1)]) == []


@pytest.mark.parametrize("which", ["index", "values"])
@pytest.mark.parametrize("left", [0, 20, 100])
def test_a_damaged_shard_is_a_miss(tmp_path: Path, which: str, left: int) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(400, np.float32)})
    cache.append({digest(2): np.ones(400, np.float32)})
    index = next(p for p in cache.path.glob("*.index.npz") if digest(1).encode() in p.read_bytes())
    path = index if which == "index" else index.with_name(index.name.replace(".index.npz", ".float16"))
    path.write_bytes(path.read_bytes()[:left])
    assert cache.missing([digest(1), digest(2)]) == [digest(1)]
    assert len(cache.damage("image")) == 1
    assert cache.known() == ({digest(2)} if which == "index" else {digest(1), digest(2)})
    cache.append({digest(1): np.full(400, 5, np.float32)})  # encoded anew, beside the damaged one
    rows, found = cache.load([digest(1), digest(2)])
    assert found.all()
    assert rows[:, 0].tolist() == [5, 1]


def test_values_without_keys_are_not_there(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(2, np.float32)})
    next(cache.path.glob("*.index.npz")).unlink()  # the process died between the two files
    assert cache.missing([digest(1)]) == [digest(1)]
    assert cache.damage("image") == []


def test_only_the_damaged_block_of_a_shard_is_a_miss(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    stored = {digest(i): np.full(8, i, np.float32) for i in range(1000)}
    cache.append(stored)
    path = next(cache.path.glob("*.float16"))
    for at in range(256 * 16, 512 * 16, 501):  # any byte of the second block
        content = bytearray(path.read_bytes())
        content[at] ^= 1 << at % 8
        path.write_bytes(bytes(content))
        damaged = FeatureCache("key", tmp_path)
        assert damaged.missing(list(stored)) == [digest(i) for i in range(256, 512)]
        assert damaged.damage("image") == ["256 stored image features were damaged and were encoded again"]
        rows, found = damaged.load(list(stored))
        assert np.flatnonzero(~found).tolist() == list(range(256, 512))
        assert rows[:, 0].tolist() == [0 if 256 <= i < 512 else i for i in range(1000)]
        content[at] ^= 1 << at % 8
        path.write_bytes(bytes(content))
    assert FeatureCache("key", tmp_path).has(list(stored)).all()


def test_features_stored_again_are_read_whichever_shard_comes_first(tmp_path: Path) -> None:
    for number in range(8):  # the names of shards are drawn
        cache = FeatureCache(f"key {number}", tmp_path)
        cache.append({digest(1): np.ones(4, np.float32)})
        next(cache.path.glob("*.float16")).write_bytes(b"\0" * 8)
        cache.append({digest(1): np.full(4, 5, np.float32), digest(2): np.full(4, 2, np.float32)})
        rows, found = FeatureCache(f"key {number}", tmp_path).load([digest(2), digest(1), digest(1)])
        assert found.all()
        assert rows[:, 0].tolist() == [2, 5, 5]


def test_exchanged_files_of_shards_are_misses(tmp_path: Path) -> None:
    cache, other = FeatureCache("key", tmp_path), FeatureCache("another encoder", tmp_path)
    for number in (1, 2):
        cache.append({digest(number): np.full(4, number, np.float32)})
    other.append({digest(3): np.full(4, 3, np.float32)})
    a, b = sorted(cache.path.glob("*.float16"))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert not cache.has([digest(1), digest(2)]).any()
    for path in other.path.glob("*.*"):
        path.rename(cache.path / path.name)
    assert not FeatureCache("key", tmp_path).has([digest(3)]).any()


def test_a_pipe_among_the_shards_is_not_waited_for(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(4, np.float32)})
    path = next(cache.path.glob("*.float16"))
    path.unlink()
    os.mkfifo(path)
    os.mkfifo(cache.path / "x.index.npz")
    assert cache.missing([digest(1)]) == [digest(1)]


def test_too_few_descriptors_are_no_miss(tmp_path: Path) -> None:
    """What could not be opened for a moment must neither be encoded again nor deleted."""
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(4, np.float32)})
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, old[1]))
        with pytest.raises(OSError, match="Too many open files") as caught:
            cache.missing([digest(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert str(plain_error(caught.value)).startswith("too many files are open at once; raise the limit (ulimit -n")
    assert cache.has([digest(1)]).all()
