"""Where to compute: what kind of machine it is, how a batch gets there, and how many pieces make one."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from pathlib import Path

import numpy as np
import torch

CUDA_BATCH = 256


def machine_kind(device: str) -> str:
    """The chip's name: what is fast on one is fast on another of that name."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def moved(batch: np.ndarray, device: torch.device) -> torch.Tensor:
    """The batch on the device; to a GPU by pinned memory, while the caller goes on."""
    values = torch.from_numpy(batch)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def batch_size(device: torch.device, on_cpu: int) -> int:
    """Pieces per batch: a GPU takes many, and `embedding.encode_contents` halves what its memory does not hold."""
    return CUDA_BATCH if device.type == "cuda" else on_cpu


def waited(device: str) -> None:
    """Returns when the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def return_heap() -> None:
    """Gives freed memory back to the system: glibc keeps what blocks below 32 MB took, between stages for nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
