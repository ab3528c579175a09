"""What leaves a review: a dataset or view without the removed, decisions as a table, a list of removed ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
from bson import ObjectId
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.read.contents import REMOVED
from audit_plugin.fiftyone_io.read.items import all_samples, detection_fields, tagged_objects
from audit_plugin.review import UNDONE, Decision, decisions_from, decisions_to_csv, decisions_to_jsonl
from audit_plugin.store import write_atomically

from .decisions import append, decide_many, decisions, read_ledger, refresh

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
    if dataset.has_saved_view(CLEAN) and not _is_of_review(dataset):
        raise AuditError(
            f"saved view {CLEAN!r} of dataset {dataset.name!r} was not made by a review; rename it, the review saves "
            "the view without the removed samples there"
        )


def save_clean_view(dataset: fo.Dataset, objects: Sequence[str] = ()) -> None:
    """Save `clean_view` as `audit_clean`."""
    dataset.save_view(CLEAN, clean_view(dataset, objects), description=CLEAN_NOTE, overwrite=True)


def drop_clean_view(dataset: fo.Dataset) -> None:
    """Delete the saved view, if it is a review's."""
    if dataset.has_saved_view(CLEAN) and _is_of_review(dataset):
        dataset.delete_saved_view(CLEAN)


def export_clean(dataset: SampleCollection, name: str) -> fo.Dataset:
    """A persistent copy of the dataset without what is marked as removed; media files are shared, not copied.

    Raises:
        AuditError: there is a dataset of that name.
    """
    with database(f"cloning dataset {dataset._root_dataset.name!r}"):
        if fo.dataset_exists(name):
            raise AuditError(f"dataset {name!r} exists already; choose another name")
        root = dataset._root_dataset
        marked = [path for path in detection_fields(root) if tagged_objects(root, path, REMOVED)]
        return clean_view(dataset, marked).clone(name, persistent=True)


def export_decisions(dataset: SampleCollection, path: str | Path, run: str | None = None) -> int:
    """Write the whole ledger, or that of one audit, as .csv or .jsonl; the number of entries.

    Raises:
        AuditError: another ending, or the file cannot be written.
    """
    entries, kind = decisions(dataset, run), _kind_of(Path(path))
    text = decisions_to_csv(entries) if kind == "csv" else decisions_to_jsonl(entries)
    write_atomically(Path(path), lambda file: file.write(text.encode()))
    return len(entries)


def import_decisions(
    dataset: SampleCollection, path: str | Path, run: str = "", key: str = "id", reviewer: str = ""
) -> int:
    """Read decisions made elsewhere into the ledger; the number of new ones.

    Entries that the ledger has already (by `id`) are left out, so that a table may be read twice.

    Args:
        dataset: the dataset, or a view of it.
        path: .csv or .jsonl with the columns `sample` and `kind` at least.
        run: audit whose texts are meant, where the table names none.
        key: field by whose values `sample` names samples (id, filepath, manifest_id, ...).
        reviewer: where the table names none.

    Raises:
        AuditError: the table cannot be read, or a row cannot be used; nothing is imported then.
    """
    root = dataset._root_dataset
    rows = decisions_from(_read(Path(path)), _kind_of(Path(path)))
    with database(f"importing decisions into {root.name!r}"):
        existing = {d.id for d in read_ledger(root, {"id": {"$in": [d.id for d in rows if d.id]}})}
        new = [replace(d, source="import", reviewer=d.reviewer or reviewer) for d in rows if d.id not in existing]
        new = [replace(d, sample=sample) for d, sample in zip(new, _samples(root, new, key), strict=True)]
        undone = [d for d in new if d.kind == UNDONE]
        made = [d for d in new if d.kind != UNDONE]
        for name in dict.fromkeys(d.run or run for d in made):
            # through the ledger's own checks, with objects named by their own ids
            named = [replace(d, sample=d.label or d.sample) for d in made if (d.run or run) == name]
            decide_many(root, named, name if name in root.list_runs() else "")
        append(root, [replace(d, id=d.id or str(ObjectId())) for d in undone])
        refresh(root, [d.sample for d in undone])
    return len(new)


def export_removed(dataset: SampleCollection, path: str | Path, field: str = "id") -> int:
    """Write each removed sample's id, filepath, or whatever names it for training scripts, one per line; their number.

    Raises:
        AuditError: no such field, or a value that does not fit into one line.
    """
    root = dataset._root_dataset
    if not root.has_sample_field(field):
        raise AuditError(f"field {field!r} does not exist in dataset {root.name!r}; name one such as id or filepath")
    values = [str(value) for value in all_samples(root).match_tags(REMOVED).values(field)]
    if broken := [value for value in values if value.splitlines() != [value]]:
        raise AuditError(f"value {broken[0]!r} of field {field!r} does not fit into one line; name another field")
    write_atomically(Path(path), lambda file: file.write("".join(f"{value}\n" for value in values).encode()))
    return len(values)


def _samples(dataset: fo.Dataset, rows: Sequence[Decision], key: str) -> list[str]:
    """The id of each row's sample."""
    if key == "id":
        return [d.sample for d in rows]
    if not dataset.has_sample_field(key):
        raise AuditError(f"key field {key!r} does not exist in dataset {dataset.name!r}; name one, such as filepath")
    values, ids = all_samples(dataset).values([key, "id"])
    ids_of: dict[str, list[str]] = {}
    for value, name in zip(values, ids, strict=True):
        ids_of.setdefault(str(value), []).append(name)
    for decision in rows:
        count = len(ids_of.get(decision.sample, ()))
        if count != 1:
            raise AuditError(f"{count} samples have the {key} {decision.sample!r} of a decision; each must name one")
    return [ids_of[d.sample][0] for d in rows]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror or error}); name a table of decisions") from error
    except UnicodeDecodeError as error:
        raise AuditError(f"{path} is not in UTF-8; save it in that encoding") from error


def _kind_of(path: Path) -> str:
    kind = path.suffix.removeprefix(".")
    if kind not in ("csv", "jsonl"):
        raise AuditError(
            f"decisions are stored as .csv or .jsonl, not as {path.name!r}; give the file one of these endings"
        )
    return kind


def _is_of_review(dataset: fo.Dataset) -> bool:
    return bool(dataset.get_saved_view_info(CLEAN)["description"] == CLEAN_NOTE)
