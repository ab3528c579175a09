from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

HELD_BACK = """
import resource
from audit_plugin.encoders.devices import return_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

blocks = [bytearray(64 * 1024) for _ in range(2000)]
kept = blocks[1::100]  # small blocks that stay pin the heap's top
del blocks
before = resident()
return_heap()
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_freed_memory_goes_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", HELD_BACK], capture_output=True, text=True, check=True)
    assert float(found.stdout) > 60  # of 131 MB
