"""Inputs of the rivals, and the registry entry of a rival: plain values, so that a method is a function of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints

NEIGHBORS = 50  # the most that any published grid asks for
BLOCK = 2048
SQUARE = ("similarity", "repeats", "copies")
EPOCHS = ("margins", "confidences", "losses")


@dataclass(frozen=True)
class Nearest:
    """The nearest other rows of each row.

    Attributes:
        rows: int64 `[n, k]`, 0 where there is none.
        similarity: cosine `[n, k]`, descending, 0 where there is none.
        use: bool `[n, k]`, False where there is none.
    """

    rows: Ints
    similarity: Floats
    use: Bools

    def first(self, k: int) -> Nearest:
        """The k nearest of them."""
        return Nearest(self.rows[:, :k], self.similarity[:, :k], self.use[:, :k])

    def mean(self, values: Floats) -> Floats:
        """Mean over the neighbors that there are, `[n, k]` -> `[n]`; 0 for a row without any."""
        return np.where(self.use, values, 0).sum(1) / np.maximum(self.use.sum(1), 1)


@dataclass(frozen=True, eq=False)
class Material:
    """One noisy set as the rivals see it.

    Attributes:
        similarity: `[n, n]`, s_ij the cosine of image i and text j in a shared space, or for separately trained
            encoders their mean over trials that saw neither (`held_out_similarity`); NaN where unknown.
        image: unit features `[n, d]` of frozen encoders, for distances within the modality.
        text: unit `[n, e]`.
        repeats: bool `[n, n]`, True where j is no negative of i (same medium, text or group), or None.
        copies: bool `[n, n]`, True where j may not vote on i as its neighbor, or None: `repeats`, and nobody where
            there are labels, because equal class prompts are what neighbors there vote with.
        labels: `[n]` number of the given class, for classification sets.
        probabilities: `[n, c]` held-out class probabilities.
        margins: `[e, n]` per epoch, mean over models trained on the noisy set: own logit less the best other.
        confidences: `[e, n]` per epoch of one such model: probability of the own partner or label.
        losses: `[e, n]` per epoch of the same model: loss of the pair.
    """

    similarity: Floats
    image: Floats
    text: Floats
    repeats: Bools | None = None
    copies: Bools | None = None
    labels: Ints | None = None
    probabilities: Floats | None = None
    margins: Floats | None = None
    confidences: Floats | None = None
    losses: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.similarity)
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if (value.shape[1] if f.name in EPOCHS else len(value)) != n:
                raise ValueError(f"{f.name} is of shape {value.shape} for {n} rows")
            if f.name in SQUARE and value.shape != (n, n):
                raise ValueError(f"{f.name} is of shape {value.shape}; it must be [{n}, {n}]")
        if not np.isfinite(self.own).all():
            raise ValueError("similarity is not known for every row's own pair")

    def __len__(self) -> int:
        return len(self.similarity)

    @cached_property
    def own(self) -> Floats:
        """`[n]`: s_ii."""
        return np.diagonal(self.similarity).copy()

    @cached_property
    def negatives(self) -> Bools:
        """bool `[n, n]`: j may be held against i."""
        allowed = np.isfinite(self.similarity)
        if self.repeats is not None:
            allowed &= ~self.repeats
        np.fill_diagonal(allowed, False)
        return allowed

    @cached_property
    def image_neighbors(self) -> Nearest:
        """The rows with the nearest images."""
        return nearest(self.image, self._barred)

    @cached_property
    def text_neighbors(self) -> Nearest:
        """The rows with the nearest texts."""
        return nearest(self.text, self._barred)

    @property
    def _barred(self) -> Bools | None:
        if self.copies is not None or self.labels is not None:
            return self.copies
        return self.repeats

    def rows(self, keep: Ints) -> Material:
        """The same material for the rows `keep`, in that order."""

        def cut(name: str, value: Any) -> Any:
            if value is None:
                return None
            if name in SQUARE:
                return value[np.ix_(keep, keep)]
            return value[:, keep] if name in EPOCHS else value[keep]

        return Material(**{f.name: cut(f.name, getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class Rival:
    """One method of others.

    Attributes:
        name: as in tables.
        function: (material or features, **hyper-parameters) -> suspicion `[n]`; its defaults are the published ones.
        grid: hyper-parameter -> values to choose from on development cells.
        label_free: the method as published needs no labels of right and wrong pairs; a grid of one or two
            parameters, chosen once on other sets, is left to it all the same.
        classes_only: it needs class labels.
        needs: fields of the material without which it cannot run.
        tune: a search of its own in place of the grid: cells -> hyper-parameters.
    """

    name: str
    function: Callable[..., Floats]
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    label_free: bool = True
    classes_only: bool = False
    needs: tuple[str, ...] = ()
    tune: Callable[[Sequence[tuple[Any, Bools]]], dict[str, Any]] | None = None

    @property
    def tuned(self) -> bool:
        """Whether anything is chosen on development cells."""
        return bool(self.grid) or self.tune is not None

    def points(self) -> list[dict[str, Any]]:
        """All combinations of the grid, the first parameter varying slowest."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]

    def runs_on(self, material: Material) -> bool:
        """Whether the material holds what the method needs."""
        needs = (*self.needs, *(("labels",) if self.classes_only else ()))
        return all(getattr(material, name) is not None for name in needs)


def nearest(features: Floats, barred: Bools | None, limit: int = NEIGHBORS) -> Nearest:
    """The nearest other rows by cosine, exact, self left out by index. O(n^2 d).

    Args:
        features: unit `[n, d]`.
        barred: bool `[n, n]`, rows that are no neighbors of each other, or None.
        limit: neighbors per row, at most n - 1.
    """
    n = len(features)
    k = min(limit, n - 1)
    parts = []
    for start in range(0, n, BLOCK):
        block = np.arange(start, min(start + BLOCK, n))
        cosines = features[block] @ features.T
        cosines[np.arange(len(block)), block] = -np.inf
        if barred is not None:
            cosines[barred[block]] = -np.inf
        top = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(cosines, top, 1)
        order = np.lexsort((top, -values))
        parts.append((np.take_along_axis(top, order, 1), np.take_along_axis(values, order, 1)))
    rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    use = np.isfinite(values)
    return Nearest(np.where(use, rows, 0), np.where(use, values, 0), use)


def cosines_to(features: Floats, rows: Ints) -> Floats:
    """Cosine of each row to its own list of rows: unit `[n, d]`, int `[n, k]` -> `[n, k]`.

    Blocks of the full product: gathering `[n, k, d]` would take gigabytes at k of some hundreds.
    """
    blocks = range(0, len(features), BLOCK)
    parts = [
        np.take_along_axis(features[start : start + BLOCK] @ features.T, rows[start : start + BLOCK], 1)
        for start in blocks
    ]
    return np.concatenate(parts)


def sum_of(features: Floats, neighbors: Nearest) -> Floats:
    """Sum of each row's neighbors' features, `[n, d]`."""
    total = np.zeros_like(features)
    for column, use in zip(neighbors.rows.T, neighbors.use.T, strict=True):
        total += features[column] * use[:, None]
    return total


def canonical(features: Floats) -> Ints:
    """An order of the rows that depends on their values alone, for methods that draw rows: undo with `argsort`."""
    return np.lexsort(np.round(features[:, :4], 5).T[::-1])
