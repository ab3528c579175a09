"""Which field, and in a grouped dataset which slice, holds each modality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import MODALITIES, AuditError
from audit_plugin.config import NO_TEXT, AuditConfig
from audit_plugin.encoders.prompts import LABEL_TEMPLATES
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.runs import list_audits
from audit_plugin.inputs.embeddings import parse_embeddings

from .items import objects_field, ungrouped

# What captions are called, the likeliest first; names in one line are equally likely. A field of such a name is taken,
# or else one with such a word in its name, such as `short_caption`.
CAPTION_NAMES = (
    ("caption", "captions"),
    ("text", "texts", "sentence", "sentences"),
    ("title", "titles"),
    ("description", "descriptions"),
    ("prompt", "prompts"),
    ("alt", "alt_text"),
    ("ground_truth",),
    ("label", "labels"),
)
# Words that say that a field tells something about the caption, such as `text_url`: it is never taken unasked.
ABOUT_CAPTIONS = """
    url urls uri link href path file filename filepath id ids uid uuid key hash md5 sha256 model lang language locale
    source src origin author annotator user by license date time timestamp version type format status split score
    confidence prob probability count length len num index embedding encoding
"""
LOOKED_AT = 20  # values by which a field is told to hold no texts
NEVER_CAPTIONS = {"id", "filepath", "tags", "audit_decision"}
# Label types whose `label` is a text: of a sample, several of a sample, or of an object where each has a row.
LABELS = {fo.Classification: "label", fo.Classifications: "classifications.label", fo.Detection: "label"}
# Paths and addresses, which have no spaces, and numbers
_NO_TEXT = re.compile(r"\S*(/|\\)\S*|\S+\.[A-Za-z0-9]{2,4}|[-+\d.,:e]+")
OBJECTS = (fo.Detection, fo.Detections)
SLICE = "slice:"
FILE = "filepath"
# Modality -> FiftyOne's media types of samples whose own file can be it.
FILE_TYPES = {name: modality.fiftyone_types for name, modality in MODALITIES.items() if not modality.is_text}
# The modalities that are media types of FiftyOne: an audit takes the samples' own files for them without being told.
OWN_TYPES = tuple(name for name, file_types in FILE_TYPES.items() if name in file_types)


@dataclass(frozen=True)
class Source:
    """Where the values of a modality are."""

    field: str  # its path
    slice: str = ""  # of the sample in that slice of its group; "": of any slice that is used
    many: bool = False  # each sample has a list of them
    classes: bool = False  # they are names of classes, to be read through prompts


def modality_sources(view: SampleCollection, config: AuditConfig) -> dict[str, Source]:
    """Modality -> where its values are.

    Where the config names fewer than two, the sample's own file (the only image and the only video slice of a grouped
    dataset) and the field that looks like a caption are used too, no text where it says `NO_TEXT`. A modality whose
    embeddings are given may have none.

    Raises:
        AuditError: a field or slice is missing or of a wrong kind, or there is no clear choice.
    """
    view = ungrouped(view)
    named = {modality: getattr(config, modality) for modality in MODALITIES if getattr(config, modality)}
    without_text = named.get("text") == NO_TEXT and view.get_field(NO_TEXT) is None
    if without_text:
        del named["text"]
    sources = {modality: _source(view, modality, name) for modality, name in named.items()}
    own = parse_embeddings(config.embeddings)
    if len(sources) < 2:
        try:
            sources = _own_media(view, sources) | sources
            if "text" not in sources and not without_text:
                sources["text"] = _text_source(view, caption_field(view))
        except AuditError:
            if len({*sources, *own}) < 2:
                raise
    if objects_field(view) and (set(sources) != {"image", "text"} or sources["image"].field != FILE):
        raise AuditError(
            f"objects of {name_of(view)!r} are audited as image and text, cut out of the samples' own files; "
            f"leave {', '.join(FILE_TYPES)} out"
        )
    return {modality: sources[modality] for modality in MODALITIES if modality in sources}


def resolve_settings(view: SampleCollection, config: AuditConfig) -> AuditConfig:
    """The config with what is chosen for the view: the caption field, and prompts where it holds classes.

    Raises:
        AuditError: as `modality_sources`.
    """
    with database(f"reading dataset {name_of(view)!r}"):
        text = modality_sources(view, config).get("text")
        if text is None:
            return config
        named = config.text or caption_field(view)
    return replace(config, text=named, template=config.template or (LABEL_TEMPLATES if text.classes else ""))


def used_slices(view: SampleCollection, sources: Mapping[str, Source]) -> list[str]:
    """The slices of a grouped view whose samples an audit reads and writes, in the order of the modalities."""
    media = [source for modality, source in sources.items() if modality != "text"]
    default = view._root_dataset.default_group_slice
    slices = [source.slice or default for source in media]
    slices += [source.slice for source in sources.values() if source.slice]
    return list(dict.fromkeys(slices or [default]))


def string_fields(view: SampleCollection) -> list[str]:
    """Fields of the view that hold one string per sample and that no audit wrote."""
    return [name for name, field in _readable_fields(view).items() if isinstance(field, fo.StringField)]


def text_fields(view: SampleCollection) -> list[str]:
    """What may be named as text and no audit wrote: strings, then lists of strings, then labels with one text each.

    Of a view of patches: the field of its objects, then the strings that these hold besides.
    """
    if objects := objects_field(view):
        of_fiftyone = {"id", "label", "mask_path"}
        of_runs = tuple(f"{run}_" for run in list_audits(view))
        strings = view.get_field(objects).get_field_schema(ftype=fo.StringField)
        own = [name for name in strings if name not in of_fiftyone and not name.startswith(of_runs)]
        return [objects, *(f"{objects}.{name}" for name in own)]
    fields = _readable_fields(view)
    lists = [n for n, f in fields.items() if isinstance(f, fo.ListField) and isinstance(f.field, fo.StringField)]
    labels = [n for n, f in fields.items() if _label_type(f) in LABELS and _label_type(f) not in OBJECTS]
    return string_fields(view) + lists + labels


def _readable_fields(view: SampleCollection) -> dict[str, fo.Field]:
    """Field -> its type, of the fields that no run wrote."""
    root, skip = view._root_dataset, set(NEVER_CAPTIONS)
    for run in root.list_runs():
        skip |= {*getattr(root.get_run_info(run).config, "fields", ())}
    return {name: field for name, field in view.get_field_schema().items() if name not in skip}


def media_slices(view: SampleCollection) -> dict[str, str]:
    """Slice -> FiftyOne's media type, of a grouped view; empty for any other."""
    return dict(view._root_dataset.group_media_types) if view.media_type == "group" else {}


def media_choices(view: SampleCollection) -> dict[str, list[str]]:
    """Modality -> what may be named for it: the slices or own files of a fitting type, then the string fields."""
    view = ungrouped(view)
    slices = {f"{SLICE}{name}": kind for name, kind in media_slices(view).items()}
    own, strings = slices or {FILE: view.media_type}, string_fields(view)
    return {m: [*(name for name, kind in own.items() if kind in kinds), *strings] for m, kinds in FILE_TYPES.items()}


def default_media(view: SampleCollection) -> dict[str, str]:
    """Modality -> what is taken for it where fewer than two are named; empty where that is not clear."""
    try:
        own = _own_media(ungrouped(view), {})
    except AuditError:
        return {}
    return {modality: f"{SLICE}{source.slice}" if source.slice else source.field for modality, source in own.items()}


def caption_field(view: SampleCollection) -> str:
    """The field with the captions, by its name, or else the only candidate; of patches, the labels of their objects.

    Fields that hold paths, addresses or numbers are none, nor are those that tell something about the caption, such as
    its language or source.

    Raises:
        AuditError: none can be picked, or two are equally likely.
    """
    view = ungrouped(view)
    fields = text_fields(view)
    if objects_field(view):
        return fields[0]
    plain = [name for name in fields if not _words(name) & set(ABOUT_CAPTIONS.split()) and _holds_texts(view, name)]
    called = [[name for name in plain if name.lower() in names] for names in CAPTION_NAMES]
    with_word = [[name for name in plain if _words(name) & set(names)] for names in CAPTION_NAMES]
    likeliest = next((names for names in (*called, *with_word) if names), plain)
    if len(likeliest) == 1:
        return likeliest[0]
    if likeliest and likeliest is not plain:
        raise AuditError(
            f"fields {' and '.join(map(repr, likeliest))} of dataset {name_of(view)!r} are equally likely captions; "
            "name one as text"
        )
    have = f"its fields of texts and labels are {', '.join(fields)}" if fields else "it has no field of texts or labels"
    raise AuditError(f"dataset {name_of(view)!r} has no field that is clearly the caption ({have}); name one as text")


def key_field(view: SampleCollection, role: str, path: str) -> str:
    """The field with groups, labels or roles; of a label field, its label.

    Raises:
        AuditError: the field does not exist.
    """
    field = view.get_field(path)
    if field is None:
        raise AuditError(
            f"{role} field {path!r} does not exist in dataset {name_of(view)!r}; "
            f"{similar_names(path, list(view.get_field_schema()), 'fields')}"
        )
    return f"{path}.label" if _label_type(field) in (fo.Classification, fo.Detection) else path


def similar_names(name: str, names: Sequence[str], kind: str) -> str:
    """The names to choose from, similar ones first: the end of a message about a name that does not exist."""
    similar = get_close_matches(name, names, n=5, cutoff=0.4) or list(names)[:8]
    return f"{kind} there: {', '.join(similar)}" if similar else f"there are no {kind}"


def name_of(view: SampleCollection) -> str:
    """Name of the view's dataset."""
    return str(view._root_dataset.name)


def _source(view: SampleCollection, modality: str, path: str) -> Source:
    """The source that a config names: a field, `slice:NAME` or `slice:NAME.FIELD`."""
    if not path.startswith(SLICE):
        if modality == "text":
            return _text_source(view, path)
        _check_file(view, modality, path, view.media_type)
        return Source(_checked_string(view, path, modality))
    slices = media_slices(view)
    if not slices:
        raise AuditError(f"{modality} is {path!r}, but {name_of(view)!r} is not grouped; name a field instead")
    rest = path.removeprefix(SLICE)
    name = max((s for s in slices if rest == s or rest.startswith(f"{s}.")), key=len, default="")
    if not name:
        raise AuditError(
            f"{modality} is {path!r}, but dataset {name_of(view)!r} has no such slice; "
            f"{similar_names(rest, list(slices), 'slices')}"
        )
    field = rest.removeprefix(name).removeprefix(".")
    if not field and modality == "text":
        fields = similar_names("caption", text_fields(view), "texts")
        raise AuditError(f"text is {path!r}, which names no field; write slice:{name}.FIELD ({fields})")
    if modality == "text":
        return _text_source(view, field, name)
    _check_file(view, modality, field or FILE, slices[name])
    return Source(_checked_string(view, field, modality) if field else FILE, name)


def _own_media(view: SampleCollection, named: Mapping[str, Source]) -> dict[str, Source]:
    """The media that the samples' own files are, as far as that is clear; an error only where no medium is named."""
    slices = media_slices(view)
    if slices:
        kinds = {kind: [s for s, media in slices.items() if media == kind] for kind in OWN_TYPES}
        own = {kind: Source(FILE, names[0]) for kind, names in kinds.items() if len(names) == 1}
    else:
        own = {view.media_type: Source(FILE)} if view.media_type in OWN_TYPES else {}
    if own or set(named) - {"text"}:
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


def _text_source(view: SampleCollection, path: str, slice_name: str = "") -> Source:
    """The source of texts: strings, lists of strings, or labels.

    Raises:
        AuditError: there is no such field, or it holds something else.
    """
    field = view.get_field(path)
    kind = _label_type(field)
    if kind in LABELS and (kind is not fo.Detection or path == objects_field(view)):
        leaf = LABELS[kind]
        return Source(f"{path}.{leaf}", slice_name, many="." in leaf, classes=True)
    parents = [view.get_field(path[:at]) for at, character in enumerate(path) if character == "."]
    kinds = {_label_type(parent) for parent in (*parents, field)}
    if not objects_field(view) and kinds & set(OBJECTS):
        raise AuditError(
            f"text field {path!r} holds objects; audit each against its label: --patches FIELD, or a "
            f"view.to_patches(FIELD) of the field"
        )
    lists = [parent for parent in (*parents, field) if isinstance(parent, fo.ListField)]
    if isinstance(field, fo.ListField) and isinstance(field.field, fo.StringField) and len(lists) == 1:
        return Source(path, slice_name, many=True)
    return Source(_checked_string(view, path, "text"), slice_name, many=bool(lists))


def _checked_string(view: SampleCollection, path: str, role: str) -> str:
    field = view.get_field(path)
    choices, kind = (text_fields(view), "texts") if role == "text" else (string_fields(view), "string fields")
    names = similar_names(path, choices, kind)
    if field is None:
        raise AuditError(f"{role} field {path!r} does not exist in dataset {name_of(view)!r}; {names}")
    if not isinstance(field, fo.StringField):
        raise AuditError(f"{role} field {path!r} is a {type(field).__name__}, not a string; {names}")
    return path


def _label_type(field: fo.Field | None) -> type | None:
    """The type of label that a field holds; None where it holds none."""
    return field.document_type if isinstance(field, fo.EmbeddedDocumentField) else None


def _words(name: str) -> set[str]:
    """The words of a field's name: `textUrl_2` has text, url and 2."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_]+", name)}


def _holds_texts(view: SampleCollection, path: str) -> bool:
    """Whether the first values of a field may be captions: not all are paths, addresses or numbers."""
    field = view.get_field(path)
    if not isinstance(field, fo.StringField | fo.ListField):
        return True
    values = view.limit(LOOKED_AT).values(path)
    texts = [text for value in values for text in (value if isinstance(value, list) else [value]) if text]
    return not texts or not all(_NO_TEXT.fullmatch(text.strip()) for text in texts if isinstance(text, str))
