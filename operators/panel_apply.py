"""The last tab: what was decided, carried out and taken back."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from .panel_base import guarded, say

CHANGED = {
    "relabelled": "relabelled",
    "captions_removed": "lists of captions shortened",
    "removed": "marked as removed",
    "brought_back": "brought back",
    "deleted": "deleted from the dataset",
}


class Apply:
    """Handlers and elements of the tab; a part of the panel."""

    def show_apply(self, ctx: Any, panel: types.Object, run: str) -> None:  # noqa: ARG002 (decisions outlive audits)
        """Counts, and two buttons that ask before they do anything."""
        from audit_plugin.fiftyone_io import cases
        from audit_plugin.fiftyone_io.changes import list_changes, plan_of

        decided = cases.decision_counts(ctx.dataset)
        told = ", ".join(f"{kind} {count:,}" for kind, count in decided.items()) or "none yet"
        say(panel, "decided", f"**Decisions**: {told}.")
        plan = plan_of(ctx.dataset)
        count = len(plan.changes)
        left = f" {len(plan.stale):,} decisions are left out: the sample changed since." if plan.stale else ""
        say(
            panel,
            "plan",
            f"**To be carried out**: {changes_of(count)}.{left} Captions are rewritten; removals are marked and hidden "
            "in the saved view `audit_clean`. No file is deleted, and all of it can be undone.",
        )
        if count:
            ask = confirm(
                f"Apply {changes_of(count)}", f"{changes_of(count)} will be made to the dataset.", self.on_apply
            )
            panel.view("apply", types.ModalView(**ask, label=f"Apply {changes_of(count)}", variant="contained"))
        done = [found for found in list_changes(ctx.dataset) if found.state == "applied"]
        if done:
            what, size = change_words(done[-1].counts), sum(done[-1].counts.values())
            say(panel, "last", f"**Last applied** ({done[-1].time:%Y-%m-%d %H:%M}): {what}.")
            ask = confirm(f"Undo {changes_of(size)}", f"{what}: this is taken back exactly.", self.on_undo)
            panel.view("undo", types.ModalView(**ask, label=f"Undo {changes_of(size)}", variant="outlined"))

    @guarded
    def on_apply(self, ctx: Any) -> None:
        """Carry out what was decided."""
        from audit_plugin.fiftyone_io.changes import apply

        done = apply(ctx.dataset)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Applied: {change_words(done.counts)}", variant="success")

    @guarded
    def on_undo(self, ctx: Any) -> None:
        """Take back what was carried out last."""
        from audit_plugin.fiftyone_io.changes import undo

        gone = undo(ctx.dataset)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Undone: {change_words(gone.counts)}", variant="success")


def changes_of(count: int) -> str:
    """`1 change`, `2 changes`."""
    return f"{count:,} change{'' if count == 1 else 's'}"


def change_words(counts: dict[str, int]) -> str:
    """`3 relabelled, 2 marked as removed`."""
    return ", ".join(f"{count:,} {CHANGED.get(name, name)}" for name, count in counts.items() if count) or "nothing"


def confirm(title: str, body: str, callback: Any) -> dict[str, Any]:
    """A dialog that names the count before anything happens."""
    return {
        "modal": {"title": title, "subtitle": "", "body": body, "textAlign": {"title": "left", "body": "left"}},
        "primaryButton": {"primaryText": title, "primaryColor": "primary"},
        "secondaryButton": {"secondaryText": "Cancel", "secondaryColor": "secondary"},
        "primaryCallback": callback,
        "functionality": "",
    }
