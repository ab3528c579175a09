"""The plugin's operators and panels; `CLASSES` is what the entry file registers (fiftyone.yml must list the names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit
from .changes import ApplyDecisions, DeleteRemoved, ExportReview, UndoChanges
from .panel import AuditPanel
from .removal import RemovalCurve
from .review import Decide, OpenNext, UndoDecision
from .similarity import IndexAudit
from .thresholds import MapEmbeddings, SetThreshold

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
    SetThreshold,
    MapEmbeddings,
    AuditPanel,
)
