"""The formats that data sets are exported to, one module each; `FORMATS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from audit_plugin.arrays import AuditError

from .coco import CocoWriter
from .csv_table import CsvWriter
from .datacomp import UidWriter
from .hugging_face import FolderWriter, HubParquetWriter
from .jsonl import JsonlWriter
from .parquet import ParquetWriter
from .values import ExportSample, Layout, Writer
from .webdataset import ShardWriter
from .yolo import YoloWriter

__all__ = ["ARCHIVE", "FORMATS", "ExportSample", "Format", "Layout", "Writer", "format_of"]

ARCHIVE = ".zip"  # any format, packed with its documents into one file


@dataclass(frozen=True)
class Format:
    """One entry of the table.

    Attributes:
        name: as in `--format`.
        label: what is written, in a few words.
        writer: (staged file or folder, layout of the source) -> writer.
        endings: of its file, of which the first format that has one is recognized by it; empty: it is a folder.
        needs_columns: all columns must be known before the first row, for which JSON and shards are read twice.
        use: how to read the export, in one line; `{to}` is its place, `{path}` the same for a shell, `{comma}` the
            option for commas between cells.
    """

    name: str
    label: str
    writer: Callable[[Path, Layout], Writer]
    endings: tuple[str, ...] = ()
    needs_columns: bool = False
    use: str = ""


FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            "webdataset",
            "tar shards",
            ShardWriter,
            use="open_clip: --dataset-type webdataset --train-data {path}/'{shards}'",
        ),
        Format(
            "jsonl",
            "a table with paths of media",
            JsonlWriter,
            (".jsonl", ".ndjson"),
            use="paths are relative to the file, or absolute",
        ),
        Format(
            "csv",
            "a table with paths of media",
            CsvWriter,
            (".csv", ".tsv"),
            needs_columns=True,
            use="open_clip, in the folder of the file: --dataset-type csv --train-data {path}{comma} "
            "--csv-img-key {image} --csv-caption-key {text}",
        ),
        Format(
            "parquet",
            "a table with paths of media",
            ParquetWriter,
            (".parquet", ".pq"),
            needs_columns=True,
            use="paths are relative to the file, or absolute",
        ),
        Format(
            "parquet-bytes",
            "a table that holds the media",
            partial(ParquetWriter, with_bytes=True),
            (".parquet", ".pq"),
            needs_columns=True,
            use="media are structs of bytes and path",
        ),
        Format(
            "hf-folder", "media and metadata.jsonl for load_dataset", FolderWriter, use="datasets.load_dataset({to!r})"
        ),
        Format(
            "hf-parquet",
            "Parquet with media for load_dataset",
            HubParquetWriter,
            needs_columns=True,
            use="datasets.load_dataset({to!r})",
        ),
        Format(
            "coco",
            "images with captions or boxes",
            CocoWriter,
            use="torchvision.datasets.CocoDetection({to!r}, {to!r} + '/annotations.json')",
        ),
        Format("yolo", "images with the boxes of objects", YoloWriter, use="yolo train data={path}/data.yaml"),
        Format(
            "datacomp",
            "sorted uids for DataComp's resharder",
            UidWriter,
            (".npy",),
            use="DataComp: resharder.py -s {path}",
        ),
    )
}


def format_of(to: Path, name: str = "", is_shards: bool = False) -> Format:
    """The format that is named, or the one that the ending of the place says.

    Args:
        to: place of the export.
        name: of the format, "" to recognize it.
        is_shards: the source is tar shards, to which a folder without a named format is written again.

    Raises:
        AuditError: no such format, or one that does not go with the ending.
    """
    ending = to.suffix.lower()
    if not name:
        of_ending = next((entry for entry in FORMATS.values() if ending in entry.endings), None)
        if of_ending:
            return of_ending
        if not is_shards or ending:
            raise AuditError(
                f"the format of {str(to)!r} is not known by its ending; name it by --format: {', '.join(FORMATS)}"
            )
        name = "webdataset"
    if name not in FORMATS:
        raise AuditError(f"format {name!r} is not known; choose one of {', '.join(FORMATS)}")
    entry = FORMATS[name]
    if ending == ARCHIVE:
        return entry
    if entry.endings and ending not in entry.endings:
        raise AuditError(f"{str(to)!r} does not end in {' or '.join(entry.endings)}, as {name} does; name it so")
    if not entry.endings and ending in {e for other in FORMATS.values() for e in other.endings}:
        raise AuditError(f"{str(to)!r} ends like a file, but {name} is a folder; name a folder")
    return entry
