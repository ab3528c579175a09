"""The table that `audit-plugin score` wrote, as an export takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audit_plugin.audit.export.plan import NEEDED, ScoreTable

from .content import read_scores, read_summary


def read_score_table(path: Path) -> ScoreTable:
    """The columns of a table of scores that an export takes, with the summary beside it.

    Raises:
        AuditError: there is no such table, it is another one, or the summary is not its own.
    """
    columns = read_scores(path, lambda name: name in NEEDED or name.startswith("is_"))
    ids, captions = columns.pop("id"), columns.pop("caption_index", np.zeros(0, dtype=np.int64))
    return ScoreTable(ids, captions.astype(np.int64), columns, read_summary(path), path.name)
