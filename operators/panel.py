"""The panel "Audit": start or choose an audit, then look at its results, plots and samples, and review them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from . import checks
from .base import PLUGIN
from .panel_apply import Apply
from .panel_base import (
    UNCHANGED,
    AuditPanelBase,
    column,
    drawn,
    guarded,
    of_parts,
    panel_reviewer,
    say,
    show_reviewer,
    wrapped,
)
from .panel_cross_modal import CrossModal
from .panel_overview import Overview
from .panel_plots import Plots
from .panel_review import Queue
from .panel_runs import Runs, is_known

LOW = {"minHeight": "36px"}  # CSS of the tabs, to leave the height of a small screen to the samples
# Tab -> its label, the method that fills it, and the one that sends its data or chooses its row, if any.
TABS: dict[str, tuple[str, Callable[..., None], Callable[..., None] | None]] = {
    "overview": ("Overview", Overview.show_overview, None),
    "plots": ("Plots", Plots.show_plots, Plots.load_plots),
    "queue": ("Queue", Queue.show_queue, None),
    "apply": ("Report and apply", Apply.show_apply, None),
    "cross_modal": ("Cross-modal", CrossModal.show_cross_modal, CrossModal.load_cross_modal),
}


class AuditPanel(Runs, Overview, Plots, Queue, Apply, CrossModal, AuditPanelBase):
    """Reads fields, the run and its results; computes nothing."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="audit_panel",
            label="Audit",
            icon="fact_check",
            category=foo.Categories.CURATE,
            surfaces="grid",
            help_markdown="Results of an audit: misaligned samples, outliers, duplicates and memorized samples",
        )

    def execute(self, ctx: Any) -> Any:
        state = ctx.params.get("panel_state")
        tab = state.get("tab") if isinstance(state, dict) else None
        method = ctx.params.get("__method__")
        if method == "on_change_current_sample" and tab != "queue":
            return None  # the other tabs are costly to draw, and do not depend on the open sample
        if method == "on_tick" and isinstance(state, dict) and is_known(ctx, state, is_still=tab == "queue"):
            return None
        return super().execute(ctx)

    @guarded
    def on_load(self, ctx: Any) -> None:
        """Show the chosen audit, by default the newest."""
        from audit_plugin import fiftyone_io

        fiftyone_io.sweep_deleted()
        fiftyone_io.finish_deletions(ctx.dataset)
        runs = fiftyone_io.audits_newest_first(ctx.dataset)
        if ctx.panel.state.run not in runs:
            self._choose(ctx, runs[0] if runs else "")
        self.note_runs(ctx)
        self.load_tab(ctx)

    @guarded
    def on_change_dataset(self, ctx: Any) -> None:
        self.on_load(ctx)

    @guarded
    def on_run(self, ctx: Any) -> Any:
        """Another audit was chosen."""
        value = checks.text(ctx.params, "value")
        if value == ctx.panel.state.run:
            return UNCHANGED
        if value:
            self._choose(ctx, value)
            self.load_tab(ctx)
        return None

    @guarded
    def on_tab(self, ctx: Any) -> None:
        """Another tab was chosen."""
        value = checks.text(ctx.params, "value")
        if value in TABS and value != self._tab(ctx):
            ctx.panel.state.tab = value
            self.load_tab(ctx)

    @guarded
    def on_start(self, ctx: Any) -> None:
        """Open the form of an audit."""
        ctx.prompt(f"{PLUGIN}/run_audit", on_success=self.on_audited)

    @guarded
    def on_audited(self, ctx: Any) -> None:
        """Show the new audit."""
        from audit_plugin import fiftyone_io

        ctx.dataset.reload()
        runs = fiftyone_io.audits_newest_first(ctx.dataset)
        if runs:
            self._choose(ctx, runs[0])
            self.load_tab(ctx)

    @guarded
    def on_open_form(self, ctx: Any) -> None:
        """Open the form of one of the plugin's operators, with the audit and the values of `Tab.form_button`."""
        values, operator = ctx.params.get("values") or {}, checks.text(ctx.params, "operator", most=100)
        params = {"run": ctx.panel.state.run, **(values if isinstance(values, dict) else {})}
        params |= {"reviewer": name} if (name := panel_reviewer(ctx)) else {}
        ctx.prompt(f"{PLUGIN}/{operator}", params=params, on_success=self.on_form_done)

    @guarded
    def on_form_done(self, ctx: Any) -> None:
        """Reload: the operator may have changed the dataset, and the row that is shown."""
        ctx.dataset.reload()
        ctx.panel.state.row = None
        self.load_tab(ctx)

    def load_tab(self, ctx: Any) -> None:
        """Send the data of the chosen tab."""
        tab = self._tab(ctx) if ctx.panel.state.run else "cross_modal"
        _, _, load = TABS[tab]
        if load:
            load(self, ctx)

    def _tab(self, ctx: Any) -> str:
        return ctx.panel.state.tab if ctx.panel.state.tab in TABS else "overview"

    def _choose(self, ctx: Any, run: str) -> None:
        ctx.panel.state.run = run
        ctx.panel.state.thresholds = {}
        ctx.panel.state.row = None
        ctx.panel.state.set("head.chosen", run)

    @drawn
    def render(self, ctx: Any, panel: types.Object) -> None:
        """The whole panel."""
        from audit_plugin import fiftyone_io

        self.show_runs(ctx, panel)
        runs = fiftyone_io.audits_newest_first(ctx.dataset)
        run = ctx.panel.state.run
        if run not in runs:
            self._show_start(ctx, panel)
            return
        head = wrapped(panel, "head", align_y="center")
        choices = types.DropdownView(compact=True)
        for name in runs:
            time = ctx.dataset.get_run_info(name).timestamp
            choices.add_choice(name, label=f"{name} ({time:%Y-%m-%d %H:%M})")
        head.enum("chosen", runs, label="Audit", default=run, view=choices, on_change=self.on_run)
        head.btn("again", label="New audit", icon="add", variant="outlined", on_click=self.on_start)
        show_reviewer(head)
        tabs = types.TabsView(**of_parts(tabs=LOW, tab={**LOW, "minWidth": 0, "padding": "6px 10px"}))
        for name, (label, _, _) in TABS.items():
            tabs.add_choice(name, label=label)
        tab = self._tab(ctx)
        # the App keeps the chosen tab of an element of one name, whatever its default becomes
        name = f"tabs{ctx.panel.state.redrawn or ''}"
        panel.enum(name, list(TABS), default=tab, view=tabs, on_change=self.on_tab)
        body = types.Object()
        panel.define_property(tab, body, view=column(gap=1))
        _, show, _ = TABS[tab]
        show(self, ctx, body, run)

    def _show_start(self, ctx: Any, panel: types.Object) -> None:
        say(
            panel,
            "start",
            "**Audit this dataset**\n\nFinds misaligned samples, outliers, duplicates and samples that a model would "
            "memorize. Adds fields, tags and a saved view, which can be deleted with the audit.",
        )
        panel.btn("begin", label="Start audit", icon="play_arrow", variant="contained", on_click=self.on_start)
        cross_modal = types.Object()
        panel.define_property("cross_modal", cross_modal, view=column(gap=2, variant="outline", pad=2))
        self.show_cross_modal(ctx, cross_modal)
