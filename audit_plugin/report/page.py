"""A report as one HTML page: no script, no style sheet or font from elsewhere, pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.store import write_atomically

from .cards import cards, percent
from .charts import bars, histogram, scatter
from .content import ReportContent
from .display import QUADRANTS, duration, part_name, sought_words
from .findings import GROUPS, decision_tables, failures, groups, worst
from .pictures import no_pictures, painter
from .text import finalized
from .transfer import transfer_section

TEMPLATE = "page.html.jinja"
ACTIONS = {
    "review": "should be looked at",
    "relabel": "could take a caption that fits better",
    "remove": "can be removed",
}


def write_report(content: ReportContent, path: str | Path, media: bool = True) -> None:
    """Writes a report as one HTML file that needs nothing else, whole or not at all.

    Args:
        content: what it says.
        path: of the file; its folder must exist.
        media: with small pictures of images and of the first frames of videos.

    Raises:
        AuditError: the place cannot be written.
    """
    data = report_html(content, media).encode()
    write_atomically(Path(path), lambda file: file.write(data))


def report_html(content: ReportContent, media: bool = True) -> str:
    """The page as text; see `write_report`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("audit_plugin.report", "."),
        autoescape=True,
        finalize=finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(context(content, media))


def context(content: ReportContent, media: bool = True) -> dict[str, Any]:
    """What the template is filled with."""
    draw = painter() if media else no_pictures
    found = worst(content, draw)
    return {
        "title": content.title,
        "made": content.made,
        "rows": len(content.samples),
        "facts": facts(content),
        "todo": [(count, words) for count, words in actions(content) if count],
        "cards": cards(content),
        "plots": plots(content),
        "repairs": [str(r.get("sentence", "")) for r in content.summary.get("repairs") or ()][:GROUPS],
        "worst": found,
        "captions": bool(content.samples.media),
        "groups": groups(content, draw),
        "most_groups": GROUPS,
        "transfer": transfer_section(content),
        "decisions": decision_tables(content.decisions),
        "failures": failures(content),
        "notes": [str(note) for note in content.summary.get("notes") or ()],
        "settings": _cells(content.summary.get("config") or {}),
        "versions": _cells(content.summary.get("versions") or {}),
        "seconds": [(name, duration(s)) for name, s in (content.summary.get("seconds") or {}).items()],
        "neighbors": [(f"Neighbors: {space}", words) for space, words in sought_words(content.summary).items()],
        "rate": percent(content.summary.get("false_positive_rate") or 0.01),
        "spot": content.spot is not None,
        "modalities": len(content.samples.media) or 2,
    }


def facts(content: ReportContent) -> list[tuple[str, str]]:
    """What stands at the head of the page."""
    summary = content.summary
    config = summary.get("config") or {}
    encoders = (f"{modality}: {name}" for modality, name in (summary.get("encoder") or {}).items())
    trained = str(summary.get("trained") or "")
    if trained and (trials := summary.get("trials") or config.get("trials")):
        trained += f" ({trials} trials)"
    lines = (
        ("Rows", f"{len(content.samples):,}"),
        ("Run", str(config.get("run") or "")),
        ("Encoders", ", ".join(encoders)),
        ("Trained", trained),
        ("Report made", content.made),
    )
    return [(name, value) for name, value in lines if value]


def actions(content: ReportContent) -> list[tuple[int, str]]:
    """How many rows there are to look at, to relabel and to remove."""
    chosen = content.words("action")
    return [(int((chosen == action).sum()), words) for action, words in ACTIONS.items()]


def plots(content: ReportContent) -> list[dict[str, Any]]:
    """The plots with a sentence on how to read each; those without data are left out."""
    score, flagged = content.numbers("misalignment"), content.flags("misaligned")
    within = score[flagged & np.isfinite(score)]
    found = [
        {
            "title": "Misalignment of all rows",
            "svg": histogram(score, flagged, float(within.min()) if len(within) else None),
            "words": "How badly picture and text fit each other: 0 is the middle of the set, and one step the usual "
            "distance from it. " + ("" if len(within) else "No row is flagged. ") + _planted(content),
        },
        {
            "title": "Does it fit, and is it memorized?",
            "svg": scatter(content.numbers("alignment"), content.numbers("multimem"), flagged, QUADRANTS),
            "words": "To the right: pairs that fit in the eyes of models that had not seen them. Upwards: pairs that "
            "a model holds together much better once it was trained on them. Wrong pairs that are learned by heart "
            "lie in the upper left corner. The lines are the set's medians; flagged rows are orange.",
        },
    ]
    if shares := content.summary.get("attribution"):
        svg = bars({part_name(name): float(share) for name, share in shares.items()})
        words = "Share of the memorization (MultiMem) that is lost without a modality, and that each pair holds."
        found.append({"title": "What is memorized", "svg": svg, "words": words})
    return [plot for plot in found if plot["svg"]]


def _planted(content: ReportContent) -> str:
    recall = content.summary.get("probe_recall") or {}
    told = [
        f"{percent(recall[kind])} of {words}"
        for kind, words in (("random", "random mismatches"), ("neighborhood", "near misses (a similar row's caption)"))
        if recall.get(kind) is not None
    ]
    if not told:
        return ""
    return f"Of mismatches made on purpose, without touching the data, these score beyond the cut: {', '.join(told)}."


def _cells(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in values.items() if value not in ("", None)]
