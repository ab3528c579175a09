"""The plugin's operators; `CLASSES` is what the entry file registers (fiftyone.yml must list the same names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit
from .panel import AuditPanel
from .removal import RemovalCurve
from .thresholds import MapEmbeddings, SetThreshold

CLASSES = (RunAudit, RemovalCurve, DeleteAudit, SetThreshold, MapEmbeddings, AuditPanel)
