"""Matrix products of fp32 numbers that the chip multiplies as bf16 and sums in fp32, where it has a unit for that.

Heads are small and their noise is large: on the benchmark sets the scores rank the same with either (README).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def products(precision: str, device: str) -> str:
    """`bf16` or `fp32` for the config's `precision`: what the chip can, never what it happened to take today.

    A choice by the clock could differ when an interrupted run goes on.
    """
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: str) -> bool:
    """Whether the chip has a unit for that: a GPU of the last years, a CPU with AMX or AVX512-BF16."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


@contextmanager
def fast_products(precision: str, device: str) -> Iterator[None]:
    """Products inside are made as `products` says; the setting is the process's, and is put back."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if products(precision, device) == "bf16" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
