"""What a new text changes of an old one, word by word; and which texts a planned change replaces or removes."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

from .plan import PlannedChange

LEAST_SHARED = 0.3  # similarity of the words below which a text is another one, shown without the old words

Change = tuple[Literal["same", "removed", "added"], str]
Edit = tuple[int, str | None, str | None]  # position of the text, as it is, as it becomes: None where it is removed


def word_changes(present: str, proposed: str) -> list[Change]:
    """Words of two texts that are the same, removed or added, in pieces and in reading order; blanks do not count."""
    old, new = present.split(), proposed.split()
    pieces: list[Change] = []
    for tag, first, end, new_first, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(("same", " ".join(old[first:end])))
            continue
        pieces += [("removed", " ".join(old[first:end]))] * (end > first)
        pieces += [("added", " ".join(new[new_first:new_end]))] * (new_end > new_first)
    return pieces


def shared_words(present: str, proposed: str) -> float:
    """How many words two texts have in common, in their order: from 0 to 1, `2 * shared / (words of both)`."""
    return SequenceMatcher(None, present.split(), proposed.split(), autojunk=False).ratio()


def text_edits(change: PlannedChange) -> Iterator[Edit]:
    """The texts that a change replaces or removes; none for the mark of a removal."""
    if change.kind == "text":
        assert change.before is None or isinstance(change.before, str)
        assert isinstance(change.after, str)
        yield change.caption, change.before, change.after
    elif change.kind == "texts":
        assert isinstance(change.before, tuple)
        assert isinstance(change.after, tuple)
        after = dict(zip(change.positions, change.after, strict=True))
        for position, before in enumerate(change.before):
            if position not in after or after[position] != before:
                yield position, before, after.get(position)
