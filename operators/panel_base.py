"""What the panels share: events with tokens, errors as messages, layout, text from the data as plain text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks
from .base import MOST_NAME, STALE, TOKEN, audit_key, logged_text, notify
from .markdown import without_markdown

MOST_NUMBER = 1e300
MOST_ROWS = 2**31  # of a dataset, of captions, of pages
TWICE_SECONDS = 3.0  # in which the second event of one click arrives
MADE, AFTERWARDS = "audit_made", "audit_afterwards"  # attributes of an event's context
# CSS of a grid of the App: its columns may not grow with what is in them; its elements are not lines of their own.
AS_WIDE = {"gridTemplateColumns": "minmax(0, 1fr)"}
INLINE = {"display": "inline", "overflowWrap": "anywhere", "marginRight": "8px", "fontSize": "inherit"}
WRAPPED = {"&& > *": {"width": "auto", "minWidth": 0, "maxWidth": "100%"}}

# What an event's handler returns where the panel stays as it is drawn. The App sends such events on its own, beside
# others. They bring a state that may be older: drawn from it, the panel would lose what the others have shown.
UNCHANGED = object()
Handler = Callable[[Any, Any], Any]

# What the panels keep in their state, which comes from the browser: name -> its type.
STATE: dict[str, Any] = {
    "run": str,
    "reviewer": str,
    "head": Mapping,
    "tab": str,
    "kind": str,
    "earlier": str,
    "row": list | tuple,
    "opened": list | tuple,
    "history": bool,
    "precision": int | float,
    "seen": str,
    "page": int,
    "point": Mapping,
    "redrawn": int,
    "jobs": list | tuple,
    "thresholds": Mapping,
    "queue": Mapping,
}


class AuditPanelBase(foo.Panel):
    """A panel of which a request can call nothing but its events, with a state of the types in `STATE`."""

    def resolve_input(self, ctx: Any) -> None:
        """Nothing for FiftyOne to check, which it would answer with a traceback: `execute` checks."""

    def execute(self, ctx: Any) -> Any:
        method = ctx.params.get("__method__")
        if method in (None, "on_startup"):
            return super().execute(ctx)
        is_event = isinstance(method, str) and hasattr(getattr(type(self), method, None), "is_event")
        if not is_event or not isinstance(ctx.panel_id, str) or not isinstance(ctx.panel_state, dict):
            return None
        for name, kind in STATE.items():
            value = ctx.panel_state.get(name)
            if value is not None and (not isinstance(value, kind) or not _is_finite(value)):
                del ctx.panel_state[name]
        ctx.panel_state.update(_in_range(ctx.panel_state))
        if getattr(self, method)(ctx) is not UNCHANGED:
            ctx.ops.show_panel_output(self.render(ctx))
        for act in vars(ctx).pop(AFTERWARDS, ()):
            try:
                act()
            except Exception as error:
                notify(ctx, logged_text(error), "error")
        return None


def _in_range(state: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and rows of a state as they can be: others would fail each drawing of the panel."""
    valid: dict[str, Any] = {
        name: min(max(int(state[name]), 0), MOST_ROWS) for name in ("page", "redrawn") if state.get(name) is not None
    }
    valid |= {name: None for name in ("row", "opened") if state.get(name) is not None and not _is_row(state[name])}
    if state.get("thresholds") is not None:
        numbers = {name: value for name, value in state["thresholds"].items() if _is_number(value)}
        valid["thresholds"] = numbers
    return valid


def _is_row(value: Any) -> bool:
    """Whether this is the id of a sample or object, and the position of a caption."""
    try:
        return checks.row({"row": value}) is not None
    except AuditError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a value of the state are finite."""
    if isinstance(value, Mapping):
        return all(_is_finite(inner) for inner in value.values())
    return not isinstance(value, int | float) or abs(value) < MOST_NUMBER


def guarded(handler: Handler) -> Handler:
    """The handler of an event; its errors become a message: an exception would replace the panel by a traceback."""

    @wraps(handler)
    def run(self: Any, ctx: Any) -> Any:
        try:
            checks.dataset_of(ctx)
            return handler(self, ctx)
        except Exception as error:
            vars(ctx).pop(AFTERWARDS, None)
            notify(ctx, logged_text(error), "error")

    run.is_event = True  # type: ignore[attr-defined]
    return run


def changing(handler: Handler) -> Handler:
    """The handler of an event that changes something: it needs the token of an element that this panel has drawn.

    A second event with the same token is ignored: the App may send two of one click. Soon after the first it draws
    nothing either, since it was sent with the state before; later it shows how things are, as the answer was lost.
    """

    @wraps(handler)
    def run(self: Any, ctx: Any) -> Any:
        from audit_plugin.fiftyone_io import tokens

        token = ctx.params.get(TOKEN)
        if not tokens.is_valid(token, ctx.dataset, _purpose(self, handler.__name__)):
            raise AuditError(STALE)
        if tokens.use(token):
            return handler(self, ctx)
        return UNCHANGED if tokens.seconds_since_use(token) < TWICE_SECONDS else None

    return guarded(run)


def with_token(ctx: Any, on_click: Any, **params: Any) -> dict[str, Any]:
    """Parameters of a button whose event is a `changing` handler."""
    from audit_plugin.fiftyone_io import tokens

    return {**params, TOKEN: tokens.new_token(ctx.dataset, _purpose(on_click.__self__, on_click.__name__))}


def _purpose(panel: Any, handler: str) -> str:
    return f"{panel.config.name}.{handler}"


def drawn(render: Callable[[Any, Any, types.Object], None]) -> Callable[[Any, Any], types.Property]:
    """A panel's `render` made of a function that fills the panel; an error becomes a notice in the panel."""

    @wraps(render)
    def run(self: Any, ctx: Any) -> types.Property:
        from audit_plugin.fiftyone_io import read_once

        panel = types.Object()
        try:
            checks.dataset_of(ctx)
            with read_once():
                render(self, ctx, panel)
        except Exception as error:
            panel.view("failed", types.Error(label="Cannot show this panel", description=logged_text(error)))
        return without_markdown(types.Property(panel, view=column(gap=1, pad=2)))

    return run


def once_per_event(ctx: Any, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """What `make` gives; made again in the same event only after a decision was recorded (`forget`)."""
    made: dict[tuple[Any, ...], Any] = vars(ctx).setdefault(MADE, {})
    if name not in made:
        made[name] = make()
    return made[name]


def forget(ctx: Any) -> None:
    """After a decision: what follows from the decisions is to be made again."""
    vars(ctx).pop(MADE, None)


def set_state(ctx: Any, **values: Any) -> None:
    """Change the panel's state: at once for this event, in the browser once the panel is drawn.

    The App reads its page again with each change, and the panel would wait for it. After an error nothing is changed in
    the browser.
    """
    ctx.panel_state.update(values)
    vars(ctx).setdefault(AFTERWARDS, []).append(lambda: ctx.panel.state.set(values))


def set_view(ctx: Any, view: Any = None, name: str | None = None, fields: Sequence[str] | None = None) -> None:
    """Show a view, or a saved one, in the grid, with these fields on each sample; None: those that it shows.

    Once the panel is drawn: the grid keeps the App busy, and the panel would wait for it.
    """

    def act() -> None:
        ctx.ops.set_view(view=view, name=name)
        if fields is not None:
            ctx.ops.set_active_fields(list(fields))

    vars(ctx).setdefault(AFTERWARDS, []).append(act)


def run_of(ctx: Any) -> str:
    """The audit that the panel shows.

    Raises:
        AuditError: there is none, or it was deleted.
    """
    return audit_key(ctx.dataset, {"run": ctx.panel.state.run})


def panel_reviewer(ctx: Any) -> str:
    """The reviewer's name that the browser keeps (`ui/index.umd.js`), as it stands in the panel's state; "" without.

    Raises:
        AuditError: a name that cannot be one.
    """
    state = ctx.panel.state._data
    head = state.get("head")
    return checks.text(head if isinstance(head, Mapping) else state, "reviewer", most=MOST_NAME).strip()


def show_reviewer(place: types.Object) -> None:
    """Add the reviewer's name with a way to change it; a component of the plugin's script, which keeps the name."""
    place.str("reviewer", label="Reviewer", view=types.View(component="AuditReviewer"))


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
    """Elements below each other, as wide as the panel and never wider: what does not fit wraps."""
    return types.GridView(orientation="vertical", align_x="stretch", **of_parts(grid=AS_WIDE), **options)


def of_parts(**styles: Mapping[str, Any]) -> dict[str, Any]:
    """CSS of parts of an element, by the names that the App has for them."""
    return {"componentsProps": {part: {"sx": dict(style)} for part, style in styles.items()}}


def wrapped(parent: types.Object, name: str, item: Mapping[str, Any] | None = None, **options: Any) -> types.Object:
    """Elements beside each other, as wide as they need to be, in as many lines as they need; `item`: CSS of the row."""
    inner = types.Object()
    styles = of_parts(grid=WRAPPED, item=item or {})
    parent.define_property(name, inner, view=types.GridView(orientation="2d", **styles, **{"gap": 1, **options}))
    return inner


def box(parent: types.Object, name: str, **options: Any) -> types.Object:
    """An outlined box with a column of elements."""
    inner = types.Object()
    parent.define_property(name, inner, view=column(**{"variant": "outline", "pad": 2, **options}))
    return inner


def say(parent: types.Object, name: str, markdown: str) -> None:
    """The plugin's own text as Markdown; what comes from the data in it is `markdown.escaped`."""
    parent.md(markdown, name=name)


def plain_text(parent: types.Object, name: str, label: str, text: str) -> None:
    """Text from the data: never as Markdown or HTML, without characters that hide or reorder text.

    A `label` of "" is not shown.
    """
    from audit_plugin.inputs.spreadsheet import clean

    # in one line with its label, and broken where a word is longer than the panel is wide
    shown = INLINE if label else {"display": "none"}
    parts = {"stack": {"display": "block"}, "label": shown, "value": INLINE}
    parent.str(name, label=label, default=clean(text), view=types.LabelValueView(read_only=True, **of_parts(**parts)))
