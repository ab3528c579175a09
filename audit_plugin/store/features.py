"""The feature cache: what encoders computed, by content, with checksums that every reading verifies."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, count_text

from .files import (
    Damaged,
    cache_root,
    digest_of,
    private_folder,
    read_json,
    read_regular,
    read_sealed,
    readable,
    remove_leftovers,
    sealed_json,
    write_atomically,
    write_bytes,
    write_sealed,
)

BLOCK = 256  # features with one checksum: all are read for any of them, and encoded again where one is damaged
INDEX, ABOUT = ".index.npz", "encoder.json"
OWN = "own:"  # keys of embeddings that the user gave: `own:TYPE:d`, of the type in which they are stored
FEATURES = "features"  # folder of the caches


class Shard(NamedTuple):
    """Features that were stored together."""

    path: Path  # of the features `[s, d]`, nothing else
    keys: np.ndarray  # `[s]`, digests of the contents
    sums: Ints  # CRC-32 of each block of features
    width: int  # d


class FeatureCache:
    """Features by content digest, one folder per encoder: append-only shards.

    A shard is `X.float16` (or `X.float32`), the features, and `X.index.npz`: digests and a checksum of each block of
    features, sealed for its name and encoder. The index is written last and makes the shard valid. A block that is not
    as it was written is a miss, never another number. What encoders compute is rounded to float16, and features are
    taken from here alone, fresh ones too: a run's numbers do not depend on what was known before it. Embeddings of the
    user's own keep the type that their key names.

    Attributes:
        damaged_features: features that were asked for and are damaged; `damaged_files`: indexes that are. They count
            what was noticed since the cache was opened.
    """

    def __init__(self, encoder_key: str, root: Path | None = None) -> None:
        # the format is part of the name: older caches held float32, or no checksums, and cannot be verified
        name = digest_of(encoder_key, "float16", "sums")[:24]
        self.path = private_folder((root or cache_root() / FEATURES) / name)
        self.encoder_key = encoder_key
        own_type = encoder_key.split(":")[1] if encoder_key.startswith(OWN) else "float16"
        self.dtype = np.dtype(own_type)  # in which features are stored
        self._values = f".{own_type}"  # how their files end
        self.damaged_features = 0
        self.damaged_files = 0
        self._damaged_blocks: set[tuple[Path, int]] = set()

    def _shards(self) -> Iterator[Shard]:
        """The shards that are whole. A damaged index is removed: nothing says what its features are of."""
        for path in sorted(self.path.glob(f"*{INDEX}")):
            stem = path.name.removesuffix(INDEX)
            try:
                index = read_sealed(path, self._place(stem))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Damaged:
                self.damaged_files += 1
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            yield Shard(path.with_name(stem + self._values), index["keys"], index["sums"], int(index["width"]))

    def _place(self, stem: str) -> str:
        return f"{self.encoder_key}/{stem}"

    def known(self) -> set[str]:
        """All digests with a stored feature; whether it is damaged shows when it is read."""
        return {key.decode() for shard in self._shards() for key in shard.keys.tolist()}

    def has(self, wanted: Sequence[str]) -> Bools:
        """Which of `wanted` are stored and intact, bool `[n]`."""
        names, place = np.unique(np.array(wanted, dtype="S64"), return_inverse=True)
        intact = np.zeros(len(names), dtype=bool)
        for positions, _, _ in self._read(names):
            intact[positions] = True
        return intact[place]

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Those of `wanted` that are not stored, or damaged."""
        return [digest for digest, is_stored in zip(wanted, self.has(wanted), strict=True) if not is_stored]

    def load(self, wanted: Sequence[str]) -> tuple[Floats, Bools]:
        """The features of `wanted`, which may repeat, as float32 `[n, d]`, and which of them are stored `[n]`.

        The others, damaged ones too, are rows of zeros; d is 1 where nothing is stored. Needs little memory besides
        the result.
        """
        out = np.zeros((len(wanted), 1), dtype=np.float32)
        stored = np.zeros(len(wanted), dtype=bool)
        with contextlib.suppress(OSError):
            os.utime(self.path / ABOUT)  # the last use, for people who delete what is not used
        for positions, block, rows in self._read(np.array(wanted, dtype="S64")):
            if out.shape[1] != block.shape[1]:
                out = np.zeros((len(wanted), block.shape[1]), dtype=np.float32)
            out[positions] = block[rows]
            stored[positions] = True
        return out, stored

    def _read(self, wanted: np.ndarray) -> Iterator[tuple[Ints, np.ndarray, Ints]]:
        """(positions in `wanted`, a block of features `[b, d]`, their rows in it), of all blocks that are intact."""
        left = np.arange(len(wanted))
        while len(left):  # again where a block is damaged: another shard may hold the same features
            shards, shard, row = self._find(wanted[left])
            in_damaged: list[Ints] = []
            order = np.lexsort((row, shard))
            starts = np.searchsorted(shard[order], np.arange(len(shards) + 1))
            for number, (start, end) in enumerate(itertools.pairwise(starts)):
                of_shard = order[start:end]
                blocks = row[of_shard] // BLOCK
                cuts = np.flatnonzero(np.diff(blocks)) + 1
                groups = np.split(of_shard, cuts) if len(of_shard) else []
                numbers = [int(row[group[0]]) // BLOCK for group in groups]
                for group, values in zip(groups, self._blocks(shards[number], numbers), strict=True):
                    if values is None:
                        in_damaged.append(left[group])
                    else:
                        yield left[group], values, row[group] % BLOCK
            left = np.concatenate([*in_damaged, left[:0]])
            self.damaged_features += len(left)

    def _blocks(self, shard: Shard, numbers: Sequence[int]) -> Iterator[np.ndarray | None]:
        """Features `[b, d]` of each of these blocks, None where they are not as they were written.

        Read, not mapped into memory: a disk that fails is an error then, not the end of the process.
        """
        row_size = shard.width * self.dtype.itemsize
        buffer = memoryview(bytearray(BLOCK * row_size))  # one for all: a block is valid until the next one
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(read_regular(shard.path))
            except (FileNotFoundError, NotADirectoryError, Damaged):
                file = None
            for number in numbers:
                rows, count = min(BLOCK, len(shard.keys) - number * BLOCK), 0
                data = buffer[: rows * row_size]
                with contextlib.suppress(Damaged), readable(shard.path):
                    if file is not None:
                        file.seek(number * len(buffer))
                        count = file.readinto(data)
                if count == len(data) and zlib.crc32(data) == int(shard.sums[number]):
                    yield np.frombuffer(data, dtype=self.dtype).reshape(rows, shard.width)
                else:
                    self._damaged_blocks.add((shard.path, number))
                    yield None

    def _find(self, wanted: np.ndarray) -> tuple[list[Shard], Ints, Ints]:
        """(the shards, number of each digest's shard `[n]`, its row there `[n]`), both of the digests that are stored.

        Others, and those in blocks that are known to be damaged, have the number -1.
        """
        names, place = np.unique(wanted, return_inverse=True)
        shard, row = np.full(len(names), -1), np.zeros(len(names), dtype=np.int64)
        shards: list[Shard] = []
        for one in self._shards() if len(names) else ():
            at = np.minimum(np.searchsorted(names, one.keys), len(names) - 1)
            hit = (names[at] == one.keys) & (shard[at] < 0)  # two runs at once may both have stored it
            for path, number in self._damaged_blocks:
                if path == one.path:
                    hit[number * BLOCK : (number + 1) * BLOCK] = False
            shard[at[hit]], row[at[hit]] = len(shards), np.flatnonzero(hit)
            shards.append(one)
        return shards, shard[place], row[place]

    def damage(self, modality: str) -> list[str]:
        """Notes for people on what was noticed to be damaged, by the name of what the features are of."""
        notes = []
        if self.damaged_features:
            notes.append(f"{self.damaged_features} stored {modality} features were damaged and were encoded again")
        if self.damaged_files:
            notes.append(
                f"{count_text(self.damaged_files, 'file')} "
                f"of stored {modality} features left out as damaged; what was needed "
                "of them was encoded again"
            )
        return notes

    def append(self, features: Mapping[str, Floats]) -> None:
        """Stores one shard, in the type of the cache."""
        if not features:
            return
        remove_leftovers(self.path)
        self._describe()
        stem = uuid.uuid4().hex
        values = np.stack([np.asarray(feature, dtype=self.dtype) for feature in features.values()])
        keys = np.array(list(features), dtype="S64")
        sums = [zlib.crc32(values[start : start + BLOCK].data) for start in range(0, len(values), BLOCK)]
        path = self.path / (stem + self._values)
        write_atomically(path, lambda file: file.write(values.data), values.nbytes)
        index = {"keys": keys, "sums": np.array(sums, dtype=np.uint32), "width": np.array(values.shape[1])}
        write_sealed(path.with_name(stem + INDEX), self._place(stem), index)

    def _describe(self) -> None:
        """Stores the encoder's name beside its features, for people who list or delete them; marks their last use."""
        path, facts = self.path / ABOUT, {"encoder": self.encoder_key}
        try:
            if read_json(path, ABOUT) == (facts, True):
                os.utime(path)
                return
        except (FileNotFoundError, Damaged):
            pass
        write_bytes(path, sealed_json(facts, ABOUT))
