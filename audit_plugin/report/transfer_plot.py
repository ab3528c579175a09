"""A picture of cross-modality recall: learned in one modality, asked in the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .plots import COLORS, INK, figure


def transfer_plot(summary: Mapping[str, Any], path: str | Path) -> None:
    """Recall by modality learned and asked, with intervals, beside the learning curves.

    Args:
        summary: of a `TransferResult`.
        path: of the PNG.
    """
    with figure(path, 2) as (left, right):
        _matrix(left, summary)
        _curves(right, summary)


def _matrix(axis: Any, summary: Mapping[str, Any]) -> None:
    names, arms = summary["modalities"], list(summary["recall"])
    cells = np.array([[summary["recall"][arm][name]["value"] for name in names] for arm in arms])
    axis.imshow(cells, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, arm in enumerate(arms):
        for x, name in enumerate(names):
            cell = summary["recall"][arm][name]
            text = f"{cell['value']:.0%}\n{cell['low']:.0%} to {cell['high']:.0%}"
            axis.text(x, y, text, ha="center", va="center", color="white" if cell["value"] > 0.55 else "black")
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(arms)), ["nothing" if arm == "none" else arm for arm in arms])
    axis.grid(visible=False)
    title = "Names recalled" + (" (not aligned: no transfer)" if "refused" in summary else "")
    axis.set(title=title, xlabel="asked in", ylabel="learned from")


def _curves(axis: Any, summary: Mapping[str, Any]) -> None:
    names, curve = summary["modalities"], summary["curve"]
    for at, source in enumerate(names):
        for name in names:
            style = "-" if name == source else "--"
            label = f"{source}, asked in {name}"
            axis.plot(curve["steps"], curve[source][name], style, marker="o", color=COLORS[at], label=label)
    axis.axhline(summary["chance"], color=INK, linewidth=1, linestyle=":", label="chance")
    axis.set_xscale("log")
    axis.set_xticks(curve["steps"], [str(step) for step in curve["steps"]])
    axis.minorticks_off()
    axis.set(title="While it is learned", xlabel="steps of the name head", ylabel="share recalled", ylim=(0, 1.02))
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
