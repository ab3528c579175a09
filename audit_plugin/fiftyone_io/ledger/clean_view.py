"""The view without what is marked as removed, and its saved form `audit_clean`, which exists once or not at all.

FiftyOne stores a saved view as a document and names it in a list of the dataset; a process may die between the two.
Here a document is listed last and taken off the list first: only documents that are on no list may be left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.read.contents import REMOVED
from audit_plugin.fiftyone_io.records import save_view

CLEAN = "audit_clean"
CLEAN_NOTE = "Without what the review removed"


def clean_view(dataset: SampleCollection, objects: Sequence[str] = ()) -> fo.DatasetView:
    """The samples, or groups, that are not marked as removed; in these fields of detections objects neither."""
    view = dataset.match(~F("tags").contains(REMOVED))
    for field in objects:
        view = view.filter_labels(field, ~F("tags").contains(REMOVED), only_matches=False)
    return view


def check_clean_view(dataset: fo.Dataset) -> None:
    """Raise an `AuditError` if a saved view `audit_clean` is the user's own."""
    dataset._doc.reload("saved_views")
    if dataset.has_saved_view(CLEAN) and dataset.get_saved_view_info(CLEAN)["description"] != CLEAN_NOTE:
        raise AuditError(
            f"saved view {CLEAN!r} of dataset {dataset.name!r} was not made by a review; rename it, the review saves "
            "the view without the removed samples there"
        )


def save_clean_view(dataset: fo.Dataset, objects: Sequence[str] = ()) -> None:
    """Save `clean_view` as `audit_clean`."""
    check_clean_view(dataset)
    save_view(dataset, CLEAN, clean_view(dataset, objects), CLEAN_NOTE)


def drop_clean_view(dataset: fo.Dataset) -> None:
    """Delete the saved view, if it is a review's."""
    _drop(dataset, [view["_id"] for view in _of_review(dataset)])


def mend_clean_view(dataset: fo.Dataset) -> None:
    """Delete what a process that died left of the saved view: documents on no list, and second ones."""
    saved = _of_review(dataset)
    listed = _listed(dataset)
    unlisted = [view["_id"] for view in saved if view["_id"] not in listed]
    second = [view["_id"] for view in saved if view["_id"] in listed][1:]
    _drop(dataset, unlisted + second)


def _of_review(dataset: fo.Dataset) -> list[dict[str, Any]]:
    """The documents of the view that a review saved: one at most, but for what is to be mended."""
    query = {"_dataset_id": dataset._doc.id, "name": CLEAN, "description": CLEAN_NOTE}
    return list(foo.get_db_conn().views.find(query).sort("_id", 1))


def _listed(dataset: fo.Dataset) -> list[Any]:
    document = foo.get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {"saved_views": 1}) or {}
    return document.get("saved_views") or []


def _drop(dataset: fo.Dataset, views: Sequence[Any]) -> None:
    if not views:
        return
    these = {"$in": list(views)}
    if any(view in views for view in _listed(dataset)):
        change = {"$pull": {"saved_views": these}, "$set": {"last_modified_at": datetime.now(UTC)}}
        foo.get_db_conn().datasets.update_one({"_id": dataset._doc.id}, change)
    foo.get_db_conn().views.delete_many({"_id": these})
    dataset._doc.reload("saved_views")
