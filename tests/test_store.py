"""Files of the store: written whole or not at all, and what they may replace."""

from __future__ import annotations

import contextlib
import errno
import os
import re
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
from audit_plugin.store import (
    FeatureCache,
    RunFolder,
    cache_root,
    disk_error,
    plain_error,
    private_folder,
    write_atomically,
)

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
