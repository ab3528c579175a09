"""What people see: the form made from AuditConfig, the cost line, the closing table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

FIELD_LABELS = {
    "text": "Caption field",
    "image": "Image field",
    "group": "Group field",
    "run": "Run key",
    "false_alarms": "False alarm rate",
}
ENCODERS = {
    "auto": "The usual CLIP model if its weights are on this machine, else offline",
    "offline": "Encoders that came with the installation; no download",
    "open_clip:ViT-B-32:laion2b_s34b_b79k": "CLIP ViT-B/32; downloaded on first use",
}
PREVIEW_ROWS = 200  # the form is made anew at every change of a field
# Share of an audit that each stage usually takes: what makes one bar out of many counters.
STAGES = {
    "read": 0.02,
    "encode image": 0.45,
    "encode text": 0.08,
    "neighbours": 0.03,
    "train": 0.35,
    "score": 0.02,
    "write": 0.05,
}


def config_from(params: Mapping[str, Any]) -> AuditConfig:
    """The settings that a form or a caller gave; what is absent or empty keeps its default.

    Raises:
        AuditError: a setting that cannot work.
    """
    names = {f.name for f in fields(AuditConfig)}
    return AuditConfig(**{k: v for k, v in params.items() if k in names and v not in (None, "")})


def audit_form(view: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `run_audit`: a few questions with answers in them, the rest behind a switch, then the cost."""
    from audit_plugin import fiftyone_io

    form = types.Object()
    try:
        strings, caption = fiftyone_io.string_fields(view), fiftyone_io.caption_field(view)
    except AuditError:
        strings, caption = fiftyone_io.string_fields(view), ""
    paths = {"text": strings, "image": ["filepath", *strings], "group": list(view.get_field_schema())}
    defaults = {"text": caption, "image": "filepath"}
    advanced = bool(params.get("advanced"))
    for field in fields(AuditConfig):
        if not field.metadata["advanced"] and field.name != "image":
            _add_setting(form, field, paths, defaults)
    form.bool("advanced", label="Advanced options", default=False, view=types.SwitchView())
    for field in fields(AuditConfig):
        if advanced and (field.metadata["advanced"] or field.name == "image"):
            _add_setting(form, field, paths, defaults)
    _add_cost(form, view, {"text": caption, **params})
    return form


def delete_form(dataset: Any) -> types.Object:
    """The form of `delete_audit`: which run, and what will go."""
    from audit_plugin import fiftyone_io

    form = types.Object()
    runs = fiftyone_io.list_audits(dataset)
    if not runs:
        prop = form.view("none", types.Warning(label="This dataset has no audit"))
        prop.invalid = True
        return form
    form.enum(
        "run",
        runs,
        label="Audit",
        required=True,
        default=runs[0] if len(runs) == 1 else None,
        view=types.DropdownView(),
    )
    form.view(
        "what",
        types.Notice(
            label="Its fields, its tags, its saved view and its record are removed. Your own "
            "fields and tags, decisions and other audits stay."
        ),
    )
    return form


def result_output(summary: Mapping[str, Any], run: str, run_dir: str) -> tuple[types.Object, dict[str, str]]:
    """The closing page of an audit: what was found, how sure it is, where it is.

    Returns:
        The outputs, and their values.
    """
    output = types.Object()
    output.str("found", view=types.MarkdownView())
    output.btn(
        "show",
        label="Show the flagged samples",
        icon="filter_alt",
        variant="contained",
        on_click="@voxel51/operators/set_view",
        params={"name": f"{run}_flagged"},
    )
    return output, {"found": _markdown(summary, run, run_dir)}


def error_output(sentence: str) -> types.Object:
    """The closing page of an audit that could not be done: one sentence."""
    output = types.Object()
    output.view("error", types.Error(label="Nothing was audited", description=sentence))
    return output


def cost_line(plan: Mapping[str, Any]) -> str:
    """One line on what an audit would cost, from the pipeline's plan."""
    todo = sum(plan["encodes"].values())
    parts = [
        f"{plan['rows']:,} samples",
        f"{todo:,} to encode" if todo else "all encoded before",
        f"about {_minutes(plan['minutes'])} on {plan['device']}",
        f"{plan['disk_mb']:,.0f} MB of disk",
        f"encoder {plan['encoder']}",
    ]
    return ", ".join(parts)


def overall(stage: str, done: int, total: int) -> tuple[float, str]:
    """Where the whole audit stands: a share from 0 to 1 and a label."""
    names = list(STAGES)
    before = sum(STAGES[name] for name in names[: names.index(stage)]) if stage in STAGES else 0.0
    share = before + STAGES.get(stage, 0.0) * (done / total if total else 1.0)
    return min(share, 1.0), f"{stage.capitalize()}: {done:,} of {total:,}"


def _add_setting(
    form: types.Object, field: Field[Any], paths: Mapping[str, list[str]], defaults: Mapping[str, str]
) -> None:
    name, meta = field.name, field.metadata
    look = {
        "label": FIELD_LABELS.get(name, name.capitalize()),
        "description": meta["help"],
        "default": defaults.get(name, field.default),
    }
    if look["default"] == "":
        look["default"] = None  # an empty answer, which is not one of the choices
    choices = paths.get(name) or list(meta["choices"])
    if name == "encoder":
        view = types.AutocompleteView(allow_user_input=True, allow_clearing=False)
        for value, text in ENCODERS.items():
            view.add_choice(value, label=value, description=text)
        form.str(name, view=view, **look)
    elif choices:
        form.enum(name, choices, required=name == "text", view=types.DropdownView(), **look)
    elif isinstance(field.default, int):
        form.int(name, min=meta["low"], max=meta["high"], **look)
    elif isinstance(field.default, float):
        form.float(name, min=meta["low"], max=meta["high"], **look)
    else:
        form.str(name, **look)


def _add_cost(form: types.Object, view: Any, params: Mapping[str, Any]) -> None:
    """Show the cost, or why the audit cannot be run as the form stands (which also disables its button)."""
    from audit_plugin import fiftyone_io

    try:
        config = config_from(params)
        fiftyone_io.check_writable(view, config.run)
        plan = fiftyone_io.preview_view(view, config, PREVIEW_ROWS)
    except AuditError as error:
        prop = form.view("cost", types.Error(label="This audit cannot be run yet", description=str(error)))
        prop.invalid, prop.error_message = True, str(error)
        return
    notes = list(plan["downloads"])
    if config.run in fiftyone_io.list_audits(view):
        notes.append(f"Replaces the scores, fields and tags of the audit {config.run!r}.")
    form.view("cost", types.Notice(label=cost_line(plan), description=" ".join(notes)))


def _markdown(summary: Mapping[str, Any], run: str, run_dir: str) -> str:
    rows = "\n".join(f"| {kind} | {count:,} | `{run}:{kind}` |" for kind, count in summary["flags"].items())
    recall = ", ".join(f"{kind} {value:.0%}" for kind, value in (summary.get("recall") or {}).items())
    reliability = summary.get("reliability")
    facts = [
        f"**{summary['samples']:,} samples audited**, {summary['failures']:,} could not be read.",
        "" if reliability is None else f"Reliability of the memorization scores: {reliability:.2f} of 1.",
        f"Of mismatched pairs made up as a check, these would be flagged: {recall}." if recall else "",
        *(f"Note: {note}" for note in summary.get("notes") or ()),
    ]
    where = (
        f"Flagged samples: saved view **{run}_flagged**, or filter by the tags above. Fields: sidebar group "
        f"**{run}**, once the page is reloaded. Arrays: `{run_dir}`."
    )
    lines = "\n\n".join(fact for fact in facts if fact)
    return f"{lines}\n\n| Flag | Samples | Tag |\n|---|---|---|\n{rows}\n\n{where}"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
