"""Hugging Face data sets, as `datasets.load_dataset(FOLDER)` reads them: files with `metadata.jsonl`, or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audit_plugin.inputs.files import MediaError

from .parquet import ParquetWriter, arrow_schema
from .values import ExportSample, Layout, MediaFolder, json_line, text_cell

SHARD_BYTES = 500_000_000  # of media in a Parquet file, as the hub has them
FEATURES = {"image": "Image", "audio": "Audio", "video": "Video"}
CARD = (
    "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {path}\n---\n\nSee audit.md.\n"
)


class FolderWriter:
    """Writes `metadata.jsonl` and the files that it names; `id` is the id of the source, whatever a file is called."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._files = {name: MediaFolder(folder, name) for name in layout.media}
        self._metadata = open(folder / "metadata.jsonl", "xb")  # noqa: SIM115 (open until close)
        (folder / "README.md").write_text(CARD.format(path=json.dumps(["metadata.jsonl", *_patterns(layout)])))

    def add(self, sample: ExportSample) -> None:
        row: dict[str, Any] = {}
        try:
            for name, medium in sample.media.items():
                path = self._files[name].copy(sample.id, medium, name)
                row[f"{name}_file_name" if row else "file_name"] = path
        except MediaError:
            for path in row.values():
                (self._folder / path).unlink()
            raise
        row["id"] = sample.id
        if self._layout.text_column:
            texts = list(sample.texts) if self._layout.listed else text_cell(sample)
            row[_free(self._layout.text_column, row)] = texts
        if sample.box:
            row["box"] = list(sample.box)
        self._metadata.write(json_line({**row, **{n: v for n, v in sample.fields.items() if n not in row}}))

    def close(self) -> None:
        self._metadata.close()


def _patterns(layout: Layout) -> list[str]:
    return [f"{name}/**" for name in layout.media]


def _free(column: str, row: dict[str, Any]) -> str:
    """The column's name, unless the row has one of it."""
    return f"{column}_" if column in row else column


class HubParquetWriter:
    """Writes `data/train-00000-of-00003.parquet`, …, with the features that tell `datasets` what the columns hold."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder / "data", layout
        self._folder.mkdir()
        (folder / "README.md").write_text(CARD.format(path='"data/*.parquet"'))
        self._files: list[Path] = []
        self._writer: ParquetWriter | None = None

    def add(self, sample: ExportSample) -> None:
        if self._writer is None or self._writer.written >= SHARD_BYTES:
            self._next()
        assert self._writer is not None
        self._writer.add(sample)

    def close(self) -> None:
        if self._writer is None:  # no sample: a file without rows says which columns there are
            self._next()
        assert self._writer is not None
        self._writer.close()
        for number, path in enumerate(self._files):
            path.rename(path.with_name(f"train-{number:05d}-of-{len(self._files):05d}.parquet"))

    def _next(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._files.append(self._folder / f"{len(self._files)}.part")
        metadata = {"huggingface": json.dumps({"info": {"features": features(self._layout)}})}
        self._writer = ParquetWriter(self._files[-1], self._layout, True, True, metadata)


def features(layout: Layout) -> dict[str, Any]:
    """Column -> its feature, as `datasets` stores them."""
    out: dict[str, Any] = {}
    modality_of = {column: name for name, column in layout.media.items()}
    for column in arrow_schema(layout, with_bytes=True, simple=True):
        if column.name in modality_of:
            out[column.name] = {"_type": FEATURES.get(modality_of[column.name], "Image")}
        elif str(column.type).startswith("list"):
            out[column.name] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}
        else:
            dtype = {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(column.type))
            out[column.name] = {"dtype": dtype or str(column.type), "_type": "Value"}
    return out
