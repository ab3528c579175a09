"""The panel beside an open sample: the same evidence and decisions as in the queue."""

from __future__ import annotations

import time
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .common import run_of
from .panel_base import drawn, guarded, say
from .panel_case import decide_buttons, decide_on, show_case, show_neighbors
from .panel_queue import progress_words
from .review import go_to


class AuditSamplePanel(foo.Panel):
    """What the newest audit says of the open sample; decisions go on to the next finding."""

    @property
    def config(self) -> foo.PanelConfig:
        """How the App lists the panel."""
        return foo.PanelConfig(
            name="audit_sample",
            label="Audit",
            icon="fact_check",
            surfaces="modal",
            help_markdown="What speaks against this sample, and what to do about it",
        )

    @guarded
    def on_load(self, ctx: Any) -> None:
        """The time per decision begins."""
        ctx.panel.state.since = time.time()

    @guarded
    def on_change_current_sample(self, ctx: Any) -> None:
        """Another sample is open."""
        ctx.panel.state.since = time.time()

    @guarded
    def on_decide(self, ctx: Any) -> None:
        """Write the decision down and open the next finding."""
        from audit_plugin import fiftyone_io

        run, row = run_of(ctx.dataset, {}), (str(ctx.params["row"][0]), int(ctx.params["row"][1]))
        if decide_on(ctx, run, row, ctx.panel.state._data):
            go_to(ctx, run, fiftyone_io.queue_of(ctx.dataset, run).next(row))

    @drawn
    def render(self, ctx: Any, panel: types.Object) -> None:
        """The row of the open sample, or what is missing."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        if not ctx.current_sample:
            say(panel, "none", "Open a sample to see what the audit says of it.")
            return
        run = run_of(ctx.dataset, {})
        queue = fiftyone_io.queue_of(ctx.dataset, run)
        row = cases.open_row(ctx.dataset, run, queue, str(ctx.current_sample))
        case = cases.case_of(ctx.dataset, run, row, queue.decided.get(row))
        say(panel, "progress", f"{progress_words(queue.progress)}. Press **h** for the keys.")
        show_case(panel, case, blind=False)
        decide_buttons(panel, row, case.said.get("suggestion", ""), self.on_decide)
        show_neighbors(panel, case)
