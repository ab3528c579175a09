"""Other flags on stored results: what changes with a threshold that a person sets, from the columns alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Bools

from .cleaned_texts import outdated_cleaned, stored_cleaned
from .flags import FLAGS, PROBLEMS, movable_flags, propose_actions
from .named_modality import LOST_WITHOUT, NAMED_WHERE, named_modalities


def reflag_needs(column: str) -> bool:
    """Whether `reflag` reads a column of a result, so that it is read where results are stored."""
    read = ("action", "reason", "suggestion", "suggestion_score", "repair", "failure", *PROBLEMS, *NAMED_WHERE)
    flags = tuple(f"is_{kind}" for kind in FLAGS)
    return column in (*read, *flags, *movable_flags().values()) or column.startswith(("misalignment_", LOST_WITHOUT))


def reflag(columns: Mapping[str, NDArray[Any]], flags: Mapping[str, Bools]) -> dict[str, NDArray[Any]]:
    """The columns that change with some flags, from the `columns` of a result alone.

    They are the flag columns, `action`, and `reason`, `culprit` and `driver` if a result has them. `flags`: flag column
    (`is_outlier`, ...) -> bool `[n]`, what it becomes. A failed row without a score keeps its flags, any failed
    row its action. A proposed removal of a duplicate, placeholder or leak stays, as do repairs of the join and what is
    proposed for rows whose flags do not change.
    """
    differs = np.logical_or.reduce([values != columns[name] for name, values in flags.items()])
    has_failed = columns["failure"] != "" if "failure" in columns else np.zeros(len(differs), dtype=bool)
    by = [columns[score] for kind, score in movable_flags().items() if f"is_{kind}" in flags and score in columns]
    is_scored = np.logical_or.reduce([np.isfinite(values) for values in by]) if by else ~has_failed
    differs &= is_scored | ~has_failed
    changed: dict[str, NDArray[Any]] = {n: np.where(differs, values, columns[n]) for n, values in flags.items()}
    changes = differs & (columns["action"] != "remove") & ~has_failed
    if "repair" in columns:
        changes &= columns["repair"] == ""  # rests on many rows together, not on the flags of this one
    rows = np.flatnonzero(changes)

    def of_rows(name: str, missing: Any) -> NDArray[Any]:
        column = changed.get(name, columns.get(name))
        return np.full(len(rows), missing) if column is None else column[rows]

    row_flags = {kind: of_rows(f"is_{kind}", False) for kind in FLAGS}
    scores = {name: of_rows(name, np.nan) for name in ("misalignment", "outlier")}
    none_removed = np.full(len(rows), "", dtype=object)  # what is to be removed keeps its action
    stored = {kind: columns.get(f"is_{kind}", np.zeros(len(differs), bool))[rows] for kind in FLAGS}
    cleaned = stored_cleaned(stored, of_rows("action", ""), of_rows("suggestion_score", np.nan))
    outdated = outdated_cleaned(cleaned, row_flags, stored, of_rows("action", ""))
    suggestions = np.where(outdated, "", of_rows("suggestion", ""))
    found = {name: of_rows(name, "") for name in PROBLEMS}
    action, reason = propose_actions(row_flags, suggestions, cleaned, none_removed, scores, found)
    for name, values in (("action", action), ("reason", reason)):
        if name in columns:  # a column without any value was not written
            changed[name] = columns[name].copy()
            changed[name][rows] = values
    all_flags = {
        kind: changed.get(f"is_{kind}", columns.get(f"is_{kind}", np.zeros(len(differs), bool))) for kind in FLAGS
    }
    for name, values in named_modalities(columns, all_flags).items():
        if name in columns:
            changed[name] = np.where(differs, values, columns[name])
    return changed
