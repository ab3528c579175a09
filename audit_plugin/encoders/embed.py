"""Media to features: reads, encodes once per distinct content, caches, and records what cannot be used."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Features, Floats, Samples, count_text
from audit_plugin.inputs import reading
from audit_plugin.inputs.files import MediaError, failure_of
from audit_plugin.inputs.modalities import MODALITIES, read_media
from audit_plugin.inputs.reading import ReadApart, start_workers
from audit_plugin.inputs.threads import ReadingThreads, check_stopped
from audit_plugin.store import FeatureCache, raise_shortage

from .base import Encoder
from .cached_features import StoredFeatures, stored_features
from .devices import cpu_count
from .pixels import Watch, ignore, measuring

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in total
Pieces = list[np.ndarray] | str  # what an encoder's `prepare` makes of a medium, or why it cannot be used
WINDOW = 256  # rows between two reports of progress
QUEUED = 4096  # values given to the pool at once: a million waiting tasks would take gigabytes
TASK = 16  # values per task: handing over a task takes longer than hashing a small file
CHUNK = 8  # media that a thread reads one after the other: the next is decoded while the last is prepared
AHEAD = 4  # media prepared per thread before they are encoded, at least; one chunk
SHARD_SECONDS = 30.0  # work that a killed run may lose
SHARD_ROWS = 32_768


class Encoded(NamedTuple):
    """One content that was encoded."""

    digest: str
    feature: Floats | str  # float32 `[d]`, or the reason why there is none
    pieces: int  # their number


# (modality, digest -> value, view) -> each content as soon as it is encoded
Encode = Callable[[str, Mapping[str, str | None], int], Generator[Encoded, None, None]]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that is not shown."""


def thread_count() -> int:
    """Threads for reading and decoding."""
    return min(8, cpu_count())


@dataclass(frozen=True)
class Contents:
    """The contents of all rows."""

    digests: Mapping[str, tuple[str, ...]]  # modality -> content digest per row, "" where it cannot be used
    failures: Mapping[int, str]  # row -> reasons, joined
    # modality that is text and whose features were given -> digest of each row's text, of its vector where it has none
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, modality: str) -> tuple[str, ...]:
        """What tells the contents of the rows apart: equal names are one content, whatever its features."""
        return self.texts.get(modality, self.digests[modality])


def digest_contents(samples: Samples, progress: Progress) -> Contents:
    """Content digests of all rows; a medium that cannot be read becomes a failure of its row."""
    digests: dict[str, tuple[str, ...]] = {}
    reasons: dict[int, list[str]] = defaultdict(list)
    for row, problem in samples.problems.items():
        reasons[row].append(problem)
    done, total = 0, len(samples) * len(samples.media)
    with ReadingThreads(thread_count()) as pool:
        for modality, values in samples.media.items():
            column: list[str] = []
            for row, (digest, reason) in enumerate(_digests(pool, modality, values)):
                column.append(digest)
                if reason and row not in samples.problems:
                    reasons[row].append(f"{modality}: {reason}")
                done += 1
                if done % WINDOW == 0 or done == total:
                    progress("read", done, total)
            digests[modality] = tuple(column)
    return Contents(digests, {row: "; ".join(of_row) for row, of_row in reasons.items()})


def _digests(pool: ThreadPoolExecutor, modality: str, values: Sequence[str | None]) -> Iterator[tuple[str, str]]:
    """(digest, "") or ("", reason) per value, in their order."""
    digest_task = functools.partial(_digest_task, MODALITIES[modality].digest)
    for start in range(0, len(values), QUEUED):
        queued = values[start : start + QUEUED]
        tasks = [queued[at : at + TASK] for at in range(0, len(queued), TASK)]
        yield from itertools.chain.from_iterable(pool.map(digest_task, tasks))


def _digest_task(digest: Callable[[str], str], values: Sequence[str | None]) -> list[tuple[str, str]]:
    results = []
    for value in values:
        try:
            check_stopped()
            results.append(("", "no value") if value is None else (digest(value), ""))
        except Exception as error:
            raise_shortage(error)
            results.append(("", failure_of(error)))
    return results


@dataclass(frozen=True)
class Embedded:
    """Features of all rows, in the order of the samples, and how they were made."""

    features: Features | StoredFeatures
    failures: Mapping[int, str]  # row -> reasons, those of `Contents` included
    split_texts: int  # number of texts that did not fit the encoder and were encoded in parts
    encoded: Mapping[str, int]  # modality -> number of contents encoded now (not in the cache before)
    notes: tuple[str, ...] = ()  # for people: what the machine or an encoder could not do


def embed(
    samples: Samples,
    contents: Contents,
    keys: Mapping[str, str],
    load: Callable[[], Mapping[str, Encoder]],
    progress: Progress,
    view: int = 0,
    encode: Encode | None = None,
) -> Embedded:
    """Features `[n, d]` per modality for all rows, from the cache where known.

    Args:
        samples: rows.
        contents: their digests.
        keys: modality -> encoder key, which names the cache.
        load: returns the encoders; called only if something has to be encoded.
        progress: called with the stages "encode MODALITY", for views "encode MODALITY, view NUMBER".
        view: 0 encodes the media as they are; k > 0 their k-th augmented view, drawn from (content, k) alone.
        encode: encodes in other processes; None: in this one, with the encoders of `load`.
    """
    cache_keys = {modality: f"{key}:view{view}" if view else key for modality, key in keys.items()}
    batch_encoders: list[BatchEncoder] = []

    def encode_here(modality: str, values: Mapping[str, str | None], view: int) -> Generator[Encoded, None, None]:
        if isinstance(MODALITIES[modality].read, ReadApart):
            start_workers(min(thread_count(), len(values)))  # while the encoder is loaded
        encoder = load()[modality]
        batch_encoders.append(BatchEncoder(encoder))
        with (
            measuring(modality if view == 0 else "") as watch,
            contextlib.closing(prepare_contents(modality, values, encoder, view, watch)) as prepared,
        ):
            yield from encode_pieces(prepared, batch_encoders[-1])

    failures = dict(contents.failures)
    encoded: dict[str, int] = {}
    split_texts, file_notes = 0, []
    for modality, values in samples.media.items():
        digests = contents.digests[modality]
        # of equal contents the first value; rows without a digest have none
        values_by_digest = dict(zip(reversed(digests), reversed(values), strict=True))
        values_by_digest.pop("", None)
        cache = FeatureCache(cache_keys[modality])
        reasons, encoded[modality], split = _fill(
            cache, modality, values_by_digest, encode or encode_here, progress, view
        )
        file_notes += cache.damage(modality)
        if hurried := sum(reason == reading.too_long(reading.FEW_SECONDS) for reason in reasons.values()):
            file_notes.append(
                f"{count_text(hurried, 'file')} of modality {modality} had {reading.FEW_SECONDS} s each to be read, "
                "since others took too long; if they are good, run the same command again without those others"
            )
        for row, digest in enumerate(digests):
            if digest in reasons:
                failures[row] = join_reasons(failures.get(row), f"{modality}: {reasons[digest]}")
        if MODALITIES[modality].is_text:
            split_texts += split
    features = stored_features(cache_keys, {modality: contents.digests[modality] for modality in samples.media})
    notes = [*file_notes, *(note for batch_encoder in batch_encoders for note in batch_encoder.notes)]
    return Embedded(features, failures, split_texts, encoded, tuple(notes))


def join_reasons(former: str | None, reason: str) -> str:
    """The reasons why a row fails, with one more."""
    return f"{former}; {reason}" if former else reason


def _fill(
    cache: FeatureCache, modality: str, values: Mapping[str, str | None], encode: Encode, progress: Progress, view: int
) -> tuple[dict[str, str], int, int]:
    """Encodes the contents that the cache lacks, and stores them every now and then.

    Returns (digest -> why it has no feature, number of contents encoded, number of those encoded in several pieces).
    """
    unknown = set(cache.missing(list(values)))  # in the order of the rows: neighbors in a table are read together
    missing = [digest for digest in reversed(list(values)) if digest in unknown]
    known = len(values) - len(missing)
    stage = f"encode {modality}, view {view}" if view else f"encode {modality}"
    progress(stage, known, len(values))
    if not missing:
        return {}, 0, 0
    reasons: dict[str, str] = {}
    split = 0
    unsaved: dict[str, Floats] = {}
    saved_at = time.monotonic()
    items = encode(modality, {digest: values[digest] for digest in missing}, view)
    try:
        for done, (digest, feature, pieces) in enumerate(items, known + 1):
            if isinstance(feature, str):
                reasons[digest] = feature
            else:
                unsaved[digest] = feature
                split += pieces > 1
            if len(unsaved) >= SHARD_ROWS or time.monotonic() - saved_at >= SHARD_SECONDS:
                cache.append(unsaved)
                unsaved, saved_at = {}, time.monotonic()
            progress(stage, done, len(values))
    finally:
        items.close()  # of a canceled run: what is being read is given up
        cache.append(unsaved)
    return reasons, len(missing), split


class Piece(NamedTuple):
    """One of the `total` arrays that a medium was made into."""

    digest: str
    number: int
    total: int
    values: np.ndarray


class BatchEncoder:
    """Encodes batches of pieces, in smaller parts after the GPU's memory was too small for a full batch."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder  # with the size of batches that fits
        self.notes: list[str] = []  # for people: that batches were cut

    def encode(self, pieces: list[Piece]) -> list[tuple[Piece, Floats]]:
        """Each piece, all of one shape, with its vector, float32 `[d]`.

        Raises:
            AuditError: the GPU's memory is too small for a single piece.
        """
        vectors: list[Floats] = []
        while len(vectors) < len(pieces):
            part = pieces[len(vectors) : len(vectors) + self.encoder.batch]
            try:
                vectors += list(encode_batch([piece.values for piece in part], self.encoder))
            except torch.cuda.OutOfMemoryError as error:
                if self.encoder.batch == 1:
                    raise AuditError(
                        f"the GPU's memory is too small for encoder {self.encoder.identity.key!r}; close other "
                        "programs that use the GPU, or use --device cpu"
                    ) from error
                torch.cuda.empty_cache()
                half = self.encoder.batch // 2
                self.encoder = replace(self.encoder, batch=half)
                self.notes.append(f"the GPU's memory is too small for the usual batches; they were cut to {half}")
        return list(zip(pieces, vectors, strict=True))


def encode_batch(pieces: list[np.ndarray], encoder: Encoder) -> Floats:
    """float32 `[len(pieces), d]`, encoded as a full batch filled up with zeros, unless the encoder takes `any_batch`.

    Kernels differ by shape, and a feature must not depend on the size of its batch.
    """
    rows = len(pieces) if encoder.any_batch else encoder.batch
    batch = np.zeros((rows, *pieces[0].shape), dtype=pieces[0].dtype)
    batch[: len(pieces)] = pieces
    vectors = encoder.encode(batch)
    if vectors.ndim != 2 or len(vectors) != len(batch):
        raise ValueError(f"encoder {encoder.identity.key!r}: expected [{len(batch)}, d], got {vectors.shape}")
    return vectors[: len(pieces)]


def encode_pieces(prepared: Iterable[tuple[str, Pieces]], batch_encoder: BatchEncoder) -> Iterator[Encoded]:
    """Each content as soon as it is encoded, from (digest, pieces or the reason why there are none).

    A content's feature is the mean of its pieces' unit vectors.
    """
    unit_vectors: dict[str, dict[int, Floats]] = defaultdict(dict)  # digest -> number of the piece -> its vector
    for batch in _encode_batches(_batches(prepared, batch_encoder.encoder.batch), batch_encoder):
        if isinstance(batch, Encoded):
            yield batch
            continue
        for piece, vector in batch:
            vectors = unit_vectors[piece.digest]
            vectors[piece.number] = vector / max(float(np.linalg.norm(vector)), 1e-12)
            if len(vectors) == piece.total:
                # summed in the content's own order: the order of the batches must not change a bit of the mean
                in_order = [vectors[number] for number in range(piece.total)]
                mean = np.asarray(np.mean(in_order, axis=0, dtype=np.float32))
                if np.isfinite(mean).all():
                    yield Encoded(piece.digest, mean, piece.total)
                else:
                    yield Encoded(piece.digest, "encoder gave no finite numbers", 0)
                del unit_vectors[piece.digest]


def _batches(prepared: Iterable[tuple[str, Pieces]], size: int) -> Iterator[list[Piece] | Encoded]:
    """Batches of `size` pieces of one shape, the last ones smaller; contents that failed pass through."""
    waiting: dict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for digest, pieces in prepared:
        if isinstance(pieces, str):
            yield Encoded(digest, pieces, 0)
            continue
        for number, values in enumerate(pieces):
            batch = waiting[values.shape]
            batch.append(Piece(digest, number, len(pieces), values))
            if len(batch) == size:
                yield waiting.pop(values.shape)
    yield from waiting.values()


def _encode_batches(
    batches: Iterable[list[Piece] | Encoded], batch_encoder: BatchEncoder
) -> Iterator[list[tuple[Piece, Floats]] | Encoded]:
    """Each batch's pieces with their vectors; contents that failed pass through.

    With `overlap` one batch is encoded while the next is read.
    """
    if not batch_encoder.encoder.overlap:
        for batch in batches:
            yield batch if isinstance(batch, Encoded) else batch_encoder.encode(batch)
        return
    with ThreadPoolExecutor(1) as pool:
        running: Future[list[tuple[Piece, Floats]]] | None = None
        for batch in batches:
            if isinstance(batch, Encoded):
                yield batch
                continue
            before, running = running, pool.submit(batch_encoder.encode, batch)
            if before is not None:
                yield before.result()
        if running is not None:
            yield running.result()


def prepare_contents(
    modality: str, values: Mapping[str, str | None], encoder: Encoder, view: int = 0, watch: Watch = ignore
) -> Generator[tuple[str, Pieces], None, None]:
    """(digest, pieces or the reason why there are none) per content, in order, read in threads.

    `watch` is given each content's digest and medium, by the thread that read it.
    With `overlap` media are read ahead, about a batch: what is prepared waits in memory. Else a batch at a time.
    """
    augment = MODALITIES[modality].augment

    def prepare(digest: str, medium: Any) -> Pieces:
        if isinstance(medium, MediaError):
            return str(medium)
        try:
            watch(digest, medium)
            if view:
                medium = augment(medium, np.random.default_rng([int(digest, 16), view]))
            return encoder.prepare(medium)
        except Exception as error:
            raise_shortage(error)  # of this process: no fault of the medium
            return failure_of(error)

    def prepare_chunk(digests: Sequence[str]) -> list[tuple[str, Pieces]]:
        media = read_media(modality, [values[digest] or "" for digest in digests])
        return [(digest, prepare(digest, medium)) for digest, medium in zip(digests, media, strict=True)]

    if encoder.overlap:
        yield from _read_ahead(list(values), prepare_chunk, encoder.batch)
    else:
        digests = list(values)
        with ReadingThreads(thread_count()) as pool:
            for start in range(0, len(digests), encoder.batch):
                batch = digests[start : start + encoder.batch]
                chunks = _chunks(batch, min(CHUNK, -(-len(batch) // thread_count())))
                yield from itertools.chain.from_iterable(pool.map(prepare_chunk, chunks))


def _read_ahead(
    digests: Sequence[str], prepare_chunk: Callable[[Sequence[str]], list[tuple[str, Pieces]]], batch: int
) -> Generator[tuple[str, Pieces], None, None]:
    """What `prepare_chunk` gives for all contents, in order; threads are ahead by about a batch of pieces."""
    least = AHEAD * thread_count()
    ahead = least
    running: deque[Future[list[tuple[str, Pieces]]]] = deque()
    with ReadingThreads(thread_count()) as pool:
        for chunk in _chunks(digests, AHEAD):
            running.append(pool.submit(prepare_chunk, chunk))
            if AHEAD * len(running) > ahead:
                prepared = running.popleft().result()
                yield from prepared
                ahead = max(least, batch // max(1, len(prepared[0][1])))  # as many media as fill a batch
        while running:
            yield from running.popleft().result()


def _chunks(digests: Sequence[str], size: int) -> list[Sequence[str]]:
    return [digests[at : at + size] for at in range(0, len(digests), size)]
