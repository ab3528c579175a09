"""The plugin's operators; `CLASSES` is what the entry file registers (fiftyone.yml must list the same names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit
from .removal import RemovalCurve

CLASSES = (RunAudit, RemovalCurve, DeleteAudit)
