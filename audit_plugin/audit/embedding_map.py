"""A map of what an audit read: the two main directions of its embeddings, from the feature cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.neighbors.projection import two_directions
from audit_plugin.store import FeatureCache, RunFolder

from .extend import load_rows


def embedding_map(run_dir: str) -> tuple[list[str], Floats]:
    """Ids of an audit's samples `[n]`, and their positions `[n, 2]`, from unit features of all modalities side by side.

    Of a sample with several texts the first row counts.

    Raises:
        AuditError: the run folder or its features are gone, or the run did not store which samples it read.
    """
    from audit_plugin.encoders.cached_features import unit_features

    with RunFolder(Path(run_dir), None) as run:
        try:
            rows_read = load_rows(run)
        except AuditError as error:
            raise AuditError(
                "the audit cannot be mapped: only one that trained heads on enough samples, without augmented views, "
                "stores what it read; audit again so"
            ) from error
        encoders = json.loads((run.path / "run.json").read_text())["encoders"]
    ids = rows_read.samples.ids
    first = np.sort(np.unique(np.array(ids), return_index=True)[1])
    parts = []
    for name, digests in rows_read.digests.items():
        features, present = unit_features(FeatureCache(encoders[name]), [digests[row] for row in first])
        if missing := int((~present).sum()):
            raise AuditError(
                f"{missing} features of the audit are gone from the cache; run the same audit again, which computes "
                "them again without training, then ask for the map"
            )
        parts.append(features)
    return [ids[row] for row in first], two_directions(np.concatenate(parts, axis=1))
