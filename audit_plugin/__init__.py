"""Audits multi-modal datasets: misaligned pairs, outliers, duplicates and memorized samples.

The public names load on first use, so that importing the package stays instant and pulls in nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arrays import AuditError, Samples
    from .config import AuditConfig
    from .fiftyone_io import audit_view
    from .pipeline import run_audit

__version__ = "0.1.0"
__all__ = ["AuditConfig", "AuditError", "Samples", "audit_view", "run_audit"]

_HOMES = {
    "AuditConfig": "config",
    "AuditError": "arrays",
    "Samples": "arrays",
    "audit_view": "fiftyone_io",
    "run_audit": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
