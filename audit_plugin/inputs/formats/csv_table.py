"""CSV and TSV: one row per caption, with paths; captions stay as they are, whatever a spreadsheet makes of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import IO

from .values import ExportSample, Layout, as_json, path_from


class CsvWriter:
    """Writes a table; where samples have several captions, `caption_index` says which one a row is."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        self._file = open(path, "x", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115 (open until close)
        self._writer = csv.writer(_Lines(self._file), delimiter="\t" if path.suffix == ".tsv" else ",")
        index = ("caption_index",) if layout.listed else ()
        named = [name for name in (layout.text_column,) if name]
        self._writer.writerow(["id", *index, *layout.media.values(), *named, *layout.others])

    def add(self, sample: ExportSample) -> None:
        layout = self._layout
        media = [self._path(sample, name) for name in layout.media]
        others = [_cell(sample.fields.get(name)) for name in layout.others]
        if not layout.text_column:
            self._writer.writerow([sample.id, *media, *others])
        for caption, text in zip(sample.captions, sample.texts, strict=True):
            index = [caption] if layout.listed else []
            self._writer.writerow([sample.id, *index, *media, text or "", *others])

    def close(self) -> None:
        self._file.close()

    def _path(self, sample: ExportSample, modality: str) -> str:
        medium = sample.media.get(modality)
        return "" if medium is None else path_from(medium, self._layout.folder)


class _Lines:
    """Ends lines with a line feed alone, where the writer itself ends them so that it quotes both line ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def _cell(value: object) -> object:
    value = as_json(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value
