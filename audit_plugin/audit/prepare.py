"""Reads and encodes the samples: everything before the first model is trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Ints, SampleFacts, Samples, dense_ids
from audit_plugin.config import NO_TEXT, AuditConfig
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.cached_features import StoredFeatures, joined_features
from audit_plugin.encoders.devices import pick_device, release_memory
from audit_plugin.encoders.embed import Contents, Embedded, Progress, digest_contents, embed, join_reasons
from audit_plugin.encoders.own_embeddings import OWN_NAME, OwnEmbeddings, encoded_part, is_own, store_own
from audit_plugin.encoders.pixels import IMAGE, measure_missing, stored_measures
from audit_plugin.encoders.precision import choose_precision
from audit_plugin.encoders.prompts import prompted_identities, split_templates
from audit_plugin.encoders.registry import identify, resolve_name
from audit_plugin.encoders.word_space import word_vectors
from audit_plugin.inputs.boxes import boxes_of
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.neighbors.projection import Projection
from audit_plugin.store import check_memory, stored_identity
from audit_plugin.trials.engines import LOCAL, EncoderRecipe, Engine
from audit_plugin.trials.learners import head_projections


@dataclass
class Clock:
    """Seconds per stage, and the caller's progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to the stage `name`, and releases the device's unused memory after it."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)
        release_memory()


@dataclass(frozen=True)
class Order:
    """The canonical order of the complete rows: by texts, ids, places of the media, their contents, caption numbers.

    All that is drawn at random follows it, so results do not depend on the caller's order; ids that only count the rows
    come last. Contents of media come late since they are not known where your own embeddings stand for them: the same
    features give the same scores, whoever computed them, also where many rows have one text, as with class labels.

    Attributes:
        rows: `[n]`, the caller's row of each complete row, in canonical order.
        total: number of the caller's rows.
    """

    rows: Ints
    total: int

    def back(self, values: Any, missing: Any) -> Any:
        """Values `[len(rows)]` in canonical order -> `[total]` in the caller's, `missing` elsewhere."""
        values = np.asarray(values)
        out = np.full(self.total, missing, dtype=values.dtype)
        out[self.rows] = values
        return out


@dataclass(frozen=True)
class Prepared:
    """Samples with their features.

    Attributes:
        samples: modalities in the table's order.
        contents: digests and failures.
        embedded: features of all rows; `augmented`: the same under each augmentation.
        encoder_identities: modality -> identity of its encoder; `encoder_name`: their resolved name.
        order: the complete rows in canonical order.
        device: where to compute.
    """

    samples: Samples
    contents: Contents
    embedded: Embedded
    augmented: tuple[Embedded, ...]
    encoder_identities: Mapping[str, EncoderIdentity]
    encoder_name: str
    order: Order
    device: str

    @functools.cached_property  # what is large is gathered once
    def features(self) -> Features:
        """Of the complete rows, in canonical order."""
        return self.embedded.features.rows(self.order.rows)

    @functools.cached_property  # takes seconds
    def head_projections(self) -> dict[str, Projection]:
        """Modality -> what the heads see of the features."""
        return head_projections(self.features)

    @property
    def text_modalities(self) -> list[str]:
        """The modalities that are text."""
        return [m for m in self.samples.modalities if MODALITIES[m].is_text]

    def is_own(self, modality: str) -> bool:
        """Whether the modality's features were given: it was neither read nor encoded."""
        return is_own(self.encoder_identities[modality])

    def media(self, modality: str) -> list[str]:
        """Paths or texts of the complete rows, in canonical order."""
        values = self.samples.media[modality]
        return [values[row] or "" for row in self.order.rows]

    @property
    def image_paths(self) -> Sequence[str]:
        """Paths of the complete rows' images, in canonical order; empty where there are none that were read."""
        return self.media("image") if "image" in self.samples.modalities and not self.is_own("image") else ()


def encoders_of(run_dir: str | Path | None) -> dict[str, str]:
    """Modality -> encoder key of the run in a folder; empty where there is none."""
    try:
        return dict(stored_identity(Path(run_dir))["encoders"]) if run_dir else {}
    except (AuditError, TypeError, KeyError):
        return {}  # what is wrong with the folder is reported when it is opened


def prepare(
    samples: Samples,
    config: AuditConfig,
    clock: Clock,
    encoders: Mapping[str, str] | None = None,
    engine: Engine = LOCAL,
) -> Prepared:
    """Reads and encodes the samples, or loads their features from the cache.

    `encoders` are the keys of a run that is continued: precision `auto` is what it settled on.
    """
    check_samples(samples, config)
    check_memory()
    # in the table's order: image before text, however the caller named them
    samples = replace(samples, media={m: samples.media[m] for m in MODALITIES if m in samples.media})
    device, encoded = pick_device(config.device), encoded_part(samples)
    with clock.stage("read"):  # given vectors first: what is wrong with them is told before hours of encoding
        own = store_own(samples, config, clock.progress, encoders)
    if encoded.modalities:
        name = resolve_name(config.encoder, encoded.modalities)
        read = _encode(encoded, name, config, device, clock, encoders, engine)
        read = _joined(samples, own, read) if samples.vectors else read
    else:
        name, read = OWN_NAME, (own.contents, (own.embedded,), own.identities)
    contents, (embedded, *augmented), identities = read
    present = np.logical_and.reduce([e.features.present for e in (embedded, *augmented)])
    order = Order(canonical_rows(samples, contents, np.flatnonzero(present.all(axis=1))), len(samples))
    return Prepared(samples, contents, embedded, tuple(augmented), identities, name, order, device)


# Contents; features of the media as they are, then of each augmented view; modality -> identity of its encoder
_Read = tuple[Contents, tuple[Embedded, ...], Mapping[str, EncoderIdentity]]


def _encode(
    samples: Samples,
    name: str,
    config: AuditConfig,
    device: str,
    clock: Clock,
    encoders: Mapping[str, str] | None,
    engine: Engine,
) -> _Read:
    """Reads the samples' media and encodes what the cache lacks, by the encoders of a resolved name."""
    templates = split_templates(config.template)
    recipe = EncoderRecipe(name, templates)
    load = functools.cache(lambda: recipe.load(samples.modalities, device))
    identities = prompted_identities(identify(name, samples.modalities, device), templates)
    if not identities:
        identities = {modality: encoder.identity for modality, encoder in load().items()}
    with clock.stage("read"):
        contents = digest_contents(samples, clock.progress)
    with clock.stage("encode"):
        chosen = choose_precision(samples, contents, identities, load, config.precision, device, encoders)
        keys = {modality: identity.key for modality, identity in chosen.identities.items()}
        encode = engine.encoding(recipe, chosen.identities)
        embedded, *augmented = (
            embed(samples, contents, keys, chosen.load, clock.progress, view, encode)
            for view in range(config.views + 1)
        )
        if IMAGE in samples.modalities:
            values = zip(contents.digests[IMAGE], samples.media[IMAGE], strict=True)
            measure_missing({digest: value for digest, value in values if digest and value}, clock.progress)
    embedded = replace(embedded, notes=(*chosen.notes, *embedded.notes))
    if templates:  # the pieces of a label are its prompts: nothing was too long
        embedded = replace(embedded, split_texts=0)
    return contents, (embedded, *augmented), chosen.identities


def _joined(samples: Samples, own: OwnEmbeddings, encoded: _Read) -> _Read:
    """Given and encoded modalities together, in the order of the samples."""
    contents, (embedded,), identities = encoded  # views were refused
    names = samples.modalities
    all_digests, all_identities = {**contents.digests, **own.contents.digests}, {**identities, **own.identities}
    parts = [part.features for part in (embedded, own.embedded) if isinstance(part.features, StoredFeatures)]
    failures = dict(embedded.failures)
    for row, reason in own.contents.failures.items():
        if row not in samples.problems:
            failures[row] = join_reasons(failures.get(row), reason)
    joined = Embedded(
        joined_features(names, parts),
        failures,
        embedded.split_texts,
        embedded.encoded,
        (*own.embedded.notes, *embedded.notes),
    )
    digests = {name: all_digests[name] for name in names}
    return Contents(digests, failures, own.contents.texts), (joined,), {name: all_identities[name] for name in names}


def check_samples(samples: Samples, config: AuditConfig) -> None:
    """Raises AuditError for what is no set of two or more modalities, or of one medium where no text is wanted."""
    if len(samples) == 0:
        raise AuditError("there are 0 samples to audit; give at least one row")
    is_one_medium = config.text == NO_TEXT and len(samples.modalities) == 1 and "text" not in samples.modalities
    if len(samples.modalities) < 2 and not is_one_medium:
        raise AuditError(f"only {', '.join(samples.modalities) or 'nothing'} is named; name two or more modalities")
    if unknown := [m for m in samples.modalities if m not in MODALITIES]:
        raise AuditError(f"modality {unknown[0]!r} is not known; use {', '.join(MODALITIES)}")


def canonical_rows(samples: Samples, contents: Contents, rows: Ints) -> Ints:
    """Those of the rows that could be read at all, in canonical order (`Order`)."""
    caption = samples.caption or (0,) * len(samples)
    texts = [contents.names(m) for m in samples.modalities if MODALITIES[m].is_text]
    media = [m for m in samples.modalities if not MODALITIES[m].is_text]
    names, places = [contents.names(m) for m in media], [samples.media[m] for m in media]
    different = set(samples.ids)
    ids = [""] * len(samples) if different == set(map(str, range(len(different)))) else samples.ids
    keys = [
        (
            *(digests[row] for digests in texts),
            ids[row],
            *(paths[row] or "" for paths in places),
            *(digests[row] for digests in names),
            samples.ids[row],
            caption[row],
            row,
        )
        for row in map(int, rows)
        if row not in samples.problems
    ]
    return np.array([key[-1] for key in sorted(keys)], dtype=np.int64)


def describe_samples(prepared: Prepared, known: Bools | None = None) -> SampleFacts:
    """What is known of the complete rows besides their features; `known` as in `SampleFacts`."""
    samples, rows = prepared.samples, prepared.order.rows
    texts = {name: prepared.media(name) for name in prepared.text_modalities}
    return SampleFacts(
        contents={
            m: dense_ids([prepared.contents.names(m)[row] for row in rows], by_first_row=True)
            for m in samples.modalities
        },
        space={m: encoder.space for m, encoder in prepared.encoder_identities.items()},
        words={m: np.array([len(text.split()) for text in texts[m]], dtype=np.int64) for m in texts},
        user_groups=user_groups(samples, prepared.order),
        roles=np.array(samples.roles, dtype=object)[rows] if samples.roles else None,
        labels=np.array(samples.labels, dtype=object)[rows] if samples.labels else None,
        known=known,
        texts={name: values for name, values in texts.items() if any(values)},
        word_vectors=word_vectors(prepared.encoder_identities, prepared.features.vectors, known),
        pixels=stored_measures([prepared.contents.digests["image"][row] for row in rows])
        if prepared.image_paths
        else None,
        splits=[samples.splits[row] for row in rows] if samples.splits else (),
        boxes=boxes_of(
            prepared.media("image") if "image" in samples.modalities else (),
            [samples.ids[row] for row in rows],
            reads_files=bool(prepared.image_paths),
        ),
    )


def user_groups(samples: Samples, order: Order) -> Ints | None:
    """The caller's groups and captions of one sample; None where every row stands alone."""
    groups = samples.groups or ("",) * len(samples)
    names = [f"g:{groups[row]}" if groups[row] else f"s:{samples.ids[row]}" for row in order.rows]
    return dense_ids(names) if len(set(names)) < len(names) else None
