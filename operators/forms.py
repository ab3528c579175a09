"""Forms made from the settings of `AuditConfig`, with an estimate of the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from fiftyone.operators import types

from audit_plugin.arrays import MODALITIES, AuditError, count_text
from audit_plugin.config import NO_TEXT, AuditConfig

from . import checks
from .base import block, choose_audit

FIELD_LABELS = {name: f"{name.capitalize()} field" for name in MODALITIES} | {
    "text": "Caption or label field",
    "template": "Prompt templates",
    "group": "Group field",
    "label": "Label field",
    "split": "Split field",
    "role": "Role field",
    "run": "Run key",
    "false_positive_rate": "False-positive rate",
    "checkpoint_f": "Checkpoint f",
    "checkpoint_g": "Checkpoint g",
    "embeddings": "Your own embeddings",
    "same_space": "They share one space",
}
ENCODERS = {
    "auto": "CLIP if its weights are on this machine, otherwise offline",
    "offline": "Encoders included in the installation; no download",
    "open_clip:ViT-B-32:laion2b_s34b_b79k": "CLIP ViT-B/32; downloaded on first use",
}
CHOICE_LABELS = {("text", NO_TEXT): "None: find outliers and duplicates only"}  # (setting, its value) -> label
MEDIA = tuple(name for name, modality in MODALITIES.items() if not modality.is_text)
# Settings that apply only after another choice: setting -> {the other setting: its values for which it applies}.
APPLIES_IF = {
    "tower": {"train": ("towers",)},
    "checkpoint_f": {"train": ("checkpoints",)},
    "checkpoint_g": {"train": ("checkpoints",)},
    "role": {"train": ("checkpoints",), "protocol": ("split",)},
}
IDENTITY_FIELDS = ("identity", "person", "name", "class", "label", "ground_truth", "category")
MOST_REPETITIONS = 100  # of a removal study
PREVIEW_ROWS = 200  # the form is resolved again at each change of a field


class SettingsForm:
    """A form on the settings of work on a view.

    Attributes:
        form: the fields added so far.
        choices: setting -> fields, and in a grouped dataset slices, that can be chosen.
        defaults: setting -> field that is used by default.
        folded: media settings that are advanced: of an image dataset, the file is known.
    """

    def __init__(self, view: Any, params: Mapping[str, Any]) -> None:
        self.view, self.params = view, params
        self.form = types.Object()
        self.choices, self.defaults = field_choices(view), field_defaults(view)
        self.folded = MEDIA if view.media_type == "image" else ()

    def offer_no_text(self) -> None:
        """Offer to audit the samples' own files alone; where there are no texts at all, by default.

        Not for objects, whose class is their text, nor for groups.
        """
        if self.view.media_type not in MEDIA or self.view._is_generated:
            return
        texts = self.choices["text"]
        self.defaults["text"] = self.defaults["text"] or ("" if texts else NO_TEXT)
        self.choices["text"] = list(dict.fromkeys([*texts, NO_TEXT]))

    def add(self, *names: str) -> None:
        """Add a field for each of the settings, with its help, default, limits and choices."""
        settings = {setting.name: setting for setting in fields(AuditConfig)}
        for name in names:
            self._add(settings[name])

    def add_basic(self, *names: str) -> None:
        """Add a field for each of the settings that is not folded."""
        self.add(*(name for name in names if name not in self.folded))

    def add_switch(self) -> bool:
        """Add the switch for advanced options; whether it is on."""
        self.form.bool("advanced", label="Advanced options", default=False, view=types.SwitchView())
        return bool(self.params.get("advanced"))

    def add_cost(self, writes: bool) -> None:
        """Add the estimated cost, or the reason why the work cannot start, which disables the submit button.

        Args:
            writes: whether the work writes an audit under the run key.
        """
        from audit_plugin import fiftyone_io

        defaults = {name: value for name, value in self.defaults.items() if name not in self.folded}
        try:
            config = checks.settings({**defaults, **self.params})
            if writes:
                fiftyone_io.check_writable(self.view, config.run)
            plan = fiftyone_io.estimate_cost(self.view, config, PREVIEW_ROWS)
        except AuditError as error:
            block(self.form, "cost", types.Error(label="Cannot run yet", description=str(error)))
            return
        notes = list(plan["downloads"])
        if writes and config.run in fiftyone_io.list_audits(self.view):
            notes.append(f"Replaces the scores, fields and tags of audit {config.run!r}.")
        self.form.view("cost", types.Notice(label=cost_text(plan), description=" ".join(notes)))

    def _add(self, setting: Field[Any]) -> None:
        name, meta, form = setting.name, setting.metadata, self.form
        default = self.defaults.get(name, setting.default)
        options = {
            "label": FIELD_LABELS.get(name, name.capitalize()),
            "description": setting_help(setting),
            "default": None if default == "" else default,  # "" is not one of the choices
        }
        choices = self.choices.get(name) or list(meta["choices"])
        if name == "encoder":
            view = types.AutocompleteView(allow_user_input=True, allow_clearing=False)
            for encoder, description in ENCODERS.items():
                view.add_choice(encoder, label=encoder, description=description)
            form.str(name, view=view, **options)
        elif choices:
            view = types.DropdownView()
            for choice in choices:
                view.add_choice(choice, label=CHOICE_LABELS.get((name, choice), choice))
            form.enum(name, choices, view=view, **options)
        elif isinstance(setting.default, bool):
            form.bool(name, **options)
        elif isinstance(setting.default, int):
            form.int(name, min=meta["low"], max=meta["high"], **options)
        elif isinstance(setting.default, float):
            form.float(name, min=meta["low"], max=meta["high"], **options)
        else:
            form.str(name, **options)


def audit_form(view: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `run_audit`: basic settings, advanced ones behind a switch, the cost."""
    form = SettingsForm(view, params)
    form.offer_no_text()
    settings = [s for s in fields(AuditConfig) if s.name not in MEDIA or not view._is_generated]  # crops have one file
    advanced = [s.name for s in settings if s.metadata["advanced"] or s.name in form.folded]
    form.add(*(s.name for s in settings if s.name not in advanced))
    if form.add_switch():
        form.add(*(name for name in advanced if _applies(name, params)))
    form.add_cost(writes=True)
    return form.form


def removal_form(view: Any, params: Mapping[str, Any], repetitions: int) -> types.Object:
    """The form of `removal_study`: the samples, how many to remove, how often to repeat."""
    form = SettingsForm(view, params)
    form.add_basic("text", *MEDIA, "encoder", "trials")
    about = "Numbers of samples to remove; empty: shares of the training samples"
    form.form.list("amounts", types.Number(int=True, min=1), label="Amounts", description=about)
    about = "Repetitions with other seeds, from which the intervals are computed"
    form.form.int("seeds", label="Repetitions", min=2, max=MOST_REPETITIONS, default=repetitions, description=about)
    if form.add_switch():
        form.add(*form.folded, "group", "label", "views", "epochs", "neighbors", "seed", "device")
    form.add_cost(writes=False)
    return form.form


def cross_modal_form(view: Any, params: Mapping[str, Any], run: str) -> types.Object:
    """The form of `measure_cross_modal`: the identities, the media, the split."""
    form = SettingsForm(view, params)
    identity = identity_field(view)
    form.form.enum(
        "label",
        form.choices["label"],
        label="Identity or class",
        description="Field with the identity or class of each sample; several samples share each",
        default=identity,
        required=identity is None,
        view=types.DropdownView(),
    )
    form.add_basic("text", *MEDIA, "encoder")
    form.form.enum(
        "split",
        form.choices["split"],
        label="Split field",
        description="Field with train, test or background; empty: cross-validation over two halves of each identity",
        default="split" if "split" in form.choices["split"] else None,
        view=types.DropdownView(),
    )
    if form.add_switch():
        form.add(*form.folded, "seed", "device")
        form.form.str("run", label="Run key", default=run, description="Prefix of the fields that are written")
    form.add_cost(writes=False)
    return form.form


def setting_help(setting: Field[Any]) -> str:
    """The help of a setting; where it may name a file, which files that may be."""
    about = str(setting.metadata["help"])
    return f"{about}. In the App, {checks.model_help()}" if setting.name in checks.MODEL_SETTINGS else about


def deletable_runs(dataset: Any) -> list[str]:
    """Keys of the audits, then those of the measurements of cross-modal recall."""
    from audit_plugin import fiftyone_io

    return [*fiftyone_io.list_audits(dataset), *fiftyone_io.list_cross_modal_runs(dataset)]


def run_fields(dataset: Any, run: str) -> list[str]:
    """Names of the fields that a run wrote."""
    return sorted(getattr(dataset.get_run_info(run).config, "fields", ())) if run in dataset.list_runs() else []


def run_shown(dataset: Any, run: str) -> Any:
    """What a form shows of a run that is replaced or deleted: its key, time and fields."""
    if run not in dataset.list_runs():
        return [run, None]
    return [run, str(dataset.get_run_info(run).timestamp), run_fields(dataset, run)]


def delete_shown(dataset: Any, run: str) -> Any:
    """What the form of `delete_audit` shows: the run as in `run_shown`, and the names of its similarity indexes."""
    from audit_plugin import fiftyone_io

    return [*run_shown(dataset, run), fiftyone_io.indexes_of(dataset, run)]


def delete_form(dataset: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `delete_audit`: which run, and what is deleted."""
    from audit_plugin import fiftyone_io

    form, runs = types.Object(), deletable_runs(dataset)
    if not runs:
        block(form, "none", types.Warning(label="This dataset has no audit"))
        return form
    default = runs[0] if len(runs) == 1 else None
    form.enum("run", runs, label="Audit", required=True, default=default, view=types.DropdownView())
    run = checks.choice(params, "run", runs, default or "")
    fields_text = f"{count_text(len(run_fields(dataset, run)), 'field')}, " if run else "fields, "
    indexes = fiftyone_io.indexes_of(dataset, run) if run else []
    count = count_text(len(indexes), "similarity index", "similarity indexes")
    indexes_text = f"{count} ({', '.join(indexes)}), " if indexes else ""
    about = (
        f"Its {fields_text}{indexes_text}tags, saved view and record are deleted. Decisions, your own fields and tags, "
        "and other audits stay."
    )
    form.view("what", types.Notice(label=about))
    return form


def index_form(view: Any, params: Mapping[str, Any]) -> types.Object:
    """The form of `index_audit`: the audit, the modality, the name of the index."""
    from audit_plugin.fiftyone_io.similarity import JOINT, audited_modalities

    form = types.Object()
    run = choose_audit(form, view, params)
    if not run:
        return form
    try:
        modalities = list(audited_modalities(view, run))
    except AuditError as error:
        block(form, "problem", types.Error(label="Cannot create the index", description=str(error)))
        return form
    about = (
        "joint: all modalities at once. With texts, text and joint can be searched with a text query, which finds "
        "captions; words (offline encoders): what the pictures show, by a text query"
    )
    form.enum(
        "modality",
        modalities,
        label="Embeddings",
        description=about,
        required=True,
        default=JOINT,
        view=types.DropdownView(),
    )
    form.str("brain_key", label="Name", description="Default: the audit and the modality, as in audit_joint")
    return form


def identity_field(view: Any) -> str | None:
    """The field whose name suggests an identity or class; None if there is none."""
    names = list(view.get_field_schema())
    return next((name for name in IDENTITY_FIELDS if name in names), None)


def field_choices(view: Any) -> dict[str, list[str]]:
    """Setting -> fields, and in a grouped dataset slices, that can be chosen for it."""
    from audit_plugin import fiftyone_io

    names = list(view.get_field_schema())
    try:
        texts = fiftyone_io.text_fields(view)
    except AuditError:
        texts = []  # the view cannot be audited; the cost shows the reason
    return {
        "text": texts,
        **fiftyone_io.media_choices(view),
        "group": names,
        "label": names,
        "role": fiftyone_io.string_fields(view),
        "split": names,
    }


def field_defaults(view: Any) -> dict[str, str]:
    """Setting -> default field: the samples' media, and the field that looks like their caption."""
    from audit_plugin import fiftyone_io

    try:
        caption = fiftyone_io.caption_field(view)
    except AuditError:
        caption = ""
    return {"text": caption, **fiftyone_io.default_media(view)}


def cost_text(plan: Mapping[str, Any]) -> str:
    """One line on the estimated cost of an audit."""
    to_encode = sum(plan["encodes"].values())
    parts = [
        count_text(plan["rows"], "sample"),
        f"{to_encode:,} to encode" if to_encode else "all encoded already",
        f"about {_minutes_text(plan['minutes'])} on {plan['device']}",
        f"{plan['disk_mb']:,.0f} MB of disk",
        f"encoder {plan['encoder']}",
    ]
    return ", ".join(parts)


def _applies(name: str, params: Mapping[str, Any]) -> bool:
    """Whether a setting has an effect with the other settings of the form."""
    defaults = AuditConfig()
    chosen = {key: params.get(key) or getattr(defaults, key) for key in ("train", "protocol")}
    if name == "folds":
        return chosen["protocol"] == "ensemble" and chosen["train"] != "checkpoints"
    conditions = APPLIES_IF.get(name)
    return conditions is None or any(chosen[key] in values for key, values in conditions.items())


def _minutes_text(minutes: float) -> str:
    if minutes < 1.5:
        return "1 minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
