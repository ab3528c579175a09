"""The plugin's operators; `CLASSES` is what the entry file registers (fiftyone.yml must list the same names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit
from .changes import ApplyDecisions, DeleteRemoved, ExportReview, UndoChanges
from .removal import RemovalCurve
from .review import Decide, OpenNext, UndoDecision
from .similarity import IndexAudit

CLASSES = (
    RunAudit,
    RemovalCurve,
    DeleteAudit,
    Decide,
    UndoDecision,
    OpenNext,
    ApplyDecisions,
    UndoChanges,
    DeleteRemoved,
    ExportReview,
    IndexAudit,
)
