"""Text from the data in places where the App renders Markdown: it appears as it is, and nothing in it acts."""

from __future__ import annotations

import re
from typing import Any

from fiftyone.operators import types

# Escaped, these cannot begin an image, a link, code, emphasis, a table cell, an entity or HTML.
SPECIAL = re.compile(r"[\\`*_\[\]<>!&~|#]")
# The App makes links of bare addresses too, also of escaped ones: an invisible character that joins words prevents it.
BARE = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
WORD_JOINER = "\u2060"
# Views whose label, description and caption the App renders as plain text.
PLAIN = ("Button", "ButtonView", "LabelValueView", "PromptView", "Choice", "MarkdownView", "TabsView", "HiddenView")


class Markdown(str):
    """Text that is Markdown on purpose, made of escaped parts."""

    __slots__ = ()


def escaped(text: Any, width: int = 0) -> Markdown:
    """Any text as Markdown that shows it in one line, without hidden characters; `Markdown` stays as it is."""
    from audit_plugin.inputs.spreadsheet import clean

    if isinstance(text, Markdown):
        return text
    return Markdown(BARE.sub(WORD_JOINER, SPECIAL.sub(r"\\\g<0>", clean(str(text), width))))


def code(text: Any) -> Markdown:
    """Any text as Markdown for a piece of code."""
    from audit_plugin.inputs.spreadsheet import clean

    return Markdown(f"`{clean(str(text)).replace('`', chr(39)).replace('|', '/')}`")


def without_markdown(prompt: types.Property) -> types.Property:
    """A form, page or panel whose labels and descriptions appear as they are: only Markdown elements are Markdown."""
    _escape(prompt.view)
    for element in getattr(prompt.type, "properties", {}).values():
        without_markdown(element)
    if getattr(prompt.type, "element_type", None) is not None and isinstance(prompt.type.element_type, types.Object):
        for element in prompt.type.element_type.properties.values():
            without_markdown(element)
    return prompt


def _escape(view: Any) -> None:
    if view is None or type(view).__name__ in PLAIN:
        return
    for name in ("label", "description", "caption"):
        if isinstance(text := getattr(view, name, None), str):
            setattr(view, name, escaped(text))
            if name in view._kwargs:
                view._kwargs[name] = escaped(text)
