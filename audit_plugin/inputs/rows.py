"""The rows of a table that was read: cells by column, or what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Torn:
    """A row that cannot be read: why, and the id it seems to have ("" if none)."""

    why: str
    id: str = ""


Row = Mapping[str, Any] | Torn
