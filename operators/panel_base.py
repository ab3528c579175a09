"""What the panels share: errors become messages, sentences keep strange text harmless."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

logger = logging.getLogger(__name__)


def guarded(handler: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A handler whose errors become a message: an exception would replace the whole panel by a traceback."""

    @wraps(handler)
    def run(self: Any, ctx: Any) -> None:
        try:
            handler(self, ctx)
        except Exception as error:
            ctx.ops.notify(sentence_of(error), variant="error")

    return run


def drawn(render: Callable[[Any, Any, types.Object], None]) -> Callable[[Any, Any], types.Property]:
    """A panel's `render` from a function that fills it; an error becomes a notice in the panel."""

    @wraps(render)
    def run(self: Any, ctx: Any) -> types.Property:
        panel = types.Object()
        try:
            render(self, ctx, panel)
        except Exception as error:
            panel.view("failed", types.Error(label="This cannot be shown", description=sentence_of(error)))
        return types.Property(panel, view=column(gap=2, pad=2))

    return run


def sentence_of(error: Exception) -> str:
    """What a person is told of an error; what nobody foresaw is logged too."""
    if isinstance(error, AuditError):
        return str(error)
    logger.error("The panel failed", exc_info=error)
    return f"The panel failed: {error} ({type(error).__name__}); the log has more"


def column(**options: Any) -> types.GridView:
    """Elements below each other, as wide as the panel."""
    return types.GridView(orientation="vertical", align_x="stretch", **options)


def box(parent: types.Object, name: str, **options: Any) -> types.Object:
    """An outlined box in a column."""
    inner = types.Object()
    parent.define_property(name, inner, view=column(variant="outline", pad=2, **options))
    return inner


def say(parent: types.Object, name: str, markdown: str) -> None:
    """Our own words, as markdown: never a caption or anything else from the data."""
    parent.md(markdown, name=name)


def plain_text(parent: types.Object, name: str, label: str, text: str) -> None:
    """Text from the data, shown as it is: never as markdown or HTML, nothing in it that hides or reorders text."""
    from audit_plugin.report.display import clean

    parent.str(name, label=label, default=clean(text), view=types.LabelValueView(read_only=True))
