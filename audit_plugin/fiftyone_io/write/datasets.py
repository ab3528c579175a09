"""The part of a large audit that is worth a look, as a new dataset: as if it had been audited inside FiftyOne."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from audit_plugin.arrays import AuditError, AuditResult, Ints, Samples
from audit_plugin.config import FLAG_KINDS, AuditConfig
from audit_plugin.fiftyone_io.read.samples import KEYS
from audit_plugin.fiftyone_io.read.sources import FILE
from audit_plugin.fiftyone_io.runs import database
from audit_plugin.review import queue

from .results import write_result

if TYPE_CHECKING:
    from audit_plugin.report import ReportContent

MEDIA = ("image", "video", "audio")  # the first that there is becomes the samples' own file
CAPTION = "caption"
OTHERS = 200


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

    These are the flagged rows; those that the evidence on them names (neighbors, duplicates, rivals); and a random
    part of the others, without which a spot check could not say what was missed.

    Args:
        content: scores, rows and explanations (`report_of_table`).
        name: of the dataset, which must not exist.
        run: key of the audit in it.
        media: folder for the media of these rows that lie in tar shards.
        kinds: flags of which a row must bear one; none: all that a review would show.
        rows: flagged rows at most, the most suspicious first; None for all.
        others: random rows that are not flagged.

    Raises:
        AuditError: the dataset exists, nothing is left to import, or a shard is gone.
    """
    samples = content.samples
    own = next((m for m in MEDIA if m in samples.modalities), None)
    if own is None:
        raise AuditError(
            f"{content.title} has no {' or '.join(MEDIA)}, which a FiftyOne sample needs; review its table"
        )
    config = _config(content, own, run)
    chosen = choose_rows(content, own, kinds, rows, others)
    if not len(chosen):
        raise AuditError(f"{content.title} has no row of that kind with its {own}; name another, or more others")
    with database(f"making dataset {name!r}"):
        if fo.dataset_exists(name):
            raise AuditError(f"dataset {name!r} exists; choose another name, or delete it first")
        files = {m: _files(samples.media[m], chosen, media) for m in MEDIA if m in samples.media}
        dataset = fo.Dataset(name, persistent=True)
        try:
            ids = _add_samples(dataset, samples, chosen, files, own)
            _write(dataset, content, chosen, ids, config)
        except BaseException:
            dataset.delete()  # half of it would pass for the whole
            raise
    return dataset


def choose_rows(content: ReportContent, own: str, kinds: Sequence[str], rows: int | None, others: int) -> Ints:
    """The rows to import, ascending; a sample with a list of texts comes with all of them. See `import_scores`."""
    samples, every = content.samples, queue(content.columns)
    flagged = every if not kinds else queue(content.columns, kinds)
    names = {samples.ids[row] for row in flagged[:rows]}
    for sample in list(names):
        names.update(_named(content.explanations.get(sample, ())))
    group = content.texts("duplicate_group")
    names.update(str(group[row]) for row in flagged[:rows] if group[row])
    plain = content.texts("failure") == ""
    plain[every] = False
    rest = np.flatnonzero(plain)
    drawn = np.random.default_rng(0).choice(rest, min(others, len(rest)), replace=False)
    names.update(samples.ids[row] for row in drawn)
    files = samples.media[own]
    return np.array([row for row, sample in enumerate(samples.ids) if sample in names and files[row]], dtype=np.int64)


def _named(value: Any, key: str = "") -> Iterator[str]:
    """The ids that explanations name."""
    if isinstance(value, Mapping):
        for inner, held in value.items():
            yield from _named(held, inner)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _named(held, key)
    elif key in ("id", "duplicates", "conflicts"):
        yield str(value)


def _config(content: ReportContent, own: str, run: str) -> AuditConfig:
    """The settings of the audit, with the names that its columns have here."""
    settings = content.summary.get("config", {})
    fields = {m: CAPTION if m == "text" else FILE if m == own else m for m in content.samples.modalities}
    return AuditConfig.from_dict({**settings, **dict.fromkeys((*KEYS, *MEDIA, "text"), ""), **fields, "run": run})


def _files(values: Sequence[str | None], chosen: Ints, folder: Path) -> list[str | None]:
    """The rows' paths; of media in tar shards, copies in the folder, since FiftyOne knows only files."""
    from audit_plugin.inputs.files import name_of_member

    paths: dict[str | None, str | None] = {}
    for row in chosen:
        value = values[row]
        if value not in paths:
            name = name_of_member(value or "")
            paths[value] = _unpack(value or "", folder / f"{row:08d}-{name}") if name else value
    return [paths[values[row]] for row in chosen]


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
    dataset: fo.Dataset, samples: Samples, chosen: Ints, files: Mapping[str, Sequence[str | None]], own: str
) -> list[str]:
    """Adds a sample for each id; ids `[len(chosen)]` of the samples of the rows."""
    texts: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for at, row in enumerate(chosen):
        texts.setdefault(samples.ids[row], [])
        first.setdefault(samples.ids[row], at)
        if "text" in samples.media and (text := samples.media["text"][row]) is not None:
            texts[samples.ids[row]].append(text)
    made = []
    for sample, at in first.items():
        fields: dict[str, Any] = {m: paths[at] for m, paths in files.items() if m != own and paths[at]}
        if "text" in samples.media:
            fields[CAPTION] = texts[sample] if samples.caption else next(iter(texts[sample]), None)
        made.append(fo.Sample(filepath=files[own][at], manifest_id=sample, **fields))
    names = dict(zip(first, dataset.add_samples(made, progress=False), strict=True))
    return [names[samples.ids[row]] for row in chosen]


def _write(dataset: fo.Dataset, content: ReportContent, chosen: Ints, ids: list[str], config: AuditConfig) -> None:
    from audit_plugin.audit.explain import renamed

    samples = content.samples
    names = dict(zip((samples.ids[row] for row in chosen), ids, strict=True))
    columns = {name: np.asarray(values)[chosen] for name, values in content.columns.items()}
    if "duplicate_group" in columns:
        groups = content.texts("duplicate_group")[chosen]
        columns["duplicate_group"] = np.array([names.get(group, group) for group in groups], dtype=object)
    told = {sample: [dict(found) for found in content.explanations.get(sample, ())] for sample in names}
    told = {sample: found for sample, found in told.items() if found}
    named = {other: other for other in _named(list(told.values()))}
    captions: tuple[int, ...] = ()
    if samples.caption:
        captions = tuple(samples.caption[row] if samples.media["text"][row] is not None else -1 for row in chosen)
    summary = _summary(content, columns)
    result = AuditResult(tuple(ids), columns, summary, str(content.summary.get("run_dir") or ""))
    write_result(dataset, result, config, captions=captions, explained=renamed(told, {**named, **names}))


def _summary(content: ReportContent, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The audit's summary with the counts of the rows that are here; estimates stay those of the whole."""
    rows, total = len(columns["action"]), len(content.samples)
    note = f"{rows:,} of the {total:,} rows of {content.title} were imported; estimates are of all of them"
    return {
        **content.summary,
        "samples": rows,
        "failures": int((np.asarray(columns["failure"]) != "").sum()),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in FLAG_KINDS if f"is_{kind}" in columns},
        "actions": {a: int((columns["action"] == a).sum()) for a in ("keep", "relabel", "remove", "review")},
        "notes": [note, *content.summary.get("notes", ())],
    }
