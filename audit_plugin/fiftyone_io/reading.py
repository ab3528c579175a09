"""Datasets and views -> Samples: which fields hold image, caption and group, read in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.config import AuditConfig

from .runs import database, list_audits, recorded_fields

# The first of these that a field is called, or else contains, is taken for the caption.
CAPTION_NAMES = ("caption", "captions", "text", "title", "description", "prompt", "ground_truth", "label")
NEVER_CAPTIONS = {"id", "filepath", "audit_decision", "audit_note"}
DEMO_MARK = "audit_plugin_demo"


def load_view(name: str, view_name: str | None = None) -> SampleCollection:
    """A dataset, or one of its saved views, by name.

    Raises:
        AuditError: no such dataset (names near it are listed) or saved view.
    """
    with database(f"reading dataset {name!r}"):
        names = fo.list_datasets()
        if name not in names:
            raise AuditError(f"dataset {name!r} does not exist; {_near(name, names, 'datasets')}")
        dataset = fo.load_dataset(name)
        if view_name is None:
            return dataset
        if not dataset.has_saved_view(view_name):
            views = dataset.list_saved_views()
            raise AuditError(f"dataset {name!r} has no saved view {view_name!r}; {_near(view_name, views, 'views')}")
        return dataset.load_saved_view(view_name)


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
    raise AuditError(f"dataset {_name(view)!r} has no field that is clearly the caption ({have}); name one as text")


def read_samples(view: SampleCollection, config: AuditConfig) -> Samples:
    """The rows of a dataset or view, in its order, with sample ids as ids.

    Raises:
        AuditError: empty view, no images, a field that is missing or of the wrong kind, or the database was lost.
    """
    with database(f"reading dataset {_name(view)!r}"):
        _check_view(view, config)
        fields = ["id", config.image or "filepath", caption_field(view, config.text)]
        if config.image:
            _checked_string(view, config.image, "image")
        if config.group:
            if view.get_field(config.group) is None:
                raise AuditError(
                    f"group field {config.group!r} does not exist in dataset {_name(view)!r}; "
                    f"{_near(config.group, list(view.get_field_schema()), 'fields')}"
                )
            fields.append(config.group)
        ids, images, texts, *rest = view.values(fields)
    groups = tuple("" if value is None else str(value) for value in rest[0]) if rest else ()
    return Samples(tuple(ids), {"image": tuple(images), "text": tuple(texts)}, groups)


def load_manifest_dataset(name: str, samples: Samples, faults: Sequence[str] = ()) -> fo.Dataset:
    """A persistent dataset from manifest rows: filepath, `caption`, `manifest_id` and, where given, `fault`.

    A dataset of that name is replaced only if this function made it.

    Args:
        name: name of the dataset.
        samples: rows with the modalities image and text.
        faults: what was planted in each row ("" for nothing), in the order of the rows.

    Raises:
        AuditError: the name belongs to somebody else's dataset, or a row has no image.
    """
    lost = [i for i, path in zip(samples.ids, samples.media["image"], strict=True) if not path]
    if lost:
        raise AuditError(f"row {lost[0]!r} has no image, which a FiftyOne sample needs; remove the row")
    with database(f"making dataset {name!r}"):
        if fo.dataset_exists(name):
            if not fo.load_dataset(name).info.get(DEMO_MARK):
                raise AuditError(f"dataset {name!r} exists and is not a demo made by this tool; choose another name")
            fo.delete_dataset(name)
        dataset = fo.Dataset(name, persistent=True)
        dataset.info[DEMO_MARK] = True
        dataset.save()
        dataset.add_sample_field("caption", fo.StringField, description="The text paired with the image")
        rows = zip(samples.ids, samples.media["image"], samples.media["text"], strict=True)
        dataset.add_samples(
            [fo.Sample(filepath=path, caption=text, manifest_id=row) for row, path, text in rows], progress=False
        )
        if faults:
            dataset.add_sample_field("fault", fo.StringField, description="What was planted in this sample")
            dataset.set_values("fault", [fault or None for fault in faults])
    return dataset


def _check_view(view: SampleCollection, config: AuditConfig) -> None:
    name = _name(view)
    if getattr(view, "_is_generated", False):
        raise AuditError(f"a view of patches, frames or clips of {name!r} cannot be audited; pass a view of samples")
    if not view.count():
        raise AuditError(f"the view of dataset {name!r} is empty; choose a dataset or view with samples")
    if config.image not in ("", "filepath"):
        return
    if view.media_type == "group":
        raise AuditError(f'dataset {name!r} is grouped; pass one slice: view.select_group_slices("NAME")')
    if view.media_type != "image":
        raise AuditError(
            f"dataset {name!r} holds media of type {view.media_type}, not images; name a field with "
            "image paths as image"
        )


def _checked_string(view: SampleCollection, path: str, role: str) -> str:
    field = view.get_field(path)
    if field is None:
        raise AuditError(
            f"{role} field {path!r} does not exist in dataset {_name(view)!r}; "
            f"{_near(path, string_fields(view), 'string fields')}"
        )
    if isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Classification:
        raise AuditError(f"{role} field {path!r} holds labels, not strings; use {path + '.label'!r}")
    if not isinstance(field, fo.StringField):
        raise AuditError(
            f"{role} field {path!r} is a {type(field).__name__}, not a string; "
            f"{_near(path, string_fields(view), 'string fields')}"
        )
    return path


def _holds_paths(view: SampleCollection, path: str) -> bool:
    values = [v for v in view.limit(20).values(path) if isinstance(v, str) and v]
    return bool(values) and all("/" in v and " " not in v.strip() for v in values)


def _words(path: str) -> str:
    return path.removesuffix(".label").lower()


def _near(name: str, names: Sequence[str], kind: str) -> str:
    near = get_close_matches(name, names, n=5, cutoff=0.4) or list(names)[:8]
    return f"{kind} there: {', '.join(near)}" if near else f"there are no {kind}"


def _name(view: SampleCollection) -> str:
    return str(view._root_dataset.name)
