"""What the operators share: how they are listed, which audit is meant, and errors that become notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from audit_plugin.arrays import AuditError

PLUGIN = "@multimem/audit"
CHANGED = {
    "relabeled": "relabeled",
    "captions_removed": "with a caption taken out",
    "removed": "hidden as removed",
    "brought_back": "brought back",
    "deleted": "deleted from the dataset",
}


def listed(name: str, label: str, icon: str, risk: str, description: str) -> foo.OperatorConfig:
    """How the App lists an operator on decisions: its form answers as it is filled in."""
    return foo.OperatorConfig(
        name=name, label=label, icon=icon, dynamic=True, risk_level=risk, view_target=False, description=description
    )


def prompt(form: types.Object, label: str, button: str) -> types.Property:
    """A form under a heading, with the words of its button."""
    return types.Property(form, view=types.PromptView(label=label, submit_button_label=button))


def told(ctx: Any, work: Callable[[], Any]) -> Any:
    """What the work gives; an error that the person can mend becomes a notice, and None."""
    try:
        return work()
    except AuditError as error:
        ctx.ops.notify(str(error), variant="error")
        return None


def run_of(dataset: Any, params: dict[str, Any]) -> str:
    """The audit that is meant: the one named, else the newest.

    Raises:
        AuditError: the dataset has none.
    """
    from audit_plugin.fiftyone_io.results.findings import audits_newest_first

    runs = audits_newest_first(dataset)
    if not runs:
        raise AuditError(f"dataset {dataset.name!r} has no audit; run one first")
    return str(params.get("run") or runs[0])


def choose_audit(form: types.Object, dataset: Any, params: dict[str, Any]) -> str:
    """Ask which audit is meant, the newest unless another one is chosen; its key, "" where there is none."""
    from audit_plugin.fiftyone_io.results.findings import audits_newest_first

    runs = audits_newest_first(dataset)
    if not runs:
        lacking = form.view("none", types.Warning(label="This dataset has no audit", description="Run one first"))
        lacking.invalid = True
        return ""
    form.enum("run", runs, label="Audit", required=True, default=runs[0], view=types.DropdownView())
    run = params.get("run")
    return str(run if run in runs else runs[0])


def counted(counts: dict[str, int]) -> str:
    """`3 relabeled, 12 hidden as removed`; "nothing" for nothing."""
    return ", ".join(f"{count:,} {CHANGED[name]}" for name, count in counts.items() if count) or "nothing"


def samples(count: int) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count:,} sample{'' if count == 1 else 's'}"
