"""Sources whose rows belong to one split, which becomes their column `split`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from audit_plugin.inputs.rows import ID_COLUMN

from .arrow_tables import TableSource
from .source import Row, Source

SPLIT = "split"


class SplitSource:
    """The rows of another source, which belong to one split; `prefix` goes before their ids."""

    def __init__(self, source: Source, split: str, prefix: str = "") -> None:
        self._source, self._split, self._prefix = source, split, prefix
        self.path, self.folder, self.title, self.notes = source.path, source.folder, source.title, source.notes
        self.columns: Mapping[str, str] = {**source.columns, SPLIT: SPLIT}
        self.header = [*source.header, SPLIT]

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:
        """The rows, with their split."""
        own = None if wanted is None else [name for name in wanted if name != SPLIT]
        for row in self._source.rows(own, media):
            yield _in_split(row, self._split, self._prefix)
        self.header, self.notes = [*self._source.header, SPLIT], self._source.notes


class SplitTable(TableSource):
    """The same of a Parquet or Arrow file, whose schema exports keep."""

    def __init__(self, path: Path, split: str, prefix: str = "") -> None:
        import pyarrow as pa

        super().__init__(path)
        self._split, self._prefix = split, prefix
        self.header = [*self.header, SPLIT]
        self.whole_schema = self.schema.append(pa.field(SPLIT, pa.string()))
        self.columns = {SPLIT: SPLIT}

    def rows(self, wanted: Collection[str] | None = None, media: Collection[str] = ()) -> Iterator[Row]:
        """The rows of the table, with their split."""
        own = None if wanted is None else [name for name in wanted if name != SPLIT]
        for row in super().rows(own, media):
            yield _in_split(row, self._split, self._prefix)


def _in_split(row: Row, split: str, prefix: str) -> Row:
    """The row with its split; ids have the prefix."""
    if row.problem:
        return row
    name = row.cells.get(ID_COLUMN)
    named = {ID_COLUMN: f"{prefix}{name}"} if prefix and name is not None else {}
    return Row({**row.cells, **named, SPLIT: split}, row.key, "", row.members)


def with_splits(sources: Sequence[Source], splits: Sequence[str]) -> list[Source]:
    """The sources with the split of each, unless one of them has a column `split` already.

    Where the splits count their ids from the same number, the split goes before the ids: `train/0`.
    """
    if any(SPLIT in source.header for source in sources):
        return list(sources)
    repeat = _ids_repeat(sources)
    pairs = zip(sources, splits, strict=True)
    return [_of_split(source, split, f"{split}/" if repeat else "") for source, split in pairs]


def _of_split(source: Source, split: str, prefix: str) -> Source:
    if not isinstance(source, TableSource):
        return SplitSource(source, split, prefix)
    table = SplitTable(source.path, split, prefix)
    table.folder, table.title, table.columns = source.folder, source.title, {**source.columns, SPLIT: SPLIT}
    return table


def _ids_repeat(sources: Sequence[Source]) -> bool:
    """Whether an id stands in several of the sources."""
    seen: set[str] = set()
    for source in sources:
        if source.header and ID_COLUMN not in source.header:
            continue
        names = (row.cells.get(ID_COLUMN) for row in source.rows([ID_COLUMN]))
        own = {str(name) for name in names if name is not None}
        if not seen.isdisjoint(own):
            return True
        seen |= own
    return False
