"""Measure whether removing samples helps (removal study), and cross-modal recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from . import checks, forms
from .base import BACKGROUND, BackgroundOperator, Progress, notify, operator_config, target_view
from .outputs import cross_modal_output, removal_output
from .stages import audit_stages, shares_of_time

CROSS_MODAL_RUN = "transfer"  # default key; also the prefix of the fields
REPETITIONS = 5


class RemovalStudy(BackgroundOperator):
    """Trains without the highest-scored samples, for several scores, and measures the effect on retrieval."""

    listing = operator_config(
        "removal_study",
        "Audit: Removal study",
        "trending_down",
        "low",
        "Measure whether removing the most memorized or misaligned samples helps a model, and how many to remove: "
        "compared with random removal and no removal, with intervals. Writes a report file, and nothing to the "
        "dataset",
        view_target=True,
        **BACKGROUND,
    )

    def form(self, ctx: Any) -> types.Property:
        return self.prompt(forms.removal_form(target_view(ctx), ctx.params, REPETITIONS), "Run study")

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        return audit_stages(samples, params, "removal")

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        from audit_plugin import fiftyone_io

        given = checks.items(params, "amounts", most=100)
        amounts = tuple(checks.whole({"amounts": amount}, "amounts", low=1) for amount in given) or None
        seeds = checks.whole(params, "seeds", REPETITIONS, low=2, high=forms.MOST_REPETITIONS)
        return fiftyone_io.run_removal_study(samples, checks.settings(params), amounts, seeds, progress)

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:  # noqa: ARG002
        yield notify(ctx, "Removal study complete", "success")
        yield self.page(ctx, *removal_output(result))

    def __call__(
        self, sample_collection: Any, amounts: tuple[int, ...] | None = None, seeds: int = REPETITIONS, **config: Any
    ) -> Any:
        """Run the study on a dataset or view from Python; see `audit_plugin.fiftyone_io.run_removal_study`."""
        from audit_plugin import fiftyone_io
        from audit_plugin.config import AuditConfig

        return fiftyone_io.run_removal_study(sample_collection, AuditConfig(**config), amounts, seeds)


class MeasureCrossModal(BackgroundOperator):
    """Learns names of identities in one modality, asks for them in the other, and writes the recall of each."""

    listing = operator_config(
        "measure_cross_modal",
        "Audit: Measure cross-modal recall",
        "compare_arrows",
        "medium",
        "Find identities or classes that a model would know in one modality only: their names are learned from images "
        "and asked with texts, and vice versa. Adds fields and a saved view",
        view_target=True,
        **BACKGROUND,
    )

    def form(self, ctx: Any) -> types.Property:
        return self.prompt(forms.cross_modal_form(target_view(ctx), ctx.params, CROSS_MODAL_RUN), "Measure")

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        """The encoding stages of an audit, then the measurement, which takes about half as long as they do."""
        audit = audit_stages(samples, params)
        weights = {name: share for name, share in audit.items() if name.startswith(("read", "encode"))}
        weights["cross-modal recall"] = 0.5 * sum(weights.values()) or 1.0
        if "write" in audit:
            weights["write"] = audit["write"]
        return shares_of_time(weights)

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        from audit_plugin.fiftyone_io import cross_modal

        settings = checks.settings({name: value for name, value in params.items() if name != "run"})
        return cross_modal.measure_cross_modal(samples, settings, progress, self._run(params))

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:
        yield ctx.ops.reload_dataset()
        yield notify(ctx, "Cross-modal recall measured", "success")
        yield self.page(ctx, *cross_modal_output(result.summary, self._run(params)))

    def shown(self, ctx: Any) -> Any:
        """The run key, and the measurement that is replaced."""
        return forms.run_shown(ctx.dataset, self._run(ctx.params))

    def _run(self, params: Mapping[str, Any]) -> str:
        run = checks.text(params, "run", CROSS_MODAL_RUN, most=100)
        if not run.isidentifier():
            raise AuditError(f"run key {checks.short(run)} is not a valid name: use letters, digits and underscores")
        return run

    def __call__(self, sample_collection: Any, run: str = CROSS_MODAL_RUN, **config: Any) -> Any:
        """Measure a dataset or view from Python; see `audit_plugin.fiftyone_io.cross_modal.measure_cross_modal`."""
        from audit_plugin.config import AuditConfig
        from audit_plugin.fiftyone_io import cross_modal

        return cross_modal.measure_cross_modal(sample_collection, AuditConfig(**config), run=run)


def former_name(name: str, config: foo.OperatorConfig) -> foo.OperatorConfig:
    """The configuration of an unlisted alias, by which an operator can still be called."""
    return operator_config(
        name,
        config.label,
        config.icon,
        config.risk_level,
        f"Former name of {config.name}. {config.description}",
        view_target=True,
        unlisted=True,
        **BACKGROUND,
    )


class RemovalCurve(RemovalStudy):
    """The former name of `RemovalStudy`."""

    listing = former_name("removal_curve", RemovalStudy.listing)


class MeasureTransfer(MeasureCrossModal):
    """The former name of `MeasureCrossModal`."""

    listing = former_name("measure_transfer", MeasureCrossModal.listing)
