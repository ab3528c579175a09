from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.store import FeatureCache, RunFolder, cache_root, disk_error, private_folder, write_atomically

IDENTITY = {"settings": {"seed": 0}, "data": "abc"}


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "x", lambda file, content=content: file.write(content))
    assert (tmp_path / "x").read_bytes() == b"new"
    assert files(tmp_path) == ["x"]


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def half(file: IO[bytes]) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", half)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert files(tmp_path) == ["x"]


def test_a_killed_writer_leaves_no_part_that_would_be_read(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal, numpy as np
        from pathlib import Path
        from audit_plugin import store
        run = store.RunFolder(Path({str(tmp_path / "run")!r}), {IDENTITY!r})
        store.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        run.save("part", x=np.ones(9))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    with RunFolder(tmp_path / "run", IDENTITY) as run:  # the lock went with the process
        assert run.load("part") is None
        assert run.once("part", lambda: {"x": np.ones(3)})["x"].tolist() == [1, 1, 1]


def test_a_disk_that_takes_no_more_gives_one_sentence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        old, handler = (resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
            with pytest.raises(AuditError, match=r"part\.npz cannot be written .*; choose another folder"):
                run.save("part", x=np.ones(10_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        assert files(run.path) == [".lock", "run.json"]
        run.save("part", x=np.ones(10_000))  # with space again, the same folder goes on


def test_a_full_disk_is_told_from_other_errors() -> None:
    full = str(disk_error(Path("/r/x"), OSError(errno.ENOSPC, "No space left on device")))
    assert full.startswith("no space left on the disk while writing /r/x; free some space")
    assert "Permission denied" in str(disk_error(Path("/r/x"), OSError(errno.EACCES, "Permission denied")))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_device_without_space_names_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:

        def write(file: IO[bytes]) -> None:
            os.dup2(full, file.fileno())  # from here on the file lies on a full device
            file.write(b"x" * 100_000)

        with pytest.raises(AuditError, match="no space left on the disk"):
            write_atomically(tmp_path / "x", write)
    finally:
        os.close(full)
    assert files(tmp_path) == []


def test_folders_are_for_their_user_alone_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "run")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(FeatureCache("key", tmp_path / "f").path.stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(AuditError, match="file cannot be written .*choose another folder"):
        private_folder(tmp_path / "file")


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("AUDIT_PLUGIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/audit-plugin")


# --- the run folder ------------------------------------------------------------------------------------------------


def test_parts_are_made_once_and_come_back_equal(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(6).reshape(2, 3), "y": np.array([np.nan], np.float32)}

    for _ in range(2):
        with RunFolder(tmp_path / "run", IDENTITY) as run:
            arrays = run.once("part", make)
    assert len(made) == 1
    assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["y"].dtype == np.float32


def test_a_folder_of_another_run_is_refused_by_the_differing_key(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    with pytest.raises(AuditError, match=r"belongs to another run \(data was 'abc', now 'xyz'\); choose another"):
        RunFolder(tmp_path / "run", {**IDENTITY, "data": "xyz"})
    with pytest.raises(AuditError, match="format was None, now 2"):
        RunFolder(tmp_path / "run", {**IDENTITY, "format": 2})
    RunFolder(tmp_path / "run", IDENTITY).close()  # a refusal leaves no lock and changes nothing


def test_a_finished_run_is_opened_whoever_made_it_and_nothing_else_is(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"trials": 4}) as run:
        run.save("part", values=np.arange(3))
    with RunFolder(tmp_path / "run", None) as again:
        found = again.load("part")
    assert found is not None
    assert found["values"].tolist() == [0, 1, 2]
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(AuditError, match=r"is not the folder of a run; the summary of an audit names its own"):
            RunFolder(folder, None)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(AuditError, match="holds other files"):
        RunFolder(tmp_path, IDENTITY)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b"null"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(AuditError, match=r"run\.json is damaged; delete"):
        RunFolder(tmp_path, IDENTITY)


def test_a_second_process_gets_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from audit_plugin.store import RunFolder\n"
        f"try: RunFolder(Path({str(tmp_path / 'run')!r}), {IDENTITY!r})\n"
        "except ValueError as error: print(error)"
    )
    with RunFolder(tmp_path / "run", IDENTITY):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        )
    assert done.stdout.strip().endswith("is in use by another audit; wait for it, or choose another --run-dir")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickle"])
def test_a_damaged_part_is_made_anew(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=np.arange(100))
        path = run.path / "part.npz"
        content = bytearray(path.read_bytes())
        if damage == "empty":
            content = bytearray()
        elif damage == "cut":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[400] ^= 255  # within the numbers: only the checksum knows
        path.write_bytes(bytes(content))
        if damage == "pickle":
            np.savez(path, x=np.array([{"an": "object"}], dtype=object))
        assert run.once("part", lambda: {"x": np.zeros(2)})["x"].tolist() == [0, 0]
        assert run.load("part")["x"].tolist() == [0, 0]  # type: ignore[index]


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    with RunFolder(tmp_path / "run", IDENTITY) as run:
        np.savez(run.path / "part.npz", x=np.array([Bomb()], dtype=object))
        assert run.load("part") is None
    cache = FeatureCache("key", tmp_path / "f")
    np.save(cache.path / "a.keys.npy", np.array([Bomb()], dtype=object))
    assert cache.known() == set()
    assert not (tmp_path / "exploded").exists()


def test_the_record_can_be_read_by_people(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == IDENTITY


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
    values = next(p for p in cache.path.glob("*.npy") if ".keys" not in p.name)
    assert values.stat().st_size < 50 * 100 * 2 + 200


def test_older_shards_of_other_numbers_are_a_miss(tmp_path: Path) -> None:
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
            stem = cache.path / str(start)
            np.save(f"{{stem}}.npy", np.full((len(part), d), start, np.float16))
            np.save(f"{{stem}}.keys.npy", np.array(part, dtype="S64"))
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


@pytest.mark.parametrize("which", ["keys", "values"])
@pytest.mark.parametrize("left", [0, 20, 100])
def test_a_damaged_shard_is_a_miss(tmp_path: Path, which: str, left: int) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(400, np.float32)})
    cache.append({digest(2): np.ones(400, np.float32)})
    keys = next(p for p in cache.path.glob("*.keys.npy") if digest(1).encode() in p.read_bytes())
    path = keys if which == "keys" else keys.with_name(keys.name.replace(".keys", ""))
    path.write_bytes(path.read_bytes()[:left])
    assert cache.missing([digest(1), digest(2)]) == [digest(1)]
    assert cache.known() == {digest(2)}
    cache.append({digest(1): np.full(400, 5, np.float32)})  # encoded anew, beside the damaged one
    rows, found = cache.load([digest(1), digest(2)])
    assert found.all()
    assert rows[:, 0].tolist() == [5, 1]


def test_values_without_keys_are_not_there(tmp_path: Path) -> None:
    cache = FeatureCache("key", tmp_path)
    cache.append({digest(1): np.ones(2, np.float32)})
    next(cache.path.glob("*.keys.npy")).unlink()  # the process died between the two files
    assert cache.missing([digest(1)]) == [digest(1)]


# --- what an output may replace --------------------------------------------------------------------------------------


def _write(path: Path, data: bytes = b"new") -> None:
    write_atomically(path, lambda file: file.write(data))


def test_only_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "null").symlink_to("/dev/null")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket"))
    reasons = {
        "folder": "is a folder, not a file",
        "pipe": "is a named pipe, not a file",
        "socket": "is a socket, not a file",
        "loop": "leads to itself",
        "null": "/dev/null is a device, not a file",
        "x" * 300: "cannot be written",
        "a\0b": "cannot be written",
    }
    modes = {path: path.lstat().st_mode for path in (*tmp_path.iterdir(), Path("/dev/null"))}
    for name, reason in reasons.items():
        with pytest.raises(AuditError, match=reason):
            _write(tmp_path / name)
    assert {path: path.lstat().st_mode for path in (*tmp_path.iterdir(), Path("/dev/null"))} == modes


def test_permissions_of_a_replaced_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for mode in (0o600, 0o640, 0o755):
        path.write_bytes(b"old")
        path.chmod(mode)
        _write(path)
        assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", mode)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o400)
    with pytest.raises(AuditError, match="write-protected"):
        _write(path)
    assert path.read_bytes() == b"old"


def test_a_link_of_ones_own_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").symlink_to("deep/b")
    (tmp_path / "deep" / "b").symlink_to("../target")
    (tmp_path / "dangling").symlink_to("new")
    for name, target in (("a", "target"), ("dangling", "new")):
        _write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "dangling", "deep", "new", "target"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"old")
    (tmp_path / "trap").symlink_to("own")
    os.lchown(tmp_path / "trap", 12345, 12345)
    with pytest.raises(AuditError, match="another user made"):
        _write(tmp_path / "trap")
    assert (tmp_path / "own").read_bytes() == b"old"
