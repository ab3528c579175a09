"""Features that are stored, read as unit rows: a large set is held in memory once, in the order that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Floats, Ints
from audit_plugin.store import FeatureCache

BLOCK = 256


@dataclass(frozen=True)
class StoredFeatures:
    """`Features` of n rows that stay on the disk until rows of them are asked for.

    Attributes:
        caches: modality -> where its features are.
        digests: modality -> content digest per row, "" where there is none.
        present: bool `[n, m]`, in the order of `digests`.
    """

    caches: Mapping[str, FeatureCache]
    digests: Mapping[str, Sequence[str]]
    present: Bools

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.digests)

    def rows(self, keep: Ints) -> Features:
        """Those of the rows `keep`, in that order, in memory.

        Raises:
            AuditError: what was there when it was looked for is gone.
        """
        present = self.present[keep]
        vectors = {}
        for name, there in zip(self.digests, present.T, strict=True):
            values, found = unit_features(self.caches[name], [self.digests[name][row] for row in keep])
            if gone := int((there & ~found).sum()):
                raise AuditError(
                    f"{gone} {name} features are gone from the cache {self.caches[name].path}; run the audit itself "
                    "again, which makes them anew and retrains nothing"
                )
            vectors[name] = values
        return Features(vectors, present)

    @property
    def vectors(self) -> Mapping[str, Floats]:
        """Those of all rows, read anew each time."""
        return self.rows(np.arange(len(self.present))).vectors


def stored_features(keys: Mapping[str, str], digests: Mapping[str, Sequence[str]]) -> StoredFeatures:
    """What is stored of these contents under each modality's encoder key, and what is not."""
    caches = {name: FeatureCache(keys[name]) for name in digests}
    present = [caches[name].has(wanted) for name, wanted in digests.items()]
    return StoredFeatures(caches, digests, np.stack(present, axis=1))


def unit_features(cache: FeatureCache, digests: Sequence[str]) -> tuple[Floats, Bools]:
    """Stored features as unit rows, float32 `[n, d]`, and which rows are there, `[n]`; the others are zeros."""
    rows, found = cache.load(digests)
    for start in range(0, len(rows), BLOCK):  # in place, for one matrix of a million rows is enough
        part = rows[start : start + BLOCK]
        part /= np.maximum(np.sqrt(np.square(part).sum(axis=1, keepdims=True)), np.float32(1e-12))
    return rows, found
