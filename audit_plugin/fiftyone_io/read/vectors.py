"""Embeddings that a dataset already holds: fields of vectors, and what a run of the Brain computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats, Samples, VectorRows
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.embeddings import BRAIN, FIELD, parse_embeddings, rows_of_samples
from audit_plugin.inputs.vector_files import read_vectors

from .items import objects_field
from .sources import Source, name_of, similar_names

PREFIX = "vectors of "  # of the columns that are read beside the media


def vector_sources(view: SampleCollection, config: AuditConfig, media: Mapping[str, Source]) -> dict[str, Source]:
    """Column -> where its values are, one for each modality whose embeddings the dataset holds: vectors, or ids.

    Raises:
        AuditError: a field or Brain key that does not exist, or holds something else.
    """
    objects = objects_field(view)
    sources = {}
    for modality, named in parse_embeddings(config.embeddings).items():
        slice_name = media[modality].slice if modality in media else ""
        if named.startswith((FIELD, BRAIN)) and modality in media and media[modality].many:
            raise AuditError(
                f"{modality}={named} gives one vector per sample, whose {modality} is a list; give a file with one per "
                "caption, or audit a field with one caption"
            )
        if named.startswith(FIELD):
            path = named.removeprefix(FIELD)
            if objects and not path.startswith(f"{objects}."):
                path = f"{objects}.{path}"  # of a view of patches, an attribute of its objects
            _check_field(view, path, modality)
            sources[PREFIX + modality] = Source(path, slice_name)
        elif named.startswith(BRAIN):
            sources[PREFIX + modality] = Source("id", slice_name)
    return sources


def with_vectors(
    view: SampleCollection, config: AuditConfig, samples: Samples, columns: Mapping[str, Sequence[Any]]
) -> Samples:
    """The samples with the embeddings that the config names; `columns` hold the values of `vector_sources`.

    Raises:
        AuditError: vectors of several lengths, or files that do not fit the samples (by their ids, or in order).
    """
    vectors: dict[str, Floats | VectorRows] = {}
    for modality, named in parse_embeddings(config.embeddings).items():
        if named.startswith(FIELD):
            source = f"{named} of dataset {name_of(view)!r}"
            vectors[modality] = VectorRows((_stacked(columns[PREFIX + modality], source, samples),), None, source)
        elif named.startswith(BRAIN):
            vectors[modality] = _brain_rows(view, named, modality, columns[PREFIX + modality])
        else:
            vectors[modality] = rows_of_samples(read_vectors(named), samples, modality)
    return replace(samples, vectors=vectors) if vectors else samples


def _check_field(view: SampleCollection, path: str, modality: str) -> None:
    fields = view.get_field_schema(flat=True)
    vectors = [name for name, field in fields.items() if _holds_vectors(field)]
    field = view.get_field(path)
    if field is None or not _holds_vectors(field):
        what = "does not exist" if field is None else f"is a {type(field).__name__}, not a field of vectors"
        names = similar_names(path, vectors, "fields of vectors")
        raise AuditError(f"{modality} embeddings: field {path!r} {what} in dataset {name_of(view)!r}; {names}")


def _holds_vectors(field: fo.Field) -> bool:
    is_list = isinstance(field, fo.ListField) and isinstance(field.field, fo.FloatField)
    return is_list or isinstance(field, fo.VectorField | fo.ArrayField)


def _stacked(values: Sequence[Any], source: str, samples: Samples) -> Floats:
    """The vectors of a field, float32 (or float16, where all are) `[n, d]`; zeros where a sample has none."""
    arrays = [None if value is None or not len(value) else np.asarray(value) for value in values]
    present = [array for array in arrays if array is not None]
    if not present:
        raise AuditError(f"{source}: no sample of the view has a vector; compute them, or name another field")
    half = all(array.dtype == np.float16 for array in present)
    out = np.zeros((len(arrays), len(present[0])), np.float16 if half else np.float32)
    for row, array in enumerate(arrays):
        if array is None:
            continue
        if array.shape != out.shape[1:] or array.dtype.kind != "f":
            raise AuditError(
                f"{source}: sample {samples.ids[row]} has {array.dtype} of shape {array.shape} where others have "
                f"{out.shape[1]} numbers; all vectors have one length and are floating-point numbers"
            )
        out[row] = array
    return out


def _brain_rows(view: SampleCollection, named: str, modality: str, ids: Sequence[str | None]) -> VectorRows:
    """The vectors of a run of the Brain for the rows with these ids of samples, or of objects."""
    root, key, source = view._root_dataset, named.removeprefix(BRAIN), f"{named} of dataset {name_of(view)!r}"
    if key not in root.list_brain_runs():
        names = similar_names(key, root.list_brain_runs(), "Brain keys")
        raise AuditError(f"{modality} embeddings: dataset {root.name!r} has no Brain run {key!r}; {names}")
    results = root.load_brain_results(key)
    if not hasattr(results, "get_embeddings"):
        raise AuditError(
            f"{source} keeps no embeddings; name a similarity index (compute_similarity), or the field that holds them"
        )
    values, sample_ids, label_ids = results.get_embeddings()
    if objects_field(view) and label_ids is None:
        raise AuditError(f"{source} has vectors of whole samples, and objects are audited; name an index of patches")
    of_rows = label_ids if objects_field(view) else sample_ids
    row_of_id = {str(name): row for row, name in enumerate(of_rows)}
    rows = np.array([row_of_id.get(str(name), -1) for name in ids], dtype=np.int64)
    if (rows < 0).all():
        raise AuditError(f"{source} has no vector of the view's {len(rows):,} samples; name another key, or index them")
    missing = int((rows < 0).sum())
    note = f"{missing:,} of {len(rows):,} samples are not in {source}" if missing else ""
    return VectorRows((np.asarray(values),), rows, source, note)
