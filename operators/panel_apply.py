"""The tab "Report and apply": decisions, changes, the report, and a comparison with another audit."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError, count_text

from . import checks
from .base import changes_text, samples_text
from .change_list import ChangePage, page_of_changes
from .changes import applied_changes, stale_text
from .panel_base import UNCHANGED, Tab, box, guarded, plain_text, run_of, say, set_view, wrapped
from .panel_words import shown_name

NO_RUN = "none"
MOST_DISAGREEMENTS = 5  # that are listed


class Apply(Tab):
    """Elements and handlers of the tab."""

    def show_apply(self, ctx: Any, panel: types.Object, run: str) -> None:
        """A box each for decisions, changes, report and comparison."""
        self._show_decisions(ctx, box(panel, "decisions"))
        self._show_changes(ctx, box(panel, "changes"))
        report = box(panel, "report")
        say(report, "about", "**Report and export**: a self-contained HTML report, the decisions, or a clean dataset.")
        self.form_button(report, "export_review", "Export", name="export")
        self._show_comparison(ctx, box(panel, "compare"), run)

    def _show_decisions(self, ctx: Any, place: types.Object) -> None:
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        counts = cases.decision_counts(ctx.dataset)
        text = ", ".join(f"{kind} {count:,}" for kind, count in counts.items()) or "none yet"
        say(
            place,
            "decided",
            f"**Decisions**: {text}. They stay when audits are deleted, and change nothing until applied.",
        )
        disagreements = fiftyone_io.disagreements(ctx.dataset)
        if disagreements:
            count = samples_text(len(disagreements))
            say(place, "differing", f"**Reviewers disagree** on {count}; the latest decision is used.")
            for number, decisions in enumerate(disagreements[:MOST_DISAGREEMENTS]):
                by_reviewer = ", ".join(f"{shown_name(d.reviewer)}: {d.kind} {d.text}".strip() for d in decisions)
                plain_text(place, f"differing{number}", f"Sample {decisions[0].sample}", by_reviewer)
        buttons = wrapped(place, "buttons")
        if disagreements:
            buttons.btn("show_differing", label="Show samples", variant="outlined", on_click=self.on_differing)
        self.form_button(buttons, "import_decisions", "Import decisions", name="import")

    def _show_changes(self, ctx: Any, place: types.Object) -> None:
        """What would change, old and new; what has changed; what is hidden. The forms ask for confirmation."""
        page = page_of_changes(ctx.dataset, ctx.panel.state.page or 0)
        changes = count_text(len(page.plan.changes), "change")
        say(
            place,
            "plan",
            f"**To apply**: {changes}.{stale_text(page.plan)} Captions are replaced; removed samples are "
            "tagged and hidden in the saved view `audit_clean`. No file is deleted, and all changes can be undone.",
        )
        applied = applied_changes(ctx.dataset)
        if applied:
            say(place, "last", f"**Last applied** ({applied.time:%Y-%m-%d %H:%M} UTC): {changes_text(applied.counts)}.")
        buttons = wrapped(place, "buttons")
        if page.plan.changes:
            self.form_button(buttons, "apply_decisions", f"Apply {changes}", variant="contained")
        if applied:
            self.form_button(buttons, "undo_changes", "Undo")
        if page.table:
            self._show_page(place, page)
        self._show_removed(ctx, place)

    def _show_page(self, place: types.Object, page: ChangePage) -> None:
        """A page of the changes, and the ways to the others."""
        head = wrapped(place, "pages", align_y="center")
        say(head, "page", f"**{page.label}**")
        for name, label, number in (
            ("earlier_page", "Previous", page.number - 1),
            ("later_page", "Next", page.number + 1),
        ):
            if 0 <= number < page.pages:
                look = {"variant": "outlined", "on_click": self.on_page, "params": {"page": number}}
                head.btn(name, label=label, **look)
        head.btn("show_page", label="Show samples", variant="outlined", on_click=self.on_show_page)
        say(place, "changes_table", page.table)

    def _show_removed(self, ctx: Any, place: types.Object) -> None:
        """The dataset without what is hidden: as a view, as a dataset of its own, or for good."""
        from audit_plugin import fiftyone_io

        hidden = fiftyone_io.count_removed(ctx.dataset)
        has_view = fiftyone_io.CLEAN in ctx.dataset.list_saved_views()
        if not hidden and not has_view:
            return
        say(
            place,
            "hidden",
            f"**Hidden as removed**: {samples_text(hidden)}. Deleting them keeps a full copy of each in the journal of "
            "changes; *Undo* restores them. Media files stay.",
        )
        buttons = wrapped(place, "removed_buttons")
        if has_view:
            buttons.btn("show_clean", label="Show clean view", variant="outlined", on_click=self.on_show_clean)
        self.form_button(buttons, "export_review", "Create clean dataset", values={"what": "dataset"}, name="clean")
        if hidden:
            self.form_button(buttons, "delete_removed", f"Delete {samples_text(hidden)} from the dataset")

    def _show_comparison(self, ctx: Any, place: types.Object, run: str) -> None:
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import reports

        others = [name for name in fiftyone_io.audits_newest_first(ctx.dataset) if name != run]
        if not others:
            say(place, "about", "**Compare** with another audit of this dataset: there is none yet.")
            return
        choices = types.DropdownView()
        for name in (NO_RUN, *others):
            choices.add_choice(name, label=name.capitalize() if name == NO_RUN else name)
        head = wrapped(place, "head", align_y="center")
        say(head, "about", "**Compare** with an earlier audit")
        earlier = ctx.panel.state.earlier if ctx.panel.state.earlier in others else NO_RUN
        head.enum("earlier", [NO_RUN, *others], default=earlier, label="Audit", view=choices, on_change=self.on_earlier)
        if earlier == NO_RUN:
            return
        comparison = reports.compare_audits(ctx.dataset, earlier, run)
        lines = "\n".join(
            f"| {kind} | {len(change.fixed):,} | {len(change.still):,} | {len(change.newly):,} |"
            for kind, change in comparison.kinds.items()
            if change.fixed or change.still or change.newly
        )
        say(place, "table", f"| | no longer flagged | still flagged | newly flagged |\n|---|---|---|---|\n{lines}")
        gone, added = len(comparison.gone), len(comparison.added)
        say(place, "rows", f"{comparison.common:,} samples in both audits, {gone:,} removed, {added:,} added.")
        buttons = wrapped(place, "show")
        for name, label in (("still", "Show still misaligned"), ("newly", "Show newly misaligned")):
            if getattr(comparison.kinds["misaligned"], name):
                buttons.btn(name, label=label, variant="outlined", on_click=self.on_compared, params={"what": name})

    @guarded
    def on_page(self, ctx: Any) -> None:
        """Another page of the changes was chosen."""
        ctx.panel.state.page = checks.whole(ctx.params, "page", 0)

    @guarded
    def on_show_page(self, ctx: Any) -> None:
        """Show the samples of the page."""
        page = page_of_changes(ctx.dataset, ctx.panel.state.page or 0)
        set_view(ctx, ctx.dataset.select(list(page.samples)))

    @guarded
    def on_show_clean(self, ctx: Any) -> None:
        """Show the saved view without what is hidden."""
        from audit_plugin import fiftyone_io

        if fiftyone_io.CLEAN not in ctx.dataset.list_saved_views():
            raise AuditError("nothing is hidden as removed any more; the whole dataset is the clean view")
        set_view(ctx, name=fiftyone_io.CLEAN)

    @guarded
    def on_earlier(self, ctx: Any) -> Any:
        """Another audit to compare with was chosen."""
        value = checks.text(ctx.params, "value")
        if value == (ctx.panel.state.earlier or NO_RUN):
            return UNCHANGED
        if value:
            ctx.panel.state.earlier = value
        return None

    @guarded
    def on_compared(self, ctx: Any) -> None:
        """Show the samples of a cell of the comparison."""
        from audit_plugin.fiftyone_io.results import findings, reports

        run, what = run_of(ctx), checks.required(checks.choice(ctx.params, "what", ("still", "newly")), "what")
        comparison = reports.compare_audits(ctx.dataset, ctx.panel.state.earlier or "", run)
        ids = [name for name, _ in getattr(comparison.kinds["misaligned"], what)]
        set_view(ctx, findings.view_of_rows(ctx.dataset, run, ids[: findings.MOST_POINTS]))

    @guarded
    def on_differing(self, ctx: Any) -> None:
        """Show the samples that reviewers disagree on."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        ids = {decisions[0].sample for decisions in fiftyone_io.disagreements(ctx.dataset)}
        set_view(ctx, ctx.dataset.select(sorted(ids)[: findings.MOST_POINTS]))
