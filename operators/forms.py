"""The forms, made from AuditConfig, with what the work would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

FIELD_LABELS = {
    "text": "Caption or label field",
    "template": "Prompt templates",
    "image": "Image field",
    "audio": "Audio field",
    "video": "Video field",
    "group": "Group field",
    "label": "Label field",
    "split": "Split field",
    "role": "Role field",
    "run": "Run key",
    "false_positive_rate": "False alarm rate",
    "checkpoint_f": "Checkpoint f",
    "checkpoint_g": "Checkpoint g",
}
ENCODERS = {
    "auto": "The usual CLIP model if its weights are on this machine, else offline",
    "offline": "Encoders that came with the installation; no download",
    "open_clip:ViT-B-32:laion2b_s34b_b79k": "CLIP ViT-B/32; downloaded on first use",
}
MEDIA = ("image", "audio", "video")
# What only makes sense after another choice: setting -> (the setting that decides, its values that ask for it).
ASKED_FOR = {
    "tower": {"train": ("towers",)},
    "checkpoint_f": {"train": ("checkpoints",)},
    "checkpoint_g": {"train": ("checkpoints",)},
    "role": {"train": ("checkpoints",), "protocol": ("split",)},
}
# The settings of a removal study: asked at once, and behind the switch.
REMOVAL = (("text", *MEDIA, "encoder", "trials"), ("group", "label", "views", "epochs", "neighbors", "seed", "device"))
IDENTITIES = ("identity", "person", "name", "class", "label", "ground_truth", "category")
PREVIEW_ROWS = 200  # the form is made anew at every change of a field


def config_from(params: Mapping[str, Any]) -> AuditConfig:
    """The settings that a form or a caller gave; what is absent or empty keeps its default.

    Raises:
        AuditError: a setting that cannot work.
    """
    names = {f.name for f in fields(AuditConfig)}
    return AuditConfig(**{k: v for k, v in params.items() if k in names and v not in (None, "")})


def audit_form(view: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `run_audit`: a few questions with answers in them, the rest behind a switch, then the cost."""
    form, choices = types.Object(), field_choices(view)
    defaults = field_defaults(view)
    # an image dataset needs no question about its files; any other does
    folded = MEDIA if view.media_type == "image" else ()
    # objects are cut out of the samples' own files
    asked = [f for f in fields(AuditConfig) if f.name not in MEDIA or not view._is_generated]
    later = [f for f in asked if f.metadata["advanced"] or f.name in folded]
    for field in asked:
        if field not in later:
            add_setting(form, field, choices, defaults)
    form.bool("advanced", label="Advanced options", default=False, view=types.SwitchView())
    for field in later:
        if params.get("advanced") and _makes_sense(field.name, params):
            add_setting(form, field, choices, defaults)
    given = {name: value for name, value in defaults.items() if name not in folded}
    add_cost(form, view, {**given, **params}, writes=True)
    return form


def removal_form(view: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `removal_curve`: what the samples are, how many to remove, how often to repeat."""
    form, choices, defaults = types.Object(), field_choices(view), field_defaults(view)
    settings = {field.name: field for field in fields(AuditConfig)}
    folded = MEDIA if view.media_type == "image" else ()
    for name in REMOVAL[0]:
        if name not in folded:
            add_setting(form, settings[name], choices, defaults)
    about = "Numbers of samples to remove; none: shares of the samples trained on"
    form.list("amounts", types.Number(int=True, min=1), label="Amounts", description=about)
    form.int("seeds", label="Repetitions", min=2, max=100, default=5, description="From which the intervals are made")
    form.bool("advanced", label="Advanced options", default=False, view=types.SwitchView())
    for name in (*folded, *REMOVAL[1]) if params.get("advanced") else ():
        add_setting(form, settings[name], choices, defaults)
    add_cost(form, view, {**{k: v for k, v in defaults.items() if k not in folded}, **params}, writes=False)
    return form


def transfer_form(view: Any, params: Mapping[str, Any], run: str) -> types.Object:
    """The form of `measure_transfer`: who is in the samples, what they are, which are learned from."""
    form, choices, defaults = types.Object(), field_choices(view), field_defaults(view)
    settings = {field.name: field for field in fields(AuditConfig)}
    folded = MEDIA if view.media_type == "image" else ()
    about = "Field with the identity or class of each sample; several samples share each"
    found = identity_field(view)
    look = {"label": "Identity or class", "description": about, "default": found, "view": types.DropdownView()}
    form.enum("label", choices["label"], required=found is None, **look)
    for name in ("text", *MEDIA, "encoder"):
        if name not in folded:
            add_setting(form, settings[name], choices, defaults)
    about = "Field that says train, test or background; none: halves of every identity take turns"
    named = "split" if "split" in choices["split"] else None
    form.enum(
        "split", choices["split"], label="Split field", description=about, default=named, view=types.DropdownView()
    )
    form.bool("advanced", label="Advanced options", default=False, view=types.SwitchView())
    for name in (*folded, "seed", "device") if params.get("advanced") else ():
        add_setting(form, settings[name], choices, defaults)
    if params.get("advanced"):
        form.str("run", label="Run key", default=run, description="Prefix of the fields that are written")
    given = {name: value for name, value in defaults.items() if name not in folded}
    add_cost(form, view, {**given, **params}, writes=False)
    return form


def identity_field(view: Any) -> str | None:
    """The field that looks like an identity by its name, if there is one."""
    names = list(view.get_field_schema())
    return next((name for name in IDENTITIES if name in names), None)


def field_choices(view: Any) -> dict[str, list[str]]:
    """Setting -> the fields, and in a grouped dataset the slices, that may be named for it."""
    from audit_plugin import fiftyone_io

    strings, every = fiftyone_io.string_fields(view), list(view.get_field_schema())
    try:
        texts = fiftyone_io.text_fields(view)
    except AuditError:
        texts = []  # a view that cannot be audited: the cost says why
    return {
        "text": texts,
        **fiftyone_io.media_choices(view),
        "group": every,
        "label": every,
        "role": strings,
        "split": every,
    }


def field_defaults(view: Any) -> dict[str, str]:
    """Setting -> what is taken if nothing is chosen: the samples' own media and what looks like their caption."""
    from audit_plugin import fiftyone_io

    try:
        caption = fiftyone_io.caption_field(view)
    except AuditError:
        caption = ""
    return {"text": caption, **fiftyone_io.default_media(view)}


def delete_form(dataset: Any) -> types.Object:
    """The form of `delete_audit`: which run, and what will go."""
    from audit_plugin import fiftyone_io

    form = types.Object()
    runs = [*fiftyone_io.list_audits(dataset), *fiftyone_io.list_transfers(dataset)]
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


def _makes_sense(name: str, params: Mapping[str, Any]) -> bool:
    """Whether a setting can matter, as the form stands: folds, for one, not where two models are compared."""
    defaults = AuditConfig()
    chosen = {key: params.get(key) or getattr(defaults, key) for key in ("train", "protocol")}
    if name == "folds":
        return chosen["protocol"] == "ensemble" and chosen["train"] != "checkpoints"
    asks = ASKED_FOR.get(name)
    return asks is None or any(chosen[key] in values for key, values in asks.items())


def add_setting(
    form: types.Object, field: Field[Any], paths: Mapping[str, list[str]], defaults: Mapping[str, str]
) -> None:
    """One question, made from the setting: its help, default, limits and choices."""
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
        form.enum(name, choices, view=types.DropdownView(), **look)
    elif isinstance(field.default, int):
        form.int(name, min=meta["low"], max=meta["high"], **look)
    elif isinstance(field.default, float):
        form.float(name, min=meta["low"], max=meta["high"], **look)
    else:
        form.str(name, **look)


def add_cost(form: types.Object, view: Any, params: Mapping[str, Any], writes: bool) -> None:
    """Show the cost, or why the work cannot be done as the form stands (which also disables its button)."""
    from audit_plugin import fiftyone_io

    try:
        config = config_from(params)
        if writes:
            fiftyone_io.check_writable(view, config.run)
        plan = fiftyone_io.preview_view(view, config, PREVIEW_ROWS)
    except AuditError as error:
        prop = form.view("cost", types.Error(label="This cannot be run yet", description=str(error)))
        prop.invalid, prop.error_message = True, str(error)
        return
    notes = list(plan["downloads"])
    if writes and config.run in fiftyone_io.list_audits(view):
        notes.append(f"Replaces the scores, fields and tags of the audit {config.run!r}.")
    form.view("cost", types.Notice(label=cost_line(plan), description=" ".join(notes)))


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
