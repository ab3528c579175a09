"""Audits multi-modal datasets: misaligned pairs, outliers, duplicates and memorized samples.

The public names load on first use, so that importing the package stays fast and pulls in nothing heavy.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if sys.orig_argv[1:3] == ["-m", "audit_plugin"] or (sys.argv[:1] and sys.argv[0].endswith("/audit-plugin")):
    # Threads of one operation that wait for each other sleep: else they spin, and beside other programs keep the one
    # they wait for from the processor. Changes no result; has to be known before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # the command line is starting: until it handles interrupts itself, one ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(ImportError):  # elsewhere there are no such limits
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        # With less, imports fail, and not in one sentence, or OpenBLAS asks for memory for ever: 32 MB for each thread,
        # that of NumPy and that of SciPy. pyarrow reserves 1 GB of addresses where it can.
        least = 3_000_000_000 + 64_000_000 * (os.cpu_count() or 1)
        if 0 <= limit < least:
            sys.stderr.write(
                f"error: this shell limits memory to {limit / 1e6:.0f} MB (ulimit -v), but {least / 1e6:.0f} MB are "
                "needed; raise the limit, and run the same command again\n"
            )
            sys.exit(2)

from .inputs import modalities as _modalities  # noqa: F401 (fills the table from which `AuditConfig` is made)

if TYPE_CHECKING:
    from .arrays import AuditError, Samples
    from .audit.result import AuditResult
    from .audit.run import run_audit
    from .config import AuditConfig
    from .fiftyone_io import audit_view
    from .inputs.from_python import samples_from

__version__ = "0.2.0"
__all__ = ["AuditConfig", "AuditError", "AuditResult", "Samples", "audit_view", "run_audit", "samples_from"]

_HOMES = {
    "AuditConfig": "config",
    "AuditError": "arrays",
    "AuditResult": "audit.result",
    "Samples": "arrays",
    "audit_view": "fiftyone_io",
    "run_audit": "audit.run",
    "samples_from": "inputs.from_python",
}

# FiftyOne stores the dotted path of the class of every run in the user's database: paths of former versions keep
# loading. Former module -> where it is now, and former class -> its name of today.
_STORED_PATHS = {
    "audit_plugin.similarity": "audit_plugin.fiftyone_io.similarity",
    "audit_plugin.similarity.index": "audit_plugin.fiftyone_io.similarity.index",
    "audit_plugin.fiftyone_io.transfers": "audit_plugin.fiftyone_io.cross_modal",
}
_STORED_NAMES = {
    "TransferRun": "CrossModalRun",
    "TransferRunConfig": "CrossModalRunConfig",
    "TransferRunResults": "CrossModalRunResults",
}


class _StoredPaths:
    """Finds and loads the former modules of `_STORED_PATHS`: their attributes are those of the module of today."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG004
        if name not in _STORED_PATHS:
            return None
        return ModuleSpec(name, _StoredPaths, is_package=True)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:  # noqa: ARG004
        return None  # an empty module, by default

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        today = importlib.import_module(_STORED_PATHS[module.__name__])
        module.__getattr__ = lambda name: getattr(today, _STORED_NAMES.get(name, name))  # type: ignore[method-assign]


sys.meta_path.append(_StoredPaths)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
