"""Values that the parts hand to each other: frozen, checked, plain arrays.

Letters used everywhere: n samples (rows), m modalities, d dimension, k neighbors, r trials, p pairs of modalities.

Groups used everywhere, `[n]` numbers that are equal within a group:
- contents: rows with the same medium, byte for byte; of each modality.
- near_duplicates: rows whose features are nearly equal; of each modality that is not text.
- copies: altered copies of one medium, by their pixels, so look-alikes are apart; of modalities that were compared so.
- copy_groups: `copies`, or `near_duplicates` where there are none: what the flag and column of duplicates rest on.
- duplicate_group: that column: the id of the first sample of a copy group of several samples.
- user_groups: rows of one sample (its captions) or of one group that the user named; they do not repeat each other.
- leave_together: user groups and near-duplicates joined, very large ones divided: rows on one side of every trial.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


# Which models saw a sample: both, only f (candidates), only g (independent), none, or none and used as reference.
ROLES = ("both", "f", "g", "none", "reference")


class AuditError(ValueError):
    """Something that the user can fix: the message names the thing, the value and the remedy."""


def count_text(count: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2 rows`; or `1 row keeps`, `2 rows keep` with a plural of its own."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def percent(share: float) -> str:
    """`4%`, with one decimal below 1%."""
    number = f"{100 * share:.1f}" if 0 < share < 0.01 else f"{100 * share:.0f}"
    return f"{number}%"


@dataclass(frozen=True)
class Modality:
    """One kind of medium: how it is read, and how it appears in settings, forms and reports.

    Attributes:
        name: its word in settings, columns, options and fields.
        content: what a field or column of it holds, such as "the path of an image".
        digest: value -> sha256 (hex) of the content, the key of every cache.
        read: value -> medium, as encoders take it.
        augment: (medium, generator) -> a slightly different medium of the same kind.
        default: what an audit of a FiftyOne dataset takes where no field is named; "" for nothing.
        is_text: values are texts, not paths; near-duplicates are searched in the other modalities only.
        suffixes: of the members of tar shards that hold it, without the dot.
        fiftyone_types: FiftyOne's media types of samples whose own file can be it.
        picture: medium -> `PIL.Image` that shows it in reports; None where nothing can be shown.
        symbol: shown in reports in place of a picture.
        per_second: contents encoded in a second, roughly: by two CPU cores, by a GPU.
    """

    name: str
    content: str
    digest: Callable[[str], str]
    read: Callable[[str], Any]
    augment: Callable[[Any, np.random.Generator], Any]
    default: str = ""
    is_text: bool = False
    suffixes: tuple[str, ...] = ()
    fiftyone_types: tuple[str, ...] = ()
    picture: Callable[[Any], Any] | None = None
    symbol: str = ""
    per_second: tuple[float, float] = (2.0, 10.0)


# By name, in the order of the pairs, and so of the columns of results. The entries are in `inputs.modalities`, which
# `audit_plugin/__init__.py` imports first: `AuditConfig` has a setting for each.
MODALITIES: dict[str, Modality] = {}


def modality_pairs(modalities: tuple[str, ...]) -> list[tuple[int, int]]:
    """All unordered pairs of modality positions, in the order in which every `[p, ...]` array holds them."""
    return list(combinations(range(len(modalities)), 2))


@dataclass(frozen=True)
class VectorRows:
    """Rows of matrices that may lie on the disk, read where they are asked for: float `[n, d]`, never copied whole.

    Attributes:
        parts: one or more float `[q, d]`, whose rows are numbered through.
        rows: int64 `[n]`, which of these each row is, -1 for a row of zeros; None: each, in their order.
        source: what they are, for messages: a file, a field.
        note: for people, "" for none.
    """

    parts: tuple[Floats, ...]
    rows: Ints | None = None
    source: str = ""
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else sum(map(len, self.parts))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype

    def __getitem__(self, rows: slice) -> Floats:
        """The rows of a slice, as an array in memory."""
        wanted = np.arange(len(self))[rows] if self.rows is None else self.rows[rows]
        out = np.zeros((len(wanted), self.shape[1]), dtype=self.dtype)
        start = 0
        for part in self.parts:
            inside = (wanted >= start) & (wanted < start + len(part))
            if inside.any():
                out[inside] = part[wanted[inside] - start]
            start += len(part)
        return out

    def release(self) -> None:
        """Lets the system take back what was read of files: until it is read again, it needs no memory."""
        for part in self.parts:
            mapped = getattr(part, "_mmap", None)  # of `np.memmap`
            if mapped is not None and hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def number(self, row: int) -> int:
        """The number of a row in its source, counted from 0."""
        return row if self.rows is None else int(self.rows[row])


@dataclass(frozen=True)
class Samples:
    """Rows to audit, in the caller's order.

    Attributes:
        ids: one per row, unique together with `caption`.
        media: modality -> one value per row: a path, a text, or None where the row has none. A modality whose vectors
            are given need not be named here.
        groups: the user's leave-together key per row ("" for none), or empty when no group was named.
        caption: `[n]` which of its sample's captions a row is (0 where a sample has one).
        labels: a class per row ("" for none), or empty when none was named.
        roles: which models saw a row (`ROLES`; "" is none of them), or empty when not named.
        splits: train, test or whatever a row belongs to ("" for none), or empty when not named.
        problems: row -> why the row cannot be read at all (a torn line of the manifest).
        source: the manifest or dataset that the rows come from, for people; "" where it has no name.
        notes: what people should know about how they were read.
        columns: setting -> the column that it was read from, where the rows come from a table.
        vectors: modality -> your own embeddings, float16, float32 or float64 `[n, d]`, in place of an encoder's; a row
            of zeros where a row has no such medium. Its media are not read then.
    """

    ids: tuple[str, ...]
    media: Mapping[str, tuple[str | None, ...]]
    groups: tuple[str, ...] = ()
    caption: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    problems: Mapping[int, str] = field(default_factory=dict)
    source: str = ""
    vectors: Mapping[str, Floats | VectorRows] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        vectors = {name: checked_vectors(values, n, name) for name, values in self.vectors.items()}
        object.__setattr__(self, "vectors", vectors)
        without_media = {name: (None,) * n for name in vectors if name not in self.media}
        if without_media:
            object.__setattr__(self, "media", {**self.media, **without_media})
        for name, values in self.media.items():
            if len(values) != n:
                raise ValueError(f"media {name!r} has {len(values)} values for {n} ids")
        media = {name: _usable_values(name, values, self.ids) for name, values in self.media.items()}
        object.__setattr__(self, "media", media)
        object.__setattr__(self, "ids", _usable_ids(self.ids))
        for name in ("groups", "caption", "labels", "roles", "splits"):
            if len(getattr(self, name)) not in (0, n):
                raise ValueError(f"{len(getattr(self, name))} {name} for {n} ids")
        if unknown := set(self.roles) - {*ROLES, ""}:
            raise AuditError(f"role {min(unknown)!r} is not known; use one of {', '.join(ROLES)}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.media)


VECTOR_TYPES = ("float16", "float32", "float64")
LEAST_DIMENSIONS = 2  # unit vectors of one number are 1 or -1


def checked_vectors(values: Any, rows: int, modality: str) -> Floats | VectorRows:
    """Embeddings of a modality as they are used: float `[rows, d]`.

    Raises:
        AuditError: another number of rows, another shape, or no floating-point numbers.
    """
    vectors = values if isinstance(values, np.ndarray | VectorRows) else np.asarray(values)
    source = vectors.source if isinstance(vectors, VectorRows) and vectors.source else f"the vectors of {modality}"
    if len(vectors.shape) != 2 or vectors.shape[1] < LEAST_DIMENSIONS:
        shape = " x ".join(map(str, vectors.shape)) or "one number"
        raise AuditError(
            f"{source}: its shape is {shape}; embeddings are a table of one row per sample, of {LEAST_DIMENSIONS} "
            "numbers or more"
        )
    if vectors.dtype.name not in VECTOR_TYPES:
        raise AuditError(
            f"{source}: it holds {vectors.dtype}, embeddings are {', '.join(VECTOR_TYPES)}; convert it, for example by "
            "numpy's astype('float32')"
        )
    if len(vectors) != rows:
        raise AuditError(
            f"{source}: it has {len(vectors):,} rows for {rows:,} samples; give one row per sample in their order, "
            "zeros where there is none, or a table with a column 'id'"
        )
    return vectors


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, NaN, or the NA and NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value  # noqa: PLR0124 (NaN is the one number that is not itself)


def _usable_values(modality: str, values: Sequence[Any], ids: Sequence[Any]) -> tuple[str | None, ...]:
    """Values of a modality as texts or None: NaN is none, and a Path is its path.

    Raises:
        AuditError: a value of another kind, with its row.
    """
    if set(map(type, values)) <= {str, type(None)}:  # in C: there may be millions
        return tuple(values)
    is_text = modality in MODALITIES and MODALITIES[modality].is_text
    usable: list[str | None] = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            usable.append(str(value))
        elif is_missing(value):
            usable.append(None)
        elif isinstance(value, os.PathLike) and not is_text:
            usable.append(os.fsdecode(value))
        else:
            needed = "a text" if is_text else "a path"
            raise AuditError(
                f"row {row} ({str(ids[row])[:80]!r}): {modality} is of type {type(value).__name__}, not {needed}; "
                "audit_plugin.samples_from takes images, arrays and lists of captions"
            )
    return tuple(usable)


def _usable_ids(ids: Sequence[Any]) -> tuple[str, ...]:
    """Ids as texts; AuditError for one that is neither a text nor a whole number."""
    if set(map(type, ids)) <= {str}:
        return tuple(ids)
    if wrong := next(((row, name) for row, name in enumerate(ids) if not isinstance(name, str | Integral)), None):
        raise AuditError(f"row {wrong[0]}: its id is of type {type(wrong[1]).__name__}; give texts or whole numbers")
    return tuple(map(str, ids))


@dataclass(frozen=True)
class Features:
    """Frozen-encoder features.

    Attributes:
        vectors: modality -> float32 `[n, d_a]`, unit rows; zero rows where the medium is missing.
        present: bool `[n, m]`, in the order of `vectors`.
    """

    vectors: Mapping[str, Floats]
    present: Bools

    def __post_init__(self) -> None:
        n, m = self.present.shape
        if m != len(self.vectors):
            raise ValueError(f"present has {m} modalities, vectors has {len(self.vectors)}")
        for name, vectors in self.vectors.items():
            if vectors.ndim != 2 or len(vectors) != n or vectors.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 [{n}, d], got {vectors.dtype} {vectors.shape}")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def rows(self, keep: Ints) -> Features:
        """The same features for the rows `keep`, in that order."""
        return Features({name: v[keep] for name, v in self.vectors.items()}, self.present[keep])


@dataclass(frozen=True)
class Neighbors:
    """The k nearest other rows of each row.

    Attributes:
        indices: int32 `[n, k]`, -1 where fewer than k exist; never the row itself.
        similarities: float32 `[n, k]`, descending, NaN beside -1.
    """

    indices: Ints
    similarities: Floats

    def __post_init__(self) -> None:
        if self.indices.shape != self.similarities.shape:
            raise ValueError(f"indices {self.indices.shape} and similarities {self.similarities.shape} differ")


@dataclass(frozen=True)
class Boxes:
    """Those b of n samples whose image is the box of an object.

    Attributes:
        rows: int64 `[b]`, the samples, ascending.
        images: int64 `[b]`, equal numbers are boxes in one image.
        objects: int64 `[b]`, equal numbers are one object, which has several texts.
        sides: float64 `[b, 4]`: left, top, width and height as shares of the upright image.
        sizes: float64 `[b, 2]`: width and height of the upright image in pixels, NaN where they are not known.
    """

    rows: Ints
    images: Ints
    objects: Ints
    sides: Floats
    sizes: Floats

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class SampleFacts:
    """What is known of n complete samples besides their features, in canonical order.

    Attributes:
        contents: modality -> content id `[n]`: equal ids are the same medium.
        space: modality -> name of the space that its encoder embeds into, "" for one of its own.
        words: modality that is text -> number of words `[n]`.
        user_groups: `[n]`, the user's leave-together groups and captions of one sample, or None: each stands alone.
        roles: `[n]`, which models saw a sample (`ROLES`), or None.
        labels: `[n]`, classes, or None.
        known: bool `[n]`, or None: all. The samples that set the scale: projections, robust deviations, negatives, the
            pool and the tail of outliers. The others, added to a finished run, still are neighbors that vote, members
            of duplicate groups, probe pairs, and part of the calibration.
        texts: modality that is text -> the texts, or empty: their spelling is not looked at.
        word_vectors: modality -> `[n, 384]` in the space of words (`encoders.word_space`), of those that lie in it.
        pixels: measures of the images `[n, 8]` (`encoders.pixels`), NaN where not measured, or None: no images.
        splits: `[n]`, the data split of a sample, "" for none; empty where none is named.
        boxes: the samples that are boxes of objects, or None: there are none.
    """

    contents: Mapping[str, Ints]
    space: Mapping[str, str]
    words: Mapping[str, Ints]
    user_groups: Ints | None = None
    roles: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    known: Bools | None = None
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    word_vectors: Mapping[str, Floats] = field(default_factory=dict)
    pixels: Floats | None = None
    splits: Sequence[str] = ()
    boxes: Boxes | None = None

    def __len__(self) -> int:
        return len(next(iter(self.contents.values())))

    def shared_ids(self, leave_together: Ints) -> Ints:
        """int32 `[n, m + 1]`: content ids, then leave-together groups `[n]`; equal in a column: not a negative."""
        return np.stack([*self.contents.values(), leave_together], axis=1).astype(np.int32)


# (trial, samples or None for all) -> unit embeddings `[n, o]` per modality, torch tensors
EmbedTrial = Callable[..., list[Any]]


@dataclass(frozen=True)
class Trials:
    """What r trained models say about n samples.

    Attributes:
        member: bool `[r, n]`, in blocks of `folds` trials: within a block a sample is left out once.
        consistency: float32 `[r, n]`, cross-modal consistency over all modalities.
        multimem_terms: float32 `[m, m, n]`, MultiMem per pair of modalities (`multimem.sum_terms` sums them), offsets
            removed; NaN for samples that were in no block on both sides. A block with one side alone counts as 0.
        known: bool `[n]`, samples that may serve as reference and negatives: all, but those added to a run later.
        folds: trials per block.
        reference: bool `[n]`, a fixed reference set H, or None: each trial's non-members.
        offset_rows: bool `[n]`, samples whose mean is each trial's offset, or None: the trial's non-members.
        roles: `[n]` which models saw a sample, in the split protocol (`ROLES`), or None.
        embed: the embeddings of one trial.
        trained: the sentence on what was trained.
    """

    member: Bools
    consistency: Floats
    multimem_terms: Floats
    known: Bools
    folds: int = 2
    reference: Bools | None = None
    offset_rows: Bools | None = None
    roles: NDArray[Any] | None = None
    embed: EmbedTrial = field(default=lambda *_: [], repr=False)
    trained: str = ""

    def __post_init__(self) -> None:
        if self.member.shape != self.consistency.shape:
            raise ValueError(f"member {self.member.shape} and consistency {self.consistency.shape} differ")
        if len(self.member) % self.folds:
            raise ValueError(f"{len(self.member)} trials are not whole blocks of {self.folds}")


def dense_ids(*columns: Sequence[str] | NDArray[Any], by_first_row: bool = False) -> Ints:
    """Numbers equal values alike, without gaps: int64 `[n]` of 0 to u - 1 for u distinct values.

    Args:
        columns: one or more columns `[n]` of numbers or texts; rows are equal that are equal in every column. Many
            times faster than `np.unique` of whole rows.
        by_first_row: numbers follow the order of the first rows instead of the sorted order of the values.
    """
    ids = _sorted_ids(columns[0])
    for column in columns[1:]:
        other = _sorted_ids(column)
        ids = _sorted_ids(ids * (int(other.max(initial=0)) + 1) + other)
    if not by_first_row:
        return ids
    _, first = np.unique(ids, return_index=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[ids]


def _sorted_ids(values: Sequence[str] | NDArray[Any]) -> Ints:
    column = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    return np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_lengths(**arrays: Any) -> None:
    """Raises ValueError, naming the lengths, unless all arguments have the same length."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {', '.join(f'{name} {length}' for name, length in lengths.items())}")


def spearman(left: Floats, right: Floats) -> float:
    """Spearman's rank correlation of `[n]` and `[n]`: Pearson's of the ranks, ties at their mean rank.

    NaN below three values, or where one side is constant. Much faster than scipy's own, which computes a p-value.
    """
    from scipy.stats import rankdata

    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(left), rankdata(right))[0, 1])


def mean_interval(values: Floats, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of `[q]` independent values: Student's interval, mean ± t · s / √q; NaN bounds for q = 1."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    reach = float(t.ppf((1 + level) / 2, count - 1)) * float(values.std(ddof=1) / np.sqrt(count))
    return mean, mean - reach, mean + reach
