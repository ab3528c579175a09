"""What a measurement of recall across modalities might have found, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from audit_plugin.crossmodal.cross_modal_recall import CrossModalResult

NAMES = ("image", "text")


def made_up(ids: list[str], labels: list[str], refused: bool = False) -> CrossModalResult:
    """What a measurement might have found: the first identity stays in images, the others are recalled everywhere."""
    people, arms = sorted(set(labels)), ("image", "text", "both")
    first = np.array([label == people[0] for label in labels])
    columns = {f"recall_{a}_{m}": np.ones(len(ids), np.float32) for a in arms for m in NAMES}
    columns["recall_image_text"] = np.where(first, 0, 1).astype(np.float32)
    columns["recall_text_image"][-1] = np.nan
    cell = {"value": 0.5, "low": 0.4, "high": 0.6, "identities": len(people)}
    both = dict.fromkeys(NAMES, cell)
    summary: dict[str, Any] = {
        "modalities": list(NAMES),
        "identities": len(people),
        "chance": 0.25,
        "recall": dict.fromkeys((*arms, "none"), both),
        "curve": {"steps": [5, 10], **{arm: {name: [0.2, 0.5] for name in NAMES} for arm in arms}},
        "notes": [],
    }
    if refused:
        summary["refused"] = "the modalities are not aligned: nothing could transfer"
    else:
        summary |= {
            "gap": both,
            "transfer_ratio": both,
            "joint": {name: {"both": 1, "source only": 1, "target only": 0, "neither": 0} for name in NAMES},
            "mitigation": {name: {"target": cell, "source": cell, "gain": cell} for name in NAMES},
        }
    identities = [
        {
            "identity": name,
            "questions": 2,
            **{f"recall_{a}_{m}": 0.0 if (at, a, m) == (0, "image", "text") else 1.0 for a in arms for m in NAMES},
            "gap": 1.0 if at == 0 else 0.0,
            "stays_in": "image" if at == 0 else "",
        }
        for at, name in enumerate(people)
    ]
    return CrossModalResult(tuple(ids), columns, identities, summary)
