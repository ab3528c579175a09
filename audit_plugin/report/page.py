"""The report as one HTML page: no scripts, and no styles, fonts or images from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import MODALITIES, count_text, percent
from audit_plugin.crossmodal.sentences import recall_rows, sentences
from audit_plugin.review.flag_quality import TOO_FEW, FlagQuality, quality_of_flags
from audit_plugin.review.headline import ALL_KINDS, KindProgress, review_sentence, weakness_sentence, wrong_sentence
from audit_plugin.review.text_changes import LEAST_SHARED, Change, shared_words, word_changes
from audit_plugin.scoring.columns import all_columns
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.memorized import beyond_alignment
from audit_plugin.scoring.suggest.join_bugs import batch_text
from audit_plugin.scoring.wrong_pairs import share_text
from audit_plugin.store import write_bytes

from .content import ReportContent, as_written
from .display import PROBE_KINDS, QUADRANTS, duration, neighbor_methods, part_name
from .listed_rows import GROUPED, GROUPS, decision_tables, failures, groups, worst
from .markup import LONG, SHORT, cut, finalized, no_images, painter
from .memorized_rows import memorized_lines, memorized_section
from .svg_plots import bars, curves, histogram, scatter

TEMPLATE = "page.html.jinja"
IDENTITIES = 20
RELABELS = 300  # captions that are listed with their old text
CELLS = 200  # settings, versions and the like that are listed
ACTIONS = {
    "review": "should be reviewed",
    "relabel": "have a caption that fits better",
    "remove": "can be removed",
    "fix": "could not be read",
}
SCATTER_CAPTION = (
    "Held-out alignment, by models that were not trained on the pair, and how far MultiMem, the gain in consistency "
    "from training on it, lies above its linear fit on that. Pairs that are memorized more than their alignment "
    "explains lie at the top. Lines are medians; flagged rows are orange."
)
Line = tuple[str, str]  # (label, value)


def write_report(content: ReportContent, path: str | Path, media: bool = True) -> None:
    """Writes a report as one self-contained HTML file into an existing folder, completely or not at all.

    With `media`, it includes small images of images and of the first frames of videos. Raises `AuditError` if the file
    cannot be written.
    """
    write_bytes(Path(path), report_html(content, media).encode())


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
    with as_written(content.title):
        return environment.get_template(TEMPLATE).render(context(content, media))


def context(content: ReportContent, media: bool = True) -> dict[str, Any]:
    """The variables of the template."""
    draw = painter() if media else no_images
    summary, actions = content.summary, content.texts("action")
    counts = [(int((actions == action).sum()), text) for action, text in ACTIONS.items()]
    return {
        "title": cut(content.title),
        "made": content.made,
        "rows": len(content.samples),
        "facts": facts(content),
        "headline": headline(content),
        "progress": progress_rows(content),
        "relabels": relabel_rows(content),
        "relabeled": len(content.relabels),
        "todo": [(count, text) for count, text in counts if count],
        "cards": cards(content),
        "plots": plots(content),
        "repairs": [_repair_text(repair) for repair in (summary.get("repairs") or ())[:GROUPS]],
        "worst": worst(content, draw),
        "memorized": memorized_section(content, draw),
        "captions": bool(content.samples.media),
        "groups": groups(content, draw),
        "most_groups": GROUPS,
        "cross_modal": cross_modal_section(content),
        "decisions": decision_tables(content.decisions),
        "failures": failures(content),
        "notes": [cut(str(note), LONG) for note in summary.get("notes") or ()],
        "foot": _foot(content, media),
        "settings": _cells(summary.get("config") or {}),
        "versions": _cells(summary.get("versions") or {}),
        "seconds": [(name, duration(s)) for name, s in (summary.get("seconds") or {}).items()],
        "neighbors": [(f"Neighbors: {space}", method) for space, method in neighbor_methods(summary).items()],
        "rate": percent(summary.get("false_positive_rate") or 0.01),
        "spot": content.spot is not None,
    }


def _repair_text(repair: Mapping[str, Any]) -> str:
    """What seems to be wrong, and what the suggested batch would do."""
    batch = f". The batch {batch_text(repair)}." if "rows" in repair else ""
    return cut(f"{repair.get('sentence', '')}{batch}", LONG)


def facts(content: ReportContent) -> list[Line]:
    """(label, value) at the top of the page."""
    summary = content.summary
    config = summary.get("config") or {}
    encoders = (f"{modality}: {name}" for modality, name in (summary.get("encoder") or {}).items())
    trained = str(summary.get("trained") or "")
    if trained and (trials := summary.get("trials") or config.get("trials")):
        trained += f" ({trials} trials)"
    lines = {
        "Rows": f"{len(content.samples):,}",
        "Run": str(config.get("run") or ""),
        "Encoders": ", ".join(encoders),
        "Trained": trained,
        "Report written": content.made,
    }
    return _cells(lines)


def headline(content: ReportContent) -> list[str]:
    """What is wrong, what was done and what is left, a sentence each; the last one says where the flags are weak."""
    quality = flag_quality(content)
    is_scored = bool(np.isfinite(content.numbers("misalignment")).any())
    sentences = [wrong_sentence(quality)] if is_scored else []
    if content.progress:
        everything = content.progress[0]
        sentences.append(
            review_sentence(everything.flagged, everything.decided, "caption" if content.samples.caption else "")
        )
        applied = count_text(everything.applied, "decided finding was", "decided findings were")
        sentences.append(f"{applied} applied, {count_text(content.to_apply, 'change is', 'changes are')} to apply.")
    weakness = weakness_sentence(content.summary, is_scored and "misaligned" not in content.thresholds)
    return [*sentences, *filter(None, [weakness])]


def progress_rows(content: ReportContent) -> list[tuple[str, list[int]]]:
    """(kind of finding, [flagged, decided, applied, left]), the total last; kinds without findings are left out."""
    everything, *kinds = content.progress or (KindProgress(ALL_KINDS, 0, 0, 0),)
    lines = [(FLAGS[one.kind].label, one) for one in kinds if one.flagged]
    lines += [("All findings", everything)] if everything.flagged else []
    return [(label, [one.flagged, one.decided, one.applied, one.left]) for label, one in lines]


def relabel_rows(content: ReportContent) -> list[dict[str, Any]]:
    """The first `RELABELS` captions that reviewers replaced: id, old text, pieces of the new one, and its state."""
    return [
        {
            "id": cut(one.id, SHORT),
            "before": cut(one.before, SHORT),
            "after": _pieces(cut(one.before, SHORT), cut(one.after, SHORT)),
            "state": "applied" if one.is_applied else "to apply",
        }
        for one in content.relabels[:RELABELS]
    ]


def _pieces(before: str, after: str) -> list[Change]:
    """What a new caption changes of the old one; without enough words in common it is shown as it is."""
    return word_changes(before, after) if shared_words(before, after) >= LEAST_SHARED else [("same", after)]


def cards(content: ReportContent) -> list[dict[str, Any]]:
    """Per flag: `label`, `help`, `count`, `share` of the rows, `lines`, and `source` (of `FlagQuality`)."""
    quality = flag_quality(content)
    source = quality.source if quality.wrong or quality.precision else ""
    result = []
    expected = (content.summary.get("false_positive_rate") or 0) * len(content.samples)
    for kind, flag in FLAGS.items():
        count = int(content.flags(kind).sum())
        lines: list[Line] = []
        if kind == "misaligned":
            lines = misaligned_lines(content)
        elif kind == "memorized":
            lines = memorized_lines(content)
        if flag.tail and kind != "misaligned" and expected >= 0.5:
            lines.append(("expected false positives", f"up to about {expected:,.0f}"))
        if count and kind in GROUPED:
            lines += group_lines(content, kind)
        share = percent(count / len(content.samples)) if len(content.samples) else ""
        card = {"kind": kind, "label": flag.label, "help": flag.help, "count": count, "share": share, "lines": lines}
        result.append(card | {"source": source if kind == "misaligned" else ""})
    return result


def flag_quality(content: ReportContent) -> FlagQuality:
    """What is known of the misaligned flags as the report shows them."""
    scores, flagged = content.numbers("misalignment"), content.flags("misaligned")
    is_own = "misaligned" not in content.thresholds
    return quality_of_flags(content.summary, scores, flagged, content.spot, is_own, content.calibration)


def misaligned_lines(content: ReportContent) -> list[Line]:
    """Estimated wrong pairs and precision, by a person's labels or else by the model, and the probe recall."""
    summary, quality, lines = content.summary, flag_quality(content), []
    if quality.wrong:
        lines.append(("estimated wrong pairs", quality.wrong_text))
    if quality.precision or content.spot:
        lines.append(("estimated precision", quality.precision_text))
    if spot := content.spot:
        unsure = f", {spot.unsure} of them unsure" if spot.unsure else ""
        lines += [
            ("wrong among the unflagged", share_text(spot.missed, TOO_FEW)),
            ("recall of the flag", share_text(spot.recall, TOO_FEW)),
            ("reviewed by a person", f"{count_text(spot.reviewed, 'row')}{unsure}"),
        ]
    if rate := summary.get("false_positive_rate"):
        lines.append(("false-positive rate (setting)", percent(rate)))
    lines += [(f"share of {name} that would be flagged", value) for name, value in _probe_recall(content)]
    return lines


def _probe_recall(content: ReportContent) -> list[Line]:
    """(kind of probe pair, share of them that would be flagged)."""
    shares = content.summary.get("probe_recall") or {}
    return [(PROBE_KINDS.get(kind, kind), percent(share)) for kind, share in shares.items() if share is not None]


def group_lines(content: ReportContent, kind: str) -> list[Line]:
    """Number of near-duplicate groups with flagged rows, and the size of the largest."""
    names = content.texts("duplicate_group")[content.flags(kind)]
    sizes = Counter(names[names != ""]).values()
    lines = [("different media" if kind == "placeholder" else "groups of near-duplicates", f"{len(sizes):,}")]
    if max(sizes, default=0) > 1:
        lines.append(("largest", count_text(max(sizes), "row")))
    return lines if sizes else []


def plots(content: ReportContent) -> list[dict[str, Any]]:
    """`title`, `svg` and `caption` of each plot that has data."""
    score, flagged = content.numbers("misalignment"), content.flags("misaligned")
    flagged_scores = score[flagged & np.isfinite(score)]
    cut_score = float(flagged_scores.min()) if len(flagged_scores) else None
    recall = ", ".join(f"{share} of {name}" for name, share in _probe_recall(content))
    caption = f"{all_columns()['misalignment'].help}. " + ("" if len(flagged_scores) else "No row is flagged. ")
    caption += f"Probe recall: {recall} would be flagged." if recall else ""
    svg = histogram(score, flagged, cut_score)
    results = [{"title": "Misalignment of all rows", "svg": svg, "caption": caption}]
    alignment = content.numbers("alignment")
    svg = scatter(alignment, beyond_alignment(content.numbers("multimem"), alignment), flagged, QUADRANTS)
    results.append({"title": "Alignment and memorization", "svg": svg, "caption": SCATTER_CAPTION})
    if shares := content.summary.get("attribution"):
        svg = bars({part_name(name): float(share) for name, share in shares.items()})
        caption = "Share of MultiMem that is lost without each modality, and that is held by each pair."
        results.append({"title": "Attribution of MultiMem", "svg": svg, "caption": caption})
    return [plot for plot in results if plot["svg"]]


def cross_modal_section(content: ReportContent) -> dict[str, Any]:
    """Matrix, learning curves, findings and the identities with the largest gaps; {} if it was not measured."""
    summary = content.cross_modal
    if not summary:
        return {}
    names, people = list(summary["modalities"]), list(summary["people"])
    curve = summary["curve"]
    lines = {
        f"learned from {source}, recalled in {name}": (curve[source][name], at, name != source)
        for at, source in enumerate(names)
        for name in names
    }
    rows = []
    for record in [] if "refused" in summary else people[:IDENTITIES]:
        cells = [f"{record[f'recall_{source}_{name}']:.0%}" for source in names for name in names]
        rows.append({"identity": cut(str(record["identity"]), 80), "cells": cells, "stays_in": str(record["stays_in"])})
    return {
        "names": names,
        "identities": f"{int(summary['identities']):,}",
        "chance": f"{summary['chance']:.1%}",
        "rows": [list(row) for row in recall_rows(summary)],
        "svg": curves([float(step) for step in curve["steps"]], lines, "training steps", "recall"),
        "sentences": sentences(summary),
        "staying": sum(bool(record["stays_in"]) for record in people),
        "people": rows,
        "notes": [cut(str(note), LONG) for note in (summary.get("notes") or ())[:GROUPS]],
    }


def _foot(content: ReportContent, media: bool) -> str:
    """Where the images of the page come from."""
    if not media or not any(not MODALITIES[name].is_text for name in content.samples.media):
        return "This report holds no images of the data."
    source = cut(content.media_source or "the samples", LONG)
    return (
        f"The images are small copies, decoded and encoded again, of the media named by {source}; no file is included "
        "as it is, and no other media were read."
    )


def _cells(values: Mapping[str, Any]) -> list[Line]:
    """(label, value) of those that are known, cut."""
    known = [(name, value) for name, value in values.items() if value not in ("", None)]
    return [(cut(str(name), 80), cut(str(value))) for name, value in known[:CELLS]]
