"""A hook of mkdocs: links to files beside docs/ lead to the repository, and without its address they are plain text."""

from __future__ import annotations

import os
import re
from typing import Any

REPOSITORY = os.environ.get("AUDIT_PLUGIN_REPOSITORY", "")  # its address, without a slash at the end
LINK_OUT = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page, with its links to files outside of docs/ replaced."""
    return LINK_OUT.sub(rf"[\1]({REPOSITORY}/blob/main/\2)" if REPOSITORY else r"\1", markdown)
