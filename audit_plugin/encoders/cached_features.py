"""Stored features, read as unit rows: a large set is held in memory once, in the order that is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Floats, Ints
from audit_plugin.store import FeatureCache

BLOCK = 256  # rows normalized at once
UNIT = 1e-6  # a length that is so near to 1 is 1: to normalize a row again would change its last bits


@dataclass(frozen=True)
class StoredFeatures:
    """`Features` of n rows that stay on the disk until rows of them are read."""

    caches: Mapping[str, FeatureCache]
    digests: Mapping[str, Sequence[str]]  # modality -> content digest per row, "" where there is none
    present: Bools  # bool [n, m], in the order of `digests`

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.digests)

    def rows(self, indices: Ints) -> Features:
        """The features of the rows `indices`, in that order, in memory.

        Raises:
            AuditError: features that were stored are gone from the cache.
        """
        present = self.present[indices]
        vectors = {}
        for number, (modality, digests) in enumerate(self.digests.items()):
            cache = self.caches[modality]
            vectors[modality], stored = unit_features(cache, [digests[row] for row in indices])
            lost = int((present[:, number] & ~stored).sum())
            if lost:
                raise AuditError(
                    f"{lost} {modality} features are gone from the cache {cache.path}; run the audit again: it encodes "
                    "them again and retrains nothing"
                )
        return Features(vectors, present)

    @property
    def vectors(self) -> Mapping[str, Floats]:
        """Those of all rows, read from the disk each time."""
        return self.rows(np.arange(len(self.present))).vectors


def stored_features(keys: Mapping[str, str], digests: Mapping[str, Sequence[str]]) -> StoredFeatures:
    """The features of these contents (modality -> digest per row) that are stored under each encoder's key."""
    caches = {modality: FeatureCache(keys[modality]) for modality in digests}
    present = [caches[modality].has(of_rows) for modality, of_rows in digests.items()]
    return StoredFeatures(caches, digests, np.stack(present, axis=1))


def joined_features(modalities: Sequence[str], parts: Sequence[StoredFeatures]) -> StoredFeatures:
    """The features of parts with different modalities, in this order."""
    digests = {modality: of_rows for part in parts for modality, of_rows in part.digests.items()}
    caches = {modality: cache for part in parts for modality, cache in part.caches.items()}
    present = {name: part.present[:, at] for part in parts for at, name in enumerate(part.digests)}
    return StoredFeatures(
        caches, {name: digests[name] for name in modalities}, np.stack([present[name] for name in modalities], axis=1)
    )


def unit_features(cache: FeatureCache, digests: Sequence[str]) -> tuple[Floats, Bools]:
    """Stored features as unit rows, float32 `[n, d]`, and which are stored, bool `[n]`; the others are zeros."""
    features, stored = cache.load(digests)
    for start in range(0, len(features), BLOCK):  # in place: a second matrix of a million rows would not fit
        block = features[start : start + BLOCK]
        lengths = np.maximum(np.sqrt(np.square(block).sum(axis=1, keepdims=True)), np.float32(1e-12))
        lengths[np.abs(lengths - 1) <= UNIT] = 1
        block /= lengths
    return features, stored
