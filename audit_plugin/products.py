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
    import torch

    if precision != "auto":
        return precision
    able = torch.cuda.is_bf16_supported() if device == "cuda" else bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return "bf16" if able else "fp32"


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
