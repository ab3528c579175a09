"""The rows that a report shows: the worst ones with their reasons, groups of copies, decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from audit_plugin.arrays import Ints
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.flags import FLAGS

from .cards import percent
from .content import ReportContent
from .display import SCORE_WORDS
from .pictures import LARGE, SMALL, Draw
from .text import LONG, SHORT, cut, marked

WORST, AT_LEAST = 50, 12
VOICES = 3  # neighbors shown per side
WORDS = 3
GROUPS, MEMBERS = 20, 6
DECISIONS = 500
LEVELS = ((0.99, "extreme"), (0.95, "very high"), (0.75, "high"), (0.25, "ordinary"), (0.05, "low"))


def worst_rows(content: ReportContent) -> Ints:
    """Rows for a person to look at, first those with something to do, by misalignment; at most `WORST`.

    Copies and placeholders have sections of their own. Where little is flagged, the highest scores of the others
    follow, so that a reader sees what was just let pass.
    """
    score = np.nan_to_num(content.numbers("misalignment"), nan=-np.inf)
    todo = np.isin(content.words("action"), ("relabel", "review"))
    shown = todo | content.flags("memorized") | content.flags("vague") | content.flags("misaligned")
    alone = content.flags("placeholder") | (content.words("action") == "remove")
    order = np.argsort(-score, kind="stable")
    rank = [order[mask[order]] for mask in (todo & ~alone, shown & ~todo & ~alone)]
    rest = order[(~shown & ~alone & np.isfinite(score))[order]]
    flagged = np.concatenate(rank)[:WORST]
    return np.concatenate([flagged, rest[: max(0, AT_LEAST - len(flagged))]]).astype(np.int64)


def worst(content: ReportContent, draw: Draw) -> list[dict[str, Any]]:
    """What is shown of each of `worst_rows`, in their order."""
    rows = worst_rows(content)
    ranks = {name: percentiles(content.numbers(name)) for name, *_ in SCORE_WORDS}
    first = {name: row for row, name in reversed(list(enumerate(content.samples.ids)))}
    decided: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in content.decisions:
        decided.setdefault((str(one.get("sample")), int(one.get("caption") or 0)), []).append(decision(one))
    return [
        {
            **row_head(content, int(row), draw, LARGE),
            "scores": score_bars(content, int(row), ranks),
            "why": why(content, int(row), first, draw),
            "decisions": decided.get((content.samples.ids[row], caption_number(content, int(row))), []),
        }
        for row in rows
    ]


def row_head(content: ReportContent, row: int, draw: Draw, side: int) -> dict[str, Any]:
    """Id, picture, caption, flags, action and suggestion of a row."""
    record = record_of(content, row)
    spans = [(w["start"], w["end"]) for w in (record.get("words") or [])[:WORDS] if (w.get("gain") or 0) > 0]
    text = {name: content.word(name, row) for name in ("action", "reason", "suggestion", "repair", "failure")}
    return {
        **text,
        "id": content.samples.ids[row],
        "flags": [flag.label for kind, flag in FLAGS.items() if content.flags(kind)[row]],
        "pictures": pictures_of(content, row, draw, side),
        "files": [str(v[row]).split("\0")[0].rsplit("/", 1)[-1] for m, v in paths_of(content).items() if v[row]],
        "captions": [caption_of(values[row], spans) for values in texts_of(content).values()],
    }


def caption_of(text: str | None, spans: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """`short`: the caption's beginning with the spans marked; `full`: all of it (up to `LONG`) where that is more."""
    if text is None:
        return {"short": Markup("<i>no caption</i>"), "full": "", "length": 0}
    brief = marked(cut(text), [s for s in spans if s[1] < min(len(text) + 1, SHORT)])
    return {"short": brief, "full": marked(cut(text, LONG), spans) if len(text) > SHORT else "", "length": len(text)}


def score_bars(content: ReportContent, row: int, ranks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per score of the row: its value, its place among all rows in words, and as a length between 0 and 100."""
    out = []
    for name, label, meaning, high in SCORE_WORDS:
        rank, value = ranks[name][row], content.numbers(name)[row]
        if np.isfinite(value):
            bad = rank >= 0.95 if high else rank <= 0.05
            shown = percent(float(value)) if name == "probability" else f"{value:.2f}"
            out.append({"label": label, "meaning": meaning, "value": shown, "word": level(rank), "bad": bad})
            out[-1]["length"] = round(100 * float(rank))
    return out


def percentiles(values: Any) -> Any:
    """float64 `[n]`: the share of the known values that are not above each; NaN stays NaN."""
    known = np.sort(values[np.isfinite(values)])
    return np.where(np.isfinite(values), np.searchsorted(known, values, "right") / max(len(known), 1), np.nan)


def level(rank: float) -> str:
    """A word for a place among all rows, 0 to 1."""
    return next((word for least, word in LEVELS if rank >= least), "very low")


def why(content: ReportContent, row: int, first: Mapping[str, int], draw: Draw) -> list[dict[str, Any]]:
    """The voters of each side: samples near on one side whose other side disagrees, the most disagreeing first."""
    sides = []
    for side in record_of(content, row).get("neighbors") or []:
        voices = []
        for voter in side.get("voters", [])[:VOICES]:
            at = first.get(voter["id"])
            pictures = pictures_of(content, at, draw, SMALL) if at is not None else []
            fits, near = (float(voter.get(name) or 0) for name in ("agreement", "similarity"))
            voices.append({"id": voter["id"], "caption": caption_of(cut(voter.get("caption") or "", 200))["short"]})
            voices[-1] |= {"pictures": pictures, "near": f"{near:.2f}", "fits": f"{fits:.2f}", "against": fits < 0.5}
        if voices:
            sides.append({"near": side["near"], "other": side["other"], "voices": voices})
    return sides


def record_of(content: ReportContent, row: int) -> Mapping[str, Any]:
    """The explanation of a row; empty where it has none."""
    found = content.explanations.get(content.samples.ids[row]) or []
    number = caption_number(content, row)
    return next((r for r in found if int(r.get("caption_index") or 0) == number), {})


def caption_number(content: ReportContent, row: int) -> int:
    """Which caption of its sample a row is."""
    return int(content.samples.caption[row]) if content.samples.caption else 0


def texts_of(content: ReportContent) -> dict[str, Sequence[str | None]]:
    """Modality that is text -> captions `[n]`."""
    return {m: values for m, values in content.samples.media.items() if MODALITIES[m].is_text}


def paths_of(content: ReportContent) -> dict[str, Sequence[str | None]]:
    """Modality that is not text -> paths `[n]`."""
    return {m: values for m, values in content.samples.media.items() if not MODALITIES[m].is_text}


def pictures_of(content: ReportContent, row: int, draw: Draw, side: int) -> list[Markup]:
    """One small picture per modality that is not text."""
    return [draw(modality, values[row], side) for modality, values in paths_of(content).items()]


def groups(content: ReportContent, draw: Draw) -> dict[str, list[dict[str, Any]]]:
    """Conflicts, placeholders and other duplicates, each a list of groups of copies, the largest first.

    A group that holds a conflict or a placeholder is listed there only.
    """
    names = content.words("duplicate_group")
    members: dict[str, list[int]] = {}
    for row in np.flatnonzero(names != ""):
        members.setdefault(names[row], []).append(int(row))
    out: dict[str, list[dict[str, Any]]] = {"conflict": [], "placeholder": [], "duplicate": []}
    for rows in sorted(members.values(), key=lambda found: -len(found)):
        kind = next((k for k in ("placeholder", "conflict") if content.flags(k)[rows].any()), "duplicate")
        if len(rows) > 1:
            out[kind].append({"size": len(rows), "members": rows})
    for kind, found in out.items():
        for group in found[:GROUPS]:
            shown = sorted(group["members"], key=lambda row: not content.flags("conflict")[row])[:MEMBERS]
            group["rows"] = [row_head(content, row, draw, SMALL) for row in shown]
            group["wrong"] = [bool(content.flags(kind)[row]) for row in shown]
    return out


def decision(one: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as texts that are there, whatever it lacks; long ones cut."""
    texts = {name: cut(str(one.get(name) or ""), SHORT) for name in ("sample", "kind", "text", "reviewer", "note")}
    return {**texts, "time": str(one.get("time") or "")[:16].replace("T", " "), "stale": bool(one.get("stale"))}


def decision_tables(decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by reviewer and kind, and the latest decisions one by one (at most `DECISIONS`)."""
    kinds = list(dict.fromkeys(str(one.get("kind") or "") for one in decisions))
    counts = Counter((str(one.get("reviewer") or ""), str(one.get("kind") or "")) for one in decisions)
    reviewers = list(dict.fromkeys(str(one.get("reviewer") or "") for one in decisions))
    table = [{"reviewer": who or "not named", "counts": [counts[who, kind] for kind in kinds]} for who in reviewers]
    total = [sum(counts[who, kind] for who in reviewers) for kind in kinds]
    latest = sorted(decisions, key=lambda one: str(one.get("time") or ""), reverse=True)[:DECISIONS]
    rows = [decision(one) for one in latest]
    return {"kinds": kinds, "table": table, "total": total, "rows": rows, "all": len(decisions)}


def failures(content: ReportContent) -> list[tuple[str, int, str]]:
    """(reason, count, the first ids) of rows that could not be scored, the most frequent first, at most 20."""
    reasons: dict[str, list[str]] = {}
    for name, reason in zip(content.samples.ids, content.words("failure"), strict=True):
        if reason:
            reasons.setdefault(reason, []).append(name)
    ranked = sorted(reasons.items(), key=lambda item: -len(item[1]))[:20]
    return [(cut(reason), len(ids), cut(", ".join(ids[:5]), 120)) for reason, ids in ranked]
