"""The fields that decisions name, and where they are after a renaming."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo

from audit_plugin.arrays import AuditError
from audit_plugin.fiftyone_io.read.contents import read_items, text_path
from audit_plugin.fiftyone_io.read.sources import SLICE, text_fields
from audit_plugin.review import Decision

COMPARED = 50  # decisions by which a renamed field is recognized


def present_field(dataset: fo.Dataset, field: str, decisions: Sequence[Decision]) -> str:
    """Where the texts of a recorded field are now: the field itself, or what it was renamed to.

    A renamed field is known by its contents: it holds what the decisions were made on, and no other field does.

    Raises:
        AuditError: the field is gone, and not one other field holds these texts.
    """
    try:
        if field:
            text_path(dataset, field)
        return field
    except AuditError:
        pass
    path = field.removeprefix(SLICE)
    slice_name = max((s for s in dataset.group_slices or () if path.startswith(f"{s}.")), key=len, default="")
    before = f"{SLICE}{slice_name}." if slice_name and path != field else ""
    rest = field.removeprefix(before).partition(".")[2]
    tops = dict.fromkeys(name.partition(".")[0] for name in [*text_fields(dataset), *dataset.get_field_schema()])
    candidates = [f"{before}{top}.{rest}" if rest else f"{before}{top}" for top in tops]
    matches = {candidate: _count_same(dataset, candidate, decisions[:COMPARED]) for candidate in candidates}
    best = [candidate for candidate, count in matches.items() if count and count == max(matches.values())]
    if len(best) == 1:
        return best[0]
    why = f"{' and '.join(map(repr, best))} hold the same texts" if best else "no other field holds the reviewed texts"
    raise AuditError(
        f"field {field!r}, which decisions name, does not exist in dataset {dataset.name!r} any more, and {why}; "
        "rename the field back (dataset.rename_sample_field), apply, and rename it again"
    )


def _count_same(dataset: fo.Dataset, field: str, decisions: Sequence[Decision]) -> int:
    """The number of decisions whose content is the same if their texts are in a field; 0 where it holds no texts."""
    path = field.removeprefix(SLICE)
    slice_name = max((s for s in dataset.group_slices or () if path.startswith(f"{s}.")), key=len, default="")
    kind = dataset.get_field(path.removeprefix(f"{slice_name}.") if path != field else path)
    if isinstance(kind, fo.ListField):
        kind = kind.field
    if not isinstance(kind, fo.StringField):
        return 0
    items = read_items(dataset, {(d.sample, d.label): field for d in decisions})
    contents = {key: item.content for key, item in items.items()}
    return sum(
        bool(d.digest)
        and (d.sample, d.label) in contents
        and contents[d.sample, d.label].text(d.caption) is not None
        and contents[d.sample, d.label].digest(d.caption) == d.digest
        for d in decisions
    )
