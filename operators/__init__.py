"""The plugin's operators and panels; `CLASSES` is what the entry file registers (fiftyone.yml lists the same names)."""

from __future__ import annotations

from .audits import DeleteAudit, IndexAudit, MapEmbeddings, RunAudit, ScanNew, SetThreshold
from .batches import DecideFlagged, DecideRepair
from .changes import ApplyDecisions, DeleteRemoved, UndoChanges
from .exports import ExportReview
from .panel import AuditPanel
from .panel_review import AuditSamplePanel
from .panel_runs import OpenAudit, StopRun
from .review import Decide, ImportDecisions, OpenNext, RedoDecision, ReviewTokens, StartSpotCheck, UndoDecision
from .studies import MeasureCrossModal, MeasureTransfer, RemovalCurve, RemovalStudy

CLASSES = (
    RunAudit,
    OpenAudit,
    ScanNew,
    SetThreshold,
    MapEmbeddings,
    IndexAudit,
    DeleteAudit,
    RemovalStudy,
    MeasureCrossModal,
    Decide,
    UndoDecision,
    RedoDecision,
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
    StopRun,
    AuditPanel,
    AuditSamplePanel,
    RemovalCurve,
    MeasureTransfer,
)
