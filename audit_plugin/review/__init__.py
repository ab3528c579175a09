"""The review: decisions, what they come to together, the order of the queue, and the changes that they ask for.

Pure: no database and no FiftyOne; `fiftyone_io` stores what is decided here and carries it out.
"""

from __future__ import annotations

from .decisions import (
    KINDS,
    NO_TIME,
    UNDONE,
    Content,
    Decision,
    Key,
    Resolution,
    content_digest,
    resolve,
    stale,
    strongest,
    to_undo,
    verdict,
)
from .plan import Change, Plan, plan_changes
from .queue import Progress, progress, queue, spot_order
from .tables import decisions_from, decisions_to_csv, decisions_to_jsonl, harmless, original

__all__ = [
    "KINDS",
    "NO_TIME",
    "UNDONE",
    "Change",
    "Content",
    "Decision",
    "Key",
    "Plan",
    "Progress",
    "Resolution",
    "content_digest",
    "decisions_from",
    "decisions_to_csv",
    "decisions_to_jsonl",
    "harmless",
    "original",
    "plan_changes",
    "progress",
    "queue",
    "resolve",
    "spot_order",
    "stale",
    "strongest",
    "to_undo",
    "verdict",
]
