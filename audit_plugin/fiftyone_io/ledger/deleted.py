"""Copies of what is deleted, byte for byte, and putting them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.tags as fot
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne

from .journal import chunks, entries_of


def copies(dataset: fo.Dataset, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All documents that go away with samples: their own, their frames, their tags in time."""
    raw = CodecOptions(document_class=RawBSONDocument)
    names = {dataset._sample_collection_name: "_id"}
    if dataset._contains_videos(any_slice=True):
        names[dataset._frame_collection_name] = "_sample_id"
    timed = fot._get_existing_collection()
    if timed is not None:
        names[timed.name] = "_sample_id"
    for name, key in names.items():
        collection = foo.get_db_conn().get_collection(name, codec_options=raw)
        for batch in chunks(ids):
            for document in collection.find({key: {"$in": [ObjectId(one) for one in batch]}}):
                yield {"op": "copy", "collection": name, "id": document["_id"], "document": document, "decisions": []}


def put_back(dataset: fo.Dataset, number: ObjectId, force: bool) -> None:
    """Write the copies of a deletion where they were; what is there stays, unless forced."""
    for entries in entries_of(number, raw=True):
        by_name: dict[str, list[Any]] = {}
        for entry in entries:
            by_name.setdefault(entry["collection"], []).append(entry)
        for name, found in by_name.items():
            collection = foo.get_db_conn()[name]
            there = existing(name, found) if not force else set()
            new = [ReplaceOne({"_id": e["id"]}, e["document"], upsert=True) for e in found if e["id"] not in there]
            if new:
                collection.bulk_write(new, ordered=False)
    dataset.reload()


def existing(collection: str, entries: Iterable[Any]) -> set[Any]:
    """Ids of the copied documents that are in their collection."""
    query = {"_id": {"$in": [entry["id"] for entry in entries]}}
    return {d["_id"] for d in foo.get_db_conn()[collection].find(query, {"_id": 1})}
