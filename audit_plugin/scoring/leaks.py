"""Samples of one split that are also in another: a test row whose image was trained on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from audit_plugin.arrays import Ints, count_text

# Kinds of splits in the order in which their samples are used, what is trained on first, and the words that tell them
KINDS = ("train", "val", "test")
FORMS = {
    "train": "train(?:ing|set)?|trn",
    "val": "val(?:id(?:ation)?|set)?|dev(?:el(?:opment)?|set)?",
    "test": "test(?:ing|set)?|eval(?:uation|set)?|hold(?:out)?|held(?:out)?",
}
TOLD = re.compile("|".join(f"(?P<{kind}>{forms})" for kind, forms in FORMS.items()))
WORD = re.compile(f"(?:mini|{'|'.join(FORMS.values())})+[ab]?")  # `trainA` and `trainB` are two sides of one
NEGATIONS = {"non", "not", "no", "excluded", "exclude", "excluding", "without", "removed", "dropped"}
MOST_SPLITS = 50  # a column with more values is another thing, such as an id
NAMED = 3  # pairs of splits in the note


@dataclass(frozen=True)
class Leaks:
    """What the splits share.

    Attributes:
        other_splits: object `[n]`, the splits of another kind that hold a copy of the row's content, joined by commas;
            "" for none.
        source: int64 `[n]`, the first row with a copy in the split that comes first before the row's own (`kind_of`),
            -1 for none.
        pairs: (split, other split, number of contents that are in both), the most shared first.
        note: for people; "" where nothing leaks.
    """

    other_splits: Any
    source: Ints
    pairs: tuple[tuple[str, str, int], ...] = ()
    note: str = ""

    @staticmethod
    def none(n: int, note: str = "") -> Leaks:
        """Of n rows without splits."""
        return Leaks(np.full(n, "", dtype=object), np.full(n, -1), (), note)


def find_leaks(splits: Sequence[str], groups: Mapping[str, Ints]) -> Leaks:
    """Rows whose image, audio or video is, exactly or altered, in another split too; O(n splits) per modality.

    Two splits of one kind, such as two parts of the training set, share nothing that matters. Of splits whose kind
    their names do not tell, nobody knows which one is trained on: their copies have `other_splits`, but no `source`.

    Args:
        splits: `[n]` train, test, val or whatever the user calls them; a row with "" is in none and leaks nowhere.
        groups: modality -> `[n]`, equal values are copies of one content; without texts, which are shared by nature.
    """
    kinds = {split: kind_of(split) for split in {*splits} if split.strip()}
    if len(kinds) > MOST_SPLITS:
        note = f"{len(kinds):,} values of the split are too many for splits: samples in several of them are not told"
        return Leaks.none(len(splits), note)
    others: list[set[str]] = [set() for _ in splits]
    source = np.full(len(splits), -1)
    shared: Counter[tuple[str, str]] = Counter()
    for group in groups.values():
        holders: dict[int, dict[str, int]] = defaultdict(dict)  # of a content: split -> its first row
        for row, (split, number) in enumerate(zip(splits, group.tolist(), strict=True)):
            if split in kinds:
                holders[number].setdefault(split, row)
        for row, (split, number) in enumerate(zip(splits, group.tolist(), strict=True)):
            if split not in kinds or len(holders[number]) == 1:
                continue
            others[row] |= {other for other in holders[number] if kinds[other] != kinds[split]}
            known = [] if source[row] < 0 else [(splits[source[row]], source[row])]
            earlier = [(name, at) for name, at in holders[number].items() if _is_before(kinds[name], kinds[split])]
            source[row] = min(known + earlier, key=lambda of: (KINDS.index(kinds[of[0]]), *of), default=("", -1))[1]
        for names in holders.values():
            shared.update((a, b) for a, b in combinations(sorted(names), 2) if kinds[a] != kinds[b])
    other_splits = np.array([", ".join(sorted(names)) for names in others], dtype=object)
    pairs = tuple((a, b, count) for (a, b), count in sorted(shared.items(), key=lambda of: (-of[1], of[0])))
    return Leaks(other_splits, source, pairs, _note(other_splits, pairs, kinds))


def kind_of(split: str) -> str:
    """One of `KINDS`, or the name itself in lower case where its words tell none, or contradict each other.

    Words may stand alone or together (`train2017`, `my_val`, `minival`, `trainA`): `trainval` is trained on, `test-dev`
    and `devtest` are tests, and a name with a negation (`non-train`) tells nothing.
    """
    name = split.strip().lower()
    words = re.findall(r"[^\W\d_]+", name)
    told = {str(found.lastgroup) for word in words if WORD.fullmatch(word) for found in TOLD.finditer(word)}
    if NEGATIONS & {*words} or {"train", "test"} <= told or not told:
        return name
    return "train" if "train" in told else "test" if "test" in told else "val"


def _is_before(kind: str, other: str) -> bool:
    return kind in KINDS and other in KINDS and KINDS.index(kind) < KINDS.index(other)


def _note(other_splits: Any, pairs: Sequence[tuple[str, str, int]], kinds: Mapping[str, str]) -> str:
    if not pairs:
        return ""
    shared = "; ".join(f"{count:,} in both {a} and {b}" for a, b, count in pairs[:NAMED])
    more = f"; and {len(pairs) - NAMED:,} more pairs of splits" if len(pairs) > NAMED else ""
    rows = int((other_splits != "").sum())
    unknown = sorted({name for pair in pairs for name in pair[:2] if kinds[name] not in KINDS})
    named = ", ".join(unknown[:NAMED]) + ", and others" * (len(unknown) > NAMED)
    which = f"; whether these are trained on is not known ({named}): no sample of them is called a leak"
    return (
        f"{count_text(rows, 'sample has', 'samples have')} a copy in another split (media: {shared}{more}): "
        f"scores on the later one will be too high{which if unknown else ''}"
    )
