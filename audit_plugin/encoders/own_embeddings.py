"""Embeddings of the user's own in place of an encoder's: checked, named by their bytes, and stored as features are.

They are read block by block, from wherever they lie, and copied once: into the feature cache, so that a run can be
resumed, extended and mapped whatever becomes of the file that they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Floats, Samples, VectorRows
from audit_plugin.config import AuditConfig
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.store import OWN, FeatureCache

from .base import EncoderIdentity
from .cached_features import stored_features
from .embed import SHARD_ROWS, Contents, Embedded, Progress, join_reasons

OWN_NAME = "own"  # in place of an encoder's name where nothing is encoded
BLOCK = 4096  # rows in memory at once
SIZES = (1e-4, 1e4)  # of the largest number of vectors that are stored as they are; others get the length 1
CONSTANT = 1e-6  # unit vectors that differ by less in every number are equal
NO_VECTOR = "no vector"


def is_own(identity: EncoderIdentity) -> bool:
    """Whether these features were given, not encoded."""
    return identity.key.startswith(OWN)


def encoded_part(samples: Samples) -> Samples:
    """The samples with only those modalities that have to be encoded."""
    media = {name: values for name, values in samples.media.items() if name not in samples.vectors}
    return replace(samples, media=media, vectors={})


@dataclass(frozen=True)
class OwnEmbeddings:
    """The given modalities of some samples, stored in the feature cache."""

    contents: Contents
    embedded: Embedded
    identities: Mapping[str, EncoderIdentity]


def store_own(
    samples: Samples, config: AuditConfig, progress: Progress, former_keys: Mapping[str, str] | None = None
) -> OwnEmbeddings:
    """Checks the given vectors and stores those that the cache lacks.

    `former_keys` are those of a run that is continued: it tells the type in which they are stored.

    Raises:
        AuditError: numbers that are not finite, vectors that are all the same, settings that need media or encoders.
    """
    identities = own_identities(samples, config, former_keys)
    if not identities:
        nothing = Features({}, np.zeros((len(samples), 0), dtype=bool))
        return OwnEmbeddings(Contents({}, {}), Embedded(nothing, {}, 0, {}), {})
    digests: dict[str, tuple[str, ...]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    failures = dict(samples.problems)
    notes: list[str] = []
    for modality, identity in identities.items():
        cache = FeatureCache(identity.key)
        names = _digest_rows(samples, modality, cache, progress)
        vectors = samples.vectors[modality]
        if modality not in (former_keys or {}):  # the few rows that are added to a run may be equal
            _check_variety(samples, modality, cache.dtype)
        _store_missing(vectors, names, cache)
        if isinstance(vectors, VectorRows):
            vectors.release()  # they are read from the cache from now on
        for row, name in enumerate(names):
            if not name and row not in samples.problems:
                failures[row] = join_reasons(failures.get(row), f"{modality}: {NO_VECTOR}")
        digests[modality] = names
        if MODALITIES[modality].is_text:
            texts[modality] = text_names(samples.media[modality], names)
        notes += _notes(samples, modality, names)
    features = stored_features({name: identity.key for name, identity in identities.items()}, digests)
    embedded = Embedded(features, failures, 0, {}, tuple(notes))
    return OwnEmbeddings(Contents(digests, failures, texts), embedded, identities)


def own_identities(
    samples: Samples, config: AuditConfig, former_keys: Mapping[str, str] | None = None
) -> dict[str, EncoderIdentity]:
    """Modality -> what stands in the place of its encoder, for the modalities with given vectors.

    Raises:
        AuditError: settings that do not go with given vectors.
    """
    vectors = samples.vectors
    if config.same_space and len(vectors) < 2:
        given = ", ".join(vectors) or "none"
        raise AuditError(
            f"same_space says that given embeddings share one space, but they are given for {given} only; give those "
            "of two modalities, or leave it out"
        )
    widths = {name: values.shape[1] for name, values in vectors.items()}
    if config.same_space and len(set(widths.values())) > 1:
        sizes = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise AuditError(f"embeddings of one space have one number of dimensions, not {sizes}; leave same_space out")
    if vectors and config.views:
        raise AuditError(
            f"views is {config.views}, but augmented views are encoded and the embeddings of {', '.join(vectors)} are "
            "given: use views 0"
        )
    if vectors and config.train != "heads":
        raise AuditError(
            f"train is {config.train}, which reads the media and no given embeddings ({', '.join(vectors)}); use "
            "train heads, or leave the embeddings out"
        )
    return {
        name: EncoderIdentity(_key(values, (former_keys or {}).get(name, "")), OWN_NAME if config.same_space else "")
        for name, values in vectors.items()
    }


def _key(vectors: Floats | VectorRows, former: str) -> str:
    """`own:TYPE:d`: half precision stays so, all else is stored as float32; a run keeps the type that it began with."""
    keys = [f"{OWN}{kind}:{vectors.shape[1]}" for kind in ("float16", "float32")]
    return former if former in keys else keys[vectors.dtype != np.float16]


def _digest_rows(samples: Samples, modality: str, cache: FeatureCache, progress: Progress) -> tuple[str, ...]:
    """A digest of each row's vector as it is stored, "" for zeros and for rows that cannot be read at all."""
    vectors, source = samples.vectors[modality], source_of(samples, modality)
    names: list[str] = []
    for start, values, is_zero in _blocks(vectors, cache.dtype):
        if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
            row = start + int(bad[0])
            raise AuditError(
                f"{source}: row {_row_number(vectors, row)} (counted from 0; id {samples.ids[row]!r}) holds a number "
                "that is not finite; correct it, or set the row to zeros, which stands for no vector"
            )
        names += [
            "" if zero else hashlib.sha256(row.data).hexdigest() for row, zero in zip(values, is_zero, strict=True)
        ]
        progress(f"read {modality} vectors", start + len(values), len(vectors))
    return tuple("" if row in samples.problems else name for row, name in enumerate(names))


def _check_variety(samples: Samples, modality: str, dtype: np.dtype) -> None:
    """Raises AuditError where no row has a vector, or all have the same; reads on only until one differs."""
    vectors, source = samples.vectors[modality], source_of(samples, modality)
    first: Floats | None = None
    count = 0
    for _, values, is_zero in _blocks(vectors, dtype):
        unit = values[~is_zero].astype(np.float32)
        if len(unit):
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            first = unit[:1] if first is None else first
            count += len(unit)
            if np.abs(unit - first).max() >= CONSTANT:
                return
    if not count:
        raise AuditError(f"{source}: all {len(vectors):,} rows are zeros, which stands for no vector; give embeddings")
    if count > 1:
        raise AuditError(
            f"{source}: all {count:,} vectors point in one direction, so they tell nothing apart; compute them again"
        )


def _blocks(vectors: Floats | VectorRows, dtype: np.dtype) -> Iterator[tuple[int, Floats, Bools]]:
    """(first row, vectors as they are stored `[b, d]`, which of them are zeros `[b]`), block by block."""
    for start in range(0, len(vectors), BLOCK):
        values = np.asarray(vectors[start : start + BLOCK])
        largest = np.abs(values).max(axis=1)
        is_zero = largest == 0
        is_extreme = np.isfinite(largest) & ~is_zero & ((largest < SIZES[0]) | (largest > SIZES[1]))
        if is_extreme.any():  # in two steps: the squares of such numbers do not fit their type
            values = values.astype(np.float64)
            scaled = values[is_extreme] / largest[is_extreme, None].astype(np.float64)
            values[is_extreme] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        yield start, np.ascontiguousarray(values, dtype=dtype), is_zero


def _store_missing(vectors: Floats | VectorRows, names: tuple[str, ...], cache: FeatureCache) -> None:
    """Appends the vectors that the cache lacks, each content once."""
    missing = set(cache.missing(list(dict.fromkeys(name for name in names if name))))
    if not missing:
        return
    unsaved: dict[str, Floats] = {}
    for start, values, _ in _blocks(vectors, cache.dtype):
        for name, row in zip(names[start : start + len(values)], values, strict=True):
            if name in missing:
                missing.discard(name)
                unsaved[name] = row
        if len(unsaved) >= SHARD_ROWS:
            cache.append(unsaved)
            unsaved = {}
    cache.append(unsaved)


def text_names(texts: tuple[str | None, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """What tells texts with given vectors apart: the text where it is known, else the vector; "" for neither."""
    digest = MODALITIES["text"].digest

    def name_of(text: str | None, name: str) -> str:
        try:
            return digest(text) if name and text is not None else name
        except MediaError:  # an empty text
            return name

    return tuple(map(name_of, texts, names))


def source_of(samples: Samples, modality: str) -> str:
    """What a modality's vectors are called in messages."""
    vectors = samples.vectors[modality]
    return (vectors.source if isinstance(vectors, VectorRows) else "") or f"the vectors of {modality}"


def _row_number(vectors: Floats | VectorRows, row: int) -> int:
    return vectors.number(row) if isinstance(vectors, VectorRows) else row


def _notes(samples: Samples, modality: str, names: tuple[str, ...]) -> list[str]:
    """For people: whose embeddings these are, how many rows have none, and what is left out without the media."""
    vectors, source = samples.vectors[modality], source_of(samples, modality)
    notes = [f"{modality}: {sum(map(bool, names)):,} embeddings of {vectors.shape[1]} numbers were given ({source})"]
    if isinstance(vectors, VectorRows) and vectors.note:
        notes.append(f"{modality}: {vectors.note}")
    if MODALITIES[modality].is_text:
        if not any(samples.media[modality]):
            notes.append(f"no {modality} is known, so no other one can be suggested, and vague ones are not searched")
    else:
        notes.append(f"{modality} was not read: equal vectors count as equal contents")
        if modality == "image":
            notes[-1] += ", and altered copies are recognized by their vectors, not by their pixels"
    return notes
