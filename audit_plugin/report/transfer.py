"""The section on recall across modalities: matrix, curves, findings, and the identities that stay in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit_plugin.crossmodal.sentences import recall_rows, sentences

from .charts import curves
from .content import ReportContent
from .text import cut

IDENTITIES = 20


def transfer_section(content: ReportContent) -> dict[str, Any]:
    """What the template shows; empty where nothing was measured."""
    found = content.transfer
    if not found:
        return {}
    names, people = list(found["modalities"]), list(found["people"])
    lines = {
        f"{source}, asked in {name}": (found["curve"][source][name], at, name != source)
        for at, source in enumerate(names)
        for name in names
    }
    staying = [record for record in people if record["stays_in"]]
    return {
        "names": names,
        "identities": f"{int(found['identities']):,}",
        "chance": f"{found['chance']:.1%}",
        "rows": [list(row) for row in recall_rows(found)],
        "svg": curves([float(step) for step in found["curve"]["steps"]], lines, "steps of learning", "share recalled"),
        "sentences": sentences(found),
        "staying": len(staying),
        "people": [_person(record, names) for record in people[:IDENTITIES]] if "refused" not in found else [],
        "notes": [str(note) for note in found.get("notes") or ()],
    }


def _person(record: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    cells = [f"{record[f'recall_{source}_{name}']:.0%}" for source in names for name in names]
    return {"identity": cut(str(record["identity"]), 80), "cells": cells, "stays_in": str(record["stays_in"])}
