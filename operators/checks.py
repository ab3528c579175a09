"""Checks at the door: what a browser sends is of the type, size and range that the work behind it expects."""

from __future__ import annotations

import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

LOADS = 20  # of a dataset that other requests read at the same time
MOST_CHARACTERS = 10_000  # of a text such as a caption
MODEL_FOLDER = "AUDIT_MODEL_DIR"  # models that the App may load are in this folder
MODEL_SETTINGS = ("encoder", "tower", "checkpoint_f", "checkpoint_g")  # may name a file
MODEL_WORDS = {"", "auto", "offline", "open_clip", "clap", "small"}  # parts of them that are no files


def text(params: Mapping[str, Any], name: str, default: str = "", most: int = MOST_CHARACTERS) -> str:
    """A text without control characters except line breaks; absent and empty ones are the default.

    Raises:
        AuditError: another type, too long, or characters that cannot be stored.
    """
    value = params.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise AuditError(f"{name} is of type {type(value).__name__}; it must be a text")
    if len(value) > most:
        raise AuditError(f"{name} has {len(value):,} characters; at most {most:,} are possible")
    if bad := next((c for c in value if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"), ""):
        raise AuditError(f"{name} has the character U+{ord(bad):04X}, which cannot be stored; remove it")
    return value


def number(
    params: Mapping[str, Any], name: str, default: Any = None, low: float = -math.inf, high: float = math.inf
) -> Any:
    """A finite number in a range; absent ones are the default.

    Raises:
        AuditError: another type, not finite, or out of range.
    """
    value = params.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuditError(f"{name} is of type {type(value).__name__}; it must be a number")
    if not abs(value) < 1e300:  # an integer of JSON may be too large for a float; NaN is not smaller either
        raise AuditError(f"{name} is not a finite number; give one")
    if not low <= value <= high:
        raise AuditError(f"{name} is {value:g}; it must lie between {low:g} and {high:g}")
    return value


def whole(params: Mapping[str, Any], name: str, default: Any = None, low: float = 0, high: float = 2**31) -> Any:
    """An integer in a range; absent ones are the default.

    Raises:
        AuditError: another type, or out of range.
    """
    value = number(params, name, default, low, high)
    if value is not None and value != int(value):
        raise AuditError(f"{name} is {value:g}; it must be an integer")
    return value if value is None else int(value)


def switch(params: Mapping[str, Any], name: str) -> bool | None:
    """A switch in the parameters; None where it is absent."""
    value = params.get(name)
    if value is not None and not isinstance(value, bool):
        raise AuditError(f"{name} must be on or off (true or false), not {short(value)}")
    return value


def choice(params: Mapping[str, Any], name: str, choices: Iterable[str], default: str = "") -> str:
    """One of several texts; absent ones are the default, "" if there is none.

    Raises:
        AuditError: something else.
    """
    value, choices = text(params, name, default), tuple(choices)
    if value and value not in choices:
        raise AuditError(f"{name} is {short(value)}; choose one of {', '.join(choices)}")
    return value


def required(value: Any, name: str) -> Any:
    """The value; raise an `AuditError` if there is none."""
    if value is None or value == "":
        raise AuditError(f"{name} is missing; fill it in")
    return value


def items(params: Mapping[str, Any], name: str, most: int = 100_000) -> list[Any]:
    """A list; absent ones are empty.

    Raises:
        AuditError: another type, or too long.
    """
    value = params.get(name)
    if value is None or value == "":
        return []
    if not isinstance(value, list | tuple):
        raise AuditError(f"{name} is of type {type(value).__name__}; it must be a list")
    if len(value) > most:
        raise AuditError(f"{name} has {len(value):,} entries; at most {most:,} are possible")
    return list(value)


def row(params: Mapping[str, Any], name: str = "row") -> tuple[str, int] | None:
    """(id, position of the caption) of a row; None if absent.

    Raises:
        AuditError: something else.
    """
    value = items(params, name, most=2)
    if not value:
        return None
    if len(value) != 2:
        raise AuditError(f"{name} must have an id and the position of a caption")
    return text({name: value[0]}, name), whole({name: value[1]}, name, 0)


def settings(params: Mapping[str, Any]) -> AuditConfig:
    """The settings in an operator's parameters; absent and empty ones keep their defaults.

    Raises:
        AuditError: a setting is not valid, or names a file that the App may not load.
    """
    values = {field.name: _setting(params, field) for field in fields(AuditConfig)}
    for name in MODEL_SETTINGS:
        check_model(name, values[name] or "")
    check_embeddings(values["embeddings"] or "")
    return AuditConfig(**{name: value for name, value in values.items() if value is not None})


def _setting(params: Mapping[str, Any], field: Field[Any]) -> Any:
    if isinstance(field.default, str):
        return text(params, field.name) or None
    low, high = field.metadata["low"], field.metadata["high"]
    if isinstance(field.default, bool):
        return switch(params, field.name)
    if isinstance(field.default, int):
        return whole(params, field.name, None, low, high)
    return number(params, field.name, None, low, high)


def check_model(setting: str, name: str) -> None:
    """Raise an `AuditError` if a model's name leads to a file outside the folder of the App's models."""
    for part in re.split(r"[:+]", name):
        if not _is_local(part):
            continue
        folder = os.environ.get(MODEL_FOLDER)
        path = Path(part).expanduser()
        if not folder or ".." in path.parts or not path.resolve().is_relative_to(Path(folder).expanduser().resolve()):
            raise AuditError(f"{setting} names a file of the server, {short(part)}; {model_help()}")


def check_embeddings(named: str) -> None:
    """Raise an `AuditError` if embeddings would be read from a file of the server, not from the dataset."""
    from audit_plugin.inputs.embeddings import BRAIN, FIELD, parse_embeddings

    for modality, source in parse_embeddings(named).items():
        if not source.startswith((FIELD, BRAIN)):
            raise AuditError(
                f"embeddings name a file of the server, {modality}={short(source)}; the App reads those of the "
                f"dataset: {modality}={FIELD}NAME or {modality}={BRAIN}KEY"
            )


def model_help() -> str:
    """Which model files the App may load."""
    folder = os.environ.get(MODEL_FOLDER)
    place = f"which is {folder}" if folder else "which is not set here"
    return f"model files are loaded only from the folder {MODEL_FOLDER} of the server, {place}, or from Python"


def _is_local(part: str) -> bool:
    """Whether a part of a model's name is, or looks like, a path of this machine rather than a public name."""
    if part in MODEL_WORDS:
        return False
    looks_so = part.startswith(("/", "~", ".", "\\")) or "\\" in part or ".." in part.split("/")
    return looks_so or os.path.exists(part)


def short(value: Any, most: int = 80) -> str:
    """A value as part of a message."""
    from audit_plugin.inputs.spreadsheet import clean

    return repr(clean(str(value)[: 4 * most], most))


def dataset_of(ctx: Any) -> Any:
    """The open dataset.

    Raises:
        AuditError: none is open, or there is none of that name, or opening the view would do something else.
    """
    name = ctx.request_params.get("dataset_name") or ctx.request_params.get("dataset_id")
    if not isinstance(name, str) and name is not None and type(name).__name__ != "ObjectId":
        raise AuditError("the name of the dataset is not a text")
    try:
        dataset = _loaded(ctx)
    except ValueError as error:
        raise AuditError(f"there is no dataset {short(name)}; open one") from error
    if dataset is None:
        raise AuditError("no dataset is open; open one")
    check_view(ctx.request_params, dataset)
    return dataset


def _loaded(ctx: Any) -> Any:
    """The context's dataset, loaded again where another request of the server came between.

    FiftyOne reloads all samples that the server holds in a loop over a dictionary, to which other threads add samples.
    """
    for _ in range(LOADS - 1):
        try:
            return ctx.dataset
        except RuntimeError as error:
            if "changed size during iteration" not in str(error):
                raise
    return ctx.dataset


def check_view(request: Mapping[str, Any], dataset: Any) -> None:
    """Raise an `AuditError` unless a request's view can be opened without doing anything else.

    FiftyOne imports and calls whatever a stage names as its class, and writes images into any folder for a stage that
    samples the frames of videos.
    """
    params, extended = request.get("params"), request.get("extended")
    custom = params.get("custom_view_target") if isinstance(params, Mapping) else None
    stages = list(_stages([request.get("view"), extended, custom]))
    names = [stage["_cls"] for stage in stages] + list(extended if isinstance(extended, Mapping) else ())
    for name in names:
        if not _is_stage(name):
            raise AuditError(f"the view has a stage {short(name)}, which FiftyOne does not have; open another view")
    frames = [stage for stage in stages if stage["_cls"].endswith(".ToFrames")]
    values = [value for name, value in extended.items() if name.endswith(".ToFrames")] if extended else []
    if any(_writes(stage["kwargs"], dataset) for stage in frames) or values:
        raise AuditError("opening the view would write images of the videos' frames; make it in Python first")


def _stages(values: list[Any]) -> Iterator[Mapping[str, Any]]:
    """All stages in what a browser sent, also those in stages."""
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            if "_cls" in value and "kwargs" in value:
                yield value
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value


def _is_stage(name: Any) -> bool:
    """Whether this is the full name of a class of stages that is loaded already."""
    from fiftyone.core.stages import ViewStage

    module, _, last = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    stage = getattr(sys.modules.get(module), last, None)
    return isinstance(stage, type) and issubclass(stage, ViewStage)


def _writes(arguments: Any, dataset: Any) -> bool:
    """Whether a stage of frames would write images: not if it was made before, which only the App's pages know of."""
    try:
        values = dict(arguments)
        options, state = values.get("config") or {}, values.get("_state") or {}
        samples = {**values, **options}.get("sample_frames") not in (None, False, "dynamic")
        return samples and state.get("dataset_id") != str(dataset._doc.id)
    except (AttributeError, TypeError, ValueError):
        return True


def ids(values: Sequence[Any] | None) -> list[str]:
    """Ids of samples or labels that the App selected.

    Raises:
        AuditError: something else than ids.
    """
    return [required(text({"id": value}, "id", most=100), "id") for value in values or ()]
