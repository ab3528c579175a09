"""The Ray engine on this machine's CPUs; one Ray serves the whole file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.inputs.files import text_digest
from audit_plugin.neighbors import search
from audit_plugin.store import FeatureCache
from audit_plugin.trials.engines import LOCAL, opened
from tests.core_fixtures import unit
from tests.pipeline_fixtures import cells
from tests.test_search import clustered, even

ray = pytest.importorskip("ray")
from audit_plugin.trials.engines import cluster  # noqa: E402 (only where Ray is)

pytestmark = [pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[1]
CONFIG = AuditConfig(audio="sound", text="text", encoder="offline", trials=16, epochs=10)


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[str]:
    """A Ray with two CPUs, as `--engine ray` starts it; its address."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that two encoders may run side by side on two CPUs
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", str(ROOT))  # workers import what is tested here
        patch.setattr(cluster, "cpu_count", lambda: 2)
        patch.setattr(cluster, "STORE_BYTES", 200 << 20)
        cluster._connect(cluster._imported())
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def samples(sounds: list[str], tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """40 sounds with texts, and one file that is no sound."""
    broken = tmp_path_factory.mktemp("broken") / "broken.wav"
    broken.write_bytes(b"RIFF and nothing else")
    names = tuple(f"r{row}" for row in range(41))
    return Samples(names, {"audio": (*sounds, str(broken)), "text": tuple(f"the text of {name}" for name in names)})


def make_cache(folder: Path, samples: Samples) -> Path:
    """A cache that holds the features of the texts alone."""
    digests = [text_digest(text or "") for text in samples.media["text"]]
    seen = unit(np.random.default_rng(3).standard_normal((len(digests), 16)))
    FeatureCache(IDENTITIES["text"].key, folder / "features").append(dict(zip(digests, seen, strict=True)))
    return folder


def audited(samples: Samples, folder: Path, patch: pytest.MonkeyPatch, engine: str) -> AuditResult:
    patch.setenv("AUDIT_PLUGIN_CACHE", str(folder / "cache"))
    return run_audit(samples, replace(CONFIG, engine=engine), run_dir=folder / "run")


@pytest.fixture(scope="module")
def local(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    """What this process makes of the samples."""
    folder = tmp_path_factory.mktemp("local")
    make_cache(folder / "cache", samples)
    with pytest.MonkeyPatch.context() as patch:
        return audited(samples, folder, patch, "local")


def processes() -> dict[int, str]:
    """Number -> title of the workers of this process's Ray: never those of somebody else's."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            title = place.read_bytes().split(b"\0")[0].decode(errors="replace")
            if title.startswith("ray::") and descends(place.parent):
                found[int(place.parent.name)] = title
    return found


def descends(place: Path) -> bool:
    """Whether a process of /proc was started by this one, or by one that it started."""
    while place.name not in ("0", "1", str(os.getpid())):
        place = place.with_name((place / "stat").read_text().rpartition(")")[2].split()[1])
    return place.name == str(os.getpid())


@contextlib.contextmanager
def killing(titles: Sequence[str]) -> Iterator[dict[str, int]]:
    """Kills the first worker seen under each of the titles."""
    killed: dict[str, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02) and len(killed) < len(titles):
            for number, title in processes().items():
                for start in set(titles) - set(killed):
                    if title.startswith(start):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(number, signal.SIGKILL)
                            killed[start] = number

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


# --- equal to the local engine -------------------------------------------------------------------------------------


def test_scores_are_those_of_the_local_engine_whoever_dies(
    samples: Samples, local: AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache(tmp_path / "cache", samples)
    with killing(["ray::MapWorker(MapBatches(Encoding))", "ray::call"]) as killed:
        result = audited(samples, tmp_path, monkeypatch, "ray")
    assert len(killed) == 2, "an encoder and a trial were killed at work"
    assert cells(result) == cells(local)
    assert result.summary["encoded_now"] == {"text": 0, "audio": 41}
    assert local.columns["failure"][40] == result.columns["failure"][40] != ""


def test_a_killed_driver_resumes(
    samples: Samples, local: AuditResult, started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, run = make_cache(tmp_path / "cache", samples), tmp_path / "run"
    lines = [f"{i},{a},{t}" for i, a, t in zip(samples.ids, samples.media["audio"], samples.media["text"], strict=True)]
    (tmp_path / "m.csv").write_text("\n".join(["id,sound,text", *lines]) + "\n")
    options = ["--audio", "sound", "--text", "text", "--encoder", "offline", "--trials", "16", "--epochs", "10"]
    code = "import torch; torch.set_num_threads(1); from audit_plugin.cli import main; main()"
    command = [sys.executable, "-c", code, "score", str(tmp_path / "m.csv"), *options, "--engine", "ray"]
    environment = {**os.environ, "RAY_ADDRESS": started, "AUDIT_PLUGIN_CACHE": str(cache)}
    driver = subprocess.Popen([*command, "--run-dir", str(run), "--out", str(tmp_path / "s.parquet")], env=environment)
    first, until = run / "trials_0000.npz", time.monotonic() + 120
    parts: list[Path] = []
    while not parts and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
        parts = sorted(run.glob("trials_*.npz"))
    driver.kill()
    assert driver.wait() == -signal.SIGKILL, "killed before it was finished"
    written = {part: part.stat().st_mtime_ns for part in parts}
    again = audited(samples, tmp_path, monkeypatch, "ray")
    assert again.summary["encoded_now"] == {"text": 0, "audio": 1}, "but for the file that is no sound"
    assert first.is_file()
    assert {part: part.stat().st_mtime_ns for part in parts} == written
    assert cells(again) == cells(local)


@pytest.mark.parametrize("make", [clustered, even])
def test_neighbors_of_many_rows_are_those_of_one_process(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXACT_ROWS", 1000)
    monkeypatch.setitem(search.PIECE, "cpu", 500)
    vectors = make(3000)
    here = LOCAL.search(vectors, 10, "cpu", 0)
    with opened(replace(CONFIG, engine="ray")) as engine:
        found = engine.search(vectors, 10, "cpu", 0)
    assert found.method == here.method
    np.testing.assert_array_equal(found.neighbors.indices, here.neighbors.indices)
    np.testing.assert_array_equal(found.neighbors.similarities, here.neighbors.similarities)
    assert ("lists" in here.method.partition(" (")[0]) == (make is clustered)


# --- the engine itself ---------------------------------------------------------------------------------------------


def test_every_item_is_done_once_in_any_order() -> None:
    def square(item: int) -> tuple[int, int]:
        return item * item, torch.get_num_threads()

    with opened(replace(CONFIG, engine="ray")) as engine:
        found = dict(engine.each(square, range(20)))
        assert list(engine.each(square, [])) == []
    assert found == {item: (item * item, 1) for item in range(20)}
    assert found == dict(LOCAL.each(square, range(20)))
    assert ray.is_initialized(), "a Ray that somebody else started goes on"


def test_what_a_worker_says_to_the_user_stays_one_sentence() -> None:
    def refuse(_item: int) -> None:
        raise AuditError("the thing is 3; make it 4")

    def fail(_item: int) -> None:
        raise KeyError("a fault of ours")

    with pytest.raises(AuditError) as told, opened(replace(CONFIG, engine="ray")) as engine:
        list(engine.each(refuse, [1]))
    assert str(told.value) == "the thing is 3; make it 4"
    with pytest.raises(KeyError, match="a fault of ours"), opened(replace(CONFIG, engine="ray")) as engine:
        list(engine.each(fail, [1]))


def test_a_worker_that_dies_each_time_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 0)
    with (
        pytest.raises(AuditError, match="Ray gave up on a piece of work .*finished parts are kept"),
        opened(replace(CONFIG, engine="ray")) as engine,
    ):
        list(engine.each(lambda _item: os.kill(os.getpid(), signal.SIGKILL), [1]))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(AuditError, match=f"no Ray answers at RAY_ADDRESS '{address}' .*; start it, or unset it"):
        cluster._connect(ray)


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AuditError, match=r'pip install "audit-plugin\[ray\]"'), opened(replace(CONFIG, engine="ray")):
        pass


@pytest.mark.parametrize(
    ("gpus", "device", "reserved"), [(1, "cuda", [1]), (1, "cpu", [0]), (0, "cpu", [0]), (0, "cuda", [])]
)
def test_searches_on_a_gpu_reserve_one_or_stay_in_this_process(
    gpus: int, device: str, reserved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(cluster, "_each", lambda *_, gpus: asked.append(gpus) or iter(()))
    monkeypatch.setattr(cluster, "nearest_neighbors", lambda *given: given[-1] and list(given[-1](abs, [1])))
    cluster._search(ray, cluster.share_out(8, 8, gpus, 2), even(10), 3, device)
    assert asked == reserved


def test_encoders_take_no_gpu_that_nobody_reserved() -> None:
    with_gpu, without = (cluster.share_out(8, 8, gpus, 2) for gpus in (1, 0))
    assert cluster._worker_device("auto", with_gpu) == "auto"
    assert cluster._worker_device("cuda", with_gpu) == "cuda"
    assert cluster._worker_device("auto", without) == cluster._worker_device("cpu", without) == "cpu"
    with pytest.raises(AuditError, match="Ray knows no GPU; start its machines with --num-gpus, or use --device cpu"):
        cluster._worker_device("cuda", without)


@given(st.integers(1, 512), st.integers(1, 96), st.integers(1, 96), st.integers(0, 8))
def test_encoders_leave_room_for_decoders(cpus: int, widest: int, threads: int, gpus: int) -> None:
    widest = min(cpus, widest)
    room = cluster.share_out(cpus, widest, gpus, threads)
    assert room.encoders * room.encoder_cpus <= cpus / 2
    assert room.encoders * room.encoder_cpus + room.decoder_cpus <= cpus
    assert room.encoder_cpus <= widest
    assert room.cpus <= widest
    assert room.encoders >= 1
    assert room.decoders >= 1
    for part in (room.encoder_cpus, room.decoder_cpus, room.cpus):
        assert part <= 1 or part == int(part), "Ray takes no one and a half CPUs"
    # equal in all, both stages would be joined in one process
    assert (room.encoders, room.encoder_cpus) != (room.decoders, room.decoder_cpus) or room.encoder_gpus
