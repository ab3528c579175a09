"""An audit's embeddings as an index wants them, and its encoder as what answers text prompts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Floats, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.read.items import objects_field, patches_of
from audit_plugin.fiftyone_io.read.samples import read_samples, samples_of_rows
from audit_plugin.fiftyone_io.read.sources import modality_sources
from audit_plugin.fiftyone_io.results.tables import audit_summary
from audit_plugin.fiftyone_io.runs import audit_info, settings_of

from .vectors import Vectors, unit_rows

if TYPE_CHECKING:
    from audit_plugin.audit.prepare import Prepared
    from audit_plugin.encoders.base import Encoder, EncoderIdentity
    from audit_plugin.encoders.embed import Progress

JOINT = "joint"
TEXT = "text"


@dataclass(frozen=True)
class AuditVectors:
    """What is indexed.

    Attributes:
        vectors: unit rows.
        objects: the label field that the rows are of; "" for samples.
        record: JSON-ready; run, modality, encoder, and the blocks `[name, dimensions, answers prompts]` of a row.
    """

    vectors: Vectors
    objects: str
    record: Mapping[str, Any]

    @property
    def answers(self) -> bool:
        """Whether a text prompt has a place among these vectors."""
        return any(answers for *_, answers in self.record["blocks"])


def audit_vectors(view: SampleCollection, run: str, modality: str, progress: Progress | None = None) -> AuditVectors:
    """The features of the audit's frozen encoders for all samples of a view, from the cache where known.

    Raises:
        AuditError: no such audit or modality, or nothing that has it.
    """
    from audit_plugin.audit.prepare import Clock, prepare
    from audit_plugin.encoders.embed import silent

    objects, rows = _audited(view, run)
    config = _settings(view, run)
    samples = read_samples(rows, config)
    if modality not in (*samples.modalities, JOINT):
        choices = ", ".join((*samples.modalities, JOINT))
        raise AuditError(f"audit {run!r} has no modality {modality!r}; choose one of {choices}")
    prepared = prepare(samples, config, Clock(progress or silent))
    names = tuple(prepared.samples.modalities) if modality == JOINT else (modality,)
    ids, parts = _one_per_id(prepared, names)
    if not ids:
        raise AuditError(f"no sample of the view has {' and '.join(names)}; choose another modality or view")
    return AuditVectors(
        _on_samples(rows, config, ids, _joined(parts), objects),
        objects,
        {
            "run": run,
            "modality": modality,
            "encoder": prepared.encoder_name,
            "text_key": _text_key(prepared.encoder_name) if TEXT in prepared.encoder_identities else "",
            "blocks": [
                [n, v.shape[1], _answers(n, prepared.encoder_identities)] for n, v in zip(names, parts, strict=True)
            ],
        },
    )


def audited_modalities(view: SampleCollection, run: str) -> tuple[str, ...]:
    """What of an audit can be indexed, "joint" last.

    Raises:
        AuditError: no such audit, or its fields are gone.
    """
    return (*modality_sources(_audited(view, run)[1], _settings(view, run)), JOINT)


def _audited(view: SampleCollection, run: str) -> tuple[str, SampleCollection]:
    """(the label field of an audit of objects or "", the samples or objects of the view)."""
    objects = audit_info(view, run).label_field
    return objects, patches_of(view, objects) if objects and not objects_field(view) else view


def _settings(view: SampleCollection, run: str) -> AuditConfig:
    """Those of the audit, with the encoder that it really used: what `auto` means may have changed."""
    config = settings_of(audit_info(view, run))
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


def _on_samples(
    rows: SampleCollection, config: AuditConfig, ids: Sequence[str], values: Floats, objects: str
) -> Vectors:
    """Rows with the ids of the samples, or labels, that they are of: in a grouped dataset, of all slices audited."""
    members = samples_of_rows(rows, config)
    pairs = [(row, sample) for row, name in enumerate(ids) for sample in members.get(name, [name])]
    samples = np.array([sample for _, sample in pairs], dtype="U24")
    return Vectors(values[[row for row, _ in pairs]], samples, np.array(ids, dtype="U24") if objects else None)


def _joined(parts: Sequence[Floats]) -> Floats:
    """Unit rows of several modalities side by side, of length 1 again."""
    return np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts)))


def _answers(name: str, encoders: Mapping[str, EncoderIdentity]) -> bool:
    """Whether a text's vector can be compared with this modality's."""
    if TEXT not in encoders:
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
        blocks = self.record["blocks"]
        parts = [texts if answers else np.zeros((len(texts), dim), np.float32) for _, dim, answers in blocks]
        return _joined(parts)


def _embed_texts(texts: tuple[str, ...], encoder: str, expected: str) -> Floats:
    from audit_plugin.encoders.embed import digest_contents, embed, silent

    key = _text_key(encoder) or _text_encoder(encoder)[TEXT].identity.key
    if expected and key != expected:
        raise AuditError(f"the weights of {encoder} are not those that made this index; index the dataset again")
    samples = Samples(tuple(map(str, range(len(texts)))), {TEXT: texts})
    embedded = embed(samples, digest_contents(samples, silent), {TEXT: key}, lambda: _text_encoder(encoder), silent)
    for row, reason in embedded.failures.items():
        raise AuditError(f"the prompt {texts[row]!r} cannot be read ({reason}); type a few words")
    return embedded.features.vectors[TEXT]


def _text_key(encoder: str) -> str:
    """Names the text encoder with its weights, without loading it; "" where they are not on this machine."""
    from audit_plugin.encoders.registry import identify

    identities = identify(encoder, (TEXT,))
    return identities[TEXT].key if identities else ""


@functools.lru_cache(maxsize=2)
def _text_encoder(encoder: str) -> dict[str, Encoder]:
    """Cached: the next prompt often follows a few seconds later."""
    from audit_plugin.encoders.devices import pick_device
    from audit_plugin.encoders.registry import load_encoders

    return load_encoders(encoder, (TEXT,), pick_device("auto"))
