"""The plugin's operators and panels; `CLASSES` is what the entry file registers (fiftyone.yml lists the same names)."""

from __future__ import annotations

from .audits import DeleteAudit, IndexAudit, MapEmbeddings, RunAudit, ScanNew, SetThreshold
from .changes import ApplyDecisions, DeleteRemoved, UndoChanges
from .exports import ExportReview
from .panel import AuditPanel
from .panel_review import AuditSamplePanel
from .review import (
    Decide,
    DecideFlagged,
    DecideRepair,
    ImportDecisions,
    OpenNext,
    ReviewTokens,
    StartSpotCheck,
    UndoDecision,
)
from .studies import MeasureCrossModal, MeasureTransfer, RemovalCurve, RemovalStudy

CLASSES = (
    RunAudit,
    ScanNew,
    SetThreshold,
    MapEmbeddings,
    IndexAudit,
    DeleteAudit,
    RemovalStudy,
    MeasureCrossModal,
    Decide,
    UndoDecision,
    OpenNext,
    ReviewTokens,
    DecideFlagged,
    DecideRepair,
    StartSpotCheck,
    ImportDecisions,
    ApplyDecisions,
    UndoChanges,
    DeleteRemoved,
    ExportReview,
    AuditPanel,
    AuditSamplePanel,
    RemovalCurve,
    MeasureTransfer,
)
