"""Another caption for a misaligned sample: that of the row it was mixed up with, else the one that fits clearly better.

Join bugs come first (`join_bugs`): many rows that agree prove more than one row alone. What no repair explains gets up
to three captions of the set. A caption j is ranked for medium i by

    -S_ij + HOLDER * S_jj + MUTUAL * max(S_jj - S_ji, 0),    S: suspicion, in robust deviations

since a displaced caption fits badly where it is, and one that was swapped leaves a medium that fits i's caption. The
last two hold for a caption of one row only; a class's caption, which many rows have, counts with its mean over them.
It is proposed where it fits better than the present one and ranks higher than what `BAR` of the set's good rows find
among captions that are not theirs: a good row that was flagged by mistake finds no better.

Where captions are classes, each row gets the class that the linear classifier names in place of its own, flagged or
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, count_text
from audit_plugin.encoders.devices import release_memory
from audit_plugin.scoring.contrast import draw_pool
from audit_plugin.scoring.evidence import Evidence

from .join_bugs import UNCERTAIN, Repair, cycles, one_to_one, ring_repair
from .pair_scores import Weighing, embed_rows, own_suspicion, suspicion, text_pairs, weigh, with_tables
from .shifts import shift_repairs

# Chosen on the development sets, see docs/detection.md.
BAR = 0.9  # share of good rows that find no caption above it
GOOD_ROWS = 512  # that the bar is read from
MARGIN = 1.0  # robust deviations by which another caption must fit better than the present one
RING_MARGIN = 0.5  # above the bar: a ring is a claim about several rows
HOLDER = 0.5  # weight of how badly the caption fits where it is
MUTUAL = 0.35  # weight of how much better the row's own caption would fit there
LIMIT = 4.0  # robust deviations at which both are clipped
MAX_ROWS = 20_000  # each is weighed against each other's caption
CELLS = 2**20  # pairs weighed at once; changes no result
COPIES = 16  # rows with one caption that its mean is taken over
TOP = 3  # captions offered for a row
FIRST_CANDIDATES = 64  # among which these are searched first
SAME_TEXT = 0.98  # cosine from which two captions are the same
Captioner = Callable[[list[str]], Sequence[str]]


@dataclass(frozen=True)
class Suggestions:
    """What is proposed for n rows in canonical order.

    Attributes:
        captions: object `[n]`, the proposed caption, "" for none.
        score: float32 `[n]`, how far it ranks above the bar, in robust deviations of the set's own pairs (for a
            repair: how far the suspicion falls with it, the mean over its rows; for a class: its probability); NaN for
            none.
        repair: object `[n]`, the repair that a row is part of, in words; "" for none.
        why: row -> reason, for rows whose proposal is more than "another text fits clearly better".
        top: row -> up to three (caption, score), best first; the first is above the bar.
        repairs: all repairs, by the caller's rows.
        uncertain: rows that have the caption of a shift which they may be part of: for people to decide.
        same_again: rows that would get the caption that they have: nothing is suggested for them.
        note: for people, if rows were left out.
    """

    captions: Any
    score: Floats
    repair: Any
    why: dict[int, str] = field(default_factory=dict)
    top: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()
    uncertain: frozenset[int] = frozenset()
    same_again: int = 0
    note: str = ""


def suggest(
    evidence: Evidence, misaligned: Bools, captions: Sequence[str], seed: int, canonical_of: Ints, ids: Sequence[str]
) -> Suggestions:
    """Repairs and captions for the misaligned rows; shifts are searched in all rows.

    `misaligned`: bool `[n]`, the rows that need another caption; `captions` `[n]` are those of the first modality that
    is text; `canonical_of` `[total]` is the canonical row of each of the caller's rows, -1 where it is incomplete, and
    `ids` `[total]` are the caller's.
    """
    n, pair = len(evidence), next(iter(text_pairs(evidence)), None)
    if evidence.trials is None or pair is None or not any(captions):
        return _suggestions({}, (), canonical_of, captions, ids)
    weighing = weigh(evidence, pair)
    release_memory()  # of its blocks
    shifts = shift_repairs(weighing, canonical_of, ids)
    release_memory()
    shifted = canonical_of[[row for repair in shifts for row in (*repair.rows, *repair.lost, *repair.uncertain)]]
    rows = np.setdiff1d(np.flatnonzero(misaligned), shifted)
    if pair[1] in evidence.class_predictions:
        return _suggestions(_named_classes(evidence, pair[1], captions), shifts, canonical_of, captions, ids)
    if not len(rows):
        return _suggestions({}, shifts, canonical_of, captions, ids)
    own = own_suspicion(weighing)
    note = ""
    if len(rows) > MAX_ROWS:
        note = (
            f"{count_text(len(rows), 'sample is', 'samples are')} "
            f"misaligned; captions were searched for the {MAX_ROWS} most suspicious ones"
        )
        most_suspicious = np.argsort(-np.nan_to_num(own[rows]), kind="stable")[:MAX_ROWS]
        rows = np.sort(rows[most_suspicious])
    claimed = canonical_of[[source for repair in shifts for source in repair.sources]]
    pool = np.setdiff1d(np.union1d(draw_pool(np.arange(n), seed), rows), claimed)
    pool = pool[[bool(captions[row]) for row in pool]]  # of given vectors the text may not be known
    pool = pool[
        ~_holds_personal_data(evidence, pair[1])[pool] | np.isin(pool, rows)
    ]  # those that fit are no one else's
    pool = pool[np.sort(np.unique(evidence.contents[pair[1]][pool], return_index=True)[1])]  # each caption once
    good = np.setdiff1d(np.flatnonzero(np.isfinite(own)), np.union1d(shifted, rows))
    best, rings = _best(weighing, rows, pool, _bar(weighing, good, pool))
    top = {row: [(captions[pool[at]], rank) for at, rank in ranked] for row, ranked in best.items()}
    caller_of = np.full(n, -1)
    caller_of[canonical_of[canonical_of >= 0]] = np.flatnonzero(canonical_of >= 0)
    repairs = [ring_repair({int(caller_of[row]): fall for row, fall in ring.items()}, ids) for ring in rings]
    return replace(_suggestions(top, [*shifts, *repairs], canonical_of, captions, ids), note=note)


def _holds_personal_data(evidence: Evidence, modality: str) -> Bools:
    """bool `[n]`: texts that hold personal data; none of a modality that was not checked."""
    found = evidence.text_problems.get(modality)
    return np.zeros(len(evidence), bool) if found is None else np.asarray(found.personal != "", dtype=bool)


def _named_classes(evidence: Evidence, modality: str, captions: Sequence[str]) -> dict[int, list[tuple[str, float]]]:
    """Row -> the class, and its probability, that the classifier names in place of the given one."""
    predictions, given = evidence.class_predictions[modality], evidence.contents[modality]
    first_row = np.unique(given, return_index=True)[1]  # of each class
    rows = np.flatnonzero((predictions.margin > 0) & [bool(captions[row]) for row in first_row[predictions.best]])
    probability = predictions.probability.astype(float).round(3)
    return {row: [(captions[first_row[predictions.best[row]]], probability[row])] for row in rows.tolist()}


def _bar(weighing: Weighing, good: Ints, pool: Ints) -> float:
    """The `BAR` quantile, over good rows, of the highest rank of a caption that is not the row's own."""
    sampled = good[np.linspace(0, len(good) - 1, min(GOOD_ROWS, len(good))).astype(np.int64)]
    blocks = rank_captions(weighing, sampled, pool, -np.inf)
    best = np.concatenate([np.fmax.reduce(rank, axis=1, initial=-np.inf) for _, rank, _ in blocks] or [np.zeros(0)])
    best = best[np.isfinite(best)]
    return float(np.quantile(best, BAR)) if len(best) else np.inf


def rank_captions(
    weighing: Weighing, rows: Ints, pool: Ints, margin: float = MARGIN
) -> Iterator[tuple[Ints, Floats, Floats]]:
    """Yields, for b of the rows `[q]` at a time, (positions of these `[b]`, rank, suspicion): `[b, p]` of the captions.

    The rank is NaN where a caption of the pool `[p]` does not fit a row's medium better by the margin. Block by block,
    since a table of all would be quadratic in what is wrong with a set.
    """
    own, content = own_suspicion(weighing), weighing.evidence.contents[weighing.pair[1]]
    copies = np.bincount(content)[content]
    single, several = np.flatnonzero(copies[pool] == 1), np.flatnonzero(copies[pool] > 1)
    shown = _shown(content, pool[several])
    weighing = with_tables(weighing, np.concatenate([rows, pool, *shown]))
    of_single = embed_rows(weighing, pool[single])
    of_shown = embed_rows(weighing, np.concatenate([pool[:0], *shown]))
    step = max(1, CELLS // max(1, len(pool) + sum(map(len, shown))))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        of_block = embed_rows(weighing, block)
        offered = np.empty((len(block), len(pool)), np.float32)  # S_ij
        offered[:, single] = suspicion(weighing, of_block, of_single)
        if len(several):
            offered[:, several] = _class_means(suspicion(weighing, of_block, of_shown), shown)
        returned = suspicion(weighing, of_single, of_block).T  # S_ji
        holder = own[pool[single]]  # S_jj
        rank = -offered
        rank[:, single] += HOLDER * np.clip(np.nan_to_num(holder), -LIMIT, LIMIT)
        rank[:, single] += MUTUAL * np.clip(np.nan_to_num(holder - returned), 0, LIMIT)
        same_caption = content[block][:, None] == content[pool]
        fits_better = own[block][:, None] - offered > margin
        rank[same_caption | ~fits_better] = np.nan
        yield np.arange(start, start + len(block)), rank, offered


def _shown(content: Ints, pool: Ints) -> list[Ints]:
    """Up to `COPIES` rows with each pool caption: single rows differ by their trials."""
    order = np.argsort(content, kind="stable")
    first = np.searchsorted(content[order], content[pool])
    last = np.searchsorted(content[order], content[pool], side="right")
    return [order[np.linspace(a, b - 1, min(b - a, COPIES)).astype(np.int64)] for a, b in zip(first, last, strict=True)]


def _class_means(by_row: Floats, shown: Sequence[Ints]) -> Floats:
    """`[q, p]`: mean suspicion of each medium with the rows `shown` of each caption, whose columns lie side by side.

    A pair that no trial held out counts as the set's median, 0.
    """
    by_row = np.nan_to_num(by_row, nan=0.0)
    counts = np.array([len(rows_of_caption) for rows_of_caption in shown])
    starts = np.r_[0, np.cumsum(counts)[:-1]]
    return np.add.reduceat(by_row, starts, axis=1) / counts


def _best(
    weighing: Weighing, rows: Ints, pool: Ints, bar: float
) -> tuple[dict[int, list[tuple[int, float]]], list[dict[int, float]]]:
    """(row -> up to three of the pool, with their ranks above the bar; rings: row -> how far its suspicion falls).

    In a ring each row takes the caption of the next one. A caption of many rows was not mixed up: it is in none.
    """
    content, own = weighing.evidence.contents[weighing.pair[1]], own_suspicion(weighing)
    vectors = weighing.evidence.vectors[weighing.pair[1]][pool]
    alone = np.bincount(content)[content[rows]] == 1
    source = np.flatnonzero(alone & np.isin(rows, pool))
    column = np.searchsorted(pool, rows[source])
    top: dict[int, list[tuple[int, float]]] = {}
    takers: list[Ints] = []  # positions of rows
    sources: list[Ints] = []  # positions of the rows whose captions they take
    worths: list[Floats] = []  # rank above the bar and the margin
    falls: list[Floats] = []  # of the taker's suspicion
    for positions, absolute_rank, suspicions in rank_captions(weighing, rows, pool):
        rank = absolute_rank - np.float32(bar)
        for at in np.flatnonzero(np.fmax.reduce(rank, axis=1, initial=-np.inf) > 0).tolist():
            chosen = _best_three(rank[at], vectors)
            top[int(rows[positions[at]])] = [(c, round(float(rank[at, c]), 3)) for c in chosen]
        worth = np.where(alone[positions][:, None], rank[:, column] - RING_MARGIN, np.nan)
        row, to = np.nonzero(worth > 0)
        takers.append(positions[row])
        sources.append(source[to])
        worths.append(worth[row, to].astype(np.float64))
        falls.append(own[rows[positions[row]]] - suspicions[row, column[to]])
    taker, taken, fall = np.concatenate(takers), np.concatenate(sources), np.concatenate(falls)
    fall_of = dict(zip(zip(taker.tolist(), taken.tolist(), strict=True), fall.tolist(), strict=True))
    rings = []
    for ring in cycles(one_to_one(taker, taken, np.concatenate(worths), len(rows))):
        rings.append({int(rows[i]): fall_of[i, j] for i, j in zip(ring, (*ring[1:], ring[0]), strict=True)})
    return top, rings


def _best_three(rank: Floats, vectors: Floats) -> list[int]:
    """The first in rank `[p]` of which none is nearly the same text as one before it; NaN is out."""
    known = np.flatnonzero(np.isfinite(rank))
    for count in (FIRST_CANDIDATES, len(known)):  # all are sorted only where the first do not suffice
        cut = np.partition(rank[known], len(known) - count)[len(known) - count] if count < len(known) else -np.inf
        candidates = known[rank[known] >= cut]
        chosen: list[int] = []
        for candidate in candidates[np.argsort(-rank[candidates], kind="stable")].tolist():
            if all(vectors[other] @ vectors[candidate] < SAME_TEXT for other in chosen):
                chosen.append(candidate)
            if len(chosen) == TOP:
                return chosen
    return chosen


def _suggestions(
    best: Mapping[int, list[tuple[str, float]]],
    repairs: Sequence[Repair],
    canonical_of: Ints,
    captions: Sequence[str],
    ids: Sequence[str],
) -> Suggestions:
    """The best captions of single rows, and the repairs, whose captions go before them."""
    n, top = len(captions), dict(best)
    texts, score, words = np.full(n, "", object), np.full(n, np.nan, np.float32), np.full(n, "", object)
    why: dict[int, str] = {}
    for row, ranked in best.items():
        texts[row], score[row] = ranked[0]
    for repair in repairs:
        uncertain = set(repair.uncertain)
        for row, source in _pairs(repair):
            at, text = int(canonical_of[row]), captions[canonical_of[source]]
            if text == captions[at]:
                continue  # a repeated caption: the row has the right one
            texts[at], score[at] = text, repair.gain
            words[at] = _words(repair, source, ids)
            why[at] = f"{UNCERTAIN}{repair.sentence}" if row in uncertain else repair.sentence
            rest = [entry for entry in top.get(at, []) if entry[0] != text]
            top[at] = [(text, round(repair.gain, 3)), *rest][:TOP]
        for row in repair.lost:
            if canonical_of[row] >= 0 and row not in uncertain:
                why[int(canonical_of[row])] = f"beside a shift of captions, its own is in no row: {repair.sentence}"
    rows = [row for repair in repairs for row in repair.uncertain]
    same_again = sum(len(repair.same) for repair in repairs)
    return Suggestions(
        texts, score, words, why, top, tuple(repairs), frozenset(canonical_of[rows].tolist()), same_again
    )


def _pairs(repair: Repair) -> list[tuple[int, int]]:
    """(row, row whose caption it would take) of a repair, with the rows that are in it under some ends only."""
    pairs = dict(zip(repair.rows, repair.sources, strict=True))
    if repair.uncertain:
        pairs |= {row: row + repair.offset for row in repair.uncertain if row not in pairs}
    return sorted(pairs.items())


def _words(repair: Repair, source: int, ids: Sequence[str]) -> str:
    if repair.kind == "swap":
        return f"swap with {ids[source]}"
    if repair.kind == "cycle":
        return f"cycle of {len(repair.rows)} with {ids[repair.rows[0]]}"
    return f"shift of {repair.offset:+d}, rows {repair.rows[0]} to {repair.rows[-1]}"


def apply_suggestions(action: Any, reason: Any, suggestions: Suggestions) -> tuple[Any, Any]:
    """Actions and reasons, object `[n]`, with those of the repairs; what is to be removed stays so.

    Rows of a shift are relabeled though alone they were not flagged; a row whose caption is lost, or of which it is not
    certain that it is in the shift, is to be reviewed.
    """
    action, reason = action.copy(), reason.copy()
    for row, why in suggestions.why.items():
        if action[row] != "remove":
            is_certain = bool(suggestions.captions[row]) and row not in suggestions.uncertain
            action[row] = "relabel" if is_certain else "review"
            reason[row] = why
    return action, reason


def ask_captioner(
    suggestions: Suggestions, misaligned: Bools, captions: Sequence[str], media: Sequence[str], captioner: Captioner
) -> Suggestions:
    """Asks for a text for each misaligned row without a suggestion; such a text was not weighed: its score is NaN.

    A text that is the present one of `captions` `[n]` is counted and not suggested. `media`: `[n]`, paths of the
    modality that is captioned. AuditError if the captioner (list of paths -> as many texts) gave another number of
    texts, or something that is not a text.
    """
    unexplained = misaligned & np.array([not text for text in suggestions.captions], dtype=bool)
    rows = [int(row) for row in np.flatnonzero(unexplained) if row not in suggestions.why]
    if not rows:
        return suggestions
    answers = list(captioner([media[row] for row in rows]))
    if len(answers) != len(rows) or not all(isinstance(text, str) for text in answers):
        raise AuditError(f"the captioner gave {len(answers)} answers to {len(rows)} media; return one text for each")
    texts, why, same_again = suggestions.captions.copy(), dict(suggestions.why), suggestions.same_again
    for row, answer in zip(rows, answers, strict=True):
        text = " ".join(answer.split())
        if text and text == " ".join(captions[row].split()):
            same_again += 1
        elif text:
            texts[row], why[row] = text, "media do not fit; the text is the captioner's, not weighed"
    return replace(suggestions, captions=texts, why=why, same_again=same_again)
