"""Devices: which chip computes, in which precision it multiplies, and how batches get there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.inputs.threads import ReadingThreads

from .base import Encode

CUDA_BATCH = 256
MANY_ROWS = 20_000  # from which on operations are so large that threads share them well
_threads_before: list[int] = []  # threads of torch before, once for each `one_thread` that is open
_threads_lock = threading.Lock()
Item = TypeVar("Item")
Value = TypeVar("Value")


def pick_device(choice: str) -> str:
    """`cpu` or `cuda` for `AuditConfig.device`."""
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise AuditError("device is 'cuda' but torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    return choice


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chip_name(device: str) -> str:
    """The chip's name: what is fast on one chip is fast on another with that name."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_bf16_unit(device: str) -> bool:
    """Whether the chip multiplies bf16 in hardware: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def matmul_precision(precision: str, device: str) -> str:
    """`bf16`, `tf32` (its counterpart on a GPU) or `fp32` for `AuditConfig.precision`: by the chip, never by timing it.

    A choice by timing could differ when an interrupted run is continued. Products in bf16 or TF32 are summed in fp32;
    on the benchmark sets the scores rank the same with bf16.
    """
    if precision == "auto":
        precision = "bf16" if has_bf16_unit(device) else "fp32"
    return "tf32" if precision == "bf16" and device == "cuda" else precision


@contextlib.contextmanager
def use_matmul_precision(precision: str, device: str) -> Iterator[None]:
    """Multiplies fp32 matrices in `matmul_precision` inside; torch's setting is global and is restored after."""
    before = torch.get_float32_matmul_precision()
    setting = {"bf16": "medium", "tf32": "high", "fp32": "highest"}
    torch.set_float32_matmul_precision(setting[matmul_precision(precision, device)])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_blocks(function: Callable[[int, int], Value], count: int, size: int) -> list[Value]:
    """The function's values of (start, end) of blocks of `count` rows, at most `size` each, in order.

    Blocks are halved where the GPU's memory is too small for one.

    Raises:
        AuditError: it is too small for a single row.
    """
    values: list[Value] = []
    start = 0
    while start < count:
        end = min(start + size, count)
        try:
            values.append(function(start, end))
        except torch.OutOfMemoryError as error:
            if end - start == 1:
                raise AuditError(
                    "the GPU's memory is too small; close other programs that use the GPU, or use --device cpu"
                ) from error
            size = (end - start) // 2
        else:
            start = end
            continue
        torch.cuda.empty_cache()  # after the error, which held on to what the block had made
    return values


def in_single_threads(function: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """The function's values of the items, in order: as many at a time as torch has threads, each computed by one.

    Threads that share one small operation wait for each other at its end, of which there are thousands in a training:
    beside other programs that took up to twenty times as long as one thread. An interrupt ends the functions where they
    call `check_stopped`.
    """
    threads = torch.get_num_threads()

    def alone(item: Item) -> Value:
        torch.set_num_threads(1)  # of this thread, and of threads that begin to use torch meanwhile
        return function(item)

    try:
        with ReadingThreads(max(1, min(threads, len(items)))) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small operations of NumPy and torch by one thread inside: `in_single_threads` says why.

    torch's number is that of the thread and of those that begin to use torch meanwhile: all that overlap restore what
    the first one found. NumPy's is the whole process', so that only the main thread may set it: of two that overlap,
    the second would restore the limit of the first.
    """
    with _threads_lock:
        threads = _threads_before[0] if _threads_before else torch.get_num_threads()
        _threads_before.append(threads)
    torch.set_num_threads(1)
    is_main = threading.current_thread() is threading.main_thread()
    try:
        with threadpool_limits(1, user_api="blas") if is_main else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        with _threads_lock:
            _threads_before.pop()


def small_by_one_thread(rows: int) -> contextlib.AbstractContextManager[None]:
    """`one_thread` for sets of fewer than `MANY_ROWS`."""
    return one_thread() if rows < MANY_ROWS else contextlib.nullcontext()


def encode_on(device: torch.device, forward: Callable[[torch.Tensor], torch.Tensor]) -> Encode:
    """An encoder's `encode` by `forward` on the device; batches reach a GPU through pinned memory."""

    def encode(batch: np.ndarray) -> Floats:
        pieces = torch.from_numpy(batch)
        if device.type == "cuda":
            pieces = pieces.pin_memory()
        with torch.inference_mode():
            return forward(pieces.to(device, non_blocking=device.type == "cuda")).float().cpu().numpy()

    return encode


def encode_by_onnx(model: bytes, rows_at_once: Callable[[tuple[int, ...]], int]) -> Encode:
    """An encoder's `encode` by an ONNX model on the CPU, in as many threads as torch uses.

    Each call of the model computes in one thread, with `rows_at_once` pieces (by a piece's shape), the last ones filled
    up with copies: a piece's vector depends on neither its batch nor the number of threads. Calls that share nothing
    are also faster than threads that wait for each other in each layer.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    onnxruntime = _silent_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def encode(batch: np.ndarray) -> Floats:
        size = rows_at_once(batch.shape[1:])

        def run(start: int) -> Floats:
            rows = batch[start : start + size]
            filler = np.repeat(rows[:1], size - len(rows), axis=0)
            return np.asarray(session.run(None, {name: np.concatenate([rows, filler])})[0][: len(rows)])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(run, range(0, len(batch), size))))

    return encode


def _silent_onnxruntime() -> Any:
    """The package, kept from what its releases do by default: to report each process and model to their maker."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # is read when the package is imported
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # on Windows, or where the package was imported before
    return onnxruntime


def batch_size(device: torch.device, on_cpu: int) -> int:
    """Pieces per batch: many on a GPU; `embed.BatchEncoder` halves the number when memory runs out."""
    return CUDA_BATCH if device.type == "cuda" else on_cpu


def release_memory() -> None:
    """Returns freed memory to the system: glibc keeps blocks below 32 MB, which the next stage does not reuse."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
