"""Media to features: reads, encodes once per distinct content, caches, and records what cannot be used."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Features, Floats, Samples
from .encoding import Encoder
from .modalities import MODALITIES, MediaError
from .store import SHARD, FeatureCache

Progress = Callable[[str, int, int], None]
# (digest, feature or why there is none, pieces it was encoded in)
Encoded = tuple[str, Floats | str, int]
# (modality, value by digest, view) -> each content, as it is finished
Encode = Callable[[str, Mapping[str, str | None], int], Iterator[Encoded]]
WINDOW = 256
AHEAD = 4  # media prepared per worker before they are encoded


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
            column = []
            for row, (digest, reason) in enumerate(pool.map(lambda v, m=modality: _digest(m, v), values)):
                column.append(digest)
                if reason and row not in samples.problems:
                    failures[row].append(f"{modality}: {reason}")
                done += 1
                if done % WINDOW == 0 or done == total:
                    progress("read", done, total)
            digests[modality] = tuple(column)
    return Contents(digests, {row: "; ".join(reasons) for row, reasons in failures.items()})


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
    """

    features: Features
    failures: Mapping[int, str]
    split_texts: int
    encoded: Mapping[str, int]


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

    def here(modality: str, values: Mapping[str, str | None], view: int) -> Iterator[Encoded]:
        return encode_contents(modality, values, load()[modality], view)

    failures = dict(contents.failures)
    vectors, present, encoded, split = {}, [], {}, 0
    for modality, values in samples.media.items():
        digests = contents.digests[modality]
        first = {digest: value for digest, value in zip(reversed(digests), reversed(values), strict=True) if digest}
        found, reasons, fresh, parts = _embed_contents(modality, first, keys[modality], encode or here, progress, view)
        for row, digest in enumerate(digests):
            if digest in reasons:
                failures[row] = "; ".join(filter(None, (failures.get(row), f"{modality}: {reasons[digest]}")))
        vectors[modality] = _unit_rows([found.get(d) for d in digests])
        present.append([d in found for d in digests])
        encoded[modality] = fresh
        split += parts if MODALITIES[modality].is_text else 0
    features = Features(vectors, np.array(present, dtype=bool).T.reshape(len(samples), len(vectors)))
    return Embedded(features, failures, split, encoded)


def _unit_rows(rows: Sequence[Floats | None]) -> Floats:
    dim = next((len(r) for r in rows if r is not None), 1)
    out = np.zeros((len(rows), dim), dtype=np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            out[i] = row / max(float(np.linalg.norm(row)), 1e-12)
    return out


def _embed_contents(
    modality: str, values: Mapping[str, str | None], key: str, encode: Encode, progress: Progress, view: int
) -> tuple[dict[str, Floats], dict[str, str], int, int]:
    """(features by digest, reasons by digest, contents encoded now, contents encoded in parts)."""
    cache = FeatureCache(f"{key}:view{view}" if view else key)
    found = cache.load(list(values))
    todo = sorted(set(values) - set(found))
    reasons: dict[str, str] = {}
    pending: dict[str, Floats] = {}
    split = 0
    stage = f"encode {modality}, view {view}" if view else f"encode {modality}"
    progress(stage, len(found), len(values))
    items = encode(modality, {d: values[d] for d in todo}, view) if todo else iter(())
    for done, (digest, feature, parts) in enumerate(items, 1):
        if isinstance(feature, str):
            reasons[digest] = feature
        else:
            found[digest] = pending[digest] = feature
            split += parts > 1
        if len(pending) >= SHARD:
            cache.append(pending)
            pending = {}
        progress(stage, len(values) - len(todo) + done, len(values))
    cache.append(pending)
    return found, reasons, len(todo), split


def encode_contents(modality: str, values: Mapping[str, str | None], encoder: Encoder, view: int) -> Iterator[Encoded]:
    """Each content of `digest -> value`, as it is finished."""
    return encode_pieces(prepare_contents(modality, values, encoder.prepare, view), encoder)


def encode_pieces(prepared: Iterable[tuple[str, list[np.ndarray] | str]], encoder: Encoder) -> Iterator[Encoded]:
    """Each content, as it is finished, from its (digest, pieces or why there are none)."""
    waiting: dict[tuple[int, ...], list[tuple[str, int, np.ndarray]]] = defaultdict(list)
    open_pieces: dict[str, dict[int, Floats]] = {}
    wanted: dict[str, int] = {}

    def flush(pieces: list[tuple[str, int, np.ndarray]]) -> Iterator[Encoded]:
        vectors = _encode_batch([piece for *_, piece in pieces], encoder)
        for (digest, number, _), vector in zip(pieces, vectors, strict=True):
            found = open_pieces[digest]
            found[number] = vector / max(float(np.linalg.norm(vector)), 1e-12)
            if len(found) == wanted[digest]:
                # in the text's own order: which batch was full first must not change a bit of the mean
                yield digest, *_finish([found[i] for i in range(len(found))])
                del open_pieces[digest]

    for digest, pieces in prepared:
        if isinstance(pieces, str):
            yield digest, pieces, 0
            continue
        open_pieces[digest], wanted[digest] = {}, len(pieces)
        for number, piece in enumerate(pieces):
            queue = waiting[piece.shape]
            queue.append((digest, number, piece))
            if len(queue) == encoder.batch:
                yield from flush(waiting.pop(piece.shape))
    for queue in waiting.values():
        yield from flush(queue)


def _finish(vectors: list[Floats]) -> tuple[Floats | str, int]:
    mean = np.asarray(np.mean(vectors, axis=0, dtype=np.float32))
    return (mean, len(vectors)) if np.isfinite(mean).all() else ("encoder gave no finite numbers", 0)


def _encode_batch(pieces: list[np.ndarray], encoder: Encoder) -> Floats:
    """Always a full batch (the rest zeros): kernels differ by shape, and a feature must not depend on its batch."""
    batch = np.zeros((encoder.batch, *pieces[0].shape), dtype=pieces[0].dtype)
    batch[: len(pieces)] = pieces
    return encoder.encode(batch)[: len(pieces)]


def prepare_contents(
    modality: str, values: Mapping[str, str | None], cut: Callable[[Any], list[np.ndarray]], view: int
) -> Iterator[tuple[str, list[np.ndarray] | str]]:
    """(digest, pieces or why there are none) of each content in order, read and cut by a few threads."""
    entry = MODALITIES[modality]

    def prepare(digest: str) -> list[np.ndarray] | str:
        try:
            medium = entry.read(values[digest] or "")
            if view:
                medium = entry.augment(medium, np.random.default_rng([int(digest, 16), view]))
            return cut(medium)
        except MediaError as error:
            return str(error)

    with ThreadPoolExecutor(workers()) as pool:
        # a few ahead, not all: what is prepared waits in memory
        running: deque[tuple[str, Future[list[np.ndarray] | str]]] = deque()
        for digest in values:
            running.append((digest, pool.submit(prepare, digest)))
            if len(running) > AHEAD * workers():
                first, pieces = running.popleft()
                yield first, pieces.result()
        for first, pieces in running:
            yield first, pieces.result()
