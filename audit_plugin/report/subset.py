"""The rows of a large audit to review: flagged rows, those that their evidence names, and random others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from audit_plugin.arrays import Ints
from audit_plugin.review import queue
from audit_plugin.scoring.flags import FLAGS

from .content import Columns, ReportContent


def choose_rows(content: ReportContent, medium: str, kinds: Sequence[str], rows: int | None, others: int) -> Ints:
    """Positions of the rows that a reviewer needs, ascending; a sample with a list of texts comes with all of them.

    The random rows without flags are for spot checks, which estimate from them what was missed.

    Args:
        content: of the audit.
        medium: modality that a row must have.
        kinds: flags of which a row must have one; none: all that a review would show.
        rows: flagged rows at most, the most suspicious first; None for all.
        others: random rows that are not flagged.
    """
    samples, suspicious = content.samples, queue(content.columns)
    flagged = (queue(content.columns, kinds) if kinds else suspicious)[:rows]
    names = {samples.ids[row] for row in flagged}
    for sample in list(names):
        names.update(named_ids(content.explanations.get(sample, ())))
    group = content.texts("duplicate_group")
    names.update(str(group[row]) for row in flagged if group[row])
    unflagged = content.texts("failure") == ""
    unflagged[suspicious] = False
    rest = np.flatnonzero(unflagged)
    drawn = np.random.default_rng(0).choice(rest, min(others, len(rest)), replace=False)
    names.update(samples.ids[row] for row in drawn)
    files = samples.media[medium]
    return np.array([row for row, sample in enumerate(samples.ids) if sample in names and files[row]], dtype=np.int64)


def named_ids(explanation: Any, key: str = "") -> Iterator[str]:
    """The ids of samples that explanations name."""
    if isinstance(explanation, Mapping):
        for name, inner in explanation.items():
            yield from named_ids(inner, name)
    elif isinstance(explanation, list | tuple):
        for inner in explanation:
            yield from named_ids(inner, key)
    elif key in ("id", "duplicates", "conflicts"):
        yield str(explanation)


def subset_summary(content: ReportContent, columns: Columns) -> dict[str, Any]:
    """The audit's summary with the counts of some of its rows; estimates stay those of the whole."""
    rows, total = len(columns["action"]), len(content.samples)
    note = f"{rows:,} of the {total:,} rows of {content.title} were imported; estimates are of all of them"
    return {
        **content.summary,
        "samples": rows,
        "failures": int((np.asarray(columns["failure"]) != "").sum()),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in FLAGS if f"is_{kind}" in columns},
        "actions": {a: int((columns["action"] == a).sum()) for a in ("keep", "relabel", "remove", "review")},
        "notes": [note, *content.summary.get("notes", ())],
    }
