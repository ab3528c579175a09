"""What a suggested caption changes, word by word, and how a caption is edited."""

from __future__ import annotations

from audit_plugin.review.text_changes import LEAST_SHARED, shared_words, word_changes

from .markdown import Markdown, escaped

BLANK = "(empty)"  # a text of blanks and of characters that show nothing
NAMELESS = "(no name)"
MOST_EDITED = 2_000  # characters of a caption that is offered for editing


def changes_text(present: str, proposed: str, most: int) -> Markdown:
    """The proposed text as Markdown: removed words are struck, added ones bold, all of them inert.

    Args:
        present: the caption as it is.
        proposed: what is suggested for it; without enough words in common it is shown alone.
        most: characters of each text that are compared; where more follow, there is a sign.
    """
    present, proposed = cut(present, most), cut(proposed, most)
    if shared_words(present, proposed) < LEAST_SHARED:
        return escaped(proposed)
    marks = {"same": "", "removed": "~~", "added": "**"}
    pieces = [(marks[kind], escaped(words)) for kind, words in word_changes(present, proposed)]
    return Markdown(" ".join(f"{mark}{words}{mark}" for mark, words in pieces if words))


def shown(text: str, most: int, missing: str = "(none)") -> str:
    """A text in one line, `missing` where there is none, and a sign where nothing of it would be seen."""
    return (visible_line(cut(text, most)) or BLANK) if text else missing


def shown_name(name: str, most: int = 0) -> str:
    """A reviewer's name in one line of at most `most` characters, or that it has none that can be seen."""
    from audit_plugin.inputs.spreadsheet import clean

    return clean(name, most) if visible_line(name) else NAMELESS


def visible_line(text: str) -> str:
    """A text in one line; "" where all of its characters show nothing."""
    from audit_plugin.inputs.spreadsheet import FILLERS, JOINERS, clean

    line = clean(text)
    return line if line.strip(f"{FILLERS}{JOINERS} ") else ""


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
