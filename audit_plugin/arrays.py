"""Values that the parts hand to each other: frozen, checked, plain arrays.

Letters used everywhere: n samples (rows), m modalities, d dimension, k neighbors, r trials, p pairs of modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


# Which models saw a sample: both, only f (candidates), only g (independent), none, or none and used as reference.
ROLES = ("both", "f", "g", "none", "reference")


class AuditError(ValueError):
    """Something that the user can mend: the message names the thing, the value and the remedy."""


def modality_pairs(modalities: tuple[str, ...]) -> list[tuple[int, int]]:
    """All unordered pairs of modality positions, in the order in which every `[p, ...]` array holds them."""
    return list(combinations(range(len(modalities)), 2))


@dataclass(frozen=True)
class Samples:
    """Rows to audit, in the caller's order.

    Attributes:
        ids: one per row, unique together with `caption`.
        media: modality -> one value per row: a path, a text, or None where the row has none.
        groups: the user's leave-together key per row ("" for none), or empty when no group was named.
        caption: `[n]` which of its sample's captions a row is (0 where a sample has one).
        labels: a class per row ("" for none), or empty when none was named.
        roles: which models saw a row (`ROLES`; "" is none of them), or empty when not named.
        splits: train, test or whatever a row belongs to ("" for none), or empty when not named.
        problems: row -> why the row cannot be read at all (a torn line of the manifest).
    """

    ids: tuple[str, ...]
    media: Mapping[str, tuple[str | None, ...]]
    groups: tuple[str, ...] = ()
    caption: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    problems: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name, values in self.media.items():
            if len(values) != n:
                raise ValueError(f"media {name!r} has {len(values)} values for {n} ids")
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
        indices: int64 `[n, k]`, -1 where fewer than k exist; never the row itself.
        similarities: float32 `[n, k]`, descending, NaN beside -1.
    """

    indices: Ints
    similarities: Floats

    def __post_init__(self) -> None:
        if self.indices.shape != self.similarities.shape:
            raise ValueError(f"indices {self.indices.shape} and similarities {self.similarities.shape} differ")


@dataclass(frozen=True)
class Trials:
    """What r trained models say about n samples.

    Attributes:
        member: bool `[r, n]`, in blocks of `folds` trials: within a block a sample is left out once.
        consistency: float32 `[r, n]`, cross-modal consistency over all modalities.
        memory: float32 `[m, m, n]`, MultiMem's terms per pair of modalities (`memorization.over` sums them), offsets
            removed; NaN for samples that were never on both sides.
        held_out: name -> float32 `[p, n]`: what is said of pairs by trials that left them out (`cosine`, `contrast`,
            `generality`), by the frozen encoders (`zero_shot`) and by the neighbors of either side (`neighbors_a`,
            `neighbors_b`).
        folds: trials per block.
        offset: bool `[n]`, samples whose mean is each trial's offset, or None: the trial's non-members.
        roles: `[n]` which models saw a sample, in the split protocol (`ROLES`), or None.
    """

    member: Bools
    consistency: Floats
    memory: Floats
    held_out: Mapping[str, Floats]
    folds: int = 2
    offset: Bools | None = None
    roles: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.member.shape != self.consistency.shape:
            raise ValueError(f"member {self.member.shape} and consistency {self.consistency.shape} differ")
        if len(self.member) % self.folds:
            raise ValueError(f"{len(self.member)} trials are no whole blocks of {self.folds}")


@dataclass(frozen=True)
class AuditResult:
    """One value per row and column, in the caller's row order, with where it came from.

    Attributes:
        ids: `[n]` as given.
        columns: column -> array of length n, in the order of the written table.
        summary: counts, reliability, recall on plants, versions, timings: everything that is not per row.
        run_dir: where the arrays and the trained heads are.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    summary: Mapping[str, Any]
    run_dir: str = ""

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.ids):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def flagged(self, kind: str) -> Bools:
        """bool `[n]`: the rows flagged as `kind` (`misaligned`, `outlier`, ...)."""
        return np.asarray(self.columns[f"is_{kind}"], dtype=bool)
