"""A database of its own for whatever is only tried or measured: FiftyOne joins any database service on the machine.

`FIFTYONE_DATABASE_DIR` does not keep it from that: only `FIFTYONE_DATABASE_URI` does, set before FiftyOne is imported.
Tests and the screenshots start theirs here as well.

Run as a program, this file watches over one server: it starts mongod in a folder, prints its port, waits until the
process that started it is gone, however that ended, then ends mongod and deletes the folder.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import util
from pathlib import Path

VARIABLE = "FIFTYONE_DATABASE_URI"
MARK = "AUDIT_OWN_DATABASE"  # holds the same address, so that what is started from here uses the same database
NOWHERE = "mongodb://fiftyone-has-no-mongod.invalid/?serverSelectionTimeoutMS=500"
CACHE_GB = 0.25  # mongod takes half of the memory otherwise
PR_SET_PDEATHSIG = 1  # of Linux


def settings() -> dict[str, str]:
    """Environment variables of this process's own database, which is started if there is none yet."""
    if os.environ.get(MARK) and os.environ[MARK] == os.environ.get(VARIABLE):
        return {}
    return start()


def start() -> dict[str, str]:
    """Starts a server that ends with this process; returns the variables that make FiftyOne use it, and only it.

    Where FiftyOne has no mongod, they name a server that does not exist: another one would be somebody's.
    """
    program = mongod()
    if program is None:
        return {VARIABLE: NOWHERE}
    folder = tempfile.mkdtemp(prefix="audit-database-")
    # in a session of its own, so that Ctrl-C and signals to the whole group leave it time to clean up
    watcher = subprocess.Popen(
        [sys.executable, "-E", "-S", __file__, str(program), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    port = watcher.stdout.readline().strip()
    if not port:
        raise RuntimeError(f"{program} does not start; to see why: {program} --dbpath {tempfile.gettempdir()}")
    atexit.register(watcher.wait, 30)
    atexit.register(watcher.stdin.close)  # done before the wait
    uri = f"mongodb://127.0.0.1:{int(port)}"
    return {VARIABLE: uri, MARK: uri}


def mongod() -> Path | None:
    """FiftyOne's mongod, None where there is none; FiftyOne is not imported."""
    spec = util.find_spec("fiftyone")
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent / "db" / "bin" / ("mongod.exe" if os.name == "nt" else "mongod")
    return place if os.access(place, os.X_OK) else None


def command(program: Path | str, folder: Path | str, port: int = 0) -> list[str]:
    """Starts a server that only this machine reaches; port 0: any that is free."""
    options = ["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", str(CACHE_GB)]
    if os.name != "nt":
        options.append("--nounixsocket")
    return [str(program), "--dbpath", str(folder), "--port", str(port), *options]


def end_with_parent() -> None:
    """Makes the kernel kill this process once its parent is dead (Linux; elsewhere the parent has to do it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(program: str, folder: str) -> None:
    """Until standard input ends."""
    server = subprocess.Popen(
        command(program, folder),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509 (there are no threads yet)
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if b'"Waiting for connections"' in line:
                print(line.partition(b'"port":')[2].partition(b",")[0].decode(), flush=True)
                break
        threading.Thread(target=drain, args=[server], daemon=True).start()
        sys.stdin.buffer.read()
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def drain(server: subprocess.Popen[bytes]) -> None:
    """A server whose log nobody reads would stop."""
    assert server.stdout is not None
    while server.stdout.read(65536):
        pass


if __name__ == "__main__":
    watch(*sys.argv[1:])
