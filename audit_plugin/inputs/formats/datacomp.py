"""DataComp: the list of the uids of a subset, a sorted `.npy` of pairs of 64-bit numbers, as its resharder reads it."""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError

from .values import ExportSample, Layout

UID = "uid"  # column or field of DataComp's metadata, 32 hexadecimal digits
UID_TYPE = np.dtype("u8,u8")
_DIGITS = re.compile(r"[0-9a-fA-F]{32}")


class UidWriter:
    """Collects the uids, 16 bytes each, and writes them in ascending order."""

    def __init__(self, path: Path, layout: Layout) -> None:  # noqa: ARG002 (as every writer)
        self._path = path
        self._halves = array("Q")

    def add(self, sample: ExportSample) -> None:
        self._halves.extend(uid_halves(sample.fields.get(UID), sample.id))

    def close(self) -> None:
        with open(self._path, "xb") as file:
            write_uids(file, np.array(self._halves, dtype=np.uint64).reshape(-1, 2))


def uid_halves(uid: object, sample_id: str) -> tuple[int, int]:
    """The halves of a uid, or of the id where that is one.

    Raises:
        AuditError: neither has 32 hexadecimal digits.
    """
    for text in (uid, sample_id):
        if isinstance(text, str) and _DIGITS.fullmatch(text):
            return int(text[:16], 16), int(text[16:], 16)
    raise AuditError(
        f"sample {sample_id!r} has no uid of 32 hexadecimal digits, in a column {UID!r} or as its id; only sets of "
        "DataComp have them: choose another --format"
    )


def write_uids(file: IO[bytes], halves: NDArray[np.uint64]) -> None:
    """Writes uids, `[n, 2]`, sorted; one that is given several times weighs so many times in the training."""
    uids = np.zeros(len(halves), dtype=UID_TYPE)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    uids["f0"], uids["f1"] = halves[order, 0], halves[order, 1]
    np.save(file, uids)
