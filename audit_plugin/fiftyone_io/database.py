"""FiftyOne's database: its failures in plain words, queries in batches, and the plugin's own collections."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import fiftyone.core.odm as foo
import pymongo
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.errors import InvalidId
from bson.raw_bson import RawBSONDocument
from mongoengine.errors import MongoEngineException
from pymongo.errors import ConnectionFailure, PyMongoError

from audit_plugin.arrays import AuditError

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

LAST_SECONDS = 3
QUERY_IDS = 10_000  # ids in one query, which may hold 16 MB
AWARE: Any = CodecOptions(tz_aware=True, tzinfo=UTC)  # times come with their time zone
RAW: Any = CodecOptions(document_class=RawBSONDocument)  # documents keep their bytes

T = TypeVar("T")

_indexed: set[tuple[Any, ...]] = set()  # indexes that this process made: (server, collection, fields)


@contextmanager
def database(doing: str, remedy: str = "") -> Iterator[None]:
    """Raise an `AuditError` with what was being done when the database is lost or refuses."""
    try:
        yield
    except (PyMongoError, MongoEngineException) as error:
        if isinstance(error, ConnectionFailure):  # FiftyOne's tidying at the end shall not wait long for a lost server
            atexit.register(pymongo.timeout(LAST_SECONDS).__enter__)
        advice = remedy or "start the database again and repeat the command"
        raise AuditError(f"FiftyOne's database failed while {doing} ({type(error).__name__}); {advice}") from error


def batches(values: Iterable[T], size: int = QUERY_IDS) -> Iterator[list[T]]:
    """The values in lists of at most `size`."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def collection(name: str, index: str, options: Any = AWARE) -> Any:
    """A collection of FiftyOne's database, with an index on the fields named."""
    documents = foo.get_db_conn().get_collection(name, codec_options=options)
    ensure_index(documents, index)
    return documents


def count_samples(view: SampleCollection) -> int:
    """The number of samples; of a whole dataset FiftyOne asks for an estimate, wrong once the server was killed."""
    if view._is_full_collection():
        return int(view._dataset._sample_collection.count_documents({}))
    return int(view.count())


def ensure_index(documents: Any, index: str, unique: bool = False) -> None:
    """Make an index on the fields named, the first time that this process asks for it."""
    key = (documents.database.client, documents.full_name, index)
    if key not in _indexed:
        documents.create_index([(field, 1) for field in index.split()], unique=unique)
        _indexed.add(key)


def object_ids(names: Iterable[str]) -> list[ObjectId]:
    """Ids as the database has them; what is not an id is left out."""
    ids = []
    for name in names:
        try:
            ids.append(ObjectId(name))
        except (InvalidId, TypeError):
            continue
    return ids


def documents_by_id(
    documents: Any, ids: Iterable[str], projection: Mapping[str, int] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Id -> document, of those that exist."""
    by_id: dict[str, Mapping[str, Any]] = {}
    for batch in batches(ids):
        query = {"_id": {"$in": object_ids(batch)}}
        by_id |= {str(document["_id"]): document for document in documents.find(query, projection)}
    return by_id


def value_at(document: Any, path: str) -> list[Any]:
    """The value at a path of names and positions, in a list; [] if it does not exist."""
    for part in path.split("."):
        if isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, Mapping) and part in document:
            document = document[part]
        else:
            return []
    return [document]


def dig(document: Any, path: str) -> Any:
    """The value at a path, None if it does not exist; the document itself at the path ""."""
    return next(iter(value_at(document, path)), None) if path else document


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths without those below another of them, which MongoDB refuses in one projection."""
    unique = set(paths)
    return [path for path in unique if not any(path.startswith(f"{other}.") for other in unique)]


def update_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The update that sets the values at these paths, and removes those that are None."""
    update: dict[str, dict[str, Any]] = {"$set": {"last_modified_at": datetime.now(UTC)}}
    for path, value in values.items():
        if value is None:
            update.setdefault("$unset", {})[path] = ""
        else:
            update["$set"][path] = value
    return update
