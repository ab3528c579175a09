"""Media to features: reads, encodes once per distinct content, caches, and records what cannot be used."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Features, Floats, Samples
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.store import FeatureCache

from .base import Encoder
from .cached_features import StoredFeatures, stored_features

Progress = Callable[[str, int, int], None]
# (content digest, its feature or why it has none, number of its pieces)
Encoded = tuple[str, Floats | str, int]
# (modality, value by digest, view) -> each content, as it is finished
Encode = Callable[[str, Mapping[str, str | None], int], Iterator[Encoded]]
WINDOW = 256
QUEUED = 4096
TASK = 16  # digests by one task: handing over a task takes longer than hashing a small file
AHEAD = 4  # media prepared per worker before they are encoded, at least
SHARD_SECONDS = 30.0  # work that a killed run may lose
SHARD_ROWS = 32_768


def silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Contents:
    """What the rows hold, by content.

    Attributes:
        digests: modality -> content digest per row, "" where it cannot be used.
        failures: row -> reasons, joined.
    """

    digests: Mapping[str, tuple[str, ...]]
    failures: Mapping[int, str]


def workers() -> int:
    """Threads for reading and decoding."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def digest_contents(samples: Samples, progress: Progress) -> Contents:
    """Content digests of all rows; a medium that cannot be read becomes a failure of its row."""
    digests: dict[str, tuple[str, ...]] = {}
    failures: dict[int, list[str]] = defaultdict(list, {row: [why] for row, why in samples.problems.items()})
    total, done = len(samples) * len(samples.media), 0
    with ThreadPoolExecutor(workers()) as pool:
        for modality, values in samples.media.items():
            column: list[str] = []
            for row, (digest, reason) in enumerate(_digests(pool, modality, values)):
                column.append(digest)
                if reason and row not in samples.problems:
                    failures[row].append(f"{modality}: {reason}")
                done += 1
                if done % WINDOW == 0 or done == total:
                    progress("read", done, total)
            digests[modality] = tuple(column)
    return Contents(digests, {row: "; ".join(reasons) for row, reasons in failures.items()})


def _digests(pool: ThreadPoolExecutor, modality: str, values: Sequence[str | None]) -> Iterator[tuple[str, str]]:
    """Of all values, in their order; the pool is given some at a time, as a million waiting tasks take gigabytes."""
    digest = functools.partial(_digest, modality)
    for start in range(0, len(values), QUEUED):
        tasks = [values[at : at + TASK] for at in range(start, min(start + QUEUED, len(values)), TASK)]
        yield from itertools.chain.from_iterable(pool.map(lambda some: [digest(value) for value in some], tasks))


def _digest(modality: str, value: str | None) -> tuple[str, str]:
    if value is None:
        return "", "no value"
    try:
        return MODALITIES[modality].digest(value), ""
    except MediaError as error:
        return "", str(error)


@dataclass(frozen=True)
class Embedded:
    """Features of all rows with what became of them.

    Attributes:
        features: rows in the order of the samples.
        failures: row -> reasons, those of `Contents` included.
        split_texts: texts that did not fit the encoder whole and were encoded in parts.
        encoded: modality -> contents encoded now (not found in the cache).
        notes: for people: what the machine or an encoder could not do.
    """

    features: Features | StoredFeatures
    failures: Mapping[int, str]
    split_texts: int
    encoded: Mapping[str, int]
    notes: tuple[str, ...] = ()


def embed(
    samples: Samples,
    contents: Contents,
    keys: Mapping[str, str],
    load: Callable[[], Mapping[str, Encoder]],
    progress: Progress,
    view: int = 0,
    encode: Encode | None = None,
) -> Embedded:
    """Features `[n, d_a]` per modality for all rows, from the cache where known.

    Args:
        samples: rows.
        contents: their digests.
        keys: encoder keys per modality, which name the caches.
        load: gives the encoders; called only if something has to be encoded.
        progress: told of the stages "encode MODALITY", for views "encode MODALITY, view NUMBER".
        view: 0 encodes the media as they are; k > 0 their k-th augmented view, drawn from (content, k) alone.
        encode: encodes somewhere else; None: here, with the encoders of `load`.
    """
    failures, notes = dict(contents.failures), list[str]()
    named = {modality: f"{key}:view{view}" if view else key for modality, key in keys.items()}

    def here(modality: str, values: Mapping[str, str | None], view: int) -> Iterator[Encoded]:
        return encode_contents(modality, values, load()[modality], view, notes)

    encoded, split = {}, 0
    for modality, values in samples.media.items():
        digests = contents.digests[modality]
        first = {digest: value for digest, value in zip(reversed(digests), reversed(values), strict=True) if digest}
        reasons, fresh, parts = _fill(FeatureCache(named[modality]), modality, first, encode or here, progress, view)
        for row, digest in enumerate(digests):
            if digest in reasons:
                failures[row] = "; ".join(filter(None, (failures.get(row), f"{modality}: {reasons[digest]}")))
        encoded[modality] = fresh
        split += parts if MODALITIES[modality].is_text else 0
    features = stored_features(named, {modality: contents.digests[modality] for modality in samples.media})
    return Embedded(features, failures, split, encoded, tuple(notes))


def _fill(
    cache: FeatureCache, modality: str, values: Mapping[str, str | None], encode: Encode, progress: Progress, view: int
) -> tuple[dict[str, str], int, int]:
    """Encodes what the cache lacks; (reasons by digest, contents encoded now, contents encoded in parts)."""
    todo = sorted(cache.missing(list(values)))
    known, split = len(values) - len(todo), 0
    reasons: dict[str, str] = {}
    pending: dict[str, Floats] = {}
    stage = f"encode {modality}, view {view}" if view else f"encode {modality}"
    progress(stage, known, len(values))
    items = encode(modality, {d: values[d] for d in todo}, view) if todo else ()
    stored = time.monotonic()
    try:
        for done, (digest, feature, parts) in enumerate(items, known + 1):
            if isinstance(feature, str):
                reasons[digest] = feature
            else:
                pending[digest] = feature
                split += parts > 1
            if len(pending) >= SHARD_ROWS or time.monotonic() - stored >= SHARD_SECONDS:
                cache.append(pending)
                pending, stored = {}, time.monotonic()
            progress(stage, done, len(values))
    finally:
        cache.append(pending)  # of a canceled run too
    return reasons, len(todo), split


def encode_contents(
    modality: str, values: Mapping[str, str | None], encoder: Encoder, view: int = 0, notes: list[str] | None = None
) -> Iterator[Encoded]:
    """Each content's feature, or why it has none, as they are finished. Media are read while others are encoded.

    Args:
        modality: of the contents.
        values: digest -> path or text.
        encoder: turns their pieces into vectors.
        view: augmented view, see `embed`.
        notes: told if the GPU's memory was too small for full batches.

    Yields:
        (digest, float32 `[d]` or a reason, number of pieces).
    """
    return encode_pieces(prepare_all(modality, values, encoder, view), encoder, [] if notes is None else notes)


def encode_pieces(
    prepared: Iterable[tuple[str, list[np.ndarray] | str]], encoder: Encoder, notes: list[str]
) -> Iterator[Encoded]:
    """As `encode_contents`, from each content's pieces or why it has none."""
    found: dict[str, dict[int, Floats]] = defaultdict(dict)
    for part in _encode_all(_batches(prepared, encoder.batch), encoder, notes):
        if not isinstance(part, list):
            yield part
            continue
        for piece, vector in part:
            vectors = found[piece.digest]
            vectors[piece.number] = vector / max(float(np.linalg.norm(vector)), 1e-12)
            if len(vectors) == piece.total:
                # in the text's own order: which batch was full first must not change a bit of the mean
                yield piece.digest, *_finish([vectors[i] for i in range(piece.total)])
                del found[piece.digest]


def _finish(vectors: list[Floats]) -> tuple[Floats | str, int]:
    mean = np.asarray(np.mean(vectors, axis=0, dtype=np.float32))
    return (mean, len(vectors)) if np.isfinite(mean).all() else ("encoder gave no finite numbers", 0)


class Piece(NamedTuple):
    """One of the `total` arrays that a medium was made into."""

    digest: str
    number: int
    total: int
    values: np.ndarray


def _batches(prepared: Iterable[tuple[str, list[np.ndarray] | str]], size: int) -> Iterator[list[Piece] | Encoded]:
    """Pieces of one shape, `size` of them or the last ones; media that failed pass through."""
    waiting: dict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for digest, pieces in prepared:
        if isinstance(pieces, str):
            yield digest, pieces, 0
            continue
        for number, values in enumerate(pieces):
            queue = waiting[values.shape]
            queue.append(Piece(digest, number, len(pieces), values))
            if len(queue) == size:
                yield waiting.pop(values.shape)
    yield from waiting.values()


def _encode_all(
    batches: Iterable[list[Piece] | Encoded], encoder: Encoder, notes: list[str]
) -> Iterator[list[tuple[Piece, Floats]] | Encoded]:
    """Each piece with its vector; failures pass through. With `overlap` one batch is encoded while the next is read."""

    def encode(pieces: list[Piece]) -> list[tuple[Piece, Floats]]:
        nonlocal encoder
        found: list[Floats] = []
        while len(found) < len(pieces):
            part = [piece.values for piece in pieces[len(found) : len(found) + encoder.batch]]
            try:
                found += list(_encode_batch(part, encoder))
            except torch.cuda.OutOfMemoryError as error:
                encoder = _halved(encoder, error)
                notes.append(f"the GPU's memory is too small for the usual batches; they were cut to {encoder.batch}")
        return list(zip(pieces, found, strict=True))

    if not encoder.overlap:
        for batch in batches:
            yield encode(batch) if isinstance(batch, list) else batch
        return
    with ThreadPoolExecutor(1) as pool:
        running: Future[list[tuple[Piece, Floats]]] | None = None
        for batch in batches:
            if not isinstance(batch, list):
                yield batch
                continue
            before, running = running, pool.submit(encode, batch)
            if before is not None:
                yield before.result()
        if running is not None:
            yield running.result()


def _halved(encoder: Encoder, error: Exception) -> Encoder:
    if encoder.batch == 1:
        raise AuditError(
            f"the GPU's memory is too small for encoder {encoder.identity.key!r}; close other programs that use the "
            "GPU, or use --device cpu"
        ) from error
    torch.cuda.empty_cache()
    return replace(encoder, batch=encoder.batch // 2)


def _encode_batch(pieces: list[np.ndarray], encoder: Encoder) -> Floats:
    """Always a full batch (the rest zeros): kernels differ by shape, and a feature must not depend on its batch."""
    batch = np.zeros((encoder.batch, *pieces[0].shape), dtype=pieces[0].dtype)
    batch[: len(pieces)] = pieces
    return encoder.encode(batch)[: len(pieces)]


def prepare_all(
    modality: str, values: Mapping[str, str | None], encoder: Encoder, view: int = 0
) -> Iterator[tuple[str, list[np.ndarray] | str]]:
    """Each content's pieces, or why it has none, in order; read in threads, a batch at once or ahead of who asks."""
    entry = MODALITIES[modality]

    def prepare(digest: str) -> list[np.ndarray] | str:
        try:
            medium = entry.read(values[digest] or "")
            if view:
                medium = entry.augment(medium, np.random.default_rng([int(digest, 16), view]))
            return encoder.prepare(medium)
        except MediaError as error:
            return str(error)

    if not encoder.overlap:
        names = list(values)
        with ThreadPoolExecutor(workers()) as pool:
            for start in range(0, len(names), encoder.batch):
                some = names[start : start + encoder.batch]
                yield from zip(some, pool.map(prepare, some), strict=True)
        return
    ahead, pool = AHEAD * workers(), ThreadPoolExecutor(workers())
    # a batch ahead, not all: what is prepared waits in memory
    running: deque[tuple[str, Future[list[np.ndarray] | str]]] = deque()
    try:
        for digest in values:
            running.append((digest, pool.submit(prepare, digest)))
            if len(running) > ahead:
                first, pieces = running.popleft()
                yield first, pieces.result()
                ahead = max(AHEAD * workers(), encoder.batch // max(1, len(pieces.result())))
        while running:
            first, pieces = running.popleft()
            yield first, pieces.result()
    finally:
        pool.shutdown(cancel_futures=True)
