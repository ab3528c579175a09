"""Pictures of a result: who is memorized and by whom, and what removal does. PNG, equal bytes for equal values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.store import write_atomically

# Okabe and Ito: told apart by color-blind readers, and by their grey values in print
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GROUPS = {
    "f": "only f saw them (candidates)",
    "g": "only g saw them (independent)",
    "both": "both saw them (shared)",
    "none": "neither saw them (unseen)",
}
INK = "#444444"


def memorization_plot(columns: Mapping[str, Any], path: str | Path, cut: float | None = None) -> None:
    """Histogram of MultiMem, by group in the split protocol, beside what each modality and pair adds to it.

    Args:
        columns: of an `AuditResult` or a scores table: `multimem`, with its parts where there are three or more
            modalities, and `role` in the split protocol.
        path: of the PNG.
        cut: MultiMem from which a sample is called memorized (the summary's `memorized`), or None.

    Raises:
        AuditError: no sample has a MultiMem.
    """
    values = np.asarray(columns["multimem"], dtype=np.float64)
    if not np.isfinite(values).any():
        raise AuditError("no sample has a MultiMem, so there is nothing to draw; audit at least 32 samples")
    bars = _attribution(columns)
    with figure(path, 2 if bars else 1) as axes:
        _histogram(axes[0], values, _groups(columns, values), cut)
        if bars:
            _bars(axes[1], bars)


def _groups(columns: Mapping[str, Any], values: Floats) -> dict[str, np.ndarray]:
    """Label -> bool `[n]`: the scored samples, by role where there is one."""
    known = np.isfinite(values)
    roles = np.asarray(columns.get("role", np.full(len(values), "")), dtype=object)
    found = {text: known & (roles == role) for role, text in GROUPS.items() if (known & (roles == role)).any()}
    return found or {"samples": known}


def _histogram(axis: Any, values: Floats, groups: Mapping[str, np.ndarray], cut: float | None) -> None:
    drawn = np.concatenate([values[rows] for rows in groups.values()])
    edges = np.histogram_bin_edges(drawn, bins=int(np.clip(2 * np.sqrt(len(drawn)), 12, 60)))
    for at, (label, rows) in enumerate(groups.items()):
        weights = np.full(int(rows.sum()), 100 / rows.sum())
        text = f"{label}: n = {rows.sum():,}, mean {values[rows].mean():.3f}"
        alone = len(groups) == 1
        style: dict[str, Any] = {"alpha": 0.85} if alone else {"histtype": "step", "linewidth": 2}
        axis.hist(values[rows], edges, weights=weights, color=COLORS[at], label=text, **style)
    axis.axvline(0, color=INK, linewidth=1)
    if cut is not None and np.isfinite(cut):
        axis.axvline(cut, color=COLORS[1], linestyle="--", label=f"called memorized from {cut:.3f}")
    axis.set(title="MultiMem", xlabel="MultiMem (trained with the sample, less without)", ylabel="% of the group")
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)


def _attribution(columns: Mapping[str, Any]) -> dict[str, Floats]:
    """Label -> values: what goes away without each modality, then the MultiMem of each pair; none with two."""
    parts = {name.removeprefix("multimem_"): values for name, values in columns.items() if name.startswith("multimem_")}
    skipped = ("stderr", "mean")
    due = {name.removeprefix("due_"): v for name, v in parts.items() if name.startswith("due_")}
    pairs = {name: v for name, v in parts.items() if not name.startswith("due_") and name not in skipped}
    labels = {f"without {name}": v for name, v in due.items()} | {n.replace("_", " + "): v for n, v in pairs.items()}
    kept = {name: np.asarray(v, dtype=np.float64) for name, v in labels.items()}
    return {name: v for name, v in kept.items() if np.isfinite(v).any()}


def _bars(axis: Any, bars: Mapping[str, Floats]) -> None:
    from matplotlib.patches import Patch

    means = [float(np.nanmean(v)) for v in bars.values()]
    reach = [1.96 * float(np.nanstd(v)) / np.sqrt(np.isfinite(v).sum()) for v in bars.values()]
    colors = [COLORS[1] if name.startswith("without ") else COLORS[0] for name in bars]
    axis.barh(range(len(bars)), means, xerr=reach, color=colors, ecolor=INK, capsize=3)
    axis.set_yticks(range(len(bars)), [name.replace("without ", "") for name in bars])
    axis.invert_yaxis()
    axis.axvline(0, color=INK, linewidth=1)
    axis.set(title="What drives it", xlabel="mean MultiMem")
    kinds = ((COLORS[1], "lost when this modality is left out"), (COLORS[0], "held by this pair alone"))
    handles = [Patch(color=color, label=text) for color, text in kinds]
    axis.legend(handles=handles, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)


def removal_plot(report: Mapping[str, Any], path: str | Path, side: str = "test") -> None:
    """Retrieval (T@5) against the number of samples removed, one line per method, with the control.

    Args:
        report: of `removal_study` or `removal_curve`.
        path: of the PNG.
        side: "test", or "validation" on which N was chosen.
    """
    amounts = [n for n in report["amounts"] if n > 0]
    methods = report["methods"]
    base = next(iter(methods.values()))["amounts"]["0"][side]["retrieval_at_5"]["mean"]
    with figure(path, 1) as (axis,):
        axis.axhline(100 * base, color=INK, linestyle="--", label="nothing removed, same extra training")
        starred = False
        for at, (name, method) in enumerate(methods.items()):
            shift = 0.09 * (at - (len(methods) - 1) / 2)  # side by side: bars of six methods would cover each other
            cells = [method["amounts"][str(n)][side]["retrieval_at_5"] for n in amounts]
            means = np.array([100 * c["mean"] for c in cells])
            reach = np.array([50 * (c["gain"]["high"] - c["gain"]["low"]) for c in cells])
            where, color = np.arange(len(amounts)) + shift, COLORS[at % len(COLORS)]
            style = {"color": color, "marker": MARKERS[at % len(MARKERS)], "capsize": 2, "linewidth": 1.5}
            axis.errorbar(where, means, reach, elinewidth=1, label=name.replace("_", " "), **style)
            if (best := method["recommended"]["amount"]) in amounts:
                here = amounts.index(best)
                text = None if starred else "N chosen on the validation rows"
                ring = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.8, "zorder": 5}
                axis.scatter(where[here], means[here], s=170, label=text, **ring)
                starred = True
        axis.set_xticks(range(len(amounts)), [f"{n:,}" for n in amounts])
        axis.set(
            title=f"Retrieval after removing the N highest-scored samples ({side} rows)",
            xlabel="N removed from the training rows",
            ylabel="T@5, % (bars: 95 % interval of the\ndifference to nothing removed, over seeds)",
        )
        axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


@contextmanager
def figure(path: str | Path, panels: int) -> Iterator[Any]:
    """Axes of a 900 px wide picture that is written at the end; neither the user's style nor a date gets in."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
        page = Figure(figsize=(9, 4.8), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(page)
        axes = page.subplots(1, panels, squeeze=False)[0]
        for axis in axes:
            axis.grid(axis="both", color="#e6e6e6", linewidth=0.8)
            axis.set_axisbelow(True)
        yield axes
        write_atomically(Path(path), lambda file: canvas.print_png(file, metadata={"Software": None}))
