"""Operators that a panel asks for: keep a threshold, draw a map of the embeddings."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError


class SetThreshold(foo.Operator):
    """Flags by another threshold; the scores stay."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="set_threshold",
            label="Set a threshold",
            icon="tune",
            dynamic=True,
            risk_level="medium",
            description="Flag the samples whose score reaches a threshold: rewrites one audit's flags, tags and "
            "proposals of one kind; without a threshold the audit's own come back",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        from audit_plugin.fiftyone_io import findings

        form = types.Object()
        runs = findings.audits_newest_first(ctx.dataset)
        newest = runs[0] if runs else None
        form.enum("run", runs, label="Audit", required=True, default=newest, view=types.DropdownView())
        form.enum("kind", list(findings.SCORE_OF), label="Flag", required=True, default="misaligned")
        form.float("threshold", label="Threshold", description="Lowest score that is flagged; empty: the audit's own")
        view = types.PromptView(label="Set a threshold", submit_button_label="Set")
        return types.Property(form, view=view)

    def execute(self, ctx: Any) -> dict[str, Any] | None:
        """Set it; a failure becomes one sentence."""
        params = ctx.params
        try:
            changed = self(ctx.dataset, params["run"], params["kind"], params.get("threshold"))
        except AuditError as error:
            ctx.ops.notify(str(error), variant="error")
            return None
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{changed:,} samples changed their flag {params['kind']!r}", variant="success")
        return {"changed": changed}

    def __call__(self, sample_collection: Any, run: str, kind: str, threshold: float | None = None) -> int:
        """Set a threshold from Python; see `audit_plugin.fiftyone_io.thresholds.set_threshold`."""
        from audit_plugin.fiftyone_io import thresholds

        return thresholds.set_threshold(sample_collection, run, kind, threshold)


class MapEmbeddings(foo.Operator):
    """Gives every sample of an audit a place on a map of its embeddings."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="map_embeddings",
            label="Map the embeddings of an audit",
            icon="scatter_plot",
            allow_delegated_execution=True,
            risk_level="low",
            description="Write two fields with the place of each sample's embeddings on a map (principal components); "
            "encodes nothing and changes nothing else",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form: which audit."""
        from audit_plugin.fiftyone_io import findings

        form, runs = types.Object(), findings.audits_newest_first(ctx.dataset)
        newest = runs[0] if runs else None
        form.enum("run", runs, label="Audit", required=True, default=newest, view=types.DropdownView())
        return types.Property(form, view=types.PromptView(label="Map the embeddings", submit_button_label="Map"))

    def execute(self, ctx: Any) -> dict[str, Any] | None:
        """Map; a failure becomes one sentence."""
        try:
            mapped = self(ctx.dataset, ctx.params["run"])
        except AuditError as error:
            ctx.ops.notify(str(error), variant="error")
            return None
        ctx.ops.reload_dataset()
        return {"mapped": mapped}

    def __call__(self, sample_collection: Any, run: str = "audit") -> int:
        """Map an audit from Python; see `audit_plugin.fiftyone_io.maps.map_embeddings`."""
        from audit_plugin.fiftyone_io import maps

        return maps.map_embeddings(sample_collection, run)
