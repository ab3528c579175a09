"""The formats that samples are read from, one module each; `READERS` lists them, `open_sources` recognizes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.patterns import files_of
from audit_plugin.inputs.rows import brief

from .arrow_tables import TableSource
from .coco import CocoSource, is_coco, is_coco_folder, open_coco
from .csv_table import DELIMITERS, CsvSource
from .folders import NOUNS, endings_of, folders_in, has_files, is_hidden, is_split, split_in
from .hugging_face_folder import is_metadata_folder, open_metadata_folder
from .image_folder import FOLDER_READERS
from .image_text import TEXT_READERS
from .json_rows import JsonDocumentSource, JsonLinesSource, is_document, is_json_text, read_document
from .media_folders import begin_in_media_folders, text_table_in
from .other_kinds import check_kind
from .saved_dataset import is_saved_dataset, saved_tables
from .source import Located, Row, ShardMember, Source
from .splits import with_splits
from .text_files import compression_of, first_bytes, plain_name
from .voc import is_voc, open_voc
from .webdataset import ShardSource, is_tar, listing
from .yolo import is_yolo, is_yolo_file, open_yolo

__all__ = [
    "DATASHEET",
    "READERS",
    "RELABELED",
    "REMOVED",
    "CocoSource",
    "CsvSource",
    "Located",
    "Reader",
    "Row",
    "ShardMember",
    "ShardSource",
    "Source",
    "TableSource",
    "listing",
    "open_sources",
]


@dataclass(frozen=True)
class Reader:
    """One entry of the table.

    Attributes:
        name: as in `--format`.
        opens: file or folder -> its sources.
        is_file: (path, first bytes) -> whether a file is of this format; None: it is always a folder.
        is_folder: folder -> whether it is of this format; None: it is a file, or a folder of such files by `endings`.
        endings: of the files that a folder of this format holds.
        before: formats that a folder may seem to be too, and is not.
    """

    name: str
    opens: Callable[[Path], Sequence[Source]]
    is_file: Callable[[Path, bytes], bool] | None = None
    is_folder: Callable[[Path], bool] | None = None
    endings: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


def _open_json(path: Path) -> list[Source]:
    """The objects of a JSON file, in whatever way it holds them."""
    if not is_document(first_bytes(path)):
        return [JsonLinesSource(path)]
    document = read_document(path)
    return [CocoSource(path, document) if is_coco(document) else JsonDocumentSource(path, document)]


def _open_shard(path: Path) -> list[Source]:
    if compression_of(path) or path.suffix.lower() == ".tgz":
        unpack = {".zst": "zstd -d", ".bz2": "bunzip2 -k"}.get(path.suffix.lower(), "gunzip -k")
        raise AuditError(
            f"{path.name} is compressed, and media cannot be read inside of it; unpack it first: {unpack} {path.name}"
        )
    return [ShardSource(path)]


def _csv_reader(name: str, delimiter: str) -> Reader:
    return Reader(name, lambda path: [CsvSource(path, delimiter)])


READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "parquet",
            lambda path: [TableSource(path)],
            lambda path, start: start.startswith(b"PAR1") or path.name.lower().endswith((".parquet", ".pq")),
            endings=(".parquet", ".pq"),
        ),
        Reader(
            "arrow",
            lambda path: [TableSource(path)],
            lambda path, start: start.startswith(b"ARROW1") or path.name.lower().endswith((".arrow", ".feather")),
            endings=(".arrow", ".feather"),
        ),
        Reader("saved-dataset", saved_tables, is_folder=is_saved_dataset, before=("arrow", "json")),
        Reader(
            "webdataset",
            _open_shard,
            lambda path, start: plain_name(path).endswith((".tar", ".tgz")) or is_tar(start),
            endings=(".tar",),
            before=("parquet", "json", "csv"),  # img2dataset writes the metadata of each shard beside it
        ),
        Reader(
            "json",
            _open_json,
            lambda path, start: (
                plain_name(path).endswith((".json", ".jsonl", ".ndjson"))
                or (plain_name(path).endswith(".txt") and is_json_text(start))
            ),
            endings=(".jsonl", ".ndjson", ".json"),
        ),
        Reader(
            "csv",
            lambda path: [CsvSource(path)],
            lambda path, _: plain_name(path).endswith((".csv", ".tsv", ".tab", ".txt", ".token")),
            endings=(".csv", ".tsv"),
        ),
        Reader(
            "coco",
            open_coco,
            lambda *_: False,  # whether JSON is COCO is known once it is parsed: `_open_json` hands it over
            is_coco_folder,
            before=("json", "image-folder", "image-text"),
        ),
        Reader("voc", open_voc, is_folder=is_voc, before=("image-folder",)),
        Reader("yolo", open_yolo, is_yolo_file, is_yolo, before=("json", "image-folder", "image-text")),
        Reader(
            "hf-folder",
            open_metadata_folder,
            is_folder=is_metadata_folder,
            before=("json", "csv", "parquet", *TEXT_READERS, *FOLDER_READERS),
        ),
        *(
            Reader(name, opens, is_folder=fits, before=("json", "parquet", *FOLDER_READERS))
            for name, (opens, fits) in TEXT_READERS.items()
        ),
        *(Reader(name, opens, is_folder=fits) for name, (opens, fits) in FOLDER_READERS.items()),
        *(_csv_reader(f"csv-{name}", mark) for mark, name in DELIMITERS.items()),
    )
}


def open_sources(place: str | Path, format: str = "") -> list[Source]:  # noqa: A002 (as the option is called)
    """The sources at a place, all of one format, in the order of their names.

    Args:
        place: a file, a folder, or a pattern such as `data/train-*.parquet` or `s/{00000..00010}.tar`.
        format: one of `READERS`; "": it is recognized by looking.

    Raises:
        AuditError: nothing is there, the format is not known, or two formats fit.
    """
    if format and format not in READERS:
        raise AuditError(f"format {format!r} is not known; choose one of {', '.join(READERS)}")
    path = Path(place)
    if os.path.isdir(path):
        return _of_folder(path.absolute(), format)
    paths = [path] if os.path.lexists(path) or "\0" in str(path) else files_of(str(path))
    readers = [READERS[format] if format else _reader_of_file(each) for each in paths or [path]]
    if readers[0].is_folder and not readers[0].is_file:
        raise AuditError(f"{str(path)!r} is a file, and {format} is a folder; name the folder")
    if len(names := {reader.name for reader in readers}) > 1:
        formats = ", ".join(sorted(names))
        raise AuditError(f"{brief(str(place))} names files of several formats ({formats}); read them one by one")
    return _opened([each.absolute() for each in paths or [path]], readers)


def _opened(paths: Sequence[Path], readers: Sequence[Reader]) -> list[Source]:
    """The sources in files; those of tables whose names say several splits have a column `split`."""
    sources = []
    for path, reader in zip(paths, readers, strict=True):
        check_kind(path)
        sources.append(list(reader.opens(path)))
    begin_in_media_folders([source for opened in sources for source in opened])
    splits = splits_of_files(paths) if all(reader.name in TABLES for reader in readers) else []
    every = [source for opened in sources for source in opened]
    if len(set(splits)) < 2:
        return every
    return with_splits(every, [split for opened, split in zip(sources, splits, strict=True) for _ in opened])


def splits_of_files(paths: Sequence[Path]) -> list[str]:
    """The split that the name of each file says, or else its folder; [] where one says none."""
    splits = [split_in(path.name.split(".")[0]) for path in paths]
    if not all(splits):
        splits = [path.parent.name if is_split(path.parent.name) else "" for path in paths]
    return splits if all(splits) else []


def _reader_of_file(path: Path) -> Reader:
    """The reader of a file, by its first bytes and its ending."""
    if not os.path.lexists(path) and "\0" not in str(path):
        kind = "names no file" if re.search(r"[*?\[{]", str(path)) else "does not exist"
        raise AuditError(f"manifest {brief(str(path), 200)} {kind}; check its path")
    check_kind(path)
    if not any(plain_name(path).endswith(ending) for ending in KNOWN_ENDINGS) and not os.path.isfile(path):
        raise AuditError(_unknown(path))
    start = first_bytes(path)
    for reader in READERS.values():
        if reader.is_file and reader.is_file(path, start):
            return reader
    raise AuditError(_unknown(path))


KNOWN_ENDINGS = tuple(sorted({ending for reader in READERS.values() for ending in reader.endings}))
# Beside an export's datasheet, these tables say what left; they are none of its samples.
DATASHEET, REMOVED, RELABELED = "audit.md", "removed.parquet", "relabeled.parquet"
ABOUT = (".md", ".txt", ".html", ".gitattributes")  # endings of files that only tell about a folder
NOT_STAYING = (REMOVED, RELABELED)
# What Hugging Face writes about a dataset.
NO_SAMPLES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
TABLES = ("parquet", "arrow", "json", "csv")  # formats of tables, of which each may be one split


def _unknown(path: Path) -> str:
    ending = path.suffix.lower() or "nothing"
    return (
        f"{path.name} ends in {ending!r}; a manifest is one of {', '.join(KNOWN_ENDINGS)}, or a folder: name its "
        f"format by --format ({', '.join(READERS)})"
    )


def _of_folder(folder: Path, format: str) -> list[Source]:  # noqa: A002
    """The sources in a folder."""
    if format:
        reader = READERS[format]
        if reader.is_folder:
            return list(reader.opens(folder))
        files = _files_in(folder, reader)
        return _opened(files, [reader] * len(files))
    fitting = [reader for reader in READERS.values() if _fits(folder, reader)]
    beaten = {name for reader in fitting for name in reader.before}
    fitting = [reader for reader in fitting if reader.name not in beaten]
    if not fitting:
        folders = folders_in(folder)
        if len(folders) == 1 and not _holds_files(folder):  # as archives are unpacked
            return _of_folder(folders[0], "")
        raise AuditError(_unknown_folder(folder, folders))
    if len(fitting) > 1:
        names = [reader.name for reader in fitting]
        raise AuditError(
            f"{str(folder)!r} can be read as {' or as '.join(names)}; say which: --format {' or '.join(names)}"
        )
    return _of_folder(folder, fitting[0].name)


def _fits(folder: Path, reader: Reader) -> bool:
    return reader.is_folder(folder) if reader.is_folder else bool(_files_in(folder, reader))


def _files_in(folder: Path, reader: Reader) -> list[Path]:
    """The files of a format in a folder, in its folder `data`, or in folders of splits, in the order of names."""
    for places in ([folder], [folder / "data"], [place for place in folders_in(folder) if is_split(place.name)]):
        if files := [path for place in places for path in _files_at(place, reader)]:
            return files
    return text_table_in(folder) if ".csv" in reader.endings and folder.is_dir() else []


def _files_at(place: Path, reader: Reader) -> list[Path]:
    """The files of a format in one folder."""
    names = sorted(os.listdir(place)) if place.is_dir() else []
    names = [name for name in names if name not in NO_SAMPLES and not (DATASHEET in names and name in NOT_STAYING)]
    paths = [place / name for name in names if not name.startswith(".")]
    # a packed shard is found too, and refused with what to do
    ends = {path: path.name.lower() if path.suffix == ".tgz" else plain_name(path) for path in paths}
    endings = (*reader.endings, ".tgz") if ".tar" in reader.endings else reader.endings
    return [path for path in paths if ends[path].endswith(endings or "\0") and not path.is_dir()]


def _holds_files(folder: Path) -> bool:
    """Whether files lie in a folder, other than hidden ones and texts about it."""
    names = [name for name in os.listdir(folder) if not is_hidden(name) and not (folder / name).is_dir()]
    return any(not name.lower().endswith(ABOUT) for name in names)


def _unknown_folder(folder: Path, folders: Sequence[Path]) -> str:
    """That nothing in a folder is known, and what may be named instead."""
    inside = " or ".join(repr(place.name) for place in folders[:4])
    remedy = f"name a folder in it, such as {inside}, a file" if inside else "name a file in it"
    if any(has_files(folder, endings_of(modality)) for modality in NOUNS):
        remedy = f"put a text beside each medium (a.txt beside a.jpg), or the media into folders of classes; {remedy}"
    return (
        f"{str(folder)!r} holds nothing that is known ({_contents(folder)}); {remedy}, or its format by --format: "
        f"{', '.join(READERS)}"
    )


def _contents(folder: Path) -> str:
    """What is in a folder, counted by endings."""
    counts: dict[str, int] = {}
    for name in os.listdir(folder):
        kind = "folders" if (folder / name).is_dir() else Path(name).suffix.lower() or "other files"
        counts[kind] = counts.get(kind, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])[:5]
    return ", ".join(f"{count:,} {kind}" for kind, count in ordered) or "it is empty"
