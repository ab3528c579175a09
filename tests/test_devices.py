from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest
import torch

from audit_plugin.encoders.devices import matmul_precision, use_matmul_precision

HAS_BF16_UNIT = any(torch.cpu.get_capabilities().get(unit) for unit in ("amx_bf16", "avx512_bf16"))

HELD_BACK = """
import resource
from audit_plugin.encoders.devices import release_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

blocks = [bytearray(64 * 1024) for _ in range(2000)]
pinned = blocks[1::100]  # small blocks that stay pin the heap's top
del blocks
before = resident()
release_memory()
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_freed_memory_goes_back_to_the_system() -> None:
    finished = subprocess.run([sys.executable, "-c", HELD_BACK], capture_output=True, text=True, check=True)
    assert float(finished.stdout) > 60  # of 131 MB


def test_the_choice_is_the_chip_s_unless_one_is_named() -> None:
    assert matmul_precision("fp32", "cpu") == "fp32"
    assert matmul_precision("bf16", "cpu") == "bf16"
    assert matmul_precision("auto", "cpu") == ("bf16" if HAS_BF16_UNIT else "fp32")


@pytest.mark.parametrize("before", ["highest", "high"])
def test_the_setting_is_put_back_whatever_happens(before: str) -> None:
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with use_matmul_precision("bf16", "cpu"):
            assert torch.get_float32_matmul_precision() == "medium"
        with pytest.raises(ZeroDivisionError), use_matmul_precision("bf16", "cpu"):
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(usual)


def test_fp32_changes_no_bit_and_bf16_little() -> None:
    a, b = (torch.from_numpy(np.random.default_rng(s).standard_normal((256, 256), np.float32)) for s in (0, 1))
    plain = a @ b
    with use_matmul_precision("fp32", "cpu"):
        assert torch.equal(a @ b, plain)
    with use_matmul_precision("bf16", "cpu"):
        fast = a @ b
    # each of 256 terms is off by at most 2^-8 of its size, and they do not all err one way
    assert float((fast - plain).abs().max()) < 256 * 2**-8
    assert torch.equal(fast, plain) is not HAS_BF16_UNIT
