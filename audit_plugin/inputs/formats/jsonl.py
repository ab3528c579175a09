"""JSONL: one object per sample, with paths; several captions are a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .values import ExportSample, Layout, json_line, path_from, text_cell


class JsonlWriter:
    """Writes one object per line, with the columns of the source."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        self._file = open(path, "xb")  # noqa: SIM115 (open until close)

    def add(self, sample: ExportSample) -> None:
        media = {
            column: path_from(sample.media[name], self._layout.folder) if name in sample.media else None
            for name, column in self._layout.media.items()
        }
        row: dict[str, Any] = {"id": sample.id, **media}
        if self._layout.text_column:
            row[self._layout.text_column] = text_cell(sample)
        self._file.write(json_line({**row, **sample.fields}))

    def close(self) -> None:
        self._file.close()
