"""The command line. Everything heavy is imported inside the commands, so that `--help` is quick.

Exit codes: 0 done, 1 nothing could be scored, 2 wrong use or bad input, 130 interrupted.
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
from . import importing as importing
from . import review as review
from . import transfer as transfer
from . import personas as personas
from . import report as report
from . import machine as machine
from .options import app
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of `audit-plugin`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # doctor installs that version on purpose; a notice before every audit would only hide others.
    database = logging.getLogger("fiftyone.core.odm.database")
    database.addFilter(lambda record: "oldest supported major version" not in str(record.msg))
    for stream in (sys.stdout, sys.stderr):
        # A caption that the terminal's character set lacks must not end an hour's work.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()
