"""The command line. Heavy packages are imported inside the commands, so that `--help` is fast.

Exit codes: 0 success, 1 nothing could be scored, 2 wrong usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Each module registers its commands, and the help lists them in this order.
# isort: off
from . import manifests as manifests
from . import datasets as datasets
from . import review as review
from . import cross_modal as cross_modal
from . import report as report
from . import cache as cache
from . import exports as exports
from . import install as install
from .options import app
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of `audit-plugin`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # doctor installs that version on purpose; a notice before every audit would hide other messages.
    database = logging.getLogger("fiftyone.core.odm.database")
    database.addFilter(lambda record: "oldest supported major version" not in str(record.msg))
    for stream in (sys.stdout, sys.stderr):
        # Captions may hold characters that the terminal cannot encode; these must not end a long run.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()
