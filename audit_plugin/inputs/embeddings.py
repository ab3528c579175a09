"""Reads embeddings of the user's own from files, and gives each sample its row: by order, or by id.

Arrays stay on the disk (npy, safetensors) and are read where they are asked for; tables are read once into one array.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from audit_plugin.arrays import MODALITIES, AuditError, Ints, Samples, VectorRows, count_text

from .rows import brief
from .vector_files import VectorTable, read_vectors

FIELD, BRAIN = "field:", "brain:"  # sources in a FiftyOne dataset
NAMED = 3  # ids that a message names


def parse_embeddings(text: str) -> dict[str, str]:
    """`image=x.npy,text=y.parquet#vector` as modality -> source, in the table's order; "" gives none.

    Raises:
        AuditError: a modality that is not known, or named twice, or without a source.
    """
    if not text.strip():
        return {}
    sources: dict[str, str] = {}
    # a comma parts two entries only before the name of a modality: a file may hold one too
    for entry in re.split(rf",\s*(?=(?:{'|'.join(MODALITIES)})\s*=)", text):
        modality, equals, source = (part.strip() for part in entry.partition("="))
        if modality not in MODALITIES or not equals or not source:
            raise AuditError(
                f"embeddings names {brief(entry.strip())}; write MODALITY=FILE for {', '.join(MODALITIES)}, for "
                "example image=x.npy,text=y.parquet"
            )
        if modality in sources:
            raise AuditError(f"embeddings names {modality} twice; name one file for it")
        sources[modality] = source
    return {name: sources[name] for name in MODALITIES if name in sources}


def with_embeddings(samples: Samples, embeddings: str) -> Samples:
    """The samples with the vectors of the files that `AuditConfig.embeddings` names.

    Raises:
        AuditError: a file that cannot be read, other rows than the samples, ids that do not fit.
    """
    vectors = dict(samples.vectors)
    for modality, source in parse_embeddings(embeddings).items():
        if source.startswith((FIELD, BRAIN)):
            raise AuditError(
                f"embeddings names {modality}={brief(source)}, which only an audit of a FiftyOne dataset can read; "
                "name a file"
            )
        vectors[modality] = rows_of_samples(read_vectors(source), samples, modality)
    return replace(samples, vectors=vectors) if vectors else samples


def rows_of_samples(table: VectorTable, samples: Samples, modality: str) -> VectorRows:
    """The vector of each sample: by id where the table has ids, else by order.

    Raises:
        AuditError: another number of rows, an id that is missing or stands twice.
    """
    if table.ids is not None:
        rows, note = _rows_by_id(table.ids, samples, modality, table.source)
        return VectorRows(table.parts, rows, table.source, note)
    count = sum(map(len, table.parts))
    if count != len(samples) and samples.caption and not MODALITIES[modality].is_text:
        # one vector per row of the manifest, which gives a sample for each of its captions
        row_of_sample = np.cumsum(np.array(samples.caption) == 0) - 1
        if count == row_of_sample[-1] + 1:
            return VectorRows(table.parts, row_of_sample, table.source)
    if count != len(samples):
        per = "caption" if samples.caption and MODALITIES[modality].is_text else "sample"
        raise AuditError(
            f"{table.source} has {count:,} rows for {len(samples):,} {per}s; give one row per {per} in their order, "
            "zeros where there is none, or a table with a column 'id'"
        )
    return VectorRows(table.parts, None, table.source)


def _rows_by_id(ids: Sequence[str], samples: Samples, modality: str, source: str) -> tuple[Ints, str]:
    """(row of the table of each sample `[n]`, a note on what was not used)."""
    by_caption = bool(samples.caption) and MODALITIES[modality].is_text
    rows_of_id: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows_of_id.setdefault(name, []).append(row)
    wanted = set(samples.ids)
    if not by_caption:
        for name, rows in rows_of_id.items():
            if len(rows) > 1 and name in wanted:
                raise AuditError(
                    f"{source}: id {brief(name)} stands in rows {rows[0]} and {rows[1]} (counted from 0); keep one row "
                    "of each id"
                )
    numbers = samples.caption if by_caption else (0,) * len(samples)
    found = np.full(len(samples), -1, dtype=np.int64)
    missing: list[int] = []
    for row, (name, number) in enumerate(zip(samples.ids, numbers, strict=True)):
        rows = rows_of_id.get(name, [])
        if number < len(rows):
            found[row] = rows[number]
        elif row not in samples.problems:
            missing.append(row)
    if missing:
        _report_missing(missing, ids, samples, source)
    unused = sum(name not in wanted for name in rows_of_id)
    return found, f"{count_text(unused, 'id')} of {source} left out, which no sample has" if unused else ""


def _report_missing(missing: list[int], ids: Sequence[str], samples: Samples, source: str) -> None:
    names = ", ".join(brief(samples.ids[row], 40) for row in missing[:NAMED])
    more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
    if len(missing) == len(samples):
        theirs = ", ".join(brief(name, 40) for name in ids[:NAMED]) or "none"
        raise AuditError(
            f"{source}: none of its {len(ids):,} ids is the id of a sample (its ids are {theirs}; the samples' are "
            f"{names}); name the samples by the same ids, or leave the column 'id' out to match rows by their order"
        )
    raise AuditError(
        f"{source}: it has no vector for {len(missing):,} of {len(samples):,} samples ({names}{more}); add them, with "
        "a row of zeros where there is none"
    )
