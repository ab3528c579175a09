"""Files that are no samples in a format that is read, by how they begin or end: what they are, and what to do."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.store import open_regular

from .text_files import compression_of, plain_name

LOOKED_AT = 1024  # bytes
_WRITE = "write its rows as CSV, JSON Lines or Parquet"
_PACKED = {b"\x1f\x8b": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst"), b"BZh9": ("bzip2", ".bz2")}
# How a file begins -> (what it is, what to do).
_BEGINNINGS = (
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the file", "fetch the file: git lfs pull"),
    (
        rb"(?i:\s*(<!doctype html|<html))",
        "a web page (HTML), as a failed download leaves it",
        "download the file again",
    ),
    (rb"PK\x03\x04.*(\[Content_Types\]|_rels/|xl/)", "a workbook of Excel", "save it as CSV in UTF-8"),
    (rb"\xd0\xcf\x11\xe0", "a workbook of Excel", "save it as CSV in UTF-8"),
    (rb"PK\x03\x04", "a zip archive", "unpack it first: unzip {name}"),
    (rb"\xfd7zXZ\0", "compressed by xz", "unpack it first: xz -dk {name}"),
    (rb"7z\xbc\xaf", "a 7z archive", "unpack it first: 7z x {name}"),
    (rb"Rar!", "a rar archive", "unpack it first: unrar x {name}"),
    (rb"FEA1\0", "Feather of version 1", "write it again as version 2, or as Parquet"),
    (rb"ORC[\0-\x1f]", "an ORC table", "write it as Parquet"),
    (rb"SQLite format 3", "an SQLite database", _WRITE),
    (rb"\x89HDF", "an HDF5 file", _WRITE),
    (rb"Obj\x01", "an Avro file", _WRITE),
    (rb"%PDF", "a PDF file", _WRITE),
)
_ENDINGS = {
    (".xlsx", ".xls", ".xlsm", ".ods"): ("a workbook of a spreadsheet", "save it as CSV in UTF-8"),
    (".pkl", ".pickle", ".pt", ".pth"): ("a pickle, which may run code when it is read", _WRITE),
    (".tfrecord", ".tfrecords"): ("a TFRecord file", "write its samples as WebDataset shards or Parquet"),
    (".npy", ".npz", ".mat", ".h5", ".hdf5"): ("a file of arrays", _WRITE),
    (".mdb", ".lmdb"): ("an LMDB database", _WRITE),
}


def check_kind(path: Path) -> None:
    """Raises `AuditError` for a file of a known other kind: what it is, and what to do."""
    start = b""
    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
        start = file.read(LOOKED_AT)
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, start, re.DOTALL):
            raise AuditError(f"{path.name} is {what}; {remedy.format(name=path.name)}")
    for magic, (program, ending) in _PACKED.items():
        if start.startswith(magic) and path.suffix.lower() not in (ending, ".tgz"):
            unpacked = f"unpack it first: {program} -dc {path.name} > unpacked.tar"
            is_tar = plain_name(path).endswith(".tar")
            remedy = unpacked if is_tar else f"rename it to {path.name}{ending}"
            raise AuditError(f"{path.name} is compressed by {program}, which its name does not say; {remedy}")
    if compression_of(path) and plain_name(path).endswith((".parquet", ".pq", ".arrow", ".feather")):
        raise AuditError(f"{path.name} is compressed as a whole, and cannot be read inside of it; unpack it first")
    for endings, (what, remedy) in _ENDINGS.items():
        if path.suffix.lower() in endings and start:
            raise AuditError(f"{path.name} is {what}; {remedy}")
