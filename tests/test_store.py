from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.store import (
    Damaged,
    FeatureCache,
    RunFolder,
    cache_root,
    digest_of,
    disk_error,
    load_json,
    plain_error,
    private_folder,
    read_json,
    remove_leftovers,
    write_atomically,
)
from audit_plugin.store.files import LEFTOVER_SECONDS, write_bytes

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
        from audit_plugin.store import RunFolder
        run = RunFolder(Path({str(tmp_path / "run")!r}), {IDENTITY!r})
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
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
    full = str(disk_error(Path("/tmp/x"), OSError(errno.ENOSPC, "No space left on device"), 2_600_000))
    assert re.fullmatch(
        r"no space left in /tmp: x needs 2\.6 MB, [\d.]+ .?B are free; free some space, or choose another folder, and "
        "run the same command again: finished parts are kept",
        full,
    )
    by_numpy = str(disk_error(Path("/tmp/x"), OSError("42240 requested and 20416 written")))
    assert by_numpy.startswith("no space left in /tmp: x cannot be written")
    assert "Permission denied" in str(disk_error(Path("/r/x"), OSError(errno.EACCES, "Permission denied")))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_device_without_space_names_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:

        def write(file: IO[bytes]) -> None:
            os.dup2(full, file.fileno())  # from here on the file lies on a full device
            file.write(b"x" * 100_000)

        with pytest.raises(AuditError, match=f"no space left in {tmp_path}: x cannot be written, "):
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


@pytest.mark.parametrize("content", [b'{"my": [', b"\xff\xfe", b"[1]", b"null"])
def test_a_damaged_record_that_may_be_the_users_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(
        AuditError, match=r"run\.json is damaged, and nothing in the folder shows whose run it is; move"
    ):
        RunFolder(tmp_path, IDENTITY)
    assert (tmp_path / "run.json").read_bytes() == content


LEFTOVER = f".run.json.{'0' * 32}.part"


@pytest.mark.parametrize("content", [None, b"", b"\0" * 40, b"whole", b"half"])
def test_a_kill_while_the_record_is_written_leaves_a_folder_that_goes_on(tmp_path: Path, content: bytes | None) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    whole = (tmp_path / "run" / "run.json").read_bytes()
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / LEFTOVER).write_bytes(whole[:20])
    if content is not None:
        (folder / "run.json").write_bytes({b"whole": whole, b"half": whole[:30]}.get(content, content))
    RunFolder(folder, IDENTITY).close()
    assert files(folder) == [".lock", "run.json"]
    assert (folder / "run.json").read_bytes() == whole


@pytest.mark.parametrize("damage", ["flipped", "empty", "deleted", "pipe", "of another run"])
def test_a_damaged_record_is_restored_where_a_part_shows_whose_run_it_is(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=np.arange(3))
    RunFolder(tmp_path / "other", {**IDENTITY, "data": "xyz"}).close()
    record = tmp_path / "run" / "run.json"
    whole = record.read_bytes()
    if damage == "of another run":  # it is whole: the folder is that run's
        record.write_bytes((tmp_path / "other" / "run.json").read_bytes())
        with pytest.raises(AuditError, match=r"belongs to another run \(data was 'xyz', now 'abc'\)"):
            RunFolder(tmp_path / "run", IDENTITY)
        return
    if damage == "flipped":
        record.write_bytes(whole.replace(b"abc", b"abd"))
        with pytest.raises(AuditError, match=r"run\.json is damaged; run the command that made"):
            RunFolder(tmp_path / "run", None)
    elif damage == "empty":
        record.write_bytes(b"")
    else:
        record.unlink()
    if damage == "pipe":
        os.mkfifo(record)
    with pytest.raises(AuditError, match=r"is damaged, and nothing|holds other files"):
        RunFolder(tmp_path / "run", {**IDENTITY, "data": "xyz"})
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        assert run.load("part") is not None
        assert run.notes == (
            [] if damage == "deleted" else ["1 stored part of the run was damaged and made again (run.json)"]
        )
    assert record.read_bytes() == whole


def test_a_folder_whose_name_is_the_runs_own_is_taken_whatever_its_record_says(tmp_path: Path) -> None:
    """The default folder, in the cache: nobody else's, and nobody can be asked for another."""
    folder = tmp_path / digest_of(IDENTITY)[:16]
    folder.mkdir()
    for content in (b"\xff", b"[1]", json.dumps({"data": "xyz"}).encode()):
        (folder / "run.json").write_bytes(content)
        RunFolder(folder, IDENTITY).close()
        assert read_json(folder / "run.json", "run.json") == (IDENTITY, True)


def test_a_record_of_a_former_version_is_taken_and_sealed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(IDENTITY))
    RunFolder(tmp_path / "run", None).close()
    RunFolder(tmp_path / "run", IDENTITY).close()
    assert read_json(tmp_path / "run" / "run.json", "run.json") == (IDENTITY, True)


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


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "flipped", "pickle", "of another name", "of another run", "unsealed", "pipe", "link"]
)
def test_a_damaged_part_is_made_anew(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "other", {**IDENTITY, "data": "xyz"}) as other:
        other.save("part", x=np.arange(100))
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=np.arange(100))
        run.save("second", x=np.arange(100))
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
        elif damage == "of another name":
            os.replace(run.path / "second.npz", path)
        elif damage == "of another run":
            os.replace(other.path / "part.npz", path)
        elif damage == "unsealed":
            np.savez(path, x=np.arange(100))
        elif damage in ("pipe", "link"):
            path.unlink()
            (tmp_path / "thesis").write_text("my thesis")
            os.mkfifo(path) if damage == "pipe" else path.symlink_to(tmp_path / "thesis")
        assert run.once("part", lambda: {"x": np.zeros(2)})["x"].tolist() == [0, 0]
        assert run.notes == ["1 stored part of the run was damaged and made again (part)"]
        assert run.load("part")["x"].tolist() == [0, 0]  # type: ignore[index]
        assert len(run.notes) == 1
    assert damage != "link" or (tmp_path / "thesis").read_text() == "my thesis"


@pytest.mark.parametrize(
    "values", [np.arange(12).reshape(3, 4).T, np.array("a"), np.array(["é", "b"]), np.zeros((0, 3))]
)
def test_any_flipped_byte_of_a_part_is_noticed(tmp_path: Path, values: np.ndarray) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=values)
        path = run.path / "part.npz"
        whole = path.read_bytes()
        assert run.load("part")["x"].tolist() == values.tolist()  # type: ignore[index]
        for at in range(0, len(whole), 7):
            content = bytearray(whole)
            content[at] ^= 1 << at % 8
            path.write_bytes(bytes(content))
            assert run.load("part") is None, at
        for other in (whole[:-1], whole + b"x", whole[:40], whole[-100:], b"\0" * len(whole)):
            path.write_bytes(other)
            assert run.load("part") is None


def test_a_folder_in_the_place_of_a_part_is_named(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        (run.path / "part.npz").mkdir()
        with pytest.raises(AuditError, match=r"part\.npz is a folder where a file of the run belongs; move it away"):
            run.once("part", lambda: {"x": np.zeros(2)})


def test_parts_that_are_no_arrays_are_checked_too(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run, RunFolder(tmp_path / "other", {"data": "xyz"}) as other:
        run.save_json("why", {"a": [1.5, None]})
        other.save_json("why", {"a": [1.5, None]})
    assert load_json(run.path, "why") == {"a": [1.5, None]}
    whole = (run.path / "why.json").read_bytes()
    for content in (whole.replace(b"1.5", b"1.6"), whole[:9], b"[]", b"\xff", (other.path / "why.json").read_bytes()):
        (run.path / "why.json").write_bytes(content)
        with pytest.raises(Damaged):
            load_json(run.path, "why")


def test_what_dead_processes_left_is_removed_and_what_others_write_stays(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / f".{name}.{'0' * 32}.part").touch()
    (tmp_path / ".x.part").touch()
    with open(tmp_path / f".y.{'0' * 32}.part", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == 1
    assert files(tmp_path) == [".x.part", f".y.{'0' * 32}.part"]
    assert remove_leftovers(tmp_path, "x") == 0
    assert remove_leftovers(tmp_path, "y") == 1


def test_on_disks_without_locks_only_old_leftovers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    part = tmp_path / f".x.{'0' * 32}.part"
    part.touch()
    assert remove_leftovers(tmp_path) == 0  # of a living process, perhaps
    os.utime(part, (time.time() - LEFTOVER_SECONDS,) * 2)
    assert remove_leftovers(tmp_path) == 1


def test_a_temporary_file_that_is_taken_for_a_leftover_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, []

    def sweep_first(handle: int, operation: int) -> None:
        if not swept:  # another process comes between the opening and the locking
            swept.append([part.unlink() for part in tmp_path.glob(".*.part")])
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    write_bytes(tmp_path / "x", b"whole")
    assert len(swept[0]) == 1
    assert files(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    with RunFolder(tmp_path / "run", IDENTITY) as run:
        np.savez(run.path / "part.npz", x=np.array([Bomb()], dtype=object))
        assert run.load("part") is None
    cache = FeatureCache("key", tmp_path / "f")
    np.savez(cache.path / "a.index.npz", keys=np.array([Bomb()], dtype=object))
    assert cache.known() == set()
    assert not (tmp_path / "exploded").exists()


def test_the_record_can_be_read_by_people(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored == {**IDENTITY, "seal": stored["seal"]}


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


# --- what an output may replace --------------------------------------------------------------------------------------


def _write(path: Path, data: bytes = b"new") -> None:
    write_atomically(path, lambda file: file.write(data))


def test_only_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "own").write_bytes(b"old")
    (tmp_path / "planted").symlink_to("own")
    (tmp_path / "dangling").symlink_to("new")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket"))
    reasons = {
        "folder": "is a folder, not a file",
        "pipe": "is a named pipe, not a file",
        "socket": "is a socket, not a file",
        "loop": "is a link to",
        "null": "is a link to /dev/null; name that file itself",
        "planted": r"is a link to .*own",
        "dangling": r"is a link to .*new",
        "x" * 300: "cannot be written",
        "a\0b": "cannot be written",
    }
    modes = {path: path.lstat().st_mode for path in (*tmp_path.iterdir(), Path("/dev/null"))}
    for name, reason in reasons.items():
        with pytest.raises(AuditError, match=reason):
            _write(tmp_path / name)
    assert {path: path.lstat().st_mode for path in (*tmp_path.iterdir(), Path("/dev/null"))} == modes
    assert (tmp_path / "own").read_bytes() == b"old"


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


# --- what the machine lacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "no space left in /tmp: x cannot be written"),
        (OSError("42240 requested and 20416 written"), "no space left on a disk (cache"),
        (RuntimeError("[enforce fail] . fwrite: No space left on device"), "no space left on a disk (cache"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "too small (7.45 GiB could not be had)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."), "(400 bytes"),
        (RuntimeError("std::bad_alloc"), "the memory is too small; close other programs, or use fewer --trials"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is too small; close other programs"),
        (ImportError("libx.so: failed to map segment from shared object"), "the memory is too small"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the GPU's memory is too small"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open at once; raise the limit"),
        (RuntimeError("can't start new thread"), "no more threads or processes can be started"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more threads or processes"),
    ],
)
def test_a_lack_of_the_machine_is_one_sentence(error: Exception, sentence: str) -> None:
    assert sentence in str(plain_error(error))
    assert str(plain_error(error)).endswith("run the same command again: finished parts are kept")
    outer = KeyError("x")
    outer.__cause__ = error
    assert plain_error(outer) == plain_error(error)  # whatever it led to


NO_SHORTAGES = (
    KeyError("x"),
    OSError(errno.EACCES, "Permission denied"),
    ValueError("memory"),
    RuntimeError("x"),
    SystemError("error return without exception set"),  # without a limit of memory: a fault of an extension
    ImportError(
        "libx.so: failed to map segment from shared object: Operation not permitted"
    ),  # a disk without programs
    ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
)


def test_other_errors_are_not_explained_away() -> None:
    for error in NO_SHORTAGES:
        assert plain_error(error) is None


@pytest.mark.parametrize(
    "text", ["error return without exception set", "<built-in x> returned NULL without setting an exception"]
)
def test_an_extension_that_fails_without_an_error_lacked_memory_under_a_limit(text: str) -> None:
    script = (
        "import resource; from audit_plugin.store import plain_error\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2)\n"
        f"print(plain_error(SystemError({text!r})), plain_error(SystemError('bad argument to internal function')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the memory is too small; ")
    assert done.stdout.endswith(" None\n")


def test_files_and_names_are_flushed_before_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loss of power leaves: the bytes are flushed before the file has its name, and the name after that."""
    done: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def flushed(handle: int) -> None:
        done.append(("flush", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamed(source: str | Path, target: str | Path) -> None:
        done.append(("rename", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    folder = private_folder(tmp_path / "new")
    write_atomically(folder / "a.bin", lambda file: file.write(b"x"))
    parent, part, name, entries = done
    assert parent == ("flush", str(tmp_path))
    assert (part[0], Path(part[1]).parent, Path(part[1]).suffix) == ("flush", folder, ".part")
    assert name == ("rename", str(folder / "a.bin"))
    assert entries == ("flush", str(folder))
    done.clear()
    private_folder(tmp_path / "new")
    assert done == []
