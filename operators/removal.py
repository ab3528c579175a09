"""See whether removing the worst samples helps a model: a study that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from . import forms
from .background import Progress, in_background, stages_of
from .results import removal_output


class RemovalCurve(foo.Operator):
    """Trains without the worst samples, by several scores, and measures what that does to retrieval."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="removal_curve",
            label="Removal curve",
            icon="trending_down",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="low",
            description="Find out whether removing the most memorized or misaligned samples helps a model, and how "
            "many: against random removal and none, with intervals; changes nothing",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        view = types.PromptView(label="Removal curve", submit_button_label="Measure")
        return types.Property(forms.removal_form(ctx.target_view(), ctx.params), view=view)

    def resolve_run_name(self, ctx: Any) -> str:
        """What a queued study is called in lists of runs."""
        return f"Removal curve of {ctx.dataset_name}"

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Measure in a thread; yield progress, then the table, or one sentence on why there is none."""
        view, params = ctx.target_view(), dict(ctx.params)

        def work(progress: Progress) -> Any:
            from audit_plugin import fiftyone_io

            amounts = tuple(params.get("amounts") or ()) or None
            return fiftyone_io.removal_view(
                view, forms.config_from(params), amounts, params.get("seeds") or 5, progress
            )

        report = yield from in_background(ctx, work, stages_of(view, params, "removal"))
        if report:
            output, values = removal_output(report)
            yield ctx.ops.notify("The removal curve is done", variant="success")
            yield ctx.ops.show_output(types.Property(output, view=types.View(label="Removal curve")).to_json(), values)

    def __call__(
        self, sample_collection: Any, amounts: tuple[int, ...] | None = None, seeds: int = 5, **config: Any
    ) -> Any:
        """Measure a dataset or view from Python; see `audit_plugin.fiftyone_io.removal_view`."""
        from audit_plugin import fiftyone_io
        from audit_plugin.config import AuditConfig

        return fiftyone_io.removal_view(sample_collection, AuditConfig(**config), amounts, seeds)
