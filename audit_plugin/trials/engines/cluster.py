"""Ray as the engine: contents run through a Ray Data pipeline, everything else is tasks. The only importer of ray.

Workers read the media themselves, so the paths must lead to the same files everywhere. Features and finished parts
come back to the driver, which alone writes them: what it has written stays done, whatever fails afterward.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from audit_plugin.arrays import MODALITIES, AuditError, Floats
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.devices import CUDA_BATCH, cpu_count
from audit_plugin.encoders.embed import Encode, Encoded
from audit_plugin.inputs.files import first_line
from audit_plugin.neighbors import SearchResult, nearest_neighbors

from . import Engine, Work, workers
from .workers import EncoderRecipe

BLOCK = 256  # contents per task: what is done again where a worker dies
BATCH = 64  # contents that are decoded, and encoded, at once
RETRIES = 5
CONNECT_SECONDS = 5
STORE_SHARE, STORE_BYTES = 0.2, 8 << 30  # of the memory, at most: shared by the workers of a Ray that is started here


@contextlib.contextmanager
def ray_engine(device: str) -> Iterator[Engine]:
    """Ray as an engine: the caller's, that of the variable RAY_ADDRESS, or else one on this machine's CPUs and GPUs.

    Raises:
        AuditError: Ray is not installed, does not answer, or gave up on a piece of work.
    """
    ray = _imported()
    own = not ray.is_initialized()
    try:
        if own:
            _connect(ray)
        with _readable_errors(ray):
            room = _room(ray, device)
            yield Engine(
                lambda recipe, identities: _encoding(ray, recipe, identities, _worker_device(device, room), room),
                functools.partial(_search, ray, room),
                functools.partial(_each, ray, room),
            )
    finally:
        if own:
            ray.shutdown()


def _imported() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # most of what it logs as errors it handles by itself
    if not os.environ.get("RAY_ADDRESS"):
        # a Ray on this machine alone listens to this machine alone, as it does everywhere but on Linux
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise AuditError(
            f'engine is ray, which is not installed ({error}); install it: pip install "audit-plugin[ray]"'
        ) from error
    return ray


def _connect(ray: ModuleType) -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {}
    if not address:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        store = min(STORE_BYTES, int(STORE_SHARE * memory))
        options = {
            "address": "local",
            "num_cpus": cpu_count(),
            "object_store_memory": store,
            "include_dashboard": False,
        }
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # where nothing listens, Ray itself would go on trying for minutes
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        with _silent_stderr():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except (RuntimeError, ValueError, OSError) as error:
        reason = first_line(error)
        if address:
            raise AuditError(f"no Ray answers at RAY_ADDRESS {address!r} ({reason}); start it, or unset it") from error
        raise AuditError(f"Ray cannot start on this machine ({reason}); use --engine local") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what libraries below Python write while Ray starts; errors are raised all the same."""
    sys.stderr.flush()
    terminal, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(null)


@contextlib.contextmanager
def _readable_errors(ray: ModuleType) -> Iterator[None]:
    """Raises what the user can fix as one sentence, whichever worker met it; bugs keep their trace."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: Any = error
        while cause is not None and type(cause) is not AuditError:
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from error
        if isinstance(error, ray.exceptions.RayTaskError):
            raise
        raise AuditError(
            f"Ray gave up on a piece of work ({type(error).__name__}: {first_line(error)}); see that its machines are "
            "up and have memory, and run the same command again: finished parts are kept"
        ) from error


@dataclass(frozen=True)
class Room:
    """How the CPUs and GPUs are shared out."""

    threads: int  # of the driver, and so of each worker: the last digits of sums may depend on their number
    cpus: float  # of a task with these threads
    encoders: int  # at the same time
    encoder_cpus: float  # of each
    encoder_gpus: int
    decoders: int
    decoder_cpus: float


def share_out(cpus: float, widest: float, gpus: int, threads: int) -> Room:
    """Shares CPUs and GPUs out to encoders and decoders.

    Encoders never take more than half of the CPUs: those that wait for a decoder without a CPU wait forever.

    Args:
        cpus: of the cluster.
        widest: CPUs of its largest machine.
        gpus: for encoders.
        threads: of the driver.
    """
    share = max(1.0, min(threads, widest))
    decoder = min(0.75, cpus / 8)  # unlike what an encoder takes: else Ray Data joins both in one process
    if gpus:
        return Room(threads, min(share, cpus), gpus, 0, 1, int(cpus), decoder)
    half = min(cpus, share) / 2
    half = half if half < 1 else int(half)  # Ray takes parts of one CPU, but of more than one only whole ones
    return Room(threads, min(share, cpus), max(1, int(cpus // share)), half, 0, max(1, int(cpus / 2)), decoder)


def _room(ray: ModuleType, device: str) -> Room:
    resources = ray.cluster_resources()
    widest = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=1.0)
    gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
    return share_out(resources.get("CPU", 1.0), widest, gpus, torch.get_num_threads())


def _worker_device(device: str, room: Room) -> str:
    """Where encoders compute: without GPUs among Ray's resources never on one, which nobody would have reserved.

    Raises:
        AuditError: the setting asks for a GPU.
    """
    if room.encoder_gpus:
        return device
    if device == "cuda":
        raise AuditError(
            "device is 'cuda' but Ray knows no GPU; start its machines with --num-gpus, or use --device cpu"
        )
    return "cpu"


def _search(
    ray: ModuleType,
    room: Room,
    vectors: Floats,
    k: int,
    device: str = "cpu",
    seed: int = 0,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> SearchResult:
    """Neighbors by tasks; on a GPU by tasks that reserve one each, or in this process where Ray knows none."""
    gpus = room.encoder_gpus if device == "cuda" else 0
    each = None if device == "cuda" and not gpus else functools.partial(_each, ray, room, gpus=gpus)
    return nearest_neighbors(vectors, k, device, seed, report, each)


def _encoding(
    ray: ModuleType, recipe: EncoderRecipe, identities: Mapping[str, EncoderIdentity], device: str, room: Room
) -> Encode:
    """Encodes contents on the cluster; see `Engine.encoding`.

    Media are decoded in tasks of their own, without the encoder's weights. Texts are cut where they are encoded: how
    short they may be is read from the encoder itself.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def encode(modality: str, values: Mapping[str, str | None], view: int) -> Generator[Encoded, None, None]:
        items = [{workers.ITEM: item} for item in workers.packed(values.items())[workers.ITEM]]
        contents = ray.data.from_items(items, override_num_blocks=-(-len(items) // BLOCK))
        if not MODALITIES[modality].is_text:
            contents = contents.map_batches(
                workers.decode,
                fn_args=(recipe, modality, view),
                batch_size=BATCH,
                compute=ray.data.TaskPoolStrategy(size=room.decoders),
                num_cpus=room.decoder_cpus,
            )
        encoded = contents.map_batches(
            workers.Encoding,
            fn_constructor_args=(recipe, modality, identities[modality], device, room.threads, view),
            batch_size=CUDA_BATCH if room.encoder_gpus else BATCH,  # one that a GPU fills up
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=room.encoders),
            num_cpus=room.encoder_cpus,
            num_gpus=room.encoder_gpus,
        )
        for batch in encoded.iter_batches(batch_size=None, batch_format="numpy"):
            yield from workers.unpacked(batch)

    return encode


def _each(
    ray: ModuleType, room: Room, function: Work, items: Iterable[Any], gpus: int = 0
) -> Iterator[tuple[Any, Any]]:
    """(item, the function's value) as tasks finish; see `Engine.each`. `gpus`: of a task, whose work needs them."""
    task = ray.remote(num_cpus=room.cpus, num_gpus=gpus, max_retries=RETRIES)(workers.call)
    shared = ray.put(function)  # its arrays travel once to each machine
    waiting = {task.remote(shared, item, room.threads): item for item in items}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done), ray.get(done)
