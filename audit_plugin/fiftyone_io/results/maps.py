"""A map of the embeddings: their two main directions, kept as two fields of the audit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import fiftyone as fo
import fiftyone.core.runs as fors
import numpy as np
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateOne

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.fiftyone_io.read.items import patches_of, samples_of, update_of
from audit_plugin.fiftyone_io.runs import audit_info, database
from audit_plugin.neighbors.projection import two_directions

from .findings import MAP
from .tables import path_of

HELP = "Position of the sample's embeddings along direction {} of the two that tell the samples apart most"


def map_embeddings(dataset: SampleCollection, run: str) -> int:
    """Write `{run}_map_x` and `{run}_map_y`: where each sample's embeddings, of all modalities together, lie.

    The embeddings come from the feature cache, so nothing is encoded; deleting the audit deletes the fields.

    Returns:
        How many rows got a place.

    Raises:
        AuditError: no such audit, or its run folder or features are gone, or it cannot tell what was encoded.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    ids, vectors = _vectors(record.run_dir)
    places = two_directions(vectors)
    with database(f"writing the map of audit {run!r} into dataset {root.name!r}"):
        paths = [path_of(record, run, name) for name in MAP]
        record.fields = list(dict.fromkeys([*record.fields, *paths]))
        fors.Run.update_run_config(root, run, record)  # before they are written, so that they can be taken away
        for number, path in enumerate(paths, 1):
            root.add_sample_field(path, fo.FloatField, description=HELP.format(number))
        owners = samples_of(patches_of(root, record.label_field)) if record.label_field else {}
        rows = {
            name: dict(zip((f"{run}_{axis}" for axis in MAP), place, strict=True))
            for name, place in zip(ids, places.tolist(), strict=True)
        }
        rows = {name: values for name, values in rows.items() if not record.label_field or name in owners}
        if record.label_field:
            updates = [update_of(record.label_field, owners[name], name, values) for name, values in rows.items()]
        else:
            updates = [UpdateOne({"_id": ObjectId(name)}, _change(values)) for name, values in rows.items()]
        root._bulk_write(updates, ids=[owners.get(name, name) for name in rows])
    return len(rows)


def _vectors(run_dir: str) -> tuple[list[str], Floats]:
    """Ids of an audit's rows, of a sample's texts the first, and unit features of all modalities side by side."""
    from audit_plugin.audit.extend import load_rows
    from audit_plugin.encoders.cached_features import unit_features
    from audit_plugin.store import FeatureCache, RunFolder

    with RunFolder(Path(run_dir), None) as run:
        try:
            kept = load_rows(run)
        except AuditError as error:
            raise AuditError(
                "the audit cannot be mapped: only one that trained heads on enough samples, without augmented views, "
                "keeps what it read; audit again so"
            ) from error
        encoders = json.loads((run.path / "run.json").read_text())["encoders"]
    first = np.sort(np.unique(np.array(kept.samples.ids), return_index=True)[1])
    parts = []
    for name, digests in kept.digests.items():
        wanted = [digests[row] for row in first]
        rows, found = unit_features(FeatureCache(encoders[name]), wanted)
        if missing := int((~found).sum()):
            raise AuditError(
                f"{missing} features of the audit are gone from the cache; run the same audit again, which makes them "
                "anew and retrains nothing, then ask for the map"
            )
        parts.append(rows)
    return [kept.samples.ids[row] for row in first], np.concatenate(parts, axis=1)


def _change(values: dict[str, float]) -> dict[str, dict[str, object]]:
    return {"$set": {**values, "last_modified_at": datetime.now(UTC)}}
