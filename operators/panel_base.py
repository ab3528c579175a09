"""What the panels share: errors as messages, layout, and text from the data that is shown as plain text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .base import error_text

logger = logging.getLogger(__name__)


def guarded(handler: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A handler whose errors become a message: an exception would replace the whole panel by a traceback."""

    @wraps(handler)
    def run(self: Any, ctx: Any) -> None:
        try:
            handler(self, ctx)
        except Exception as error:
            ctx.ops.notify(logged_text(error), variant="error")

    return run


def drawn(render: Callable[[Any, Any, types.Object], None]) -> Callable[[Any, Any], types.Property]:
    """A panel's `render` made of a function that fills the panel; an error becomes a notice in the panel."""

    @wraps(render)
    def run(self: Any, ctx: Any) -> types.Property:
        panel = types.Object()
        try:
            render(self, ctx, panel)
        except Exception as error:
            panel.view("failed", types.Error(label="Cannot show this panel", description=logged_text(error)))
        return types.Property(panel, view=column(gap=2, pad=2))

    return run


def logged_text(error: Exception) -> str:
    """One sentence on an error; an unexpected error is logged with its traceback."""
    if not isinstance(error, AuditError):
        logger.error("The panel failed", exc_info=error)
    return error_text(error)


class Tab:
    """A part of the panel with its own elements and handlers."""

    on_open_form: Any  # of the panel: opens the form of an operator

    def form_button(
        self,
        place: types.Object,
        operator: str,
        label: str,
        *,
        values: Mapping[str, Any] | None = None,
        name: str = "",
        variant: str = "outlined",
        icon: str | None = None,
    ) -> None:
        """Add a button that opens the form of one of the plugin's operators.

        Args:
            place: where the button is added.
            operator: name of the operator, without the plugin's name.
            label: of the button.
            values: values of the form's fields, besides the audit.
            name: of the element; by default the operator's.
            variant: of the button.
            icon: of the button.
        """
        params = {"operator": operator, "values": dict(values or {})}
        place.btn(name or operator, label=label, icon=icon, variant=variant, on_click=self.on_open_form, params=params)


def column(**options: Any) -> types.GridView:
    """Elements below each other, as wide as the panel."""
    return types.GridView(orientation="vertical", align_x="stretch", **options)


def box(parent: types.Object, name: str) -> types.Object:
    """An outlined box with a column of elements."""
    inner = types.Object()
    parent.define_property(name, inner, view=column(variant="outline", pad=2))
    return inner


def say(parent: types.Object, name: str, markdown: str) -> None:
    """The plugin's own text as Markdown: never a caption or anything else from the data."""
    parent.md(markdown, name=name)


def plain_text(parent: types.Object, name: str, label: str, text: str) -> None:
    """Text from the data: never as Markdown or HTML, without characters that hide or reorder text."""
    from audit_plugin.inputs.spreadsheet import clean

    parent.str(name, label=label, default=clean(text), view=types.LabelValueView(read_only=True))
