"""What a suggested caption changes, word by word, and how a caption is edited."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Literal

from .markdown import Markdown, escaped

LEAST_SHARED = 0.3  # similarity of the words below which a suggestion is another caption, shown without the old words
MOST_EDITED = 2_000  # characters of a caption that is offered for editing

Change = tuple[Literal["same", "removed", "added"], str]


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


def changes_text(present: str, proposed: str, most: int) -> Markdown:
    """The proposed text as Markdown: removed words are struck, added ones bold, all of them inert.

    Args:
        present: the caption as it is.
        proposed: what is suggested for it; without enough words in common it is shown alone.
        most: characters of each text that are compared; where more follow, there is a sign.
    """
    present, proposed = cut(present, most), cut(proposed, most)
    shared = SequenceMatcher(None, present.split(), proposed.split(), autojunk=False).ratio()
    if shared < LEAST_SHARED:
        return escaped(proposed)
    marks = {"same": "", "removed": "~~", "added": "**"}
    pieces = [(marks[kind], escaped(words)) for kind, words in word_changes(present, proposed)]
    return Markdown(" ".join(f"{mark}{words}{mark}" for mark, words in pieces if words))


def in_lines(text: str) -> str:
    """A caption as one sees it: its lines without hidden characters and superfluous blanks."""
    from audit_plugin.inputs.spreadsheet import clean

    return "\n".join(map(clean, text.strip().splitlines()))


def cut(text: str, most: int) -> str:
    """At most so many characters, with a sign where more follow."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def editable(text: str) -> str:
    """A caption as its field shows it; "" if it is too long to be edited there."""
    return in_lines(text) if len(text) <= MOST_EDITED else ""
