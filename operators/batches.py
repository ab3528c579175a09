"""Many decisions at one stroke: of a kind of finding, of a repair, from a table; and the draw of a spot check."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.config import FLAG_KINDS
from audit_plugin.review.spot_check import SIZE

from .common import choose_audit, listed, prompt, run_of, samples, told
from .review import DECISIONS, ask_decision


class DecideFlagged(foo.Operator):
    """Decides the same for all findings of a kind that nobody decided on yet."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Decide the same for all findings of one kind, or all above a threshold, that nobody decided on yet"
        return listed("decide_flagged", "Decide for all findings of a kind", "playlist_add_check", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form, whose notice and button name the count."""
        form = types.Object()
        run = choose_audit(form, ctx.dataset, ctx.params)
        kind = ctx.params.get("kind") or "misaligned"
        form.enum("kind", list(FLAG_KINDS), label="Findings", default="misaligned", view=types.DropdownView())
        if kind in _scored():
            about = "Lowest score that is decided on; empty: what is flagged"
            form.float("threshold", label="Threshold", description=about)
        ask_decision(form, ctx.params)
        decision = ctx.params.get("decision")
        if not run or decision not in DECISIONS:
            return prompt(form, "Decide for all findings of a kind", "Decide")
        rows = told(ctx, lambda: self._rows(ctx, run))
        notice = form.view("count", types.Notice(label=_notice(len(rows or ()), kind, decision)))
        notice.invalid = not rows
        button = f"{decision.capitalize()} {samples(len(rows or ()))}"
        return prompt(form, "Decide for all findings of a kind", button)

    def _rows(self, ctx: Any, run: str) -> Any:
        from audit_plugin import fiftyone_io

        params = ctx.params
        kind = params.get("kind") or "misaligned"
        threshold = params.get("threshold") if kind in _scored() else None
        return fiftyone_io.batch_rows(ctx.dataset, run, kind, params["decision"], threshold)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Decide."""
        return told(ctx, lambda: self._decide(ctx)) or {}

    def _decide(self, ctx: Any) -> dict[str, Any]:
        from audit_plugin import fiftyone_io

        params, run = ctx.params, run_of(ctx.dataset, ctx.params)
        rows = self._rows(ctx, run)
        if not rows:
            raise AuditError("there is nothing left to decide so; choose another kind or threshold")
        text, note = params.get("text") or "", params.get("note") or ""
        made = fiftyone_io.decide(ctx.dataset, rows, params["decision"], run, text, note)
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{params['decision'].capitalize()}: {samples(len(made))} decided", variant="success")
        return {"decided": len(made)}

    def __call__(self, sample_collection: Any, kind: str, decision: str, run: str = "audit", **given: Any) -> Any:
        """Decide from Python; `threshold`, and what `audit_plugin.fiftyone_io.decide` takes besides."""
        from audit_plugin import fiftyone_io

        threshold = given.pop("threshold", None)
        rows = fiftyone_io.batch_rows(sample_collection, run, kind, decision, threshold)
        return fiftyone_io.decide(sample_collection, rows, decision, run, **given) if rows else []


class DecideRepair(foo.Operator):
    """Relabels all rows of a detected shift, swap or cycle."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Decide to give all rows of a shift, swap or cycle that the audit found the captions that belong there"
        return listed("decide_repair", "Accept a repair", "auto_fix_high", "medium", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form: which of the repairs."""
        form = types.Object()
        run = choose_audit(form, ctx.dataset, ctx.params)
        found = repairs_of(ctx.dataset, run) if run else {}
        if not found:
            form.view("no_repair", types.Warning(label="The audit found no shift, swap or cycle")).invalid = True
            return prompt(form, "Accept a repair", "Accept")
        form.enum("repair", list(found), label="Repair", required=True, default=next(iter(found)))
        chosen = found.get(ctx.params.get("repair") or next(iter(found)))
        return prompt(form, "Accept a repair", f"Relabel {samples(len(chosen['rows']))}" if chosen else "Relabel")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Decide."""
        made = told(ctx, lambda: self(ctx.dataset, ctx.params["repair"], run_of(ctx.dataset, ctx.params)))
        if made is None:
            return {}
        ctx.ops.reload_samples()
        ctx.ops.notify(f"Relabel: {samples(len(made))} decided; apply the decisions to carry it out", variant="success")
        return {"decided": len(made)}

    def __call__(self, sample_collection: Any, repair: str, run: str = "audit") -> Any:
        """Accept a repair from Python, named by its sentence in the audit's summary."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.repair_decisions(sample_collection, run, {"sentence": repair})


class StartSpotCheck(foo.Operator):
    """Draws samples at random, half of them flagged, that tell how right the flags are once they are decided."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Draw samples at random, half of them flagged; decided one by one, they tell how right the flags are"
        return listed("start_spot_check", "Start a spot check", "casino", "low", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form: how many."""
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        about = "More samples make narrower intervals; an earlier spot check is replaced, its decisions stay"
        form.int("size", label="Samples", description=about, default=SIZE, min=2, required=True)
        return prompt(form, "Start a spot check", "Draw")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Draw."""
        size = int(ctx.params.get("size") or SIZE)
        check = told(ctx, lambda: self(ctx.dataset, run_of(ctx.dataset, ctx.params), size))
        return {} if check is None else {"drawn": len(check.queue.rows)}

    def __call__(self, sample_collection: Any, run: str = "audit", size: int = SIZE, seed: int = 0) -> Any:
        """Draw from Python; see `audit_plugin.fiftyone_io.start_spot_check`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.start_spot_check(sample_collection, run, size, seed)


class ImportDecisions(foo.Operator):
    """Reads decisions that were made elsewhere."""

    @property
    def config(self) -> foo.OperatorConfig:
        """How the App lists and runs the operator."""
        about = "Read decisions made elsewhere from a .csv or .jsonl file with the columns sample and kind at least"
        return listed("import_decisions", "Import decisions", "upload_file", "low", about)

    def resolve_input(self, ctx: Any) -> types.Property:
        """The form: which file, and what names the samples in it."""
        form = types.Object()
        choose_audit(form, ctx.dataset, ctx.params)
        form.str("path", label="File", description="On the server: .csv or .jsonl", required=True)
        about = "Field whose values name the samples in the file: id, filepath, ..."
        form.str("key", label="Samples are named by", description=about, default="id")
        return prompt(form, "Import decisions", "Import")

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Read them."""
        path, key, run = ctx.params["path"], ctx.params.get("key") or "id", ctx.params.get("run") or ""
        count = told(ctx, lambda: self(ctx.dataset, path, run, key))
        if count is None:
            return {}
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{count:,} new decisions", variant="success")
        return {"imported": count}

    def __call__(self, sample_collection: Any, path: str, run: str = "audit", key: str = "id") -> int:
        """Import from Python; see `audit_plugin.fiftyone_io.import_decisions`."""
        from audit_plugin import fiftyone_io

        return fiftyone_io.import_decisions(sample_collection, path, run, key)


def repairs_of(dataset: Any, run: str) -> dict[str, dict[str, Any]]:
    """The audit's repairs by their sentences."""
    from audit_plugin.fiftyone_io.results.findings import audit_summary

    return {str(repair["sentence"]): repair for repair in audit_summary(dataset, run).get("repairs") or ()}


def _scored() -> Any:
    from audit_plugin.fiftyone_io.results.findings import SCORE_OF

    return SCORE_OF


def _notice(count: int, kind: str, decision: str) -> str:
    what = f"{samples(count)} would be decided: {decision}."
    if decision == "remove" and kind == "duplicate":
        what += " One of each group stays."
    if decision == "relabel":
        what += " Samples without a suggestion are left out."
    return f"{what} What was decided before stays as it is."
