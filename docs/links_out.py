"""A hook of mkdocs for what lies beside docs/.

Figures of the measurements become part of the site. Other links lead to the repository, and are plain text without its
address.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = os.environ.get("AUDIT_PLUGIN_REPOSITORY", "")  # its address, without a slash at the end
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
FIGURE = re.compile(r"\]\(\.\./benchmarks/results/([\w.-]+\.png)\)")
LINK_OUT = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(\.\./([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """The files of the site, with the figures of the measurements."""
    for figure in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"results/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page, with its links to files outside of docs/ replaced."""
    markdown = FIGURE.sub(r"](results/\1)", markdown)
    return LINK_OUT.sub(rf"[\1]({REPOSITORY}/blob/main/\2)" if REPOSITORY else r"\1", markdown)
