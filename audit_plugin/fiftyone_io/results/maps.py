"""A map of the embeddings: their two main directions, stored as two fields of the audit."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.core.runs as fors
from fiftyone.core.collections import SampleCollection

from audit_plugin.audit.extend import embedding_map
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.runs import audit_info, audited_items

from .findings import MAP

HELP = "Position of the sample's embeddings along direction {} of the two with the largest variance"


def map_embeddings(dataset: SampleCollection, run: str) -> int:
    """Write `{run}_map_x` and `{run}_map_y`: where each sample's embeddings, of all modalities together, lie.

    The embeddings come from the feature cache, so nothing is encoded; deleting the audit deletes the fields.

    Returns:
        How many rows got a position.

    Raises:
        AuditError: no such audit, or its run folder or features are gone.
    """
    record, items = audit_info(dataset, run), audited_items(dataset, run)
    root = items.dataset
    ids, positions = embedding_map(record.run_dir)
    with database(f"writing the map of audit {run!r} into dataset {root.name!r}"):
        paths = [items.path(name) for name in MAP]
        record.fields = list(dict.fromkeys([*record.fields, *paths]))
        fors.Run.update_run_config(root, run, record)  # before they are written, so that they can be removed
        for number, path in enumerate(paths, 1):
            root.add_sample_field(path, fo.FloatField, description=HELP.format(number))
        samples = items.samples(ids)
        by_id = dict(zip(ids, positions.tolist(), strict=True))
        items.write((name, samples[name], dict(zip(MAP, by_id[name], strict=True))) for name in samples)
    return len(samples)
