"""The plugin's operators; `CLASSES` is what the entry file registers (fiftyone.yml must list the same names)."""

from __future__ import annotations

from .audit import DeleteAudit, RunAudit
from .removal import RemovalCurve
from .similarity import IndexAudit

CLASSES = (RunAudit, RemovalCurve, IndexAudit, DeleteAudit)
