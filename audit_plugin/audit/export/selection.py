"""Selects the rows to train on within a budget: those that fit best, without many copies of one medium."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Ints
from audit_plugin.inputs.files import first_line
from audit_plugin.inputs.formats.datacomp import UID, uid_halves, write_uids
from audit_plugin.inputs.spreadsheet import original
from audit_plugin.inputs.tables import read_table, write_table
from audit_plugin.scoring.memorized import ADVICE, memorized_lists, rank_memorized
from audit_plugin.store import open_regular, write_atomically

from .plan import Key, Rules, ScoreTable, plan_export
from .rows import RowSource

ENDINGS = (".parquet", ".csv", ".jsonl", ".npy")
HIGHEST = "highest"  # the list of all rows with a MultiMem, flagged or not
MOST_COPIES = 8  # of one uid in DataComp's list, by which it weighs more
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Selection:
    """The selected rows.

    Attributes:
        rows: `[k]` positions in the table of scores, ascending; of memorized rows in the order of their list.
        weights: `[k]`, 1 minus the probability that the pair is wrong; 1 where that was not estimated.
        budget: rows that were asked for.
        left_out: why other rows were not candidates -> their number.
    """

    rows: Ints
    weights: NDArray[np.float64]
    budget: int
    left_out: Counter[str]


def budget_rows(budget: str, total: int) -> int:
    """`30%` of the rows, or their number.

    Raises:
        AuditError: it is neither, or out of range.
    """
    match = _BUDGET.fullmatch(budget)
    value = float(match[1]) if match else -1
    if match and match[2] and 0 < value <= 100:
        return max(1, round(total * value / 100))
    if match and not match[2] and value.is_integer() and 1 <= value <= total:
        return int(value)
    raise AuditError(f"--budget is {budget!r}; give a share such as 30%, or a number of rows from 1 to {total:,}")


def select_rows(
    table: ScoreTable, budget: str, most_copies: int = 1, similarity: Mapping[str, NDArray[np.float32]] | None = None
) -> Selection:
    """The best rows, of those that the audit does not propose to remove: with the lowest misalignment.

    With similarities, the order is that of (r(-misalignment) + mean over modalities of r(similarity)) / 2, where r is
    the rank among the candidates, from 0 for the lowest to 1 for the highest, equal values sharing their mean rank.

    Args:
        table: of scores.
        budget: share or number of rows.
        most_copies: samples of one group of near-duplicates, at most; of these the best ones.
        similarity: modality -> `[n]`, to a reference set; NaN where it is not known, and a row is no candidate.

    Raises:
        AuditError: a budget out of range.
    """
    count = budget_rows(budget, len(table))
    plan = plan_export(table, Rules(), {})
    scores, left_out = table.numbers("misalignment"), Counter[str]()
    candidates = (plan.why == "") & np.isfinite(scores)
    left_out["proposed to be removed, or not scored"] = int((~candidates).sum())
    if similarity:
        is_known = np.logical_and.reduce([np.isfinite(values) for values in similarity.values()])
        left_out["without features in the run"] = int((candidates & ~is_known).sum())
        candidates &= is_known
    groups = table.texts("duplicate_group")
    ranked = np.flatnonzero(candidates)
    worth = -scores[ranked]
    if similarity:
        near = np.mean([_ranks(values[ranked]) for values in similarity.values()], axis=0)
        worth = (_ranks(worth) + near) / 2
    ranked = ranked[np.argsort(-worth, kind="stable")]
    chosen: list[int] = []
    members: dict[str, set[str]] = {}
    for row in ranked:
        if len(chosen) == count:
            break
        if group := groups[row]:
            samples = members.setdefault(group, set())
            samples.add(table.ids[row])
            if len(samples) > most_copies:
                samples.discard(table.ids[row])
                left_out["copies beyond the cap"] += 1
                continue
        chosen.append(int(row))
    rows = np.sort(np.array(chosen, dtype=np.int64))
    return Selection(rows, _weights(table, rows), count, left_out)


def select_memorized(table: ScoreTable, name: str, budget: str = "") -> Selection:
    """The rows of one list of memorized samples, in the order in which people look at them.

    Args:
        table: of scores.
        name: of `scoring.memorized.ADVICE`, or `HIGHEST`: of all rows, flagged or not.
        budget: share of the table or number of rows, the first ones; "": the whole list, which `HIGHEST` does not have.

    Raises:
        AuditError: another name, a budget out of range or missing, or a list without rows.
    """
    if name not in (*ADVICE, HIGHEST):
        raise AuditError(f"--memorized is {name!r}; name one of the lists {', '.join((*ADVICE, HIGHEST))}")
    if name == HIGHEST and not budget:
        raise AuditError(f"--memorized {HIGHEST} ranks all rows; say with --budget how many, such as 5% or 50")
    rows = rank_memorized(table.columns) if name == HIGHEST else memorized_lists(table.columns)[name]
    if not len(rows):
        why = "no row has a MultiMem" if name == HIGHEST else f"to see the highest MultiMem: --memorized {HIGHEST}"
        raise AuditError(f"the list {name!r} of memorized rows of {table.name} is empty; {why}")
    rows = rows[: budget_rows(budget, len(table))] if budget else rows
    return Selection(rows, _weights(table, rows), len(rows), Counter())


def _weights(table: ScoreTable, rows: Ints) -> NDArray[np.float64]:
    """`[k]`: 1 minus the probability that a row is wrong; 1 where that was not estimated."""
    wrong = table.numbers("probability")[rows].astype(np.float64)
    return np.where(np.isfinite(wrong), 1 - wrong, 1.0)


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 `[c]`: ranks from 0 to 1, equal values sharing their mean rank."""
    from scipy.stats import rankdata

    return (rankdata(values) - 1) / max(len(values) - 1, 1)


def write_selection(path: Path, table: ScoreTable, selection: Selection, source: RowSource | None) -> None:
    """Writes the keep-list: `id`, `caption_index`, `weight`; or, as `.npy`, DataComp's sorted list of uids.

    In DataComp's list a uid stands as often as its weight says: up to `MOST_COPIES` times, in proportion to the
    highest weight.

    Args:
        path: of the new file, by whose ending the format is chosen.
        table: of scores.
        selection: of its rows.
        source: of the uids, for `.npy`; None: the ids are uids.

    Raises:
        AuditError: a row has no uid, or the place cannot be written.
    """
    rows, weights = selection.rows, selection.weights
    if path.suffix.lower() != ".npy":
        captions = {"caption_index": table.captions[rows]} if len(table.captions) else {}
        write_table(path, {"id": table.ids[rows].astype(object), **captions, "weight": weights})
        return
    halves = np.array(list(_halves(table, rows, source)), dtype=np.uint64).reshape(-1, 2)
    copies = np.maximum(1, np.rint(MOST_COPIES * weights / max(weights.max(initial=0), 1e-9))).astype(np.int64)
    if len(np.unique(np.round(weights, 6))) <= 1:
        copies[:] = 1
    write_atomically(path, lambda file: write_uids(file, np.repeat(halves, copies, axis=0)))


def _halves(table: ScoreTable, rows: Ints, source: RowSource | None) -> Iterator[tuple[int, int]]:
    if source is None:
        yield from (uid_halves(table.ids[row], str(table.ids[row])) for row in rows)
        return
    chosen, row = set(rows.tolist()), 0
    for audited in source.rows():
        for position in range(row, row + len(audited.texts)):
            if position in chosen:
                yield uid_halves(audited.fields.get(UID), str(table.ids[position]))
        row += len(audited.texts)


def read_selection(path: Path) -> dict[Key, float]:
    """(id, caption) -> weight, of a keep-list that `write_selection` wrote as a table.

    Raises:
        AuditError: it is another file.
    """
    try:
        columns = _columns(path)
        ids = columns.get("id", [])
        captions = columns.get("caption_index", [0] * len(ids))
        weights = columns.get("weight", [1.0] * len(ids))
        selection = {(str(i), int(c)): float(w) for i, c, w in zip(ids, captions, weights, strict=True)}
    except AuditError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise AuditError(
            f"{str(path)!r} cannot be read ({reason}); name a table written by audit-plugin select"
        ) from error
    if "id" not in columns:
        raise AuditError(f"{path.name} has no column 'id'; name a table written by audit-plugin select")
    return selection


def _columns(path: Path) -> dict[str, list[Any]]:
    if path.suffix.lower() == ".parquet":
        return {name: values.tolist() for name, values in read_table(path)[0].items()}
    with open_regular(path) as file:
        lines = io.TextIOWrapper(file, "utf-8", newline="")
        if path.suffix.lower() == ".csv":
            rows = [{name: original(cell) for name, cell in row.items()} for row in csv.DictReader(lines)]
        else:
            rows = [json.loads(line) for line in lines if line.strip()]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
