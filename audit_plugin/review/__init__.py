"""The review: decisions of people, the order of the queue, spot checks, and the changes that decisions ask for.

Pure functions, without a database; `fiftyone_io` stores decisions and applies the changes.
"""

from __future__ import annotations

from .checks import check_name, check_path, check_seconds, check_text, check_whole, shortened
from .cvat import cvat_annotations, cvat_labels, image_names
from .decisions import (
    KINDS,
    NO_TIME,
    UNDONE,
    Content,
    Decision,
    Resolution,
    check_decision,
    content_digest,
    resolve,
    stale,
    standing,
    strongest,
    to_redo,
    to_undo,
    unsettled,
    verdict,
)
from .label_studio import label_studio_config, label_studio_tasks
from .plan import ChangePlan, PlannedChange, join_plans, plan_changes
from .queue import MOST_UNCERTAIN, ReviewQueue, Row, most_uncertain, queue, rows_per_text, spot_order
from .tables import decisions_from, decisions_to_csv, decisions_to_jsonl, read_decisions, table_kind
from .tasks import ReviewTask
from .verdicts import verdicts

__all__ = [
    "KINDS",
    "MOST_UNCERTAIN",
    "NO_TIME",
    "UNDONE",
    "ChangePlan",
    "Content",
    "Decision",
    "PlannedChange",
    "Resolution",
    "ReviewQueue",
    "ReviewTask",
    "Row",
    "check_decision",
    "check_name",
    "check_path",
    "check_seconds",
    "check_text",
    "check_whole",
    "content_digest",
    "cvat_annotations",
    "cvat_labels",
    "decisions_from",
    "decisions_to_csv",
    "decisions_to_jsonl",
    "image_names",
    "join_plans",
    "label_studio_config",
    "label_studio_tasks",
    "most_uncertain",
    "plan_changes",
    "queue",
    "read_decisions",
    "resolve",
    "rows_per_text",
    "shortened",
    "spot_order",
    "stale",
    "standing",
    "strongest",
    "table_kind",
    "to_redo",
    "to_undo",
    "unsettled",
    "verdict",
    "verdicts",
]
