"""Samples from what a program holds: tables, rows, pairs, datasets of torch and of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError, Samples, is_missing

from .names import FILES, USUAL_NAMES, columns_called, modality_of_file
from .pixels import is_pixels, png_of
from .rows import ID_COLUMN, MAX_CAPTIONS, brief, listed_texts, said_in
from .stored_media import InStore, StoredMedia
from .table_cells import bytes_in, is_base64

PAIR = {"image": 0, "text": 1}  # where the values of a pair are, unless others are named


def samples_from(
    data: Any,
    *,
    group: str | int | None = None,
    label: str | int | None = None,
    role: str | int | None = None,
    split: str | int | None = None,
    **columns: str | int,
) -> Samples:
    """Samples from a DataFrame, a list of dicts, pairs, or a dataset of torch or of Hugging Face, in their order.

    Media are paths, or what a program holds: PIL images, arrays, tensors or bytes, which are written into the cache
    folder once (`audit-plugin cache` lists them). NaN and None are missing. A list of texts is several captions of one
    sample. Numbers of classes become their names where the dataset knows them.

    Args:
        data: a DataFrame, a mapping of columns, an iterable of mappings or of tuples, a `torch.utils.data.Dataset`, or
            a `datasets.Dataset`. The column `id` names the samples; without one their numbers do, counted from 0.
        group: column whose equal values belong together.
        label: column with a class per row.
        role: column that says which models saw a row (`ROLES`).
        split: column that says train, test or the like.
        columns: modality -> column, two or more, of tuples the position: `image="photo", text="caption"`. Default: the
            columns with the usual names, such as `filename` and `caption`; of tuples `image=0, text=1`.

    Raises:
        AuditError: a column is missing, fewer than two modalities, or a value of a kind that cannot be used: the
            message names the row and the modality.
    """
    keys = {"group": group, "label": label, "role": role, "split": split}
    with StoredMedia() as store:
        rows = _rows_of(data)
        first = next(rows, None)
        if first is None:
            raise AuditError("there are no rows to audit; give at least one")
        columns = columns or _default_columns(first)
        table = _Table(columns, {name: c for name, c in keys.items() if c is not None}, _names_of_classes(data), store)
        for row in chain([first], rows):
            table.add(row)
        folder = store.keep()
    media = {
        name: tuple(value.path_in(folder) if isinstance(value, InStore) else value for value in values)
        for name, values in table.media.items()
    }
    return Samples(
        tuple(table.ids),
        media,
        caption=tuple(table.captions) if any(table.captions) else (),
        source=f"Python {type(data).__name__}",
        groups=table.words("group"),
        labels=table.words("label"),
        roles=table.words("role"),
        splits=table.words("split"),
    )


class _Table:
    """The rows while they are read.

    Args:
        columns: modality -> column or position.
        keys: the same for group, label, role and split.
        classes: column -> names of classes, whose numbers stand in it; under None those of any column.
        store: where media in memory go.
    """

    def __init__(
        self,
        columns: Mapping[str, str | int],
        keys: Mapping[str, str | int],
        classes: Mapping[str | int | None, Sequence[str]],
        store: StoredMedia,
    ) -> None:
        if unknown := sorted(set(columns) - set(MODALITIES)):
            raise AuditError(f"modality {unknown[0]!r} is not known; the modalities are {', '.join(MODALITIES)}")
        if len(columns) < 2:
            raise AuditError(f"{' and '.join(columns) or 'nothing'} alone cannot be compared; name two modalities")
        self._columns, self._key_columns, self._classes, self._store = columns, keys, classes, store
        self._rows = 0
        self.ids: list[str] = []
        self.captions: list[int] = []
        self.media: dict[str, list[str | InStore | None]] = {name: [] for name in columns}
        self.keys: dict[str, list[str]] = {name: [] for name in keys}

    def add(self, row: Any) -> None:
        """One more row, which becomes several where its text is a list."""
        number = self._rows
        self._rows += 1
        media = {name: self._cell(row, column, number) for name, column in self._columns.items()}
        values: dict[str, list[str | InStore | None]] = {}
        for name, value in media.items():
            try:
                if MODALITIES[name].is_text:
                    values[name] = list(self._texts(value, self._columns[name]))
                else:
                    values[name] = [self._medium(value, name)]
            except ValueError as error:
                raise AuditError(f"row {number}: {name} is {error}") from None
        count = max(map(len, values.values()))
        name = str(number)
        if isinstance(row, Mapping) and not is_missing(row.get(ID_COLUMN)):
            name = self._word(row[ID_COLUMN], ID_COLUMN, number)
        self.ids += [name] * count
        self.captions += range(count)
        for modality, of_row in values.items():
            self.media[modality] += of_row * count if len(of_row) < count else of_row
        for key, column in self._key_columns.items():
            self.keys[key] += [self._word(self._cell(row, column, number), key, number, column)] * count

    def words(self, key: str) -> tuple[str, ...]:
        """A value per row of group, label, role or split; empty where it was not named."""
        return tuple(self.keys.get(key, ()))

    def _cell(self, row: Any, column: str | int, number: int) -> Any:
        """The value of a column of a row."""
        try:
            if isinstance(row, Mapping) or (isinstance(column, int) and not isinstance(row, str | bytes)):
                return row[column]
        except (LookupError, TypeError):
            pass
        if isinstance(row, Mapping):
            have = ", ".join(brief(name, 40) for name in list(row)[:20])
            raise AuditError(f"row {number} has no column {column!r}; its columns are {have}")
        if isinstance(row, Sequence) and not isinstance(row, str):
            have = f"{len(row)} values"
            raise AuditError(f"row {number} has {have} and no {column!r}; name positions, such as image=0, text=1")
        raise AuditError(f"row {number} is {_kind_of(row)}; give mappings, or tuples such as (image, text)")

    def _texts(self, value: Any, column: str | int) -> Iterator[str | None]:
        """The captions of a row: None where there is none."""
        if hasattr(value, "tolist"):  # an array of texts, or NumPy's own numbers
            value = value.tolist()
        if isinstance(value, str) and value.startswith("[") and (texts := listed_texts(value)) is not None:
            value = texts
        if isinstance(value, list | tuple):
            if (said := said_in(value)) is not None:
                yield said or None
                return
            if len(value) > MAX_CAPTIONS:
                raise ValueError(f"{len(value):,} texts; the limit is {MAX_CAPTIONS:,}")
            if any(isinstance(text, list | tuple) for text in value):
                raise ValueError("a list of lists; give the captions as one list of texts")
            for text in value or [None]:
                yield from self._texts(text, column)
            return
        if isinstance(value, str) or is_missing(value):
            yield str(value) if isinstance(value, str) else None
            return
        if (name := self._class_name(value, column)) is None:
            raise ValueError(f"{_kind_of(value)}; give a text, or a list of texts")
        yield name

    def _medium(self, value: Any, modality: str) -> str | InStore | None:
        """A path, or what was written into the store for it."""
        if isinstance(value, Mapping) and {"bytes", "path"} & set(value):  # as Hugging Face keeps files
            value = value.get("path") if is_missing(value.get("bytes")) else value["bytes"]
        if is_missing(value):
            return None
        if isinstance(value, list | tuple) and len(value) == 1 and not isinstance(value[0], list | tuple | int | float):
            return self._medium(value[0], modality)
        if isinstance(value, str) and is_base64(value):
            value = bytes_in(value)
            if value is None:
                raise ValueError("a text in base64 that is damaged; give a path, or the bytes")
        if isinstance(value, str | os.PathLike):
            return os.fsdecode(value) or None
        if isinstance(value, bytes | bytearray | memoryview):
            return self._store.add(bytes(value), modality)
        if modality == "image" and is_pixels(value):
            return self._store.add(png_of(value), modality)
        in_memory = "a PIL image, an array or bytes" if modality == "image" else "bytes"
        raise ValueError(f"{_kind_of(value)}; give a path, {in_memory}")

    def _word(self, value: Any, what: str, number: int, column: str | int = "") -> str:
        """An id, group, label, role or split."""
        if getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
            value = value.item()
        if is_missing(value):
            return ""
        name = self._class_name(value, column)
        if name is not None or isinstance(value, str | int):
            return str(value) if name is None else name
        raise AuditError(f"row {number}: {what} is {_kind_of(value)}; give a text or a whole number")

    def _class_name(self, value: Any, column: str | int) -> str | None:
        """The name of a class of the dataset by its number; None where the value is none."""
        names = self._classes.get(column) or self._classes.get(None) or ()
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return str(names[value])
        return None


def _rows_of(data: Any) -> Iterator[Any]:
    """The rows of whatever holds them."""
    if isinstance(data, str | bytes | os.PathLike):
        raise AuditError(f"{brief(str(data), 80)} is no table of rows; read the file first, for example by pandas")
    if (rows := _rows_of_table(data)) is not None:
        return rows
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "__iter__"):  # of torch
        return (data[number] for number in range(len(data)))
    try:
        return iter(data)
    except TypeError:
        raise AuditError(f"data is {_kind_of(data)}; give a DataFrame, rows, or a dataset of torch") from None


def _rows_of_table(data: Any) -> Iterator[dict[str, Any]] | None:
    """The rows of a DataFrame of pandas or polars, a table of Arrow, or a mapping of columns; None for what is none."""
    if hasattr(data, "itertuples"):  # of pandas
        names = [str(name) for name in data.columns]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise AuditError(f"there are several columns named {name!r}; rename all but one")
        return (dict(zip(names, row, strict=True)) for row in data.itertuples(index=False, name=None))
    if hasattr(data, "to_batches"):  # of Arrow
        return (row for batch in data.to_batches() for row in batch.to_pylist())
    if hasattr(data, "iter_rows"):  # of polars
        return iter(data.iter_rows(named=True))
    if isinstance(data, Mapping):
        if parts := [name for name, part in data.items() if hasattr(part, "column_names")]:
            raise AuditError(f"these are several datasets ({', '.join(map(str, parts))}); give one: data[{parts[0]!r}]")
        lengths = {str(name): len(values) for name, values in data.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise AuditError(f"the columns have different lengths ({listed}); give one value a row in each")
        return (dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True))
    return None


def _default_columns(row: Any) -> dict[str, str | int]:
    """The columns of a row that are named as usual; of a tuple the first two values, image and text.

    Raises:
        AuditError: several could be one modality, or there are not two modalities.
    """
    if not isinstance(row, Mapping):
        return dict(PAIR)
    columns: dict[str, str | int] = {}
    for name, modality in MODALITIES.items():
        named = [name] if name in row else columns_called(USUAL_NAMES.get(name, name), list(map(str, row)))
        if not named and not modality.is_text:
            files = columns_called(FILES, list(map(str, row)))
            named = [column for column in files if modality_of_file(str(row.get(column))) == name]
        if len(named) > 1:
            listed = " and ".join(map(repr, named[:5]))
            raise AuditError(f"{listed} could each be the {name}; name one: {name}={named[0]!r}")
        columns |= dict.fromkeys([name], named[0]) if named else {}
    classes = columns_called(USUAL_NAMES["label"], list(map(str, row)))
    if len(columns) == 1 and "text" not in columns and len(classes) == 1:
        columns["text"] = classes[0]
    if len(columns) < 2:
        have = ", ".join(brief(name, 40) for name in list(row)[:20])
        raise AuditError(f'fewer than two modalities are named; name their columns, of {have}: image="...", text="..."')
    return columns


def _names_of_classes(data: Any) -> dict[str | int | None, Sequence[str]]:
    """Column -> names of its classes, of a dataset of Hugging Face; under None those of one of torchvision."""
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        return {name: feature.names for name, feature in features.items() if getattr(feature, "names", None)}
    whole = getattr(data, "dataset", data)  # of a `Subset`
    classes = getattr(data, "classes", None) or getattr(whole, "classes", None)
    return {None: classes} if isinstance(classes, Sequence) and not isinstance(classes, str) else {}


def _kind_of(value: Any) -> str:
    """The value and its type, for messages."""
    text = brief(value, 40) if isinstance(value, str | int | float) else ""
    return f"{text} ({type(value).__name__})" if text else f"of type {type(value).__name__}"
