"""Samples of one split that are also in another: a test row whose image was trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from audit_plugin.arrays import Ints, count_text

NAMES = (("train",), ("val", "dev"), ("test", "eval", "hold"))  # how splits begin, trained on first


@dataclass(frozen=True)
class Leaks:
    """What the splits share.

    Attributes:
        other_splits: object `[n]`, the other splits, joined by commas, that hold a copy of the row's content; "" for
            none.
        source: `[n]`, the first row with a copy in the split that comes first before the row's own (`trained_first`),
            -1 for none: a row with one is to be removed, so that no score is made on what was trained on.
        pairs: (split, other split, number of contents that are in both), the splits in alphabetic order, without
            those that share nothing.
    """

    other_splits: Any
    source: Ints
    pairs: tuple[tuple[str, str, int], ...]

    @staticmethod
    def none(n: int) -> Leaks:
        """Of n rows without splits."""
        return Leaks(np.full(n, "", dtype=object), np.full(n, -1), ())

    def sentence(self) -> str:
        """A note for the result; "" where nothing leaks."""
        if not self.pairs:
            return ""
        shared = "; ".join(f"{count} in both {a} and {b}" for a, b, count in self.pairs)
        rows = int((self.other_splits != "").sum())
        return (
            f"{count_text(rows, 'sample has', 'samples have')} "
            f"a copy in another split (media: {shared}): test scores will be too high"
        )


def find_leaks(splits: Sequence[str], groups: Mapping[str, Ints]) -> Leaks:
    """Rows whose image, audio or video is, exactly or altered, in another split too; O(n) per modality.

    Args:
        splits: `[n]` train, test, val or whatever the user calls them; a row with "" is in none and leaks nowhere.
        groups: modality -> `[n]`, equal values are copies of one content; without texts, which are shared by nature.
    """
    place = {split: at for at, split in enumerate(trained_first(splits))}
    others: list[set[str]] = [set() for _ in splits]
    source = np.full(len(splits), -1)
    shared: Counter[tuple[str, str]] = Counter()
    for group in groups.values():
        numbers = zip(splits, group.tolist(), strict=True)
        rows = [(row, split, number) for row, (split, number) in enumerate(numbers) if split]
        first_rows: dict[int, dict[str, int]] = defaultdict(dict)  # of a content: split -> its first row
        for row, split, number in rows:
            first_rows[number].setdefault(split, row)
        for row, split, number in rows:
            others[row] |= first_rows[number].keys() - {split}
            first = min(first_rows[number], key=place.__getitem__)
            known = place[splits[source[row]]] if source[row] >= 0 else place[split]
            if place[first] < known:
                source[row] = first_rows[number][first]
        for names in first_rows.values():
            shared.update(combinations(sorted(names), 2))
    other_splits = np.array([", ".join(sorted(names)) for names in others], dtype=object)
    return Leaks(other_splits, source, tuple((a, b, count) for (a, b), count in sorted(shared.items())))


def trained_first(splits: Sequence[str]) -> list[str]:
    """The splits in the order train, val or dev, test, by how their names begin; else the largest is trained on."""
    counts = Counter(filter(None, splits))
    kinds = {name: [at for at, starts in enumerate(NAMES) if name.lower().startswith(starts)] for name in counts}
    if all(kinds.values()):
        return sorted(counts, key=lambda name: (kinds[name], name))
    return sorted(counts, key=lambda name: (-counts[name], name))
