from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from audit_plugin.encoders.devices import in_single_threads, matmul_precision, one_thread, use_matmul_precision
from audit_plugin.inputs.threads import check_stopped

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


def test_work_in_single_threads_keeps_its_order_and_the_number_of_threads() -> None:
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert in_single_threads(lambda item: (item, torch.get_num_threads()), [4, 2, 9, 1]) == [
            (4, 1), (2, 1), (9, 1), (1, 1)
        ]  # fmt: skip
        assert in_single_threads(lambda item: item, []) == []
        with pytest.raises(ZeroDivisionError):
            in_single_threads(lambda item: 1 / item, [1, 0])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_an_interrupt_ends_the_work_of_all_threads() -> None:
    ended = []

    def train(item: int) -> None:
        try:
            while True:
                check_stopped()
                time.sleep(0.01)
        finally:
            ended.append(item)

    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_single_threads(train, [0, 1, 2])
        assert sorted(ended) == [0, 1], "the third was never begun"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize(("set_before", "then"), [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_the_commands_sleep_while_they_wait(set_before: str, then: str) -> None:
    code = (
        "import sys; sys.argv = ['/bin/audit-plugin']; import audit_plugin, os; assert 'torch' not in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": set_before} if set_before else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == then


def test_overlapping_limits_leave_the_number_of_threads_as_it_was() -> None:
    """Two audits in the App's server: whoever leaves last, later work has all threads again."""
    threads, blas = torch.get_num_threads(), blas_threads()
    torch.set_num_threads(3)
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def second() -> None:
        with one_thread(), one_thread():  # nested too
            assert torch.get_num_threads() == 1
            second_is_in.set()
            assert first_is_out.wait(20)

    try:
        with ThreadPoolExecutor(1) as pool:
            with one_thread():
                assert (torch.get_num_threads(), blas_threads()) == (1, 1)
                work = pool.submit(second)
                assert second_is_in.wait(20)
            first_is_out.set()
            work.result(60)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result(60) == 3
        assert (torch.get_num_threads(), blas_threads()) == (3, blas)
    finally:
        torch.set_num_threads(threads)


def test_an_error_inside_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads(), blas_threads()
    with pytest.raises(KeyboardInterrupt), one_thread():
        raise KeyboardInterrupt
    assert (torch.get_num_threads(), blas_threads()) == before


def blas_threads() -> int:
    """The most threads of any BLAS library of the process."""
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
