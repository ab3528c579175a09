"""The rows that a report shows: the worst ones with their evidence, groups of near-duplicates, decisions, failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from audit_plugin.arrays import Floats, Ints, percent
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.columns import all_columns
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.scoring.scores import SCORES

from .content import ReportContent
from .markup import LARGE, LONG, SHORT, SMALL, Draw, cut, marked

GROUPED = ("conflict", "placeholder", "duplicate")  # flags that are listed by group of near-duplicates
WORST, AT_LEAST = 50, 12
VOTERS = 3  # neighbors shown per side
WORDS = 3
GROUPS, MEMBERS = 20, 6
DECISIONS, REASONS = 500, 20
LEVELS = ((0.99, "extreme"), (0.95, "very high"), (0.75, "high"), (0.25, "average"), (0.05, "low"))


def worst_rows(content: ReportContent) -> Ints:
    """The rows to review first, int64: those with a proposed action, then other flagged ones, by misalignment.

    At most `WORST`. Duplicates to be removed and placeholders are left out, because they have a section of their own.
    If fewer than `AT_LEAST` rows are flagged, the unflagged rows with the highest scores follow.
    """
    score = np.nan_to_num(content.numbers("misalignment"), nan=-np.inf)
    actions = content.texts("action")
    has_action = np.isin(actions, ("relabel", "review"))
    is_flagged = np.logical_or.reduce([content.flags(kind) for kind in FLAGS if kind != "duplicate"])
    priority = np.where(has_action, 0, np.where(is_flagged, 1, 2))
    order = np.lexsort((-score, priority))
    order = order[~(content.flags("placeholder") | (actions == "remove"))[order]]
    flagged = order[priority[order] < 2][:WORST]
    others = order[(priority[order] == 2) & np.isfinite(score[order])]
    return np.concatenate([flagged, others[: max(0, AT_LEAST - len(flagged))]]).astype(np.int64)


def worst(content: ReportContent, draw: Draw) -> list[dict[str, Any]]:
    """What is shown of each of `worst_rows`, in their order."""
    names = [name for name in (*SCORES, "probability") if name in content.columns]
    ranks = {name: percentiles(content.numbers(name)) for name in names}
    first_rows = {name: row for row, name in reversed(list(enumerate(content.samples.ids)))}
    decided = defaultdict(list)
    for record in content.decisions:
        decided[str(record.get("sample")), int(record.get("caption") or 0)].append(decision(record))
    return [
        {
            **row_head(content, row, draw, LARGE),
            "scores": score_bars(content, row, ranks),
            "evidence": neighbor_evidence(content, row, first_rows, draw),
            "decisions": decided[content.samples.ids[row], caption_number(content, row)],
        }
        for row in worst_rows(content).tolist()
    ]


def row_head(content: ReportContent, row: int, draw: Draw, side: int) -> dict[str, Any]:
    """Id, images, captions, flags, action and suggestion of a row."""
    words = (explanation(content, row).get("words") or [])[:WORDS]
    spans = [(word["start"], word["end"]) for word in words if (word.get("gain") or 0) > 0]
    files = [paths[row] for paths in media_of(content, text=False).values()]
    return {
        **{name: content.text(name, row) for name in ("action", "reason", "suggestion", "repair")},
        "id": content.samples.ids[row],
        "flags": [flag.label for kind, flag in FLAGS.items() if content.flags(kind)[row]],
        "images": images_of(content, row, draw, side),
        "files": [str(path).split("\0")[0].rsplit("/", 1)[-1] for path in files if path],
        "captions": [caption_of(captions[row], spans) for captions in media_of(content, text=True).values()],
    }


def caption_of(text: str | None, spans: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """`short`: the beginning of the caption with spans marked; `full`: up to `LONG` characters if that is more."""
    if text is None:
        return {"short": Markup("<i>no caption</i>"), "full": "", "length": 0}
    short = marked(cut(text), [span for span in spans if span[1] < min(len(text) + 1, SHORT)])
    return {"short": short, "full": marked(cut(text, LONG), spans) if len(text) > SHORT else "", "length": len(text)}


def score_bars(content: ReportContent, row: int, ranks: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Per score of the row: value, level among all rows, length of its bar (0 to 100), and if it is suspicious."""
    bars, columns = [], all_columns()
    for name, rank_of in ranks.items():
        rank, value = float(rank_of[row]), float(content.numbers(name)[row])
        if not np.isfinite(value):
            continue
        low_is_bad = name in SCORES and SCORES[name].similarity
        bar: dict[str, Any] = {"label": columns[name].label, "help": columns[name].help, "level": level(rank)}
        bar["value"] = percent(value) if name == "probability" else f"{value:.2f}"
        bar["bad"] = rank <= 0.05 if low_is_bad else rank >= 0.95
        bar["length"] = round(100 * rank)
        bars.append(bar)
    return bars


def percentiles(values: Floats) -> Floats:
    """float64 `[n]`: the share of the known values that are not above each; NaN stays NaN."""
    known = np.sort(values[np.isfinite(values)])
    return np.where(np.isfinite(values), np.searchsorted(known, values, "right") / max(len(known), 1), np.nan)


def level(rank: float) -> str:
    """A word for a rank among all rows, 0 to 1."""
    return next((name for least, name in LEVELS if rank >= least), "very low")


def neighbor_evidence(
    content: ReportContent, row: int, first_rows: Mapping[str, int], draw: Draw
) -> list[dict[str, Any]]:
    """Per pair of modalities, the neighbors in one whose other modality agrees least with the row's."""
    sides = []
    for side in explanation(content, row).get("neighbors") or []:
        voters = []
        for voter in side.get("voters", [])[:VOTERS]:
            at, agreement = first_rows.get(voter["id"]), float(voter.get("agreement") or 0)
            voters.append(
                {
                    "id": voter["id"],
                    "caption": caption_of(cut(voter.get("caption") or "", 200))["short"],
                    "images": images_of(content, at, draw, SMALL) if at is not None else [],
                    "similarity": f"{float(voter.get('similarity') or 0):.2f}",
                    "agreement": f"{agreement:.2f}",
                    "disagrees": agreement < 0.5,
                }
            )
        if voters:
            sides.append({"near": side["near"], "other": side["other"], "voters": voters})
    return sides


def explanation(content: ReportContent, row: int) -> Mapping[str, Any]:
    """The explanation of a row; {} without one."""
    records = content.explanations.get(content.samples.ids[row]) or []
    number = caption_number(content, row)
    return next((record for record in records if int(record.get("caption_index") or 0) == number), {})


def caption_number(content: ReportContent, row: int) -> int:
    """Position of the row's caption in its sample."""
    return int(content.samples.caption[row]) if content.samples.caption else 0


def media_of(content: ReportContent, text: bool) -> dict[str, Sequence[str | None]]:
    """Modality -> captions `[n]`, or of the modalities that are not text, paths `[n]`."""
    return {name: values for name, values in content.samples.media.items() if MODALITIES[name].is_text == text}


def images_of(content: ReportContent, row: int, draw: Draw, side: int) -> list[Markup]:
    """One small image per modality that is not text."""
    return [draw(name, paths[row], side) for name, paths in media_of(content, text=False).items()]


def groups(content: ReportContent, draw: Draw) -> dict[str, list[dict[str, Any]]]:
    """Conflicts, placeholders and duplicates: each a list of near-duplicate groups, largest first.

    A group that contains a placeholder or a conflict is listed there only.
    """
    names = content.texts("duplicate_group")
    members = defaultdict(list)
    for row in np.flatnonzero(names != "").tolist():
        members[names[row]].append(row)
    listed: dict[str, list[dict[str, Any]]] = {kind: [] for kind in GROUPED}
    for rows in sorted(members.values(), key=len, reverse=True):
        kind = next((k for k in ("placeholder", "conflict") if content.flags(k)[rows].any()), "duplicate")
        if len(rows) > 1:
            listed[kind].append({"size": len(rows), "members": rows})
    for kind, kind_groups in listed.items():
        for group in kind_groups[:GROUPS]:
            shown = sorted(group["members"], key=lambda row: not content.flags("conflict")[row])[:MEMBERS]
            group["rows"] = [row_head(content, row, draw, SMALL) for row in shown]
            group["flagged"] = content.flags(kind)[shown].tolist()
    return listed


def decision(record: Mapping[str, Any]) -> dict[str, Any]:
    """A decision with all its texts, "" where missing, and cut."""
    texts = {name: cut(str(record.get(name) or ""), SHORT) for name in ("sample", "kind", "text", "reviewer", "note")}
    return {**texts, "time": str(record.get("time") or "")[:16].replace("T", " "), "stale": bool(record.get("stale"))}


def decision_tables(decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by reviewer and kind, and the latest `DECISIONS` one by one."""
    counts = Counter((str(record.get("reviewer") or ""), str(record.get("kind") or "")) for record in decisions)
    reviewers = dict.fromkeys(reviewer for reviewer, _ in counts)
    kinds = list(dict.fromkeys(kind for _, kind in counts))
    table = [{"reviewer": name or "not named", "counts": [counts[name, kind] for kind in kinds]} for name in reviewers]
    total = [sum(counts[name, kind] for name in reviewers) for kind in kinds]
    latest = sorted(decisions, key=lambda record: str(record.get("time") or ""), reverse=True)[:DECISIONS]
    rows = [decision(record) for record in latest]
    return {"kinds": kinds, "table": table, "total": total, "rows": rows, "all": len(decisions)}


def failures(content: ReportContent) -> list[tuple[str, int, str]]:
    """(reason, count, the first ids) of rows that could not be scored, most frequent first, at most `REASONS`."""
    ids_of = defaultdict(list)
    for name, reason in zip(content.samples.ids, content.texts("failure"), strict=True):
        if reason:
            ids_of[reason].append(name)
    ranked = sorted(ids_of.items(), key=lambda item: -len(item[1]))[:REASONS]
    return [(cut(reason), len(ids), cut(", ".join(ids[:5]), 120)) for reason, ids in ranked]
