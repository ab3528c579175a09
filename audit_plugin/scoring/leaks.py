"""Samples of one split that are also in another: a test row whose image was trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from audit_plugin.arrays import Ints, count_text


@dataclass(frozen=True)
class Leaks:
    """What the splits share.

    Attributes:
        other_splits: object `[n]`, the other splits, joined by commas, that hold a copy of the row's content; "" for
            none.
        pairs: (split, other split, number of contents that are in both), the splits in alphabetic order, without
            those that share nothing.
    """

    other_splits: Any
    pairs: tuple[tuple[str, str, int], ...]

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
    others: list[set[str]] = [set() for _ in splits]
    shared: Counter[tuple[str, str]] = Counter()
    for group in groups.values():
        numbers = zip(splits, group.tolist(), strict=True)
        rows = [(row, split, number) for row, (split, number) in enumerate(numbers) if split]
        group_splits: dict[int, set[str]] = defaultdict(set)
        for _, split, number in rows:
            group_splits[number].add(split)
        for row, split, number in rows:
            others[row] |= group_splits[number] - {split}
        for names in group_splits.values():
            shared.update(combinations(sorted(names), 2))
    other_splits = np.array([", ".join(sorted(names)) for names in others], dtype=object)
    return Leaks(other_splits, tuple((a, b, count) for (a, b), count in sorted(shared.items())))
