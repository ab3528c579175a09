"""The vectors of an index: what they are, how they change, and the file that keeps them outside the database."""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.odm import get_db_conn

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.fiftyone_io.records import BRAIN_RUNS, Document, changed_text, run_document
from audit_plugin.store import cache_root, private_folder, write_atomically

FOLDER = "similarity"
UNNAMED_SECONDS = 3600.0  # for another process to record the file that it has just written


@dataclass(frozen=True)
class Vectors:
    """One row per sample, or per label of a field."""

    values: Floats  # float32 `[n, d]`, as the caller passed them
    samples: np.ndarray  # str `[n]` sample ids
    labels: np.ndarray | None = None  # str `[n]` label ids, or None where the rows are samples

    @property
    def ids(self) -> np.ndarray:
        """What names each row."""
        return self.samples if self.labels is None else self.labels

    def rows(self, keep: Any) -> Vectors:
        """The same for the rows `keep` (indices or mask)."""
        return Vectors(self.values[keep], self.samples[keep], None if self.labels is None else self.labels[keep])


def nothing(labels: bool) -> Vectors:
    """No rows yet."""
    none = np.array([], dtype="U24")
    return Vectors(np.zeros((0, 0), np.float32), none, none if labels else None)


def checked(values: Any, samples: Iterable[str], labels: Iterable[str] | None) -> Vectors:
    """The caller's rows, each id once: where one is repeated, its last row.

    Raises:
        AuditError: lengths differ, or a value is not finite.
    """
    vectors = np.asarray(values, dtype=np.float32)
    names = np.array(list(samples), dtype="U24")
    objects = None if labels is None else np.array(list(labels), dtype="U24")
    ids = names if objects is None else objects
    if vectors.ndim != 2 or not len(vectors) == len(names) == len(ids):
        raise AuditError(f"embeddings of shape {vectors.shape} for {len(ids)} ids; give one row for each id")
    if len(bad := np.flatnonzero(~np.isfinite(vectors).all(1))):
        raise AuditError(f"the embedding of {ids[bad[0]]} is not finite; leave it out or compute it again")
    last = {name: row for row, name in enumerate(ids.tolist())}
    return Vectors(vectors, names, objects).rows(np.array(list(last.values()), dtype=np.int64))


def joined(old: Vectors, new: Vectors, overwrite: bool) -> Vectors:
    """The old rows in their order, replaced where `overwrite`, then the new ones.

    Raises:
        AuditError: the dimensions differ.
    """
    if not len(old.ids):
        return new
    if old.values.shape[1] != new.values.shape[1]:
        raise AuditError(
            f"embeddings have {new.values.shape[1]} dimensions, those of the index {old.values.shape[1]}; use the same "
            "model, or make a new index"
        )
    at = {name: row for row, name in enumerate(old.ids.tolist())}
    row_of = np.array([at.get(name, -1) for name in new.ids.tolist()], dtype=np.int64)
    values = old.values.copy()
    if overwrite:
        values[row_of[row_of >= 0]] = new.values[row_of >= 0]
    fresh = new.rows(row_of < 0)
    labels = None if old.labels is None or fresh.labels is None else np.concatenate([old.labels, fresh.labels])
    return Vectors(np.concatenate([values, fresh.values]), np.concatenate([old.samples, fresh.samples]), labels)


def unit_rows(values: Floats) -> Floats:
    """Rows of length 1 (zero rows stay zero); the same array where they are that already."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if (np.abs(length - 1) < 1e-6).all():
        return np.ascontiguousarray(values)
    return (values / np.maximum(length, 1e-12)).astype(np.float32)


def save(vectors: Vectors, dataset: fo.Dataset) -> tuple[str, str]:
    """Writes a new file; the old one stays until the record names the new.

    Returns:
        (its path, sha256 of its content).
    """
    path = private_folder(cache_root() / FOLDER / str(dataset._doc.id)) / f"{uuid.uuid4().hex}.npz"
    arrays = {"values": vectors.values, "samples": vectors.samples}
    if vectors.labels is not None:
        arrays["labels"] = vectors.labels
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return str(path), _digest(vectors)


def load(path: str, digest: str, key: str | None) -> Vectors:
    """The way back.

    Raises:
        AuditError: the file is gone, damaged, or of something else.
    """
    remedy = "delete the brain run and index the dataset again"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vectors = Vectors(arrays["values"], arrays["samples"], arrays.get("labels"))
    except FileNotFoundError as error:
        raise AuditError(f"the vectors of similarity index {key!r} are gone from {path}; {remedy}") from error
    except Exception as error:  # a torn archive fails in many ways
        raise AuditError(f"the vectors of similarity index {key!r} in {path} are damaged; {remedy}") from error
    if _digest(vectors) != digest:
        raise AuditError(f"{path} does not hold the vectors of similarity index {key!r}; {remedy}")
    return vectors


def release(dataset: fo.Dataset, key: str | None, path: str, owner: str) -> None:
    """Deletes an index's file, unless it belongs to another dataset or a clone's run still reads it.

    A clone copies the record with the path in it, and the id of the dataset whose file it is. A clone that still reads
    the file becomes its owner.
    """
    file = Path(path)
    if not path or owner != str(dataset._doc.id) or file.parent.parent.name != FOLDER or file.suffix != ".npz":
        return
    runs = get_db_conn()["runs"]
    readers = {"config.vectors_path": path, "$nor": [{"_dataset_id": dataset._doc.id, "key": key}]}
    heir = runs.find_one(readers, {"_dataset_id": 1})
    if heir is None:
        file.unlink(missing_ok=True)
    else:
        runs.update_many(readers, {"$set": {"config.dataset_id": str(heir["_dataset_id"])}})


def drop_unnamed(dataset: fo.Dataset) -> None:
    """Deletes files of vectors that a kill left before any record named them."""
    named = set(get_db_conn()["runs"].distinct("config.vectors_path"))
    for file in (cache_root() / FOLDER / str(dataset._doc.id)).glob("*.npz"):
        with contextlib.suppress(OSError):
            if str(file) not in named and time.time() - file.stat().st_mtime > UNNAMED_SECONDS:
                file.unlink()


def recorded(dataset: fo.Dataset, key: str | None) -> dict[str, Any]:
    """The settings of a brain run as the database has them now, which another process may have changed; {} if none."""
    # other kinds of runs have keys too
    query = {"_dataset_id": dataset._doc.id, "key": key, "config.type": "similarity"}
    document = get_db_conn()["runs"].find_one(query, {"config": 1})
    return dict(document["config"]) if document else {}


def index_document(dataset: fo.Dataset, key: str, vectors_path: str) -> Document:
    """The document of an index whose vectors were read from a file, for `update_run`.

    Raises:
        AuditError: the index was deleted, or another process changed it: it has another file.
    """
    document = run_document(dataset, key, BRAIN_RUNS)
    if document is None:
        raise AuditError(f"similarity index {key!r} of dataset {dataset.name!r} was deleted by another process")
    if document["config"].get("vectors_path", "") != vectors_path:
        raise AuditError(changed_text(dataset, key))
    return document


def _digest(vectors: Vectors) -> str:
    sha = hashlib.sha256()
    for array in (vectors.values, vectors.samples, vectors.labels):
        sha.update(b"" if array is None else np.ascontiguousarray(array).data)
    return sha.hexdigest()
