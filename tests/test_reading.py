"""Worker processes that decode: what they hand over, what their death costs, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from audit_plugin.arrays import AuditError
from audit_plugin.inputs import packing, reading
from audit_plugin.inputs.audio import Sound, read_audio
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.images import flatten, read_image_or_crop
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.inputs.threads import ReadingThreads, StoppedError
from audit_plugin.inputs.video import read_video
from tests.media_fixtures import tone, write_video, write_wav

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def no_idle_workers() -> Iterator[None]:
    reading.close_workers()
    yield
    reading.close_workers()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(path: Path, image: Image.Image) -> str:
    image.save(path)
    return str(path)


def medium(header: dict, body: Iterator[bytes]) -> object:
    return packing.unpacked(header, bytearray(b"".join(body)))


# --- what comes back -------------------------------------------------------------------------------------------------


def test_media_are_those_that_are_read_here(tmp_path: Path) -> None:
    image = saved(tmp_path / "a.jpg", noise(1500, 1300))
    assert np.array_equal(MODALITIES["image"].read(image), read_image_or_crop(image))
    large = saved(tmp_path / "b.png", noise(3000, 2000))  # handed over in strips
    assert np.array_equal(MODALITIES["image"].read(large), read_image_or_crop(large))
    sound = write_wav(tmp_path / "a.wav", tone(440, 25, 8000), 8000)
    here, apart = read_audio(sound), MODALITIES["audio"].read(sound)
    assert apart.seconds == here.seconds
    assert all(np.array_equal(*pieces) for pieces in zip(apart.pieces, here.pieces, strict=True))
    video = write_video(tmp_path / "a.mp4", [(30 * n, 0, 0) for n in range(8)])
    frames = zip(MODALITIES["video"].read(video), read_video(video), strict=True)
    assert all(np.array_equal(*pair) for pair in frames)


def test_many_values_come_in_their_order_with_their_reasons(tmp_path: Path) -> None:
    values = [saved(tmp_path / f"{n}.png", noise(8 + n, 8, n)) for n in range(6)]
    values[2:2] = [str(tmp_path / "none.png"), "x" * 6000]
    media = list(reading.read_each("image", values))
    assert [getattr(m, "width", str(m)) for m in media] == [
        8, 9, "file not found", "file cannot be read (its name is too long)", 10, 11, 12, 13
    ]  # fmt: skip


def test_a_png_with_large_metadata_is_no_damaged_one(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x/>" * 1_000_000, zip=True)
    noise(20, 20).save(tmp_path / "edited.png", icc_profile=bytes(3_000_000), pnginfo=text)
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("a", "b" * 70_000_000, zip=True)
    noise(20, 20).save(tmp_path / "bomb.png", pnginfo=bomb)
    image, refused = reading.read_each("image", [str(tmp_path / "edited.png"), str(tmp_path / "bomb.png")])
    assert np.array_equal(image, noise(20, 20))
    assert isinstance(refused, MediaError)


def test_relative_paths_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (3, 5):
        folder = tmp_path / str(width)
        folder.mkdir()
        saved(folder / "a.png", noise(width, 4))
        monkeypatch.chdir(folder)
        assert MODALITIES["image"].read("a.png").width == width


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "CMYK", "I;16", "F", "1"])
def test_large_images_are_flattened_as_small_ones(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 40_000, (50, 70), dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(rng.normal(size=(50, 70)).astype(np.float32))
    else:
        image = noise(70, 50).convert("RGBA" if mode in ("RGBA", "LA") else "RGB").convert(mode)
        if "A" in mode:
            image.putalpha(Image.fromarray(rng.integers(0, 256, (50, 70), dtype=np.uint8)))
        if mode == "P":
            image.info["transparency"] = bytes(range(256))
    whole = flatten(image)
    monkeypatch.setattr("audit_plugin.inputs.images.STRIP_PIXELS", 300)
    assert np.array_equal(flatten(image), whole)
    assert whole.mode == "RGB"


# --- what is not believed --------------------------------------------------------------------------------------------


def test_what_is_packed_is_unpacked() -> None:
    frames = [noise(4, 3), noise(5, 2)]
    assert all(np.array_equal(*pair) for pair in zip(medium(*packing.packed(frames)), frames, strict=True))
    sound = Sound((np.ones(3, np.float32), np.zeros(2, np.float32)), 1.5)
    again = medium(*packing.packed(sound))
    assert again.seconds == 1.5
    assert [piece.tolist() for piece in again.pieces] == [[1, 1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"sizes": [[2, 2]], "is_list": False}, 11),
        ({"sizes": [[2, 2]], "is_list": False}, 13),
        ({"sizes": [], "is_list": True}, 0),
        ({"sizes": [[-2, -2]], "is_list": False}, 12),
        ({"sizes": [[2**40, 0]], "is_list": False}, 0),
        ({"sizes": [["2", 2]], "is_list": False}, 12),
        ({"sizes": [[1, 1]] * 9, "is_list": True}, 27),
        ({"sizes": 7, "is_list": True}, 27),
        ({"lengths": [3], "seconds": 1}, 8),
        ({"lengths": [], "seconds": 1}, 0),
        ({"lengths": [2], "seconds": float("nan")}, 8),
        ({"lengths": [2], "seconds": None}, 8),
        ({}, 0),
    ],
)
def test_headers_that_do_not_fit_are_refused(header: dict, size: int) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        packing.unpacked(header, bytearray(size))


def test_absurd_sizes_are_refused_before_memory_is_taken() -> None:
    for count in (2**40, -1, "9", None, 1.5):
        with pytest.raises(ValueError, match="is not a number"):
            packing.body_size({"bytes": count})


# --- processes that die ----------------------------------------------------------------------------------------------


def busy_worker() -> reading._Worker:
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with contextlib.suppress(StopIteration, RuntimeError):
            return next(iter(reading._WORKERS.busy))
    raise AssertionError("no worker is busy")


def stalling(path: Path) -> str:
    """A file whose header is that of a GIF, followed by bytes that decoders look through one by one."""
    with open(path, "wb") as file:
        file.write(b"GIF89a\1\0\1\0\0\0\0")
        file.truncate(1 << 30)
    return str(path)


@pytest.mark.usefixtures("no_idle_workers")
def test_a_process_that_crashes_twice_costs_one_medium(tmp_path: Path) -> None:
    good = [saved(tmp_path / f"{n}.png", noise(9, 9, n)) for n in range(2)]
    results: list = []
    thread = threading.Thread(
        target=lambda: results.extend(reading.read_each("video", [good[0], stalling(tmp_path / "a.gif"), good[1]]))
    )
    thread.start()
    killed = set()
    while len(killed) < 2 and thread.is_alive():
        time.sleep(0.05)
        worker = busy_worker()
        if worker not in killed and is_stalled(worker):
            os.kill(worker.process.pid, signal.SIGSEGV)
            killed.add(worker)
    thread.join(100)
    assert [type(m) for m in results] == [list, MediaError, list]
    assert str(results[1]) == "crashed the process that read it (SIGSEGV); it is damaged, or hostile"


def is_stalled(worker: reading._Worker) -> bool:
    """Whether the worker has computed for longer than a good medium takes."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) > 2 * os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("no_idle_workers")
def test_idle_processes_that_died_are_replaced(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise(9, 9))
    for _ in range(2):
        assert MODALITIES["image"].read(path).size == (9, 9)
        (worker,) = reading._WORKERS.idle
        os.kill(worker.process.pid, signal.SIGKILL)


@pytest.mark.usefixtures("no_idle_workers")
def test_many_that_stall_get_less_time_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CPU_SECONDS", 2)
    monkeypatch.setattr(reading, "FEW_SECONDS", 1)
    monkeypatch.setattr(reading, "PATIENCE", 2)
    monkeypatch.setattr(reading, "_LIMIT", reading._Limit())
    good, bad = saved(tmp_path / "a.png", noise(9, 9)), stalling(tmp_path / "a.gif")
    media = list(reading.read_each("video", [good, bad, good, bad, good, bad, good, bad]))
    reasons = [str(medium) for medium in media if isinstance(medium, MediaError)]
    assert [type(medium) for medium in media] == [list, MediaError] * 4
    assert reasons[:2] == ["took too long to be read (the limit is 2 s)"] * 2
    assert (
        reasons[2:] == ["took too long to be read (the limit is 1 s, since 2 media before it took longer than 2 s)"] * 2
    )
    monkeypatch.setattr(reading, "HOUR", 0.0)
    assert reading._LIMIT.seconds() == 2


@pytest.mark.usefixtures("no_idle_workers")
def test_a_process_that_outlives_its_alarm_is_ended_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MODALITIES["image"].read(saved(tmp_path / "a.png", noise(9, 9))).size == (9, 9)
    monkeypatch.setattr(reading, "LATE_TICKS", 1 - reading.CPU_SECONDS - reading.EXTRA_SECONDS)
    began = time.monotonic()
    with pytest.raises(MediaError, match="took too long"):
        MODALITIES["video"].read(stalling(tmp_path / "a.gif"))
    assert time.monotonic() - began < 20


def test_what_cannot_start_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading.close_workers()
    for program, reason in (("/none/python", "no process can be started"), ("/bin/false", "does not start")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(AuditError, match=reason):
            MODALITIES["image"].read(saved(tmp_path / "a.png", noise(9, 9)))


@pytest.mark.usefixtures("no_idle_workers")
def test_leaving_the_threads_by_an_error_ends_what_they_read(tmp_path: Path) -> None:
    path = stalling(tmp_path / "a.gif")
    began = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), ReadingThreads(2) as threads:
        future = threads.submit(MODALITIES["video"].read, path)
        busy_worker()
        time.sleep(0.5)
        raise KeyboardInterrupt
    assert isinstance(future.exception(), StoppedError)
    assert time.monotonic() - began < 20


SCRIPT = """
import sys, threading
from audit_plugin.inputs import reading
from audit_plugin.inputs.modalities import MODALITIES
reading.start_workers(2)
print(*[worker.process.pid for worker in reading._WORKERS.idle], flush=True)
threading.Thread(target=MODALITIES["video"].read, args=[sys.argv[1]], daemon=True).start()
MODALITIES["video"].read(sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, stalling(tmp_path / "a.gif")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(1.5)
    parent.send_signal(number)
    parent.wait(20)
    limit = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < limit, "a worker goes on"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_fork_starts_processes_of_its_own(tmp_path: Path) -> None:
    """With those of its parent, the replies of both would be mixed up."""
    paths = [saved(tmp_path / f"{n}.png", noise(n + 5, 4)) for n in range(2)]
    assert MODALITIES["image"].read(paths[0]).width == 5
    script = f"""
import os
from audit_plugin.inputs import reading
from audit_plugin.inputs.modalities import MODALITIES
read = MODALITIES["image"].read
assert read({paths[0]!r}).width == 5
child = os.fork()
if child == 0:
    assert not reading._WORKERS.idle
    os._exit(0 if read({paths[1]!r}).width == 6 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert read({paths[0]!r}).width == 5
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=True)


def test_too_many_open_files_are_no_fault_of_a_medium(tmp_path: Path) -> None:
    """All rows would fail for it."""
    path = saved(tmp_path / "a.png", noise(4, 4))
    script = f"""
import os, resource
from audit_plugin.arrays import AuditError
from audit_plugin.inputs.modalities import MODALITIES
MODALITIES["audio"].digest({path!r})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
used = []
try:
    while True:
        used.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for use in (MODALITIES["image"].digest, MODALITIES["image"].read):
    try:
        use({path!r})
    except AuditError as error:
        assert "ulimit -n" in str(error), error
    else:
        raise SystemExit(f"{{use}} went on")
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=True)


def test_a_fork_while_a_thread_waits_for_a_reply_goes_on(tmp_path: Path) -> None:
    """That thread is not in the child, but the lock of the pipe that it reads from is."""
    image = saved(tmp_path / "a.png", noise(6, 4))
    script = f"""
import os, signal, threading, time
from audit_plugin.inputs import reading
from audit_plugin.inputs.modalities import MODALITIES
def wait():
    try:
        MODALITIES["video"].read({stalling(tmp_path / "a.gif")!r})
    except Exception:
        pass
thread = threading.Thread(target=wait)
thread.start()
while not any(worker.has_started for worker in reading._WORKERS.busy):
    time.sleep(0.05)
time.sleep(0.5)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if MODALITIES["image"].read({image!r}).width == 6 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=True)


def test_no_module_beside_the_data_is_run(tmp_path: Path) -> None:
    """Somebody else's folder may hold a `json.py`, and commands are called in it."""
    image = saved(tmp_path / "a.png", noise(6, 4))
    (tmp_path / "json.py").write_text("raise SystemExit('a program of the data was run')\n", encoding="utf-8")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from audit_plugin.inputs.modalities import MODALITIES\n"
        f"assert MODALITIES['image'].read({image!r}).width == 6\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, timeout=60, check=True)
