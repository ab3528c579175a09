from __future__ import annotations

import numpy as np
import pytest
import torch

from audit_plugin.encoders.products import fast_products, products

ABLE = any(torch.cpu.get_capabilities().get(unit) for unit in ("amx_bf16", "avx512_bf16"))


def test_the_choice_is_the_chip_s_unless_one_is_named() -> None:
    assert products("fp32", "cpu") == "fp32"
    assert products("bf16", "cpu") == "bf16"
    assert products("auto", "cpu") == ("bf16" if ABLE else "fp32")


@pytest.mark.parametrize("before", ["highest", "high"])
def test_the_setting_is_put_back_whatever_happens(before: str) -> None:
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with fast_products("bf16", "cpu"):
            assert torch.get_float32_matmul_precision() == "medium"
        with pytest.raises(ZeroDivisionError), fast_products("bf16", "cpu"):
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(usual)


def test_fp32_changes_no_bit_and_bf16_little() -> None:
    a, b = (torch.from_numpy(np.random.default_rng(s).standard_normal((256, 256), np.float32)) for s in (0, 1))
    plain = a @ b
    with fast_products("fp32", "cpu"):
        assert torch.equal(a @ b, plain)
    with fast_products("bf16", "cpu"):
        fast = a @ b
    # each of 256 terms is off by at most 2^-8 of its size, and they do not all err one way
    assert float((fast - plain).abs().max()) < 256 * 2**-8
    assert torch.equal(fast, plain) is not ABLE
