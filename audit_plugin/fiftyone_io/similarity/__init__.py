"""FAISS as a similarity backend of FiftyOne's Brain: exact cosine search that never changes what it searches.

Importing this module makes the backend `audit_faiss` known to `fiftyone.brain.compute_similarity`; `build_index` makes
an index from an audit's embeddings. FiftyOne stores the dotted paths of these classes, so that a session that knows
nothing of the plugin can load an index: neither they nor this module may be moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
from fiftyone.brain.similarity import Similarity, SimilarityConfig
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError

from .audits import JOINT, audit_vectors, audited_modalities
from .index import AGGREGATIONS, FaissSimilarityIndex
from .vectors import recorded, release

__all__ = [
    "BACKEND",
    "JOINT",
    "FaissSimilarity",
    "FaissSimilarityConfig",
    "FaissSimilarityIndex",
    "audited_modalities",
    "build_index",
]

BACKEND = "audit_faiss"


class FaissSimilarityConfig(SimilarityConfig):
    """What is recorded of an index.

    Args:
        vectors_path: the file of its vectors; "" before there are any.
        vectors_digest: sha256 of their content.
        dataset_id: the dataset whose file it is: a clone's record names that of the original.
        audit: what the vectors were made of (`AuditVectors.record`), or None where the caller gave them.
        **kwargs: of FiftyOne's `SimilarityConfig`.
    """

    def __init__(
        self,
        vectors_path: str = "",
        vectors_digest: str = "",
        dataset_id: str = "",
        audit: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vectors_path = vectors_path
        self.vectors_digest = vectors_digest
        self.dataset_id = dataset_id
        self.audit = audit

    @property
    def method(self) -> str:
        """Name of the backend."""
        return BACKEND

    @property
    def metric(self) -> str:
        """Distances are 1 - cosine."""
        return "cosine"

    @property
    def max_k(self) -> None:
        """No limit."""
        return None

    @property
    def supports_least_similarity(self) -> bool:
        """Yes."""
        return True

    @property
    def supported_aggregations(self) -> tuple[str, ...]:
        """How several queries become one order."""
        return ("mean", *AGGREGATIONS)


class FaissSimilarity(Similarity):
    """Makes indexes, and takes away their files."""

    def initialize(self, samples: SampleCollection, brain_key: str | None) -> FaissSimilarityIndex:
        """An index of the config's vectors; empty before any were added."""
        return FaissSimilarityIndex(samples, self.config, brain_key, backend=self)

    def cleanup(self, samples: SampleCollection, brain_key: str | None) -> None:
        """Called when the brain run is deleted."""
        dataset = samples._root_dataset
        now = recorded(dataset, brain_key)  # the file may have become this dataset's own since the record was read
        release(dataset, brain_key, now.get("vectors_path", ""), now.get("dataset_id", ""))


def build_index(
    view: SampleCollection,
    run: str = "audit",
    modality: str = "image",
    brain_key: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> FaissSimilarityIndex:
    """Index samples by the embeddings of an audit; only what the audit has not seen is encoded now.

    Args:
        view: the samples to index; of an audit of objects, those whose objects are indexed.
        run: key of the audit.
        modality: one of the audit's, or "joint": the unit vectors of all its modalities side by side.
        brain_key: name of the index (default `{run}_{modality}`); an index made so before is replaced.
        progress: called as `progress(stage, done, total)`.

    Returns:
        The index, whose `sort_by_similarity` takes sample ids, vectors and, where `supports_prompts`, texts.

    Raises:
        AuditError: no such audit or modality, nothing to index, or the key is taken by something else.
    """
    dataset, key = view._root_dataset, brain_key or f"{run}_{modality}"
    replaces = _replaced(dataset, key)
    audited = audit_vectors(view, run, modality, progress)
    if replaces:
        dataset.delete_brain_run(key)
    config = FaissSimilarityConfig(
        audit=dict(audited.record), patches_field=audited.objects or None, supports_prompts=audited.answers
    )
    method = config.build()
    method.register_run(dataset, key)
    index = method.initialize(dataset, key)
    index.add_to_index(audited.vectors.values, audited.vectors.samples, audited.vectors.labels)
    method.save_run_results(dataset, key, index)
    return index


def _replaced(dataset: fo.Dataset, key: str) -> bool:
    """Whether the key names an index of an audit; raises for anything else of that key."""
    if not key.isidentifier():
        raise AuditError(f"brain key {key!r} is not a valid name; use letters, digits and underscores")
    if key not in dataset.list_brain_runs():
        return False
    config = dataset.get_brain_info(key).config
    if not isinstance(config, FaissSimilarityConfig) or not config.audit:
        raise AuditError(
            f"brain run {key!r} of dataset {dataset.name!r} is not an index of an audit; choose another key"
        )
    return True


fob.brain_config.similarity_backends[BACKEND] = {"config_cls": f"{__name__}.{FaissSimilarityConfig.__name__}"}
