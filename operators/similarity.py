"""Make a similarity index from an audit's embeddings, for the App's own similarity search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

from .background import Progress, in_background

STAGES = {"read": 0.1, "encode image": 0.4, "encode text": 0.1, "encode audio": 0.2, "encode video": 0.2}


class IndexAudit(foo.Operator):
    """Indexes the samples of a dataset or view by the embeddings of an audit."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        return foo.OperatorConfig(
            name="index_audit",
            label="Index for similarity search",
            icon="image_search",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="low",
            description="Make a similarity index from an audit's embeddings, which the similarity search then uses; "
            "writes a brain run and a file, changes no sample",
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form."""
        view = types.PromptView(label="Index for similarity search", submit_button_label="Index")
        return types.Property(index_form(ctx.target_view(), ctx.params), view=view)

    def resolve_run_name(self, ctx: Any) -> str:
        """What a queued index is called in lists of runs."""
        return f"Similarity index of {ctx.dataset_name}"

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Index in a thread; yield progress, then what it is called, or one sentence on why there is none."""
        view, params = ctx.target_view(), dict(ctx.params)

        def work(progress: Progress) -> Any:
            from audit_plugin.fiftyone_io.similarity import build_index

            return build_index(view, params["run"], params["modality"], params.get("brain_key") or None, progress)

        index = yield from in_background(ctx, work, STAGES)
        if index is not None:
            texts = "samples or texts" if index.supports_prompts else "samples"
            said = f"Index {index.key!r} of {index.total_index_size:,} vectors is ready: search by {texts}"
            output = types.Object()
            output.view("done", types.Success(label=said))
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify(said, variant="success")
            # else the bar would stay where the last stage left it
            yield ctx.ops.show_output(types.Property(output, view=types.View(label="Similarity index")).to_json(), {})

    def __call__(
        self, sample_collection: Any, run: str = "audit", modality: str = "image", brain_key: str | None = None
    ) -> Any:
        """Index a dataset or view from Python; see `audit_plugin.fiftyone_io.similarity.build_index`."""
        from audit_plugin.fiftyone_io.similarity import build_index

        return build_index(sample_collection, run, modality, brain_key)


def index_form(view: Any, params: Any) -> types.Object:
    """Which audit, which of its modalities, what to call the index."""
    from audit_plugin import fiftyone_io
    from audit_plugin.fiftyone_io.similarity import JOINT, audited_modalities

    form, runs = types.Object(), fiftyone_io.list_audits(view)
    if not runs:
        text = "Audit the dataset first: the index is made of the audit's embeddings"
        prop = form.view("none", types.Warning(label="This dataset has no audit", description=text))
        prop.invalid = True
        return form
    run = params.get("run") or runs[0]
    form.enum("run", runs, label="Audit", required=True, default=runs[0], view=types.DropdownView())
    try:
        modalities = audited_modalities(view, run)
    except AuditError as error:
        prop = form.view("problem", types.Error(label="This cannot be indexed", description=str(error)))
        prop.invalid, prop.error_message = True, str(error)
        return form
    about = "joint is all of them at once; where there are texts, text and joint can be searched by typed words"
    form.enum(
        "modality",
        list(modalities),
        label="Embeddings",
        required=True,
        default=JOINT,
        description=about,
        view=types.DropdownView(),
    )
    form.str("brain_key", label="Name", description="Default: the audit and the modality, as in audit_joint")
    return form
