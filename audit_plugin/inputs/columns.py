"""Which columns of a source hold the modalities: the named ones, and else those with the usual names."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from audit_plugin.arrays import MODALITIES, AuditError

from .files import name_of_member
from .names import FILES, USUAL_NAMES, columns_called, modality_of_file
from .readers import Located, ShardSource, Source, listing
from .rows import CLASS_WORDS, ID_COLUMN, MISSING, brief, grouped

PEEKED = 100  # rows by which the columns of a format are known that does not list them
INSIDE = "inside"  # the kind of a column that holds media themselves, not their paths


@dataclass(frozen=True)
class Columns:
    """The columns that are read: of each modality, and of the keys of rows (groups, labels, roles, splits).

    `own` are modalities with embeddings, which are not read: what cannot be used of them is no problem.
    """

    media: Mapping[str, str]
    keys: Mapping[str, str]
    own: Set[str] = frozenset()
    notes: tuple[str, ...] = ()


def choose_columns(
    sources: Sequence[Source], named: Mapping[str, str], keys: Mapping[str, str], embedded: Set[str] = frozenset()
) -> Columns:
    """The named columns, and where fewer than two modalities are named, those with the usual names.

    Of a modality with embeddings the column is taken too if it is clear: reports show it, exports keep it.

    Raises:
        AuditError: two columns could be a modality, or there are not two modalities.
    """
    own = dict(sources[0].columns)
    is_enough = len({*named, *embedded}) >= 2
    if is_enough and not own and embedded <= named.keys():
        return Columns(named, keys, embedded)
    source = next((each for each in sources if len(known_header(each)) > 1), sources[0])
    header = source.header
    own |= source.columns  # known now
    media, notes = dict(named), []
    for modality in MODALITIES:
        is_wanted = modality not in media and (not is_enough or modality in embedded)
        if is_wanted and (column := _usual(modality, header, own, source, required=not is_enough)):
            media[modality] = column
    label = keys.get("labels") or _usual("label", header, own, source, required=False)
    text = next((name for name, modality in MODALITIES.items() if modality.is_text), "")
    if not is_enough and len(media) == 1 and text not in media and label and label in header:
        media[text] = label
        notes.append(f"no captions were found: the class names in {label!r} are taken as the texts")
    if len({*media, *embedded}) < 2:
        raise _too_few(source, header, len({*media, *embedded}))
    split = _usual("split", header, own, source, required=False)
    found = {"labels": own.get("label"), "splits": split, "groups": own.get("group")}
    return Columns(media, {**{key: column for key, column in found.items() if column}, **keys}, embedded, tuple(notes))


def known_header(source: Source) -> list[str]:
    """The columns of a source; of formats that do not list them, those of the first rows.

    Raises:
        AuditError: none of the first rows can be read.
    """
    if len(source.header) <= 1:
        problems = [row.problem for row in itertools.islice(source.rows(None), PEEKED)]
        if problems and all(problems) and not source.header:
            raise AuditError(
                f"{source.path.name}: none of the first {len(problems):,} rows can be read: {grouped(problems)}; "
                "correct the file, or name its format by --format"
            )
    return source.header


def missing_words(sources: Sequence[Source], column: str) -> frozenset[str]:
    """The texts in a column that stand for a missing one.

    Names of classes that folders and annotations give are all meant; in a column of a table that is called label,
    class or category, None and N/A are.
    """
    if any(source.columns.get("label") == column for source in sources):
        return frozenset()
    return MISSING - CLASS_WORDS if columns_called(USUAL_NAMES["label"], [column]) else MISSING


def listing_of(source: Source) -> str:
    """The members of a shard by suffix, for messages; "" for other sources."""
    return listing(source.suffixes) if isinstance(source, ShardSource) else ""


def _too_few(source: Source, header: Sequence[str], count: int) -> AuditError:
    """Fewer than two modalities are known."""
    name = source.path.name
    if not [column for column in header if column != ID_COLUMN]:
        return AuditError(f"{name} holds no samples with columns; give a row, or an object, per sample")
    options = ", ".join(f"--{modality} COL" for modality in MODALITIES)
    names = listing_of(source) or ", ".join(brief(column, 40) for column in header[:20])
    above = "; where its first line is a sample already, add a line with names above it, such as image,caption"
    is_headless = count == 0 and source.title.startswith("CSV")
    return AuditError(
        f"{name}: {count} modality named or known by its name, an audit needs two (its columns are {names}): name two "
        f"or more columns by {options}{above if is_headless else ''}"
    )


def _usual(name: str, header: Sequence[str], own: Mapping[str, str], source: Source, required: bool = True) -> str:
    """The column that is usually called so, "" if none is.

    Raises:
        AuditError: several are, and one is required.
    """
    if name in own:
        return own[name]
    columns = columns_called(USUAL_NAMES.get(name, name), header)
    is_medium = name in MODALITIES and not MODALITIES[name].is_text
    if is_medium and (files := columns_called(FILES, [column for column in header if column not in own.values()])):
        kinds = _kinds_of(source, [*columns, *files])
        holds_media = len(columns) == 1 and kinds.get(columns[0]) == INSIDE
        columns += [column for column in files if kinds.get(column, "image") == name and not holds_media]
    if len(columns) > 1 and isinstance(source, ShardSource) and source.has_several(name):
        columns = [column for column in columns if column != name]  # several members are meant by it
    if len(columns) > 1 and required:
        raise AuditError(
            f"{source.path.name}: {' and '.join(map(repr, columns[:5]))} could each be the {name}; name one: "
            f"--{name} {columns[0]}"
        )
    return columns[0] if len(columns) == 1 else ""


def _kinds_of(source: Source, columns: Collection[str]) -> dict[str, str]:
    """Column -> the modality that the endings in its first rows say, or `INSIDE`; without those that say nothing."""
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    for row in itertools.islice(source.rows(columns, columns), PEEKED):
        for column in columns:
            counts[column].update(_kinds_in(row.cells.get(column)))
    return {column: of.most_common(1)[0][0] for column, of in counts.items() if of}


def _kinds_in(cell: Any) -> Iterator[str]:
    """What a cell says of its column."""
    if isinstance(cell, Located):
        yield INSIDE if name_of_member(cell.value) else modality_of_file(cell.value)
    elif isinstance(cell, dict):
        yield from _kinds_in(cell.get("path"))
    elif isinstance(cell, list) and len(cell) == 1:
        yield from _kinds_in(cell[0])
    elif isinstance(cell, str) and (modality := modality_of_file(cell)):
        yield modality
