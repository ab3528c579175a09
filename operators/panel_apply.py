"""The last tab: what was decided, carried out and taken back; the report; what changed since another audit."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from .common import counted, samples
from .panel_base import box, guarded, plain_text, say

NO_RUN = "none"
SHOWN = 5  # disagreements that are spelled out


class Apply:
    """Handlers and elements of the tab; a part of the panel."""

    on_ask: Any  # of the panel: open an operator's form

    def show_apply(self, ctx: Any, panel: types.Object, run: str) -> None:
        """Decisions, changes, report, comparison: a box each."""
        self._show_decisions(ctx, box(panel, "decisions"))
        self._show_changes(ctx, box(panel, "changes"))
        place = box(panel, "report")
        say(place, "about", "**Report and export**: one HTML file to hand on, the decisions, or a clean dataset.")
        params = {"ask": "export_review"}
        place.btn("export", label="Export", variant="outlined", on_click=self.on_ask, params=params)
        self._show_comparison(ctx, box(panel, "compare"), run)

    def _show_decisions(self, ctx: Any, place: types.Object) -> None:
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import cases

        decided = cases.decision_counts(ctx.dataset)
        words = ", ".join(f"{kind} {count:,}" for kind, count in decided.items()) or "none yet"
        say(place, "decided", f"**Decisions**: {words}. They outlive audits and change nothing until they are applied.")
        differing = fiftyone_io.disagreements(ctx.dataset)
        if differing:
            say(place, "differing", f"**Reviewers disagree** on {samples(len(differing))}; the latest decision holds.")
            for number, found in enumerate(differing[:SHOWN]):
                said = ", ".join(f"{d.reviewer}: {d.kind} {d.text}".strip() for d in found)
                plain_text(place, f"differing{number}", f"Sample {found[0].sample}", said)
        buttons = place.h_stack("buttons", gap=1)
        if differing:
            buttons.btn("show_differing", label="Show them", variant="outlined", on_click=self.on_differing)
        params = {"ask": "import_decisions"}
        buttons.btn("import", label="Import decisions", variant="outlined", on_click=self.on_ask, params=params)

    def _show_changes(self, ctx: Any, place: types.Object) -> None:
        """What would change, what did, what is hidden; the operators' own forms ask before anything is done."""
        from audit_plugin.fiftyone_io import REMOVED
        from audit_plugin.fiftyone_io.ledger.changes import list_changes, plan_of

        plan = plan_of(ctx.dataset)
        left = f" {len(plan.stale):,} decisions are left out: the sample changed since." if plan.stale else ""
        say(
            place,
            "plan",
            f"**To be applied**: {samples(len(plan.changes))}.{left} Captions are rewritten; removals are marked and "
            "hidden in the saved view `audit_clean`. No file is deleted, and all of it can be undone.",
        )
        done = next((found for found in reversed(list_changes(ctx.dataset)) if found.state == "applied"), None)
        if done:
            say(place, "last", f"**Last applied** ({done.time:%Y-%m-%d %H:%M} UTC): {counted(done.counts)}.")
        hidden = ctx.dataset.match_tags(REMOVED).count()
        buttons = place.h_stack("buttons", gap=1)
        for wanted, name, label, variant in (
            (plan.changes, "apply_decisions", f"Apply to {samples(len(plan.changes))}", "contained"),
            (done, "undo_changes", "Undo", "outlined"),
            (hidden, "delete_removed", f"Delete {samples(hidden)} for good", "outlined"),
        ):
            if wanted:
                buttons.btn(name, label=label, variant=variant, on_click=self.on_ask, params={"ask": name})

    def _show_comparison(self, ctx: Any, place: types.Object, run: str) -> None:
        from audit_plugin.fiftyone_io.results import findings, reports

        others = [name for name in findings.audits_newest_first(ctx.dataset) if name != run]
        if not others:
            say(place, "about", "**Compare** with another audit of this dataset: there is none yet.")
            return
        earlier = ctx.panel.state.earlier
        choices = types.DropdownView()
        for name in (NO_RUN, *others):
            choices.add_choice(name, label=name.capitalize() if name == NO_RUN else name)
        head = place.h_stack("head", gap=2, align_y="center")
        say(head, "about", "**Compare** with an earlier audit")
        shown = earlier if earlier in others else NO_RUN
        head.enum("earlier", [NO_RUN, *others], default=shown, label="Audit", view=choices, on_change=self.on_earlier)
        if shown == NO_RUN:
            return
        found = reports.compare_audits(ctx.dataset, shown, run)
        lines = "\n".join(
            f"| {kind} | {len(change.fixed):,} | {len(change.still):,} | {len(change.newly):,} |"
            for kind, change in found.kinds.items()
            if change.fixed or change.still or change.newly
        )
        say(place, "table", f"| | no longer flagged | still flagged | newly flagged |\n|---|---|---|---|\n{lines}")
        say(place, "rows", f"{found.common:,} samples in both, {len(found.gone):,} gone, {len(found.added):,} new.")
        buttons = place.h_stack("show", gap=1)
        for name, label in (("still", "Show still misaligned"), ("newly", "Show newly misaligned")):
            if getattr(found.kinds["misaligned"], name):
                buttons.btn(name, label=label, variant="outlined", on_click=self.on_compared, params={"what": name})

    @guarded
    def on_earlier(self, ctx: Any) -> None:
        """Another audit to compare with."""
        value = ctx.params.get("value")
        if value and value != (ctx.panel.state.earlier or NO_RUN):
            ctx.panel.state.earlier = value

    @guarded
    def on_compared(self, ctx: Any) -> None:
        """The samples of one cell of the comparison."""
        from audit_plugin.fiftyone_io.results import findings, reports

        run = ctx.panel.state.run
        found = reports.compare_audits(ctx.dataset, ctx.panel.state.earlier, run)
        keys = getattr(found.kinds["misaligned"], ctx.params["what"])
        ctx.ops.set_view(findings.chosen_rows(ctx.dataset, run, [name for name, _ in keys][: findings.MOST_POINTS]))

    @guarded
    def on_differing(self, ctx: Any) -> None:
        """The samples that reviewers disagree on."""
        from audit_plugin import fiftyone_io
        from audit_plugin.fiftyone_io.results import findings

        found = {decisions[0].sample for decisions in fiftyone_io.disagreements(ctx.dataset)}
        ctx.ops.set_view(ctx.dataset.select(sorted(found)[: findings.MOST_POINTS]))
