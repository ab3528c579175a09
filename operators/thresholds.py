"""Operators that a panel asks for: keep a threshold, draw a map of the embeddings."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .common import choose_audit, listed, prompt, samples, told


class SetThreshold(foo.Operator):
    """Flags by another threshold; the scores stay."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = (
            "Flag the samples whose score reaches a threshold: rewrites one audit's flags, tags and proposals of one "
            "kind; without a threshold the audit's own come back"
        )
        return listed("set_threshold", "Set a threshold", "tune", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        from audit_plugin.fiftyone_io.results import findings

        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        form.enum("kind", list(findings.SCORE_OF), label="Flag", required=True, default="misaligned")
        form.float("threshold", label="Threshold", description="Lowest score that is flagged; empty: the audit's own")
        return prompt(form, "Set a threshold", "Set")

    def execute(self, ctx: Any) -> dict[str, Any] | None:
        """Set it; a failure becomes one sentence."""
        params = ctx.params
        changed = told(ctx, lambda: self(ctx.dataset, params["run"], params["kind"], params.get("threshold")))
        if changed is None:
            return None
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{samples(changed)} changed the flag {params['kind']!r}", variant="success")
        return {"changed": changed}

    def __call__(self, sample_collection: Any, run: str, kind: str, threshold: float | None = None) -> int:
        """Set a threshold from Python; see `audit_plugin.fiftyone_io.results.thresholds.set_threshold`."""
        from audit_plugin.fiftyone_io.results import thresholds

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
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        return prompt(form, "Map the embeddings", "Map")

    def execute(self, ctx: Any) -> dict[str, Any] | None:
        """Map; a failure becomes one sentence."""
        mapped = told(ctx, lambda: self(ctx.dataset, ctx.params["run"]))
        if mapped is None:
            return None
        ctx.ops.reload_dataset()
        return {"mapped": mapped}

    def __call__(self, sample_collection: Any, run: str = "audit") -> int:
        """Map an audit from Python; see `audit_plugin.fiftyone_io.results.maps.map_embeddings`."""
        from audit_plugin.fiftyone_io.results import maps

        return maps.map_embeddings(sample_collection, run)
