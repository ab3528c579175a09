"""Another caption for a misaligned sample: that of the row it was mixed up with, else the one that fits clearly better.

Join bugs come first (`repairs`): many rows that agree prove more than one row alone. What no repair explains gets up
to three captions of the set. A caption j is ranked for medium i by

    -S_ij + HOLDER * S_jj + MUTUAL * max(S_jj - S_ji, 0),    S: suspicion, in robust deviations

since a displaced caption fits badly where it is, and one that was swapped leaves a medium that fits i's caption. The
last two hold for a caption of one row only; a class's caption, which many rows have, counts with its mean over them.
It is proposed where it fits better than the present one and ranks higher than what `BAR` of the set's good rows find
among captions that are not theirs: a good row that was flagged by mistake finds no better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .arrays import AuditError, Bools, Floats, Ints
from .candidates import Weighing, own_suspicion, suspicion, text_pairs, weigh
from .contrast import draw_pool
from .evidence import Gathered
from .repairs import Repair, cycles, one_to_one, ring_repair
from .shifts import shift_repairs

BAR = 0.9
GOOD_ROWS = 512
MARGIN = 1.0  # robust deviations by which another caption must fit better than the present one
RING_MARGIN = 0.5  # above the bar: a ring is a claim about several rows
HOLDER = 0.5
MUTUAL = 0.35
LIMIT = 4.0
BLOCK = 1024
COPIES = 16
TOP = 3
SAME_TEXT = 0.98
Captioner = Callable[[list[str]], Sequence[str]]


@dataclass(frozen=True)
class Suggestions:
    """What is proposed for n rows in canonical order.

    Attributes:
        texts: object `[n]`, the proposed caption, "" for none.
        score: float32 `[n]`, how far it ranks above the bar, in robust deviations of the set's own pairs (for a
            repair: how far the suspicion falls with it, the mean over its rows); NaN for none.
        repair: object `[n]`, the repair that a row is part of, in words; "" for none.
        why: row -> reason, for rows whose proposal is more than "another caption fits clearly better".
        top: row -> up to three (caption, score), best first; the first is above the bar.
        repairs: all repairs, by the caller's rows.
    """

    texts: Any
    score: Floats
    repair: Any
    why: dict[int, str] = field(default_factory=dict)
    top: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()


def suggest(
    gathered: Gathered, misaligned: Bools, captions: Sequence[str], seed: int, line: Ints, ids: Sequence[str]
) -> Suggestions:
    """Repairs and captions for the misaligned rows; shifts are sought in all rows.

    Args:
        gathered: of the set.
        misaligned: bool `[n]`, the rows that want another caption.
        captions: `[n]`, of the first modality that is text.
        seed: of the pool of candidates.
        line: `[total]`, the canonical row of each of the caller's rows, -1 where it is incomplete.
        ids: `[total]`, of the caller's rows.
    """
    evidence = gathered.evidence
    n, pair = len(evidence), next(iter(text_pairs(evidence)), None)
    found = Suggestions(np.full(n, "", object), np.full(n, np.nan, np.float32), np.full(n, "", object))
    if evidence.trials is None or pair is None:
        return found
    weighing = weigh(gathered, pair)
    shifts = shift_repairs(weighing, line, ids)
    shifted = line[[row for repair in shifts for row in (*repair.rows, *repair.lost)]]
    rows = np.setdiff1d(np.flatnonzero(misaligned), shifted)
    found = _take_repairs(found, shifts, line, captions, ids)
    if not len(rows):
        return found
    claimed = line[[source for repair in shifts for source in repair.sources]]
    pool = np.setdiff1d(np.union1d(draw_pool(np.arange(n), seed), rows), claimed)
    pool = pool[np.sort(np.unique(evidence.contents[pair[1]][pool], return_index=True)[1])]  # each caption once
    good = np.setdiff1d(np.flatnonzero(np.isfinite(own_suspicion(weighing))), np.union1d(shifted, rows))
    bar = _bar(weighing, good, pool)
    rank = rank_captions(weighing, rows, pool) - bar
    place = np.full(n, -1)
    place[line[line >= 0]] = np.flatnonzero(line >= 0)
    rings = _rings(weighing, rank, rows, pool, place, ids)
    found = _take_top(found, rank, rows, pool, captions, evidence.vectors[pair[1]])
    return _take_repairs(found, rings, line, captions, ids)


def _bar(weighing: Weighing, good: Ints, pool: Ints) -> float:
    """What is ranked highest for the share `BAR` of good rows, whose own captions are not among those ranked."""
    asked = good[np.linspace(0, len(good) - 1, min(GOOD_ROWS, len(good))).astype(np.int64)]
    best = np.fmax.reduce(rank_captions(weighing, asked, pool, margin=-np.inf), axis=1, initial=-np.inf)
    best = best[np.isfinite(best)]
    return float(np.quantile(best, BAR)) if len(best) else np.inf


def rank_captions(weighing: Weighing, rows: Ints, pool: Ints, margin: float = MARGIN) -> Floats:
    """`[q, p]`: rank of the pool's captions for the rows' media; NaN where one does not fit better by the margin."""
    own, content = own_suspicion(weighing), weighing.gathered.evidence.contents[weighing.pair[1]]
    copies = np.bincount(content)[content]
    single, several = np.flatnonzero(copies[pool] == 1), np.flatnonzero(copies[pool] > 1)
    out = np.full((len(rows), len(pool)), np.nan, np.float32)
    for start in range(0, len(rows), BLOCK):
        mine = rows[start : start + BLOCK]
        fits, part = suspicion(weighing, mine, pool), out[start : start + BLOCK]
        if len(several):
            fits[:, several] = _class_means(weighing, mine, content, pool[several])
        back = suspicion(weighing, pool[single], mine).T
        held = own[pool[single]]
        part[:] = -fits
        part[:, single] += HOLDER * np.clip(np.nan_to_num(held), -LIMIT, LIMIT)
        part[:, single] += MUTUAL * np.clip(np.nan_to_num(held - back), 0, LIMIT)
        part[(content[mine][:, None] == content[pool]) | ~(own[mine][:, None] - fits > margin)] = np.nan
    return out


def _class_means(weighing: Weighing, rows: Ints, content: Ints, pool: Ints) -> Floats:
    """`[q, p]`: mean suspicion over up to `COPIES` rows with each pool caption: single rows differ by their trials."""
    order = np.argsort(content, kind="stable")
    first = np.searchsorted(content[order], content[pool])
    last = np.searchsorted(content[order], content[pool], side="right")
    chosen = [
        order[np.linspace(a, b - 1, min(b - a, COPIES)).astype(np.int64)] for a, b in zip(first, last, strict=True)
    ]
    found = np.nan_to_num(suspicion(weighing, rows, np.concatenate(chosen)), nan=0.0)
    starts = np.r_[0, np.cumsum([len(c) for c in chosen])[:-1]]
    return np.add.reduceat(found, starts, axis=1) / np.array([len(c) for c in chosen])


def _rings(weighing: Weighing, rank: Floats, rows: Ints, pool: Ints, place: Ints, ids: Sequence[str]) -> list[Repair]:
    """Swaps and cycles among the rows, whose captions go to one row each; a caption of many rows was not mixed up."""
    content = weighing.gathered.evidence.contents[weighing.pair[1]]
    at = np.flatnonzero((np.bincount(content)[content[rows]] == 1) & np.isin(rows, pool))
    asked = rows[at]
    worth = rank[at][:, np.searchsorted(pool, asked)]
    fall = own_suspicion(weighing)[asked][:, None] - suspicion(weighing, asked, asked)
    repairs = []
    for ring in cycles(one_to_one(worth, RING_MARGIN)):
        steps = zip(ring, (*ring[1:], ring[0]), strict=True)
        value = {int(place[asked[i]]): float(fall[i, j]) for i, j in steps}
        repairs.append(ring_repair([int(place[asked[i]]) for i in ring], value, ids))
    return repairs


def _take_top(
    found: Suggestions, rank: Floats, rows: Ints, pool: Ints, captions: Sequence[str], vectors: Floats
) -> Suggestions:
    """Adds, for each row whose best caption is above the bar, up to three that differ from each other."""
    texts, score, top = found.texts.copy(), found.score.copy(), dict(found.top)
    vectors = vectors[pool]
    for at in np.flatnonzero(np.fmax.reduce(rank, axis=1, initial=-np.inf) > 0).tolist():
        chosen = _best_three(rank[at], vectors)
        row = int(rows[at])
        top[row] = [(captions[pool[c]], round(float(rank[at, c]), 3)) for c in chosen]
        texts[row], score[row] = top[row][0]
    return replace(found, texts=texts, score=score, top=top)


def _best_three(rank: Floats, vectors: Floats) -> list[int]:
    """The first in rank `[p]` of which none is nearly the same text as one before it; NaN is out."""
    chosen: list[int] = []
    for candidate in np.argsort(-rank, kind="stable")[: int(np.isfinite(rank).sum())].tolist():
        if all(vectors[other] @ vectors[candidate] < SAME_TEXT for other in chosen):
            chosen.append(candidate)
        if len(chosen) == TOP:
            break
    return chosen


def _take_repairs(
    found: Suggestions, repairs: Sequence[Repair], line: Ints, captions: Sequence[str], ids: Sequence[str]
) -> Suggestions:
    """Adds repairs: their captions go before what was proposed for the row alone."""
    texts, score, words = found.texts.copy(), found.score.copy(), found.repair.copy()
    why, top = dict(found.why), dict(found.top)
    for repair in repairs:
        for row, source in zip(repair.rows, repair.sources, strict=True):
            at, text = int(line[row]), captions[line[source]]
            if text == captions[at]:
                continue  # a repeated caption: the row has the right one
            texts[at], score[at] = text, repair.gain
            words[at] = f"swap with {ids[source]}" if repair.kind == "swap" else _words(repair, ids)
            why[at] = repair.sentence
            rest = [entry for entry in top.get(at, []) if entry[0] != text]
            top[at] = [(text, round(repair.gain, 3)), *rest][:TOP]
        for row in repair.lost:
            if line[row] >= 0:
                why[int(line[row])] = f"beside a shift of captions, its own is in no row: {repair.sentence}"
    every = (*found.repairs, *repairs)
    return Suggestions(texts, score, words, why, top, every)


def _words(repair: Repair, ids: Sequence[str]) -> str:
    if repair.kind == "cycle":
        return f"cycle of {len(repair.rows)} with {ids[repair.rows[0]]}"
    step = int(np.median(np.subtract(repair.sources, repair.rows)))  # but for a row that closes the block
    return f"shift of {step:+d}, rows {repair.rows[0]} to {repair.rows[-1]}"


def propose(action: Any, reason: Any, found: Suggestions) -> None:
    """Writes repairs and reasons into actions and reasons `[n]`, in place; what is to be removed stays so.

    Rows of a shift are relabelled though alone they were not flagged; a row whose caption is lost is to be reviewed.
    """
    for row, why in found.why.items():
        if action[row] != "remove":
            action[row] = "relabel" if found.texts[row] else "review"
            reason[row] = why


def ask_captioner(found: Suggestions, misaligned: Bools, media: Sequence[str], captioner: Captioner) -> Suggestions:
    """Asks for a text for each misaligned row without a suggestion; such a text was not weighed: its score is NaN.

    Args:
        found: from the set.
        misaligned: bool `[n]`.
        media: `[n]`, paths of the modality that is captioned.
        captioner: list of paths -> as many texts.

    Raises:
        AuditError: it gave another number of texts, or something that is no text.
    """
    rows = [int(row) for row in np.flatnonzero(misaligned) if not found.texts[row] and row not in found.why]
    if not rows:
        return found
    answers = list(captioner([media[row] for row in rows]))
    if len(answers) != len(rows) or not all(isinstance(text, str) for text in answers):
        raise AuditError(f"the captioner gave {len(answers)} answers to {len(rows)} media; return one text for each")
    texts, why = found.texts.copy(), dict(found.why)
    for row, text in zip(rows, answers, strict=True):
        if text.strip():
            texts[row], why[row] = " ".join(text.split()), "media do not fit; the text is the captioner's, not weighed"
    return replace(found, texts=texts, why=why)
