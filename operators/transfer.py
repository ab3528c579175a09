"""Measure which identities are recalled in one modality but not in the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from . import forms
from .background import Progress, in_background, stages_of
from .results import transfer_output

RUN = "transfer"


class MeasureTransfer(foo.Operator):
    """Learns names of identities from one modality, asks for them in the other, and writes who is recalled where."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="measure_transfer",
            label="Measure recall across modalities",
            icon="compare_arrows",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
            description="Find the identities or classes that a model would know from one modality only: names learned "
            "from pictures and asked with texts, and the other way round; writes fields, changes nothing else",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        form = forms.transfer_form(ctx.target_view(), ctx.params, RUN)
        return types.Property(form, view=types.PromptView(label="Recall across modalities", submit_button_label="Run"))

    def resolve_run_name(self, ctx: Any) -> str:
        """What a queued measurement is called in lists of runs."""
        return f"Recall across modalities of {ctx.dataset_name}"

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Measure in a thread; yield progress, then what was found, or one sentence on why nothing was."""
        view, params = ctx.target_view(), dict(ctx.params)
        run = str(params.pop("run", None) or RUN)

        def work(progress: Progress) -> Any:
            from audit_plugin.fiftyone_io import cross_modal as transfers

            return transfers.transfer_view(view, forms.config_from(params), progress, run)

        found = yield from in_background(ctx, work, stages(view, params))
        if found is not None:
            output, values = transfer_output(found.summary, run)
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify("Recall across modalities is measured", variant="success")
            page = types.Property(output, view=types.View(label="Recall across modalities"))
            yield ctx.ops.show_output(page.to_json(), values)

    def __call__(self, sample_collection: Any, run: str = RUN, **config: Any) -> Any:
        """Measure a dataset or view from Python; see `audit_plugin.fiftyone_io.cross_modal.transfer_view`."""
        from audit_plugin.config import AuditConfig
        from audit_plugin.fiftyone_io import cross_modal as transfers

        return transfers.transfer_view(sample_collection, AuditConfig(**config), run=run)


def stages(view: Any, params: Mapping[str, Any]) -> dict[str, float]:
    """The stages with their shares of the time: an audit's without training and scoring."""
    kept = {n: w for n, w in stages_of(view, params).items() if n in ("read", "write") or n.startswith("encode")}
    kept["transfer"] = 0.5 * sum(kept.values()) or 1.0
    order = [*(name for name in kept if name not in ("transfer", "write")), "transfer", "write"]
    total = sum(kept.values())
    return {name: kept[name] / total for name in order if name in kept}
