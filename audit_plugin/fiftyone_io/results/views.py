"""What an audit flagged, as a view."""

from __future__ import annotations

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from audit_plugin.config import FLAG_KINDS
from audit_plugin.fiftyone_io.read.items import objects_where, root_of
from audit_plugin.fiftyone_io.runs import audit_info

TO_DO = ("relabel", "remove", "review")


def flagged_view(dataset: SampleCollection, run: str) -> fo.DatasetView:
    """The samples with any flag of the run, or with anything proposed but to keep them; most misaligned first.

    Of a grouped dataset: the groups with such a sample. Of an audit of objects: the patches of such objects.
    """
    root = dataset._root_dataset
    record = audit_info(root, run)
    worst, names = f"{run}_misalignment", [f"{run}_is_{kind}" for kind in FLAG_KINDS]
    if record.label_field:
        marks = [F(name) == True for name in names] + [F(f"{run}_action").is_in(list(TO_DO))]  # noqa: E712 (a query)
        view = objects_where(root, record.label_field, F.any(marks))
        has = root.has_sample_field(f"{root_of(record.label_field)}.{worst}")
        return view.sort_by(f"{record.label_field}.{worst}", reverse=True) if has else view
    schema, places = root.get_field_schema(), places_of(root, record.slices)
    marks = [F(place + name) == True for place in places for name in names if name in schema]  # noqa: E712 (a query)
    marks += [F(f"{place}{run}_action").is_in(list(TO_DO)) for place in places]
    view = root.match(F.any(marks))
    return view.sort_by(places[0] + worst, reverse=True) if worst in schema else view


def places_of(dataset: fo.Dataset, slices: list[str]) -> list[str]:
    """What stands before a field's name in a query, so that it finds groups whatever slice was written on.

    The default slice needs nothing, and is found without looking up the other samples of each group.
    """
    if not slices or dataset.default_group_slice in slices:
        return [""]
    return [f"groups.{name}." for name in slices]
