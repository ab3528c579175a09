"""Which field, and in a grouped dataset which slice, holds each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig

from .runs import list_audits, recorded_fields

# The first of these that a field is called, or else contains, is taken for the caption.
CAPTION_NAMES = ("caption", "captions", "text", "title", "description", "prompt", "ground_truth", "label")
NEVER_CAPTIONS = {"id", "filepath", "audit_decision", "audit_note"}
MODALITIES = ("image", "text", "audio", "video")
SLICE = "slice:"
FILE = "filepath"
# What a sample's own file may be taken for, by FiftyOne's media types; animated images are images to it.
FILE_TYPES = {
    "image": {"image", "unknown", "mixed"},
    "video": {"video", "image", "unknown", "mixed"},
    "audio": {"video", "unknown", "mixed"},
}


@dataclass(frozen=True)
class Source:
    """Where the values of a modality are: a field, of the sample in `slice` ("": of any slice that is used)."""

    field: str
    slice: str = ""


def modality_sources(view: SampleCollection, config: AuditConfig) -> dict[str, Source]:
    """Modality -> where its values are: two or more that the config names, or those and what can be found.

    Where fewer than two are named, the sample's own file (the only image and the only video slice of a grouped
    dataset) and the field that looks like a caption are taken too.

    Raises:
        AuditError: a field or slice is missing or of a wrong kind, or nothing can be found.
    """
    named = {m: getattr(config, m) for m in MODALITIES if getattr(config, m)}
    found = {m: _source(view, m, wanted) for m, wanted in named.items()}
    if len(found) < 2:
        found = _own_media(view, found) | found
        if "text" not in found:
            found["text"] = Source(caption_field(view))
    return {m: found[m] for m in MODALITIES if m in found}


def used_slices(view: SampleCollection, sources: Mapping[str, Source]) -> list[str]:
    """The slices of a grouped view whose samples an audit reads and writes, in the order of the modalities."""
    media = [source for modality, source in sources.items() if modality != "text"]
    default = view._root_dataset.default_group_slice
    slices = [source.slice or default for source in media]
    slices += [source.slice for source in sources.values() if source.slice]
    return list(dict.fromkeys(slices or [default]))


def string_fields(view: SampleCollection) -> list[str]:
    """Paths of the view that hold one string per sample and that no audit wrote: plain fields, then label fields."""
    audits = list_audits(view)
    skip = NEVER_CAPTIONS.union(
        *(recorded_fields(view, run) for run in audits), *({f"{run}_decision", f"{run}_note"} for run in audits)
    )
    plain, labels = [], []
    for name, field in view.get_field_schema().items():
        if name in skip:
            continue
        if isinstance(field, fo.StringField):
            plain.append(name)
        elif isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Classification:
            labels.append(f"{name}.label")
    return plain + labels


def media_slices(view: SampleCollection) -> dict[str, str]:
    """Slice -> FiftyOne's media type, of a grouped view; empty for any other."""
    return dict(view._root_dataset.group_media_types) if view.media_type == "group" else {}


def media_choices(view: SampleCollection) -> dict[str, list[str]]:
    """Modality -> what may be named for it: the slices or own files of a fitting type, then the string fields."""
    slices = {f"{SLICE}{name}": kind for name, kind in media_slices(view).items()}
    own, strings = slices or {FILE: view.media_type}, string_fields(view)
    return {m: [*(name for name, kind in own.items() if kind in kinds), *strings] for m, kinds in FILE_TYPES.items()}


def default_media(view: SampleCollection) -> dict[str, str]:
    """Modality -> what is taken for it where fewer than two are named; empty where that is not clear."""
    try:
        own = _own_media(view, {})
    except AuditError:
        return {}
    return {modality: f"{SLICE}{source.slice}" if source.slice else source.field for modality, source in own.items()}


def caption_field(view: SampleCollection, wanted: str = "") -> str:
    """The string field with the captions: the one asked for, or else found by its name, or else the only one.

    Raises:
        AuditError: the field is missing or holds no strings, or none can be picked.
    """
    if wanted:
        return _checked_string(view, wanted, "text")
    fields = string_fields(view)
    matches = [f for name in CAPTION_NAMES for f in fields if _words(f) == name]
    matches += [f for name in CAPTION_NAMES for f in fields if name in _words(f)]
    if matches:
        return matches[0]
    plain = [f for f in fields if not _holds_paths(view, f)]
    if len(plain) == 1:
        return plain[0]
    have = f"its string fields are {', '.join(fields)}" if fields else "it has no string field"
    raise AuditError(f"dataset {name_of(view)!r} has no field that is clearly the caption ({have}); name one as text")


def key_field(view: SampleCollection, name: str, wanted: str) -> str:
    """The field with groups, labels or roles; of a label field, its label.

    Raises:
        AuditError: the field does not exist.
    """
    field = view.get_field(wanted)
    if field is None:
        raise AuditError(
            f"{name} field {wanted!r} does not exist in dataset {name_of(view)!r}; "
            f"{near(wanted, list(view.get_field_schema()), 'fields')}"
        )
    return f"{wanted}.label" if _is_label(field) else wanted


def near(name: str, names: Sequence[str], kind: str) -> str:
    """What there is, what is called alike first: the end of a sentence about what is missing."""
    alike = get_close_matches(name, names, n=5, cutoff=0.4) or list(names)[:8]
    return f"{kind} there: {', '.join(alike)}" if alike else f"there are no {kind}"


def name_of(view: SampleCollection) -> str:
    """Name of the view's dataset."""
    return str(view._root_dataset.name)


def _source(view: SampleCollection, modality: str, wanted: str) -> Source:
    if not wanted.startswith(SLICE):
        if modality != "text":
            _check_file(view, modality, wanted, view.media_type)
        return Source(_checked_string(view, wanted, modality))
    slices = media_slices(view)
    if not slices:
        raise AuditError(f"{modality} is {wanted!r}, but {name_of(view)!r} is not grouped; name a field instead")
    rest = wanted.removeprefix(SLICE)
    name = max((s for s in slices if rest == s or rest.startswith(f"{s}.")), key=len, default="")
    if not name:
        raise AuditError(
            f"{modality} is {wanted!r}, but dataset {name_of(view)!r} has no such slice; "
            f"{near(rest, list(slices), 'slices')}"
        )
    field = rest.removeprefix(name).removeprefix(".")
    if not field and modality == "text":
        fields = near("caption", string_fields(view), "string fields")
        raise AuditError(f"text is {wanted!r}, which names no field; write slice:{name}.FIELD ({fields})")
    _check_file(view, modality, field or FILE, slices[name])
    return Source(_checked_string(view, field, modality) if field else FILE, name)


def _own_media(view: SampleCollection, found: Mapping[str, Source]) -> dict[str, Source]:
    """What the samples themselves are, as far as it is clear; only needed where no medium is named."""
    slices = media_slices(view)
    if slices:
        kinds = {kind: [s for s, media in slices.items() if media == kind] for kind in ("image", "video")}
        own = {kind: Source(FILE, names[0]) for kind, names in kinds.items() if len(names) == 1}
    else:
        own = {view.media_type: Source(FILE)} if view.media_type in ("image", "video") else {}
    if own or set(found) - {"text"}:
        return own
    if slices:
        have = ", ".join(f"{name} ({media})" for name, media in slices.items())
        raise AuditError(
            f"dataset {name_of(view)!r} is grouped and it is not clear which slice to audit; its slices are {have}: "
            f"name one for its modality, such as image=slice:{next(iter(slices))}"
        )
    raise AuditError(
        f"dataset {name_of(view)!r} holds media of type {view.media_type}, neither images nor videos; name the field "
        "with paths, such as audio=filepath or image=FIELD"
    )


def _check_file(view: SampleCollection, modality: str, field: str, media_type: str) -> None:
    if field != FILE or modality not in FILE_TYPES or media_type in ("group", *FILE_TYPES[modality]):
        return
    raise AuditError(
        f"the samples' own files in dataset {name_of(view)!r} are of type {media_type} and cannot be taken as "
        f"{modality}; name a field with {modality} paths as {modality}"
    )


def _checked_string(view: SampleCollection, path: str, role: str) -> str:
    field = view.get_field(path)
    if field is None:
        raise AuditError(
            f"{role} field {path!r} does not exist in dataset {name_of(view)!r}; "
            f"{near(path, string_fields(view), 'string fields')}"
        )
    if _is_label(field):
        raise AuditError(f"{role} field {path!r} holds labels, not strings; use {path + '.label'!r}")
    if not isinstance(field, fo.StringField):
        raise AuditError(
            f"{role} field {path!r} is a {type(field).__name__}, not a string; "
            f"{near(path, string_fields(view), 'string fields')}"
        )
    return path


def _is_label(field: fo.Field) -> bool:
    return isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Classification


def _holds_paths(view: SampleCollection, path: str) -> bool:
    values = [v for v in view.limit(20).values(path) if isinstance(v, str) and v]
    return bool(values) and all("/" in v and " " not in v.strip() for v in values)


def _words(path: str) -> str:
    return path.removesuffix(".label").lower()
