"""Rows to review as other annotation tools get them, and their files."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fiftyone.core.collections import SampleCollection
from fiftyone.core.media import get_media_type

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database, dig, documents_by_id
from audit_plugin.fiftyone_io.read.contents import items_of_rows
from audit_plugin.fiftyone_io.read.items import AuditedItems
from audit_plugin.fiftyone_io.runs import audited_items
from audit_plugin.review import (
    ReviewTask,
    check_path,
    cvat_annotations,
    cvat_labels,
    image_names,
    label_studio_config,
    label_studio_tasks,
)
from audit_plugin.store import write_bytes

from .cases import explanation_of, misaligned_words
from .queues import ListedRow, list_rows, queue_of

ENDINGS = {"label-studio": ".json", "cvat": ".xml"}  # of the file of tasks, by tool
SHOWN_SCORES = ("misalignment", "probability")


def review_tasks(
    dataset: SampleCollection, run: str, kinds: Sequence[str] = (), limit: int | None = None
) -> list[ReviewTask]:
    """The undecided rows of an audit, most suspicious first; media are read, for the digests of the contents.

    Raises:
        AuditError: no such audit or kind.
    """
    items = audited_items(dataset, run)
    rows = list_rows(dataset, run, queue_of(dataset, run, kinds).left[:limit])
    with database(f"reading audit {run!r}"):
        contents = items_of_rows(items.dataset, run, [row.name for row in rows])
        fields = dict.fromkeys(["metadata", *([items.objects] if items.label_field else [])], 1)
        samples = {content.sample for content in contents.values()}
        documents = documents_by_id(items.dataset._sample_collection, samples, fields)
    tasks = []
    for row in rows:
        content = contents.get(row.name)
        if content is not None:  # else it went meanwhile
            document = documents.get(content.sample, {})
            tasks.append(_task(items, row, content.content.digest(row.caption), document))
    return tasks


def export_tasks(
    dataset: SampleCollection,
    path: str | Path,
    tool: str,
    run: str = "audit",
    kinds: Sequence[str] = (),
    limit: int | None = None,
    media_root: str = "",
) -> tuple[int, list[Path]]:
    """Write the undecided rows of an audit as tasks of Label Studio or CVAT; (their number, the files).

    Beside the tasks are what the project of the tool needs: for Label Studio its labeling interface, for CVAT its
    labels and the names of the images in their order. `import_decisions` reads what the tools export.

    Args:
        dataset: the dataset, or a view of it.
        path: of the tasks, .json for Label Studio, .xml for CVAT.
        tool: label-studio or cvat.
        run: key of the audit.
        kinds: only rows with one of these flags.
        limit: number of rows at most.
        media_root: the folder from which the tool serves media; "": for Label Studio /, for CVAT the deepest that
            holds all images.

    Raises:
        AuditError: another tool or ending, nothing to review, a file that exists, or media that lie elsewhere.
    """
    target = check_path("path", path)
    if tool not in ENDINGS:
        raise AuditError(f"format {tool!r} is unknown; use one of {', '.join(ENDINGS)}")
    if target.suffix.lower() != ENDINGS[tool]:
        raise AuditError(f"{str(target)!r} is not the file of a {tool} export; let it end in {ENDINGS[tool]}")
    tasks = review_tasks(dataset, run, kinds, limit)
    if not tasks:
        raise AuditError(f"audit {run!r} has no undecided rows; nothing is left to review")
    if tool == "label-studio":
        contents = {
            target: label_studio_tasks(tasks, run, media_root or "/").encode(),
            target.with_name(f"{target.stem}-interface.xml"): label_studio_config(tasks).encode(),
        }
    else:
        names = image_names(tasks, media_root)
        contents = {
            target: cvat_annotations(tasks, run, media_root),
            target.with_name(f"{target.stem}-labels.json"): (json.dumps(cvat_labels(), indent=1) + "\n").encode(),
            target.with_name(f"{target.stem}-images.txt"): "".join(f"{name}\n" for name in names).encode(),
        }
    if existing := [file for file in contents if file.exists() or file.is_symlink()]:
        raise AuditError(f"{str(existing[0])!r} exists already; name another file")
    for file, content in contents.items():
        write_bytes(file, content)
    return len(tasks), list(contents)


def _task(items: AuditedItems, row: ListedRow, digest: str, document: Mapping[str, Any]) -> ReviewTask:
    metadata = document.get("metadata") or {}
    box: Sequence[float] = ()
    if items.label_field:
        objects = dig(document, items.objects) or ()
        box = next((element.get("bounding_box") or () for element in objects if str(element["_id"]) == row.name), ())
    words = misaligned_words(explanation_of(items, (row.name, row.caption)), row.caption)
    scores = ", ".join(f"{name} {row.scores[name]:.2f}" for name in SHOWN_SCORES if name in row.scores)
    why = f"{', '.join(row.flags)}{': ' if row.flags and row.reason else ''}{row.reason}"
    fit_least = f"words that fit least: {', '.join(words)}" if words else ""
    return ReviewTask(
        row.name,
        row.caption,
        row.path,
        _media_kind(row.path),
        row.text,
        row.suggestion,
        row.action,
        tuple(sentence for sentence in (why, scores, fit_least) if sentence),
        row.scores.get("probability", float("nan")),
        digest,
        tuple(map(float, box)),
        (int(metadata.get("width") or 0), int(metadata.get("height") or 0)),
    )


def _media_kind(path: str) -> str:
    """image, audio or video, by the ending of a file."""
    kind = (mimetypes.guess_type(path)[0] or "").partition("/")[0]
    return kind if kind in ("image", "audio", "video") else str(get_media_type(path))
