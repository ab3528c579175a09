"""The only room that knows FiftyOne: it reads datasets, writes audits into them, and keeps decisions and changes."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("fiftyone") is None:  # before an import below names one of the packages that come with it
    raise ModuleNotFoundError("FiftyOne is not installed: pip install 'audit-plugin[app]'", name="fiftyone")

from .audits import (
    audit_view,
    caption_numbers,
    estimate_cost,
    map_embeddings,
    removal_report,
    run_removal_study,
    scan_new,
)
from .cross_modal import (
    cross_modal_results,
    delete_cross_modal_run,
    identities_view,
    list_cross_modal_runs,
    measure_cross_modal,
)
from .database import count_samples
from .ledger.changes import apply, count_removed, delete_removed, list_changes, plan_of, recover, removed_ids, undo
from .ledger.clean_view import CLEAN, clean_view
from .ledger.decisions import (
    current_decisions,
    decide,
    decide_batch,
    decide_many,
    decisions,
    disagreements,
    last_decisions,
    redo_last,
    refresh,
    undo_last,
)
from .ledger.exports import export_clean, export_decisions, export_removed, import_decisions
from .ledger.spot_checks import record_spot_check, spot_check, start_spot_check, threshold_check
from .leftovers import existing_datasets, leftovers, sweep, sweep_deleted
from .read.contents import REMOVED
from .read.samples import load_view, read_samples
from .read.sources import (
    caption_field,
    default_media,
    media_choices,
    modality_sources,
    resolve_settings,
    string_fields,
    text_fields,
)
from .records import read_once
from .results.audited_rows import count_exported, export_audited
from .results.findings import flagged_view
from .results.queues import (
    batch_rows,
    decision_of,
    disagreements_of,
    list_rows,
    memorized_rows,
    queue_of,
    repair_decisions,
    similar_rows,
    uncertain_rows,
    undecided,
    with_suggestion,
)
from .results.review_tasks import export_tasks
from .results.tables import audit_summary, explained
from .runs import audit_info, audits_newest_first, delete_audit, finish_deletions, indexes_of, list_audits, settings_of
from .write.datasets import import_scores, load_manifest_dataset, load_personas
from .write.results import check_writable, write_result

__all__ = [
    "CLEAN",
    "REMOVED",
    "apply",
    "audit_info",
    "audit_summary",
    "audit_view",
    "audits_newest_first",
    "batch_rows",
    "caption_field",
    "caption_numbers",
    "check_writable",
    "clean_view",
    "count_exported",
    "count_removed",
    "count_samples",
    "cross_modal_results",
    "current_decisions",
    "decide",
    "decide_batch",
    "decide_many",
    "decision_of",
    "decisions",
    "default_media",
    "delete_audit",
    "delete_cross_modal_run",
    "delete_removed",
    "disagreements",
    "disagreements_of",
    "estimate_cost",
    "existing_datasets",
    "explained",
    "export_audited",
    "export_clean",
    "export_decisions",
    "export_removed",
    "export_tasks",
    "finish_deletions",
    "flagged_view",
    "identities_view",
    "import_decisions",
    "import_scores",
    "indexes_of",
    "last_decisions",
    "leftovers",
    "list_audits",
    "list_changes",
    "list_cross_modal_runs",
    "list_rows",
    "load_manifest_dataset",
    "load_personas",
    "load_view",
    "map_embeddings",
    "measure_cross_modal",
    "media_choices",
    "memorized_rows",
    "modality_sources",
    "plan_of",
    "queue_of",
    "read_once",
    "read_samples",
    "record_spot_check",
    "recover",
    "redo_last",
    "refresh",
    "removal_report",
    "removed_ids",
    "repair_decisions",
    "resolve_settings",
    "run_removal_study",
    "scan_new",
    "settings_of",
    "similar_rows",
    "spot_check",
    "start_spot_check",
    "string_fields",
    "sweep",
    "sweep_deleted",
    "text_fields",
    "threshold_check",
    "uncertain_rows",
    "undecided",
    "undo",
    "undo_last",
    "with_suggestion",
    "write_result",
]
