"""The index that searches: what FiftyOne calls results. FiftyOne stores its dotted path, so it may not be moved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fiftyone.brain.similarity import DuplicatesMixin, SimilarityIndex
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.fiftyone_io.lease import leased
from audit_plugin.fiftyone_io.records import BRAIN_RUNS, config_of, update_run
from audit_plugin.neighbors import nearest, similarities_to, within

from .vectors import Vectors, checked, index_document, joined, load, nothing, recorded, release, save, unit_rows

if TYPE_CHECKING:
    from . import FaissSimilarity, FaissSimilarityConfig

AGGREGATIONS: dict[str, Callable[[Floats], Floats]] = {
    "post-mean": lambda distances: distances.mean(0),
    "post-min": lambda distances: distances.min(0),
    "post-max": lambda distances: distances.max(0),
}

Neighbors = list[tuple[Ints, Floats]]  # per query: rows, and their distances, the nearest first

logger = logging.getLogger(__name__)


class FaissSimilarityIndex(SimilarityIndex, DuplicatesMixin):
    """Vectors of samples, or of the labels of a field, searched exactly; stored in a file, loaded when first needed.

    `add_to_index` and `remove_from_index` write at once; other processes see it with their next query.
    """

    def __init__(
        self,
        samples: SampleCollection,
        config: FaissSimilarityConfig,
        brain_key: str | None,
        backend: FaissSimilarity | None = None,
    ) -> None:
        self._stored_vectors: Vectors | None = None
        self._unit: Floats | None = None
        self._row_of_id: tuple[Vectors, dict[str, int]] | None = None
        SimilarityIndex.__init__(self, samples, config, brain_key, backend=backend)
        DuplicatesMixin.__init__(self)

    # what is indexed

    @property
    def supports_prompts(self) -> bool:
        """Whether text prompts have a place among these vectors."""
        return bool(self.config.supports_prompts if self.config.audit else super().supports_prompts)

    @property
    def has_view(self) -> bool:
        """Of a grouped dataset, like all its queries, an index sees the active slice alone."""
        return self._curr_view.media_type == "group" or bool(super().has_view)

    @property
    def sample_ids(self) -> np.ndarray:
        """str `[n]`."""
        return self._vectors().samples

    @property
    def label_ids(self) -> np.ndarray | None:
        """str `[n]`, or None where samples are indexed."""
        return self._vectors().labels

    @property
    def total_index_size(self) -> int:
        """Number of vectors, whatever the view."""
        return len(self._vectors().ids)

    def get_model(self) -> Any:
        """What embeds text prompts: the encoder of the audit, or the model that the caller named."""
        from . import PromptModel

        return PromptModel(self.config.audit) if self.config.audit else super().get_model()

    def get_embeddings(
        self,
        sample_ids: str | Iterable[str] | None = None,
        label_ids: str | Iterable[str] | None = None,
        allow_missing: bool = True,
        warn_missing: bool = False,
    ) -> tuple[Floats, np.ndarray, np.ndarray | None]:
        """Copies of the original vectors, in the order of the requested ids, with their ids.

        Raises:
            AuditError: an id has no vector, and `allow_missing` is False; or labels of an index of samples.
        """
        rows = self._vectors().rows(self._rows_for(sample_ids, label_ids, allow_missing, warn_missing))
        return rows.values, rows.samples, rows.labels

    # changing it

    def add_to_index(
        self,
        embeddings: Any,
        sample_ids: Iterable[str],
        label_ids: Iterable[str] | None = None,
        overwrite: bool = True,
        allow_existing: bool = True,
        warn_existing: bool = False,
        reload: bool = True,
    ) -> None:
        """Adds vectors `[n, d]`, or replaces those of ids that are there, and writes the file.

        Raises:
            AuditError: wrong shape or dimension, values that are not finite, or ids that exist and may not.
        """
        if (label_ids is None) is (self.config.patches_field is not None):
            raise AuditError(f"index {self.key!r} needs {'' if label_ids is None else 'no '}label ids")
        new, old = checked(embeddings, sample_ids, label_ids), self._vectors()
        there = int(np.isin(old.ids, new.ids).sum())
        if there and not overwrite and not allow_existing:
            raise AuditError(f"{there} of the ids are in index {self.key!r} already; allow or overwrite them")
        if there and not overwrite and warn_existing:
            logger.warning("%d ids are in the index already and keep their embeddings", there)
        self._keep(joined(old, new, overwrite), reload)

    def remove_from_index(
        self,
        sample_ids: Iterable[str] | None = None,
        label_ids: Iterable[str] | None = None,
        allow_missing: bool = True,
        warn_missing: bool = False,
        reload: bool = True,
    ) -> None:
        """Removes vectors by the ids of samples or labels, and writes the file.

        Raises:
            AuditError: an id has no vector, and `allow_missing` is False; or labels of an index of samples.
        """
        stays = np.ones(self.total_index_size, dtype=bool)
        if sample_ids is not None:
            stays[self._rows_for(sample_ids, None, allow_missing, warn_missing)] = False
        if label_ids is not None:
            stays[self._rows_for(None, label_ids, allow_missing, warn_missing)] = False
        if not stays.all():
            self._keep(self._vectors().rows(stays), reload)

    def reload(self) -> None:
        """Reads the index again, as the database and the disk have it now."""
        if self.key is None:
            super().reload()
        else:
            self._follow()

    def cleanup(self) -> None:
        """Deletes the file, unless a clone of the dataset reads it too."""
        self.backend.cleanup(self._samples, self.key)
        self._stored_vectors = self._unit = None

    @classmethod
    def _from_dict(
        cls,
        d: dict[str, Any],  # noqa: ARG003 (what the database holds of the results is that there are some)
        samples: SampleCollection,
        config: FaissSimilarityConfig,
        brain_key: str,
    ) -> FaissSimilarityIndex:
        return cls(samples, config, brain_key)

    def _vectors(self) -> Vectors:
        config = self.config
        if self.key is not None and config.vectors_path and not Path(config.vectors_path).exists():
            self._follow()  # another process has changed the index, or the file is gone
        if self._stored_vectors is None and config.vectors_path:
            self._stored_vectors = load(config.vectors_path, config.vectors_digest, self.key)
        elif self._stored_vectors is None:
            self._stored_vectors = nothing(config.patches_field is not None)
        return self._stored_vectors

    def _follow(self) -> None:
        """Forgets the vectors in memory: the file that the database names now is read next."""
        now = recorded(self._samples._root_dataset, self.key)
        for name in ("vectors_path", "vectors_digest", "dataset_id"):
            setattr(self.config, name, now.get(name, getattr(self.config, name)))
        self._stored_vectors = self._unit = None
        SimilarityIndex.reload(self)

    def _keep(self, vectors: Vectors, reload: bool) -> None:
        config, dataset = self.config, self._samples._root_dataset
        if self.key is not None:  # else it lives and dies with this object
            with leased(dataset, f"changing similarity index {self.key!r}"):
                read = index_document(dataset, self.key, config.vectors_path)
                record = config_of(read)
                former = (record.vectors_path, record.dataset_id)
                record.vectors_path, record.vectors_digest = save(vectors, dataset)
                record.dataset_id = str(dataset._doc.id)
                update_run(dataset, read, record, kind=BRAIN_RUNS)
                release(dataset, self.key, *former)
            for name in ("vectors_path", "vectors_digest", "dataset_id"):
                setattr(config, name, getattr(record, name))
        self._stored_vectors, self._unit = vectors, None
        if reload:
            SimilarityIndex.reload(self)

    def _rows_for(
        self,
        sample_ids: str | Iterable[str] | None,
        label_ids: str | Iterable[str] | None,
        allow_missing: bool,
        warn_missing: bool,
    ) -> Ints:
        """Rows of labels, or else of samples, or else all; a sample may have several labels."""
        vectors = self._vectors()
        if label_ids is not None and vectors.labels is None:
            raise AuditError(f"index {self.key!r} holds samples, not labels; name sample_ids")
        ids = sample_ids if label_ids is None else label_ids
        if ids is None:
            return np.arange(len(vectors.ids))
        if label_ids is None and vectors.labels is not None:
            return np.flatnonzero(np.isin(vectors.samples, _listed(ids)))
        return self._rows_of(_listed(ids), allow_missing, warn_missing)

    def _rows_of(self, ids: list[str], allow_missing: bool = False, warn_missing: bool = False) -> Ints:
        vectors = self._vectors()
        if self._row_of_id is None or self._row_of_id[0] is not vectors:  # a query by one id must not read all of them
            self._row_of_id = (vectors, {name: row for row, name in enumerate(vectors.ids.tolist())})
        rows = self._row_of_id[1]
        missing = [name for name in ids if name not in rows]
        if missing and not allow_missing:
            raise AuditError(f"{missing[0]} is not in similarity index {self.key!r}; add it with add_to_index")
        if missing and warn_missing:
            logger.warning("%d ids are not in the index", len(missing))
        return np.array([rows[name] for name in ids if name in rows], dtype=np.int64)

    # searching

    def _kneighbors(
        self,
        query: Any = None,
        k: int | None = None,
        reverse: bool = False,
        aggregation: str | None = None,
        return_dists: bool = False,
    ) -> Any:
        """FiftyOne's contract: ids (and distances) of the k rows of the view nearest to ids or vectors.

        With no query: indices into the view, per row of it, the row itself left out.
        """
        active = self._active()
        most = len(active) if k is None else k
        sign = np.float32(-1 if reverse else 1)
        if query is None:
            rows, similarity = nearest(sign * active, active, most + 1)
            return _among_themselves(zip(rows, 1 - sign * similarity, strict=True), most, return_dists)
        queries, single = self._queries(query)
        if aggregation not in (None, *self.config.supported_aggregations):
            choices = ", ".join(self.config.supported_aggregations)
            raise AuditError(f"aggregation {aggregation!r} is not known; choose one of {choices}")
        neighbors: Neighbors
        if aggregation in AGGREGATIONS and len(queries) > 1:
            per_query = np.stack([1 - similarities_to(vector, active) for vector in unit_rows(queries)])
            distances = np.round(AGGREGATIONS[aggregation](per_query), 6)  # finer than that is rounding, not an order
            order = np.argsort(sign * distances, kind="stable")[:k]
            neighbors = [(order, distances[order])]
        else:
            if aggregation == "mean":
                queries = queries.mean(0, keepdims=True)
            rows, similarity = nearest(sign * unit_rows(queries), active, most)
            neighbors = list(zip(rows, 1 - sign * similarity, strict=True))
        return self._named(neighbors, single or aggregation is not None, return_dists)

    def _radius_neighbors(self, query: Any = None, thresh: float | None = None, return_dists: bool = False) -> Any:
        """As `_kneighbors`: all rows of the view at a distance of at most `thresh`; 0 finds exact copies."""
        active = self._active()
        radius = 0.0 if thresh is None else float(thresh)
        if query is None:
            neighbors = [(rows, 1 - similarity) for rows, similarity in within(active, active, radius)]
            return _among_themselves(neighbors, None, return_dists)
        queries, single = self._queries(query)
        neighbors = [(rows, 1 - similarity) for rows, similarity in within(unit_rows(queries), active, radius)]
        return self._named(neighbors, single, return_dists)

    def _active(self) -> Floats:
        """Unit rows of the view, in its order."""
        vectors = self._vectors()  # first: it may follow another process's change
        if self._unit is None:
            self._unit = unit_rows(vectors.values)
        chosen = self._current_inds
        return self._unit if chosen is None else self._unit[chosen]

    def _queries(self, query: Any) -> tuple[Floats, bool]:
        """(vectors `[q, d]` of the ids, or those of the query itself; whether the query is a single one)."""
        indexed, array = self._vectors().values, np.asarray(query)
        if not np.issubdtype(array.dtype, np.number):
            return indexed[self._rows_of(_listed(query))], isinstance(query, str)
        vectors = np.atleast_2d(array).astype(np.float32)
        if vectors.shape[1] != indexed.shape[1] or not np.isfinite(vectors).all():
            raise AuditError(
                f"the query has shape {array.shape}; index {self.key!r} takes finite vectors of "
                f"{indexed.shape[1]} dimensions"
            )
        return vectors, array.ndim == 1

    def _named(self, neighbors: Neighbors, flat: bool, return_dists: bool) -> Any:
        """Ids in the place of rows: one list, or one per query."""
        samples, labels = self.current_sample_ids, self.current_label_ids
        columns: list[Any] = [[samples[rows].tolist() for rows, _ in neighbors]]
        columns.append(None if labels is None else [labels[rows].tolist() for rows, _ in neighbors])
        if return_dists:
            columns.append([np.maximum(distances, 0).tolist() for _, distances in neighbors])
        return tuple(column[0] if flat and column is not None else column for column in columns)


def _listed(ids: str | Iterable[str]) -> list[str]:
    return [ids] if isinstance(ids, str) else [str(name) for name in ids]


def _among_themselves(neighbors: Iterable[tuple[Ints, Floats]], k: int | None, return_dists: bool) -> Any:
    """Per row the indices (and distances) of at most k other rows."""
    others = [(rows[rows != row][:k], distances[rows != row][:k]) for row, (rows, distances) in enumerate(neighbors)]
    indices = [rows for rows, _ in others]
    return (indices, [np.maximum(distances, 0) for _, distances in others]) if return_dists else indices
