"""Run an audit, extend it to new samples, set its thresholds, map and index its embeddings, delete it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.scoring.flags import movable_flags

from . import checks, forms
from .base import (
    BACKGROUND,
    TOKEN,
    BackgroundOperator,
    FormOperator,
    Progress,
    audit_key,
    choose_audit,
    notify,
    operator_config,
    samples_text,
    target_view,
)
from .outputs import audit_output
from .stages import audit_stages, encoding_stages, stages_named


class RunAudit(BackgroundOperator):
    """Audits a dataset, view or selection and writes fields, tags and a run."""

    listing = operator_config(
        "run_audit",
        "Audit dataset",
        "fact_check",
        "medium",
        "Audit the quality of a dataset: find wrong pairs of images, texts, sounds and videos, mislabeled and "
        "memorized samples, outliers and duplicates. Adds fields, tags and a saved view. Replaces an earlier audit "
        "with the same run key; nothing else changes",
        view_target=True,
        **BACKGROUND,
    )
    stopped_text = (
        "Stopped. What was encoded and trained is kept: start the audit again with the same settings, and it goes on "
        "from there. Nothing was written into the dataset."
    )

    def form(self, ctx: Any) -> types.Property:
        return self.prompt(forms.audit_form(target_view(ctx), ctx.params), "Audit")

    def shown(self, ctx: Any) -> Any:
        """The run key, and the audit that is replaced."""
        return forms.run_shown(ctx.dataset, checks.settings(ctx.params).run)

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        return audit_stages(samples, params)

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        from audit_plugin import fiftyone_io

        return fiftyone_io.audit_view(samples, checks.settings(params), progress)

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:
        run = checks.settings(params).run
        yield ctx.ops.reload_dataset()
        yield notify(ctx, f"Audit {run!r} complete; flagged samples: saved view {run}_flagged", "success")
        yield self.page(ctx, *audit_output(result.summary, run, result.run_dir))

    def __call__(self, sample_collection: Any, delegate: bool = False, **config: Any) -> Any:
        """Audit a dataset or view from Python.

        Args:
            sample_collection: the dataset or view.
            delegate: queue the audit; `fiftyone delegated launch` runs it.
            **config: settings, see `AuditConfig`.

        Returns:
            The `AuditResult`, or FiftyOne's `ExecutionResult` of a queued audit.

        Raises:
            AuditError: the view cannot be audited with these settings.
        """
        from audit_plugin import fiftyone_io
        from audit_plugin.config import AuditConfig
        from audit_plugin.fiftyone_io import tokens

        settings = AuditConfig(**config)
        if not delegate:
            return fiftyone_io.audit_view(sample_collection, settings)
        fiftyone_io.modality_sources(sample_collection, settings)  # raises now, not when the queued audit starts
        dataset = sample_collection._root_dataset
        token = tokens.new_token(dataset, self.listing.name, forms.run_shown(dataset, settings.run))
        params = {**config, TOKEN: token, "view_target": "CURRENT_VIEW"}
        ctx = {"view": sample_collection.view(), "params": params}
        return foo.execute_operator(self.uri, ctx, request_delegation=True)


class ScanNew(BackgroundOperator):
    """Scores the samples added after an audit and writes their results into it."""

    listing = operator_config(
        "scan_new",
        "Audit: Scan new samples",
        "manage_search",
        "medium",
        "Score the samples added after an audit with the models that it trained, without training again, and add them "
        "to the audit",
        **BACKGROUND,
    )

    def form(self, ctx: Any) -> types.Property:
        from audit_plugin.fiftyone_io.results.findings import count_new

        form = types.Object()
        run = choose_audit(form, ctx.dataset, ctx.params)
        count = count_new(ctx.dataset, run) if run else 0
        notice = form.view("count", types.Notice(label=f"{samples_text(count)} added after the audit."))
        notice.invalid = not count
        return self.prompt(form, f"Scan {samples_text(count)}")

    def target(self, ctx: Any) -> Any:
        return ctx.dataset

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        from audit_plugin.fiftyone_io.similarity import audited_modalities

        try:
            modalities = audited_modalities(samples, audit_key(samples, params))
        except AuditError:
            return {}  # the scan raises it again, and then it is shown
        names = {"read", "measure images", "neighbors", "train", "score", "compare images", "explain", "write"}
        return stages_named(names | encoding_stages(modalities))

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        from audit_plugin import fiftyone_io

        return fiftyone_io.scan_new(samples, audit_key(samples, params), progress)

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:  # noqa: ARG002
        flags = sum(result.summary["flags"].values())
        yield ctx.ops.reload_dataset()
        yield notify(ctx, f"{samples_text(len(result))} scanned, {count_text(flags, 'flag')}", "success")

    def __call__(self, sample_collection: Any, run: str = "audit") -> Any:
        """Scan from Python; see `audit_plugin.fiftyone_io.scan_new`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.scan_new(sample_collection, run)


class SetThreshold(FormOperator):
    """Flags by another threshold; the scores stay."""

    listing = operator_config(
        "set_threshold",
        "Audit: Set threshold",
        "tune",
        "medium",
        "Flag the samples whose score reaches a threshold. Updates one kind of flag, its tags and suggested actions; "
        "without a threshold, restores those of the audit",
    )

    def form(self, ctx: Any) -> types.Property:
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        form.enum("kind", list(movable_flags()), label="Flag", required=True, default="misaligned")
        about = "Lowest score to flag. Leave empty to restore the audit's own flags"
        form.float("threshold", label="Threshold", description=about)
        return self.prompt(form, "Set threshold")

    def perform(self, ctx: Any) -> dict[str, Any]:
        run, threshold = audit_key(ctx.dataset, ctx.params), checks.number(ctx.params, "threshold")
        kind = checks.choice(ctx.params, "kind", movable_flags(), "misaligned")
        return {"changed": set_threshold(ctx, run, kind, threshold)}

    def __call__(self, sample_collection: Any, run: str, kind: str, threshold: float | None = None) -> int:
        """Set a threshold from Python; see `audit_plugin.fiftyone_io.results.thresholds.set_threshold`."""
        from audit_plugin.fiftyone_io.results import thresholds

        return thresholds.set_threshold(sample_collection, run, kind, threshold)


class MapEmbeddings(FormOperator):
    """Writes a 2-D projection of an audit's embeddings into two fields."""

    listing = operator_config(
        "map_embeddings",
        "Audit: Map embeddings",
        "scatter_plot",
        "low",
        "Project the audit's embeddings to two dimensions (principal components) and write them into two fields; "
        "encodes nothing and changes no other field",
        allow_delegated_execution=True,
    )

    def form(self, ctx: Any) -> types.Property:
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        return self.prompt(form, "Compute map")

    def perform(self, ctx: Any) -> dict[str, Any]:
        mapped = self(ctx.dataset, audit_key(ctx.dataset, ctx.params))
        ctx.ops.reload_dataset()
        return {"mapped": mapped}

    def __call__(self, sample_collection: Any, run: str = "audit") -> int:
        """Map an audit from Python; see `audit_plugin.fiftyone_io.map_embeddings`."""
        from audit_plugin import fiftyone_io as fio

        return fio.map_embeddings(sample_collection, run)


class IndexAudit(BackgroundOperator):
    """Makes a similarity index of the embeddings of an audit, for FiftyOne's similarity search."""

    listing = operator_config(
        "index_audit",
        "Audit: Create similarity index",
        "image_search",
        "low",
        "Make a similarity index of an audit's embeddings for FiftyOne's similarity search. Writes a brain run and a "
        "file; changes no samples",
        view_target=True,
        **BACKGROUND,
    )

    def form(self, ctx: Any) -> types.Property:
        return self.prompt(forms.index_form(target_view(ctx), ctx.params), "Create index")

    def stages(self, samples: Any, params: Mapping[str, Any]) -> dict[str, float]:
        from audit_plugin.fiftyone_io.similarity import audited_modalities

        modalities = audited_modalities(samples, audit_key(samples, params))  # all are prepared, whichever is indexed
        return stages_named({"read", "measure images"} | encoding_stages(modalities))

    def work(self, samples: Any, params: Mapping[str, Any], progress: Progress) -> Any:
        from audit_plugin.fiftyone_io.similarity import build_index

        name = checks.text(params, "brain_key", most=200) or None
        return build_index(samples, audit_key(samples, params), _modality(params), name, progress)

    def shown(self, ctx: Any) -> Any:
        """The name of the index, and whether it replaces one."""
        run, name = audit_key(ctx.dataset, ctx.params), checks.text(ctx.params, "brain_key", most=200)
        name = name or f"{run}_{_modality(ctx.params)}"
        return [name, name in ctx.dataset.list_brain_runs()]

    def show(self, ctx: Any, params: Mapping[str, Any], result: Any) -> Iterator[Any]:  # noqa: ARG002
        queries = "sample or text" if result.supports_prompts else "sample"
        sentence = f"Index {result.key!r} of {result.total_index_size:,} vectors created; search by {queries}"
        output = types.Object()
        output.view("done", types.Success(label=sentence))
        yield ctx.ops.reload_dataset()
        yield notify(ctx, sentence, "success")
        yield self.page(ctx, output, {})  # replaces the progress bar, which would stay where the last stage left it

    def __call__(
        self, sample_collection: Any, run: str = "audit", modality: str = "image", brain_key: str | None = None
    ) -> Any:
        """Index a dataset or view from Python; see `audit_plugin.fiftyone_io.similarity.build_index`."""
        from audit_plugin.fiftyone_io.similarity import build_index

        return build_index(sample_collection, run, modality, brain_key)


class DeleteAudit(FormOperator):
    """Deletes all that an audit or a measurement of cross-modal recall wrote, and the indexes made of it."""

    listing = operator_config(
        "delete_audit",
        "Audit: Delete audit",
        "delete_sweep",
        "high",
        "Delete one audit or measurement of cross-modal recall: its fields, tags, saved view, similarity indexes and "
        "record. Decisions, your own fields and tags, and other audits stay",
    )

    def form(self, ctx: Any) -> types.Property:
        return self.prompt(forms.delete_form(ctx.dataset, ctx.params), "Delete")

    def shown(self, ctx: Any) -> Any:
        """The run, when it was made, its fields and its similarity indexes."""
        return forms.delete_shown(ctx.dataset, self._run(ctx))

    def perform(self, ctx: Any) -> dict[str, Any]:
        run = self._run(ctx)
        self(ctx.dataset, run)
        ctx.ops.reload_dataset()
        notify(ctx, f"{run!r} deleted", "success")
        return {}

    def _run(self, ctx: Any) -> str:
        runs = forms.deletable_runs(ctx.dataset)
        if not runs:
            raise AuditError(f"dataset {ctx.dataset.name!r} has no audit to delete")
        only = runs[0] if len(runs) == 1 else ""
        return str(checks.required(checks.choice(ctx.params, "run", runs, only), "run"))

    def __call__(self, sample_collection: Any, run: str = "audit") -> None:
        """Delete an audit or a measurement of cross-modal recall from Python; see `fiftyone_io.delete_audit`."""
        from audit_plugin import fiftyone_io

        if run in fiftyone_io.list_cross_modal_runs(sample_collection):
            fiftyone_io.delete_cross_modal_run(sample_collection, run)
        else:
            fiftyone_io.delete_audit(sample_collection, run)


def set_threshold(ctx: Any, run: str, kind: str, threshold: float | None) -> int:
    """Flag by a threshold and report the number of samples whose flag changed; None: the audit's own flags."""
    from audit_plugin.fiftyone_io.results import thresholds

    changed = thresholds.set_threshold(ctx.dataset, run, kind, threshold)
    ctx.ops.reload_samples()
    notify(ctx, f"{samples_text(changed)} changed: flag {kind}", "success")
    return changed


def _modality(params: Mapping[str, Any]) -> str:
    """The modality that is indexed; by default all at once."""
    from audit_plugin.fiftyone_io.similarity import JOINT

    return checks.text(params, "modality", JOINT, most=100)
