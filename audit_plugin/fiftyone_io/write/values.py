"""The columns of a result as values of FiftyOne's fields."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditResult
from audit_plugin.audit.caption_lists import INDEX, LIST, list_columns

# Column -> how its field is declared, and a value per row.
Columns = dict[str, tuple[dict[str, type], list[Any]]]


def field_values(result: AuditResult) -> Columns:
    """Column -> kind of field and values, None for what was not scored; columns without any value are left out."""
    listed = [name for name in list_columns() if name != INDEX and name in result.columns]
    found = {name: _as_field(np.asarray(v)) for name, v in result.columns.items() if name not in listed}
    found = {
        name: (kind, values)
        for name, (kind, values) in found.items()
        if name == "action" or any(value is not None for value in values)
    }
    for name in listed:
        if (base := name.removesuffix(LIST)) in found:
            # None has no place in FiftyOne's lists: what was not scored stays NaN, "" or False
            found[name] = {"ftype": fo.ListField, "subfield": found[base][0]["ftype"]}, list(result.columns[name])
    return found


def _as_field(values: NDArray[Any]) -> tuple[dict[str, type], list[Any]]:
    if values.dtype.kind == "b":
        return {"ftype": fo.BooleanField}, values.tolist()
    if values.dtype.kind == "f":
        plain = values.tolist()
        return {"ftype": fo.FloatField}, [value if value == value else None for value in plain]  # noqa: PLR0124 (NaN)
    if values.dtype.kind in "iu":
        return {"ftype": fo.IntField}, [value if value >= 0 else None for value in values.tolist()]  # -1: in no group
    return {"ftype": fo.StringField}, [str(value) if value not in (None, "") else None for value in values.tolist()]
