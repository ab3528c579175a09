"""FAISS as a similarity backend of FiftyOne's Brain: exact cosine search that never changes what it searches.

Importing this module makes the backend `audit_faiss` known to `fiftyone.brain.compute_similarity`; `build_index` makes
an index from an audit's embeddings. FiftyOne stores the dotted paths of these classes, so that a session that knows
nothing of the plugin can load an index: neither they nor this module may be moved.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
from fiftyone.brain.similarity import Similarity, SimilarityConfig
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.word_space import offline_media
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.lease import leased
from audit_plugin.fiftyone_io.read.items import objects_field, patches_of
from audit_plugin.fiftyone_io.read.samples import read_samples, samples_of_rows
from audit_plugin.fiftyone_io.read.sources import modality_sources
from audit_plugin.fiftyone_io.records import BRAIN_RUNS, Document, forget_run, is_of, put_run, run_document, update_run
from audit_plugin.fiftyone_io.results.tables import audit_summary
from audit_plugin.fiftyone_io.runs import CLEANUP_WAIT, collect_runs, finished_audit, settings_of

from .index import AGGREGATIONS, FaissSimilarityIndex
from .vectors import Vectors, checked, drop_unnamed, index_document, recorded, release, save, unit_rows

if TYPE_CHECKING:
    from audit_plugin.audit.prepare import Prepared
    from audit_plugin.encoders.base import Encoder, EncoderIdentity
    from audit_plugin.encoders.embed import Progress

__all__ = [
    "BACKEND",
    "JOINT",
    "WORDS",
    "FaissSimilarity",
    "FaissSimilarityConfig",
    "FaissSimilarityIndex",
    "audited_modalities",
    "build_index",
]

BACKEND = "audit_faiss"
JOINT = "joint"
WORDS = "words"
TEXT = "text"


class FaissSimilarityConfig(SimilarityConfig):
    """What is recorded of an index.

    Args:
        vectors_path: the file of its vectors; "" before there are any.
        vectors_digest: sha256 of their content.
        dataset_id: the dataset whose file it is: a clone's record names that of the original.
        audit: what the vectors of `build_index` were made of: run, modality, encoder, the blocks
            `[name, dimensions, answers prompts]` of a row, and in the space of words the mean of the texts; None where
            the caller gave the vectors.
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
        return BACKEND

    @property
    def metric(self) -> str:
        """Distances are 1 - cosine."""
        return "cosine"

    @property
    def max_k(self) -> None:
        return None

    @property
    def supports_least_similarity(self) -> bool:
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
        """Called when FiftyOne deletes the brain run, which deletes its record and results after this once more.

        The dataset stops naming them first: what a kill leaves then is collected by the next operation of this tool.
        FiftyOne goes on where this raises, and shows the error as a warning: the file is dropped by a later operation.

        Raises:
            AuditError: another process is changing the dataset; it is named.
        """
        dataset = samples._root_dataset
        with leased(dataset, f"deleting similarity index {brain_key!r}", CLEANUP_WAIT) as lease:
            now = recorded(dataset, brain_key)  # the file may have become this dataset's own since the record was read
            lease.check()
            release(dataset, brain_key, now.get("vectors_path", ""), now.get("dataset_id", ""))
            if brain_key is not None:
                forget_run(dataset, brain_key, BRAIN_RUNS)
            drop_unnamed(dataset)

    def register_run(
        self, samples: SampleCollection, key: str | None, overwrite: bool = True, cleanup: bool = True
    ) -> None:
        """Called by `compute_similarity`: what a kill left of an earlier call goes first."""
        dataset = samples._root_dataset
        with leased(dataset, f"making similarity index {key!r}") as lease:
            collect_runs(dataset)
            drop_unnamed(dataset)
            lease.check()
            super().register_run(samples, key, overwrite, cleanup)

    @classmethod
    def save_run_results(
        cls, samples: SampleCollection, key: str | None, run_results: Any, overwrite: bool = True, cache: bool = True
    ) -> None:
        """Called by `compute_similarity`: the results are written whole before the record names them."""
        if key is None or run_results is None:
            super().save_run_results(samples, key, run_results, overwrite, cache)
            return
        dataset = samples._root_dataset
        with leased(dataset, f"making similarity index {key!r}"):
            read = index_document(dataset, key, run_results.config.vectors_path)
            update_run(dataset, read, run_results.config, run_results, BRAIN_RUNS)
        if cache:
            dataset._brain_cache[key] = run_results


def build_index(
    view: SampleCollection,
    run: str = "audit",
    modality: str = "image",
    brain_key: str | None = None,
    progress: Progress | None = None,
) -> FaissSimilarityIndex:
    """Index samples by the embeddings of an audit; only what the audit has not seen is encoded now.

    Args:
        view: the samples to index; of an audit of objects, those whose objects are indexed.
        run: key of the audit.
        modality: one of the audit's; "joint": the unit vectors of all its modalities side by side; or, of an audit by
            the offline encoders, "words": its images (or videos) in the space of words, which text prompts search.
        brain_key: name of the index (default `{run}_{modality}`); an index made so before is replaced.
        progress: called as `progress(stage, done, total)`.

    Returns:
        The index, whose `sort_by_similarity` takes sample ids, vectors and, where `supports_prompts`, texts.

    Raises:
        AuditError: no such audit or modality, nothing to index, the key is taken by something else, or another process
            is changing the dataset.
    """
    dataset, key = view._root_dataset, brain_key or f"{run}_{modality}"
    _replaced(dataset, key)  # before anything is encoded
    vectors, record = _audit_vectors(view, run, modality, progress)
    vectors = checked(vectors.values, vectors.samples, vectors.labels)
    doing = f"writing similarity index {key!r}"
    with database(f"{doing} of dataset {dataset.name!r}"), leased(dataset, doing):
        replaced = _replaced(dataset, key)
        path, digest = save(vectors, dataset)
        config = FaissSimilarityConfig(
            path,
            digest,
            str(dataset._doc.id),
            audit=record,
            patches_field=finished_audit(view, run).label_field or None,
            supports_prompts=any(answers for *_, answers in record["blocks"]),
        )
        index = config.build().initialize(dataset, key)
        put_run(dataset, key, config, index, replaced=replaced, kind=BRAIN_RUNS)
        collect_runs(dataset)
        if replaced:
            former = replaced["config"]
            release(dataset, key, former.get("vectors_path", ""), former.get("dataset_id", ""))
        drop_unnamed(dataset)
    return index


def audited_modalities(view: SampleCollection, run: str) -> tuple[str, ...]:
    """What of an audit can be indexed: its modalities, "joint", and "words" where the offline encoders were used.

    Raises:
        AuditError: no such audit, or its fields are gone.
    """
    names = (*modality_sources(_audited(view, run), _settings(view, run)), JOINT)
    return (*names, WORDS) if offline_media(audit_summary(view, run).get("encoder") or {}) else names


def _replaced(dataset: fo.Dataset, key: str) -> Document | None:
    """The record of an index of an audit with that key, None where there is none; raises for anything else."""
    if not key.isidentifier():
        raise AuditError(f"brain key {key!r} is not a valid name; use letters, digits and underscores")
    document = run_document(dataset, key, BRAIN_RUNS)
    if document is None:
        return None
    if not is_of(document, FaissSimilarityConfig) or not document["config"].get("audit"):
        raise AuditError(
            f"brain run {key!r} of dataset {dataset.name!r} is not an index of an audit; choose another key"
        )
    return document


def _audit_vectors(
    view: SampleCollection, run: str, modality: str, progress: Progress | None
) -> tuple[Vectors, dict[str, Any]]:
    """Unit rows of the audit's frozen encoders, from the cache where known, and the config's record of them."""
    from audit_plugin.audit.prepare import Clock, prepare
    from audit_plugin.encoders.embed import silent

    rows, config = _audited(view, run), _settings(view, run)
    samples = read_samples(rows, config)
    placed_among_words = offline_media(audit_summary(view, run).get("encoder") or {})[:1]
    choosable = (*samples.modalities, JOINT, *([WORDS] if placed_among_words else []))
    if modality not in choosable:
        choices = ", ".join(choosable)
        raise AuditError(f"audit {run!r} has no modality {modality!r}; choose one of {choices}")
    prepared = prepare(samples, config, Clock(progress or silent))
    several = {JOINT: tuple(prepared.samples.modalities), WORDS: tuple(placed_among_words)}
    names = several.get(modality, (modality,))
    ids, parts = _one_per_id(prepared, names)
    if not ids:
        raise AuditError(f"no sample of the view has {' and '.join(names)}; choose another modality or view")
    # of embeddings that were given nobody can encode another text
    encoders = {name: encoder for name, encoder in prepared.encoder_identities.items() if not prepared.is_own(name)}
    record = {
        "run": run,
        "modality": modality,
        "encoder": prepared.encoder_name,
        "text_key": _text_key(prepared.encoder_name) if TEXT in encoders else "",
        "blocks": [[name, part.shape[1], _answers(name, encoders)] for name, part in zip(names, parts, strict=True)],
    }
    if modality == WORDS:
        parts, record = _among_words(parts[0], prepared, record)
    return _on_samples(rows, config, ids, _joined(parts)), record


def _among_words(media: Floats, prepared: Prepared, record: dict[str, Any]) -> tuple[list[Floats], dict[str, Any]]:
    """([unit rows of the media `[u, 1280]` in the space of words], the record of such an index).

    As in an audit, neither the mean of the media nor that of the texts says anything; a prompt is read less the latter.

    Raises:
        AuditError: no texts to take a mean of, or all media are the same.
    """
    from audit_plugin.encoders.word_space import among_words

    features = prepared.embedded.features
    with_text = np.flatnonzero(features.present[:, features.modalities.index(TEXT)])
    if not len(with_text):
        raise AuditError(f"no sample of the view has a text; modality {WORDS!r} needs texts beside its media")
    if (media == media[:1]).all():
        raise AuditError(f"all media of the view are equal; modality {WORDS!r} needs two different ones or more")
    text_mean = features.rows(with_text).vectors[TEXT].mean(0, dtype=np.float64)
    placed = among_words(media)
    centered = unit_rows(placed - placed.mean(0, dtype=np.float64).astype(np.float32))
    return [centered], {**record, "blocks": [[WORDS, centered.shape[1], True]], "text_mean": text_mean.tolist()}


def _audited(view: SampleCollection, run: str) -> SampleCollection:
    """The samples of the view, or of an audit of objects their objects."""
    objects = finished_audit(view, run).label_field
    return patches_of(view, objects) if objects and not objects_field(view) else view


def _settings(view: SampleCollection, run: str) -> AuditConfig:
    """Those of the audit, with the encoder that it really used: what `auto` means may have changed."""
    config = settings_of(finished_audit(view, run))
    encoder = audit_summary(view, run).get("encoder_name") or config.encoder
    return replace(config, encoder=encoder, views=0, device="auto")


def _one_per_id(prepared: Prepared, names: Sequence[str]) -> tuple[list[str], list[Floats]]:
    """(ids, unit rows `[u, d]` per modality) of rows that have all of these; several texts of a sample are averaged."""
    features = prepared.embedded.features
    complete = np.logical_and.reduce([features.present[:, features.modalities.index(name)] for name in names])
    rows = np.flatnonzero(complete)
    ids: dict[str, int] = {}
    sample_of_row = np.array([ids.setdefault(prepared.samples.ids[row], len(ids)) for row in rows], dtype=np.int64)
    vectors, parts = features.rows(rows).vectors, []
    for name in names:
        sums = np.zeros((len(ids), vectors[name].shape[1]), dtype=np.float32)
        np.add.at(sums, sample_of_row, vectors[name])
        parts.append(unit_rows(sums))
    return list(ids), parts


def _on_samples(rows: SampleCollection, config: AuditConfig, ids: Sequence[str], values: Floats) -> Vectors:
    """Rows with the ids of the samples, or labels, that they are of: in a grouped dataset, of all slices audited."""
    members = samples_of_rows(rows, config)
    pairs = [(row, sample) for row, name in enumerate(ids) for sample in members.get(name, [name])]
    samples = np.array([sample for _, sample in pairs], dtype="U24")
    labels = np.array(ids, dtype="U24") if objects_field(rows) else None
    return Vectors(values[[row for row, _ in pairs]], samples, labels)


def _joined(parts: Sequence[Floats]) -> Floats:
    """Unit rows of several modalities side by side, of length 1 again."""
    return np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts)))


def _answers(name: str, encoders: Mapping[str, EncoderIdentity]) -> bool:
    """Whether a text's vector can be compared with this modality's."""
    if TEXT not in encoders or name not in encoders:
        return False
    return name == TEXT or (bool(encoders[name].space) and encoders[name].space == encoders[TEXT].space)


class PromptModel:
    """Embeds text prompts with the encoder of an audit: what FiftyOne asks for where it would load a zoo model."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record

    def __enter__(self) -> PromptModel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def embed_prompts(self, prompts: Sequence[str]) -> Floats:
        """float32 `[q, d]`: the prompt in the blocks that share its space, zeros in the others.

        Raises:
            AuditError: a prompt has no words, or the encoder is not the one that made the index.
        """
        texts = _embed_texts(tuple(prompts), self.record["encoder"], self.record["text_key"])
        if "text_mean" in self.record:  # of an index in the space of words
            texts = unit_rows(texts - np.array(self.record["text_mean"], dtype=np.float32))
        blocks = self.record["blocks"]
        parts = [texts if answers else np.zeros((len(texts), dim), np.float32) for _, dim, answers in blocks]
        return _joined(parts)


def _embed_texts(texts: tuple[str, ...], encoder: str, expected: str) -> Floats:
    from audit_plugin.encoders.base import same_weights
    from audit_plugin.encoders.embed import digest_contents, embed, silent

    key = _text_key(encoder) or _text_encoder(encoder)[TEXT].identity.key
    if expected and not same_weights(key, expected):
        raise AuditError(f"the weights of {encoder} are not those that made this index; index the dataset again")
    samples = Samples(tuple(map(str, range(len(texts)))), {TEXT: texts})
    embedded = embed(samples, digest_contents(samples, silent), {TEXT: key}, lambda: _text_encoder(encoder), silent)
    for row, reason in embedded.failures.items():
        raise AuditError(f"the prompt {texts[row]!r} cannot be read ({reason}); type a few words")
    return embedded.features.vectors[TEXT]


def _text_key(encoder: str) -> str:
    """Names the text encoder with its weights, without loading it; "" where they are not on this machine."""
    from audit_plugin.encoders.devices import pick_device
    from audit_plugin.encoders.registry import identify

    identities = identify(encoder, (TEXT,), pick_device("auto"))
    return identities[TEXT].key if identities else ""


@functools.lru_cache(maxsize=2)
def _text_encoder(encoder: str) -> dict[str, Encoder]:
    """Cached: the next prompt often follows a few seconds later."""
    from audit_plugin.encoders.devices import pick_device
    from audit_plugin.encoders.registry import load_encoders

    return load_encoders(encoder, (TEXT,), pick_device("auto"))


fob.brain_config.similarity_backends[BACKEND] = {"config_cls": f"{__name__}.{FaissSimilarityConfig.__name__}"}
