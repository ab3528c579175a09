"""The panel "Audit": start an audit or choose one, then see what it found, plot by plot, sample by sample."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .common import PLUGIN
from .panel_apply import Apply
from .panel_base import column, drawn, guarded, say
from .panel_overview import Overview
from .panel_plots import Plots
from .panel_queue import Queue
from .panel_transfer import Transfer

TABS = {"overview": "Overview", "plots": "Plots", "queue": "Queue", "apply": "Report and apply", "transfer": "Recall"}


class AuditPanel(Overview, Plots, Queue, Apply, Transfer, foo.Panel):
    """Reads fields, the run and its evidence; computes nothing."""

    @property
    def config(self) -> foo.PanelConfig:
        """How the App lists the panel."""
        return foo.PanelConfig(
            name="audit_panel",
            label="Audit",
            icon="fact_check",
            category=foo.Categories.CURATE,
            surfaces="grid",
            help_markdown="What an audit found: wrong pairs, outliers, copies, memorized samples",
        )

    @guarded
    def on_load(self, ctx: Any) -> None:
        """Show the newest audit, unless one was chosen before."""
        from audit_plugin.fiftyone_io.results import findings

        runs = findings.audits_newest_first(ctx.dataset)
        if ctx.panel.state.run not in runs:
            self._choose(ctx, runs[0] if runs else "")
        self.load_tab(ctx)

    @guarded
    def on_change_dataset(self, ctx: Any) -> None:
        """Another dataset has other audits."""
        self.on_load(ctx)

    @guarded
    def on_run(self, ctx: Any) -> None:
        """Another audit was chosen."""
        value = ctx.params.get("value")
        if value and value != ctx.panel.state.run:
            self._choose(ctx, value)
            self.load_tab(ctx)

    @guarded
    def on_tab(self, ctx: Any) -> None:
        """Another tab was chosen."""
        value = ctx.params.get("value")
        if value in TABS and value != (ctx.panel.state.tab or "overview"):
            ctx.panel.state.tab = value
            self.load_tab(ctx)

    @guarded
    def on_start(self, ctx: Any) -> None:
        """Ask for an audit."""
        ctx.prompt(f"{PLUGIN}/run_audit", on_success=self.on_audited)

    @guarded
    def on_audited(self, ctx: Any) -> None:
        """An audit was made: show it."""
        from audit_plugin.fiftyone_io.results import findings

        ctx.dataset.reload()
        runs = findings.audits_newest_first(ctx.dataset)
        if runs:
            self._choose(ctx, runs[0])
            self.load_tab(ctx)

    @guarded
    def on_ask(self, ctx: Any) -> None:
        """Open the form of one of the plugin's operators, filled in as far as the panel knows."""
        params = {"run": ctx.panel.state.run, **(ctx.params.get("fill") or {})}
        ctx.prompt(f"{PLUGIN}/{ctx.params['ask']}", params=params, on_success=self.on_asked)

    @guarded
    def on_asked(self, ctx: Any) -> None:
        """It was done: the dataset, and the row that is shown, may be others now."""
        ctx.dataset.reload()
        ctx.panel.state.row = None
        self.load_tab(ctx)

    def load_tab(self, ctx: Any) -> None:
        """Send what the chosen tab draws."""
        loads = {"plots": self.load_plots, "queue": self.load_queue, "transfer": self.load_transfer}
        if not ctx.panel.state.run:
            self.load_transfer(ctx)
        elif load := loads.get(ctx.panel.state.tab):
            load(ctx)

    def _choose(self, ctx: Any, run: str) -> None:
        ctx.panel.state.run = run
        ctx.panel.state.cuts = {}
        ctx.panel.state.row = None
        ctx.panel.state.set("head.chosen", run)

    @drawn
    def render(self, ctx: Any, panel: types.Object) -> None:
        """The whole panel."""
        from audit_plugin.fiftyone_io.results import findings

        runs = findings.audits_newest_first(ctx.dataset)
        run = ctx.panel.state.run
        if run not in runs:
            self._render_start(ctx, panel)
            return
        head = panel.h_stack("head", gap=2, align_y="center")
        choices = types.DropdownView()
        for name in runs:
            when = ctx.dataset.get_run_info(name).timestamp
            choices.add_choice(name, label=f"{name} ({when:%Y-%m-%d %H:%M})")
        head.enum("chosen", runs, label="Audit", default=run, view=choices, on_change=self.on_run)
        head.btn("again", label="New audit", icon="add", variant="outlined", on_click=self.on_start)
        tabs = types.TabsView()
        for name, label in TABS.items():
            tabs.add_choice(name, label=label)
        tab = ctx.panel.state.tab or "overview"
        panel.enum("tabs", list(TABS), default=tab, view=tabs, on_change=self.on_tab)
        body = types.Object()
        panel.define_property(tab, body, view=column(gap=2))
        shows = {
            "overview": self.show_overview,
            "plots": self.show_plots,
            "queue": self.show_queue,
            "apply": self.show_apply,
            "transfer": lambda ctx, body, _run: self.show_transfer(ctx, body),
        }
        shows[tab](ctx, body, run)

    def _render_start(self, ctx: Any, panel: types.Object) -> None:
        say(
            panel,
            "start",
            "### Audit this dataset\n\nFinds media that do not belong together, outliers, copies and samples that a "
            "model would memorize. Writes scores and tags; changes nothing else, and can be deleted again.",
        )
        panel.btn("begin", label="Start an audit", icon="play_arrow", variant="contained", on_click=self.on_start)
        across = types.Object()
        panel.define_property("transfer", across, view=column(gap=2, variant="outline", pad=2))
        self.show_transfer(ctx, across)
