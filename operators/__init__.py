"""The plugin's operators and panels; `CLASSES` is what the entry file registers (fiftyone.yml must list the names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit, ScanNew
from .batches import DecideFlagged, DecideRepair, ImportDecisions, StartSpotCheck
from .changes import ApplyDecisions, DeleteRemoved, ExportReview, UndoChanges
from .panel import AuditPanel
from .panel_sample import AuditSamplePanel
from .removal import RemovalCurve
from .review import Decide, OpenNext, UndoDecision
from .similarity import IndexAudit
from .thresholds import MapEmbeddings, SetThreshold
from .transfer import MeasureTransfer

CLASSES = (
    RunAudit,
    ScanNew,
    RemovalCurve,
    MeasureTransfer,
    DeleteAudit,
    Decide,
    UndoDecision,
    OpenNext,
    DecideFlagged,
    DecideRepair,
    StartSpotCheck,
    ImportDecisions,
    ApplyDecisions,
    UndoChanges,
    DeleteRemoved,
    ExportReview,
    IndexAudit,
    SetThreshold,
    MapEmbeddings,
    AuditPanel,
    AuditSamplePanel,
)
