"""Hostile media beside good ones: each ends in time, costs at most its own row, and opens nothing else."""

from __future__ import annotations

import csv
import http.server
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import Samples
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.embed import Embedded, digest_contents, embed, thread_count
from audit_plugin.inputs import reading
from tests.chaos.conftest import ROOT, Chaos
from tests.chaos.hostile_media import CASES, FAIL, READ, Hostile, damaged, good_media, many_scans, png, written
from tests.media_fixtures import tone, write_video, write_wav

GOOD, MOST_SECONDS, MOST_BYTES, STOP_SECONDS = 12, 60, 3_000_000_000, 5
SLOW = ("jpeg_many_scans", "gif_large_frames", "png_claims_90", "tiff_deflate", "png_data_bomb", "png_text_bomb",
        "png_profile_bomb")  # fmt: skip


def image_numbers(image: Any) -> list[np.ndarray]:
    return [np.asarray(image.resize((4, 4)), np.float32).reshape(-1) + 1]


# What they compute does not matter, only that it depends on all of the medium.
ENCODERS = {
    "image": Encoder(EncoderIdentity("image"), 4, image_numbers, lambda batch: batch),
    "audio": Encoder(
        EncoderIdentity("audio"),
        4,
        lambda sound: [np.array([piece.mean(), piece.std(), 1], np.float32) for piece in sound.pieces],
        lambda batch: batch,
    ),
    "video": Encoder(
        EncoderIdentity("video"), 4, lambda frames: [image_numbers(f)[0] for f in frames], lambda batch: batch
    ),
}


def note(text: str) -> None:
    """Shown by -s, and with a failure."""
    print(text)  # noqa: T201


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("good")
    media: dict[str, list[str]] = {"image": [], "audio": [], "video": []}
    for number in range(GOOD):
        Image.new("RGB", (40, 30), (20 * number, 9, 200)).save(folder / f"{number}.png")
        media["image"].append(str(folder / f"{number}.png"))
        media["audio"].append(write_wav(folder / f"{number}.wav", tone(200 + 20 * number, 0.2, 8_000), 8_000))
    for number in range(3):
        media["video"].append(write_video(folder / f"{number}.mp4", [(80 * number, 0, 0), (0, 80, 0)]))
    return media


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was started or fetched: programs on the PATH, a working folder and a server that leave marks."""
    fetched: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin64c", "ffmpeg", "touch", "convert"):
        program = Path(written(programs / name, f"#!/bin/sh\necho > {tmp_path}/mark-{name}\n".encode()))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(programs)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HOSTILE_PORT", str(server.server_address[1]))
    before = set(programs.iterdir())
    yield fetched
    server.shutdown()
    fetched += [path.name for path in tmp_path.glob("mark-*")] + [p.name for p in set(programs.iterdir()) - before]
    assert not fetched


def embedded(modality: str, values: list[str]) -> tuple[dict[int, str], np.ndarray]:
    """(failures, features)."""
    result = embed_all(modality, values)
    return dict(result.failures), np.array(result.features.vectors[modality])


def embed_all(modality: str, values: list[str]) -> Embedded:
    samples = Samples(tuple(map(str, range(len(values)))), {modality: tuple(values)})
    contents = digest_contents(samples, lambda *_: None)
    return embed(samples, contents, {modality: modality}, lambda: ENCODERS, lambda *_: None)


def attacked(case: Hostile, value: str, good: list[str], expected: np.ndarray) -> Counter[str]:
    """What went wrong with a bad medium in the middle of good ones."""
    faults: Counter[str] = Counter()
    began = time.monotonic()
    try:
        failures, features = embedded(case.modality, [*good[:2], value, *good[2:]])
    except Exception:
        note(f"{case.name}: {traceback.format_exc()}")
        return Counter(tracebacks=1)
    reason = failures.pop(2, "")
    seconds = time.monotonic() - began
    others = np.delete(features, 2, axis=0)
    faults["hangs"] += seconds > MOST_SECONDS
    faults["good_rows_lost"] += len(failures)
    faults["silent_wrong"] += not np.array_equal(others, expected) and not failures
    faults["silent_wrong"] += {FAIL: not reason, READ: bool(reason)}.get(case.outcome, False)
    faults["tracebacks"] += "\n" in reason or "Traceback" in reason or len(reason) > 300
    if seconds > 5 or any(faults.values()):
        note(f"{case.name}: {seconds:.1f} s, {+faults}, {reason[:200]}")
    return faults


def test_each_hostile_medium_costs_its_own_row(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], marks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: Counter[str] = Counter()
    expected = {modality: embedded(modality, values)[1] for modality, values in good.items()}
    cases = [case for case in CASES.values() if chaos.is_long or not case.name.startswith(SLOW)]
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as here:
            here.chdir(folder)
            value = case.make(folder)
        faults += attacked(case, value, good[case.modality], expected[case.modality])
    reading.close_workers()  # the largest of them is counted when it has ended
    largest = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    note(f"{len(cases)} kinds, largest process {largest / 1e9:.2f} GB")
    assert largest < MOST_BYTES
    chaos.record("media", len(cases), "hostile inputs", outside=len(marks), **faults)


def test_damaged_media_of_every_format_are_read_or_refused(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], marks: list[str]
) -> None:
    faults: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    cases = 0
    expected = {modality: embedded(modality, values)[1] for modality, values in good.items()}
    for name, (modality, data) in good_media(tmp_path).items():
        bad = []
        for number in range(chaos.count(4, 60)):
            bad.append(written(tmp_path / f"bad{number}-{name}", damaged(data, rng)))
        try:
            failures, features = embedded(modality, [*good[modality], *bad])
        except Exception:
            note(f"{name}: {traceback.format_exc()}")
            faults["tracebacks"] += 1
            continue
        cases += len(bad)
        faults["good_rows_lost"] += sum(row < len(good[modality]) for row in failures)
        faults["silent_wrong"] += not np.array_equal(features[: len(good[modality])], expected[modality])
        faults["silent_wrong"] += not np.isfinite(features).all()
    chaos.record("media-damaged", cases, "hostile inputs", outside=len(marks), **faults)


def manifest(folder: Path, good: list[str], bad: list[str]) -> Path:
    rows = [{"id": str(row), "image": path, "caption": f"number {row}"} for row, path in enumerate([*good, *bad])]
    lines = [json.dumps(row) for row in rows if row["image"].isprintable()]
    return Path(written(folder / "m.jsonl", "\n".join(lines).encode()))


def command(folder: Path, manifest: Path) -> subprocess.Popen[str]:
    options = [
        "score",
        str(manifest),
        "--image",
        "image",
        "--text",
        "caption",
        "--encoder",
        "offline",
        "--out",
        str(folder / "scores.csv"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUDIT_PLUGIN_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "audit_plugin", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def test_the_command_scores_the_good_rows_beside_all_of_the_bad(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], marks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = []
    cases = [case for case in CASES.values() if case.modality == "image" and not case.name.startswith(SLOW)]
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as here:
            here.chdir(folder)
            bad.append(case.make(folder))
    began = time.monotonic()
    process = command(tmp_path, manifest(tmp_path, good["image"], bad))
    output, _ = process.communicate(timeout=300)
    seconds = time.monotonic() - began
    assert process.returncode == 0, output
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        failures = {row["id"]: row["failure"] for row in csv.DictReader(file)}
    lost = [row for row in map(str, range(GOOD)) if failures.get(row, "missing")]
    chaos.record(
        "media-command", len(bad), "hostile inputs", hangs=int(seconds > 2 * MOST_SECONDS),
        tracebacks=output.count("Traceback"), good_rows_lost=len(lost), outside=len(marks),
    )  # fmt: skip


def descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return children + [grandchild for child in children for grandchild in descendants(child)]


def busy_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_its_processes_while_a_medium_stalls(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], number: signal.Signals
) -> None:
    if number != signal.SIGTERM and not chaos.is_long:
        pytest.skip("in the long form")
    process = command(tmp_path, manifest(tmp_path, good["image"], [many_scans(tmp_path, 9_000, 20_000)]))
    limit = time.monotonic() + 120
    workers: list[int] = []
    while not any(busy_seconds(pid) > 2 for pid in workers):
        assert time.monotonic() < limit, "no worker is busy"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
        workers = descendants(process.pid)
    process.send_signal(number)
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    while any(map(is_running, workers)) and time.monotonic() - began < 60:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    # the interpreter's own end takes a second of a processor, which other work on the machine may share
    late = seconds > STOP_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    note(f"{number.name}: ended after {seconds:.2f} s")
    name = f"media-{number.name.lower()}"
    chaos.record(name, 1, "crash points and kills", hangs=int(late), tracebacks=output.count("Traceback"))


def test_a_medium_that_stalls_is_given_up(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], marks: list[str]
) -> None:
    if not chaos.is_long:
        pytest.skip("takes half a minute: in the long form")
    case = Hostile("stalls", "image", lambda folder: many_scans(folder, 9_000, 20_000), FAIL)
    faults = attacked(case, case.make(tmp_path), good["image"], embedded("image", good["image"])[1])
    chaos.record("media-stalls", 1, "hostile inputs", outside=len(marks), **faults)


def test_many_media_that_stall_do_not_cost_the_full_time_each(
    chaos: Chaos, tmp_path: Path, good: dict[str, list[str]], marks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between good ones; in the short form with short limits."""
    if not chaos.is_long:
        monkeypatch.setattr(reading, "CPU_SECONDS", 3)
        monkeypatch.setattr(reading, "FEW_SECONDS", 1)
    monkeypatch.setattr(reading, "_LIMIT", reading._Limit())
    count = chaos.count(6, 24)
    bad = []
    for number in range(count):
        (tmp_path / str(number)).mkdir()
        bad.append(many_scans(tmp_path / str(number), 9_000, 20_000 + number))
    expected = embedded("image", good["image"])[1]
    began = time.monotonic()
    beside = (good["image"] * 2)[:count]
    result = embed_all("image", [path for pair in zip(bad, beside, strict=True) for path in pair])
    failures, features = result.failures, result.features.vectors["image"]
    seconds = time.monotonic() - began
    # media that were begun with the full limit, one for each thread besides, may take it
    allowed = (reading.PATIENCE + thread_count()) * (reading.CPU_SECONDS + 5) + count * (reading.FEW_SECONDS + 5)
    note(f"{count} media that stall: {seconds:.0f} s, at most {allowed} s")
    lost = sum(row % 2 for row in failures)
    wrong = sum(not np.array_equal(features[2 * row + 1], expected[row % GOOD]) for row in range(count))
    hurried = sum("the limit is" in reason and "since" in reason for reason in failures.values())
    assert any("had" in text and "s each to be read" in text for text in result.notes) == bool(hurried), result.notes
    assert hurried >= count - reading.PATIENCE - thread_count()
    chaos.record(
        "media_that_stall", count, "hostile inputs", hangs=int(seconds > allowed), good_rows_lost=lost,
        silent_wrong=wrong + count - len(failures), outside=len(marks),
    )  # fmt: skip


def test_good_pixels_come_through(tmp_path: Path) -> None:
    """The attacks above would pass if nothing were read at all."""
    failures, features = embedded("image", [written(tmp_path / "a.png", png(4, 4))])
    assert not failures
    np.testing.assert_allclose(features, 1 / np.sqrt(48), atol=1e-3)
