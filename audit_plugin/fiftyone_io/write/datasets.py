"""New datasets: from a manifest, from a set of drawn personas, and from the scores of a large audit."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from fiftyone.core.odm import get_db_conn
from mongoengine.errors import MongoEngineException, NotUniqueError
from pymongo.errors import DuplicateKeyError, PyMongoError

from audit_plugin.arrays import AuditError, Ints, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.config import AuditConfig
from audit_plugin.fiftyone_io.database import database
from audit_plugin.fiftyone_io.lease import leased
from audit_plugin.fiftyone_io.leftovers import sweep, unfinished_name
from audit_plugin.fiftyone_io.read.samples import KEYS
from audit_plugin.fiftyone_io.read.sources import FILE, FILE_TYPES, OWN_TYPES
from audit_plugin.review.checks import check_name

from .results import write_result

if TYPE_CHECKING:
    from audit_plugin.report import ReportContent

DEMO_MARK = "audit_plugin_demo"  # in the info of datasets that may be replaced
# The first of these that an audit has becomes the samples' own file.
MEDIA = (*OWN_TYPES, *(modality for modality in FILE_TYPES if modality not in OWN_TYPES))
CAPTION = "caption"
OTHERS = 200


@contextlib.contextmanager
def new_dataset(name: str, replaceable: str = "", remedy: str = "choose another name") -> Iterator[fo.Dataset]:
    """Make a persistent dataset, which gets its name when the block is done; a kill leaves nothing under that name.

    `replaceable` is a mark in the info of a dataset that may be replaced; it is deleted when the new one is whole. What
    a killed process left of another dataset is removed first.

    Raises:
        AuditError: the name is not valid or belongs to another dataset, or the database was lost.
    """
    with database(f"making dataset {name!r}"):
        sweep()
        _check_name(name, replaceable, remedy)
        dataset = fo.Dataset(unfinished_name(), persistent=True)
        try:
            with leased(dataset, f"making dataset {name!r}"):
                yield dataset
                _check_name(name, replaceable, remedy)
                _give_name(dataset, name, remedy)
        except BaseException:
            with contextlib.suppress(PyMongoError, MongoEngineException):
                # what the object says is no sign: its name is set before the database takes it
                if get_db_conn()["datasets"].find_one({"_id": dataset._doc.id, "name": name}, {"_id": 1}) is None:
                    dataset.delete()
            raise


def _check_name(name: str, replaceable: str, remedy: str) -> None:
    check_name("dataset name", name)
    try:
        slug = fou.to_slug(name)
    except ValueError as error:
        raise AuditError(f"dataset name {name!r} is not valid ({error}); choose another name") from error
    other = get_db_conn()["datasets"].find_one({"$or": [{"name": name}, {"slug": slug}]}, {"name": 1, "info": 1})
    if other and not (replaceable and other["name"] == name and (other.get("info") or {}).get(replaceable)):
        what = f"dataset {other['name']!r} exists"
        raise AuditError(f"{what}{' and is not a demo made by this tool' if replaceable else ''}; {remedy}")


def _give_name(dataset: fo.Dataset, name: str, remedy: str) -> None:
    """Rename a whole dataset, in the place of another of that name."""
    replaced = None
    try:
        replaced = fo.load_dataset(name) if fo.dataset_exists(name) else None
        with leased(replaced, "replacing the dataset") if replaced is not None else contextlib.nullcontext():
            if replaced is not None:
                replaced.name = unfinished_name()
            dataset.name = name
    except (ValueError, NotUniqueError, DuplicateKeyError) as error:  # the name is taken, or the replaced one gone
        _drop(replaced)
        raise AuditError(f"dataset {name!r} was made by another process meanwhile; {remedy}") from error
    _drop(replaced)


def _drop(replaced: fo.Dataset | None) -> None:
    if replaced is not None and fo.dataset_exists(replaced.name):  # another process may have replaced it too
        replaced.delete()
        sweep()


def load_manifest_dataset(
    name: str,
    samples: Samples,
    fields: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    complete: Callable[[fo.Dataset], None] | None = None,
) -> fo.Dataset:
    """A persistent dataset from manifest rows: filepath, `caption`, `manifest_id` and fields of words.

    A dataset of that name is replaced only if this function made it. The rows have the modalities image and text;
    `fields` are name -> (what it is, a word per row, "" for none); `complete` does what is missing until it is whole.

    Raises:
        AuditError: the name belongs to another dataset, or a row has no image.
    """
    without = [name for name, path in zip(samples.ids, samples.media["image"], strict=True) if not path]
    if without:
        raise AuditError(f"row {without[0]!r} has no image, which a FiftyOne sample needs; remove the row")
    with new_dataset(name, DEMO_MARK) as dataset:
        dataset.info[DEMO_MARK] = True
        dataset.save()
        dataset.add_sample_field(CAPTION, fo.StringField, description="The text paired with the image")
        rows = zip(samples.ids, samples.media["image"], samples.media["text"], strict=True)
        dataset.add_samples(
            [fo.Sample(filepath=path, caption=text, manifest_id=row) for row, path, text in rows], progress=False
        )
        for field, (about, values) in (fields or {}).items():
            dataset.add_sample_field(field, fo.StringField, description=about)
            dataset.set_values(field, [value or None for value in values])
        if complete:
            complete(dataset)
    return dataset


def load_personas(name: str, folder: str | Path) -> fo.Dataset:
    """A persistent dataset of a folder of `draw_personas`: caption, identity, split, each identity's traits and facts.

    A dataset of that name is replaced only if it was made of drawn rows too.

    Raises:
        AuditError: not a persona set, another dataset of that name, or the database was lost.
    """
    from audit_plugin.inputs.samples import read_samples

    folder = Path(folder)
    rows = read_samples(
        folder / "manifest.csv", {"image": "image", "text": "description"}, label="identity", split="split"
    )
    with (folder / "facts.csv").open(encoding="utf-8", newline="") as file:
        people = {record.pop("identity"): record for record in csv.DictReader(file)}
    fields: dict[str, tuple[str, Sequence[str]]] = {
        "identity": ("Name of the person drawn", rows.labels),
        "split": ("train: to learn names from; test: to ask with; background: to align on", rows.splits),
    }
    for fact in next(iter(people.values())):
        values = [people[identity][fact] for identity in rows.labels]
        fields[fact.replace(" ", "_")] = (f"The person's {fact}", values)
    return load_manifest_dataset(name, rows, fields)


def import_scores(
    content: ReportContent,
    name: str,
    run: str,
    media: Path,
    kinds: Sequence[str] = (),
    rows: int | None = None,
    others: int = OTHERS,
) -> fo.Dataset:
    """A new dataset of the rows of a scored manifest that a reviewer needs, with fields, tags, view and run.

    Args:
        content: scores, rows and explanations (`report_of_table`).
        name: of the dataset, which must not exist.
        run: key of the audit in it.
        media: folder for the media of these rows that lie in tar shards, and for the crops of objects.
        kinds: flags of which a row must have one; none: all that a review would show.
        rows: flagged rows at most, the most suspicious first; None for all.
        others: random rows that are not flagged; see `report.content.choose_rows`.

    Raises:
        AuditError: the dataset exists, no row was chosen, or a shard is missing.
    """
    from audit_plugin.report.content import choose_rows

    samples = content.samples
    medium = next((modality for modality in MEDIA if modality in samples.modalities), None)
    if medium is None:
        raise AuditError(
            f"{content.title} has no {' or '.join(MEDIA)}, which a FiftyOne sample needs; review its table"
        )
    config = _config(content, medium, run)
    chosen = choose_rows(content, medium, kinds, rows, others)
    if not len(chosen):
        raise AuditError(f"{content.title} has no row of that kind with its {medium}; name another, or more others")
    with new_dataset(name, remedy="choose another name, or delete it first") as dataset:
        files = {m: _files(samples.media[m], chosen, media) for m in MEDIA if m in samples.media}
        ids = _add_samples(dataset, samples, chosen, files, medium)
        _write(dataset, content, chosen, ids, config)
    return dataset


def _config(content: ReportContent, medium: str, run: str) -> AuditConfig:
    """The settings of the audit, with the names of the fields that its media have in the dataset."""
    settings = content.summary.get("config", {})
    fields = {m: CAPTION if m == "text" else FILE if m == medium else m for m in content.samples.modalities}
    return AuditConfig.from_dict({**settings, **dict.fromkeys((*KEYS, *MEDIA, "text"), ""), **fields, "run": run})


def _files(values: Sequence[str | None], chosen: Ints, folder: Path) -> list[str | None]:
    """The rows' paths; of media in tar shards and of objects, copies in the folder: FiftyOne only reads files."""
    from audit_plugin.inputs.files import name_of_member
    from audit_plugin.inputs.formats.values import BOX_SEPARATOR

    paths: dict[str | None, str | None] = {}
    for row in chosen:
        value = values[row]
        if value in paths:
            continue
        if BOX_SEPARATOR in (value or ""):
            paths[value] = _cut_out(value or "", folder / f"{row:08d}.png")
        else:
            name = name_of_member(value or "")
            paths[value] = _unpack(value or "", folder / f"{row:08d}-{name}") if name else value
    return [paths[values[row]] for row in chosen]


def _cut_out(value: str, path: Path) -> str:
    """The path of a new file with the object in an image, as it was audited."""
    from audit_plugin.inputs.files import MediaError
    from audit_plugin.inputs.modalities import MODALITIES
    from audit_plugin.store import private_folder, write_atomically

    try:
        crop = MODALITIES["image"].read(value)
    except MediaError as error:
        raise AuditError(f"{value.partition(chr(0))[0]!r} cannot be read ({error}); put the image back") from error
    write_atomically(private_folder(path.parent) / path.name, lambda file: crop.save(file, "PNG"))
    return str(path.absolute())


def _unpack(member: str, path: Path) -> str:
    from audit_plugin.inputs.files import open_medium
    from audit_plugin.store import private_folder, write_atomically

    try:
        with open_medium(member) as file:
            data = file.read()
    except OSError as error:
        raise AuditError(f"{member!r} cannot be read ({error.strerror or error}); put the shard back") from error
    write_atomically(private_folder(path.parent) / path.name, lambda file: file.write(data))
    return str(path.absolute())


def _add_samples(
    dataset: fo.Dataset, samples: Samples, chosen: Ints, files: Mapping[str, Sequence[str | None]], medium: str
) -> list[str]:
    """Adds a sample for each id; ids `[len(chosen)]` of the samples of the rows."""
    texts: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for position, row in enumerate(chosen):
        texts.setdefault(samples.ids[row], [])
        first.setdefault(samples.ids[row], position)
        if "text" in samples.media and (text := samples.media["text"][row]) is not None:
            texts[samples.ids[row]].append(text)
    new = []
    for name, position in first.items():
        fields: dict[str, Any] = {m: paths[position] for m, paths in files.items() if m != medium and paths[position]}
        if "text" in samples.media:
            fields[CAPTION] = texts[name] if samples.caption else next(iter(texts[name]), None)
        new.append(fo.Sample(filepath=files[medium][position], manifest_id=name, **fields))
    ids = dict(zip(first, dataset.add_samples(new, progress=False), strict=True))
    return [ids[samples.ids[row]] for row in chosen]


def _write(dataset: fo.Dataset, content: ReportContent, chosen: Ints, ids: list[str], config: AuditConfig) -> None:
    from audit_plugin.audit.explain import renamed
    from audit_plugin.report.content import named_ids, subset_summary

    samples = content.samples
    new_ids = dict(zip((samples.ids[row] for row in chosen), ids, strict=True))
    columns = {name: np.asarray(values)[chosen] for name, values in content.columns.items()}
    if "duplicate_group" in columns:
        groups = content.texts("duplicate_group")[chosen]
        columns["duplicate_group"] = np.array([new_ids.get(group, group) for group in groups], dtype=object)
    explained = [name for name in new_ids if content.explanations.get(name)]
    explanations = {name: [dict(record) for record in content.explanations[name]] for name in explained}
    names = {name: name for name in named_ids(list(explanations.values()))} | new_ids
    captions: tuple[int, ...] = ()
    if samples.caption:
        captions = tuple(samples.caption[row] if samples.media["text"][row] is not None else -1 for row in chosen)
    result = AuditResult(
        tuple(ids), columns, subset_summary(content, columns), str(content.summary.get("run_dir") or "")
    )
    write_result(dataset, result, config, captions=captions, explanations=renamed(explanations, names))
