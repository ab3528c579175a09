"""Samples of one split that stand in another: a test row whose picture was trained on. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Ints, dense_ids


@dataclass(frozen=True)
class Leaks:
    """What two or more splits share.

    Attributes:
        rows: bool `[n]`, a copy of the row's medium stands in another split.
        pairs: (split, other split, groups of copies that stand in both), the splits in alphabetic order, without those
            that share nothing.
    """

    rows: Bools
    pairs: tuple[tuple[str, str, int], ...]

    def sentence(self) -> str:
        """For people; "" where nothing leaks."""
        if not self.pairs:
            return ""
        told = "; ".join(f"{count} in both {a} and {b}" for a, b, count in self.pairs)
        return f"{int(self.rows.sum())} samples have a copy in another split (media: {told}): scores on them flatter"


def find_leaks(splits: Sequence[str], groups: Mapping[str, Ints]) -> Leaks:
    """Rows whose medium, exactly or altered, stands in another split too. Cost O(n log n) per modality.

    Args:
        splits: `[n]` train, test, val or whatever the user calls them; "" is in none and leaks nowhere.
        groups: modality -> `[n]`, equal values are copies of one medium; give no texts, which are shared by nature.
    """
    names, number = np.unique(np.array(splits, dtype=object).astype(str), return_inverse=True)
    number = number.reshape(-1)
    named = np.array(splits, dtype=object).astype(bool) if len(splits) else np.zeros(0, dtype=bool)
    rows = np.zeros(len(splits), dtype=bool)
    shared: dict[tuple[str, str], int] = {}
    for group in groups.values():
        dense = dense_ids(group)
        holds = np.zeros((int(dense.max(initial=-1)) + 1, len(names)), dtype=bool)
        holds[dense[named], number[named]] = True
        rows |= named & (holds.sum(1)[dense] > 1)
        for a, b in combinations(range(len(names)), 2):
            if count := int((holds[:, a] & holds[:, b]).sum()):
                pair = (str(names[a]), str(names[b]))
                shared[pair] = shared.get(pair, 0) + count
    return Leaks(rows, tuple((a, b, count) for (a, b), count in sorted(shared.items())))


def other_splits(splits: Sequence[str], groups: Mapping[str, Ints]) -> Any:
    """Object `[n]`: the other splits, joined by commas, in which a copy of the row's medium stands; "" for none.

    Args:
        splits: `[n]`, "" is in none.
        groups: as for `find_leaks`.
    """
    out: list[set[str]] = [set() for _ in splits]
    for group in groups.values():
        there: dict[int, set[str]] = {}
        for name, number in zip(splits, group.tolist(), strict=True):
            there.setdefault(number, set()).update({name} - {""})
        for row, number in enumerate(group.tolist()):
            out[row] |= there[number] if splits[row] else set()
    return np.array([", ".join(sorted(where - {own})) for own, where in zip(splits, out, strict=True)], dtype=object)
