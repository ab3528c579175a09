"""Join bugs: captions that went to wrong rows together. Constant row offsets, swaps and cycles; pure arrays.

A table that was joined wrongly seldom mixes its captions at random: a row was dropped or inserted and everything below
it moved, or a few captions changed places. Evidence too weak to correct one row is strong where many rows agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, count_text

FALSE_SHIFTS = 0.001  # expected shifts in a set without any
MIN_ROWS = 10  # fewer rows agree by chance where a set repeats itself (families of similar media)
STANDS_OUT = 6.0  # robust deviations among the sums of other offsets over the same rows
WIDE = 0.3  # share of the set from which on a shift is wide
CHANGE = 5.0  # price of a change of the offset, in the typical size of gains
MAX_SHIFTS = 20  # searched one after another
MOST_REFUSED = 200  # segments that do not stand out, one after another
FEWEST_OTHERS = 10  # offsets that a segment is compared with
LIMIT = 3.0  # at which gains are clipped, in their typical size
BINS = 96  # of the histogram that lambda is read from
REACH = 20  # rows by which a bound may move
AS_LIKELY = 0.05  # of the likelihood of the likeliest bound, from which another one is possible
MOST_LOG_ODDS = 6.0  # that one row says: a single odd row settles nothing
UNCERTAIN = "perhaps part of a shift, whose end is not certain; look at the row: "  # before the sentence of a repair
CANDIDATES = 32  # captions that one row may choose from


@dataclass(frozen=True)
class Shift:
    """Rows `start` to `stop - 1` whose media fit the caption `offset` rows further on.

    `strength` is lambda times the sum of their bounded gains; by chance, n rows reach it with p of about
    n exp(-strength). Of a wide shift it is (sum of gains)^2 / (2 sum of gains^2); by chance, n rows reach it with p of
    at most n^2 / 2 exp(-strength).
    """

    offset: int
    start: int
    stop: int
    strength: float


@dataclass(frozen=True)
class Repair:
    """One suggested batch correction: each of `rows` takes the present caption of its partner in `sources`.

    Attributes:
        kind: swap, cycle or shift.
        rows: positions in the caller's order.
        sources: as many, in the same order.
        gain: mean fall over the rows, in robust deviations: of the suspicion (`pair_scores`, a weighted mean) for a
            swap or cycle, of the weighted sum of its evidence (`shifts.offset_gains`) for a shift.
        sentence: for people.
        lost: rows next to a shift whose own caption is in no row any more.
        first: of a shift, the (lowest, highest) row that may be its first; equal ones are known. () of others.
        last: the same of its last row.
        uncertain: rows that are in the shift only under some of these ends, and whose caption would change: people are
            asked about them, and a batch leaves them out.
        same: rows that would get the same caption again, which nothing is suggested for.
        offset: of a shift; 0 of others.
    """

    kind: str
    rows: tuple[int, ...]
    sources: tuple[int, ...]
    gain: float
    sentence: str
    lost: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    uncertain: tuple[int, ...] = ()
    same: tuple[int, ...] = ()
    offset: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def find_shifts(gains: Floats, offsets: Ints, tried: int, related: Bools | None = None) -> list[Shift]:
    """Stretches of rows that fit the captions at one offset better than their own, strongest first.

    Per offset: the segment with the largest sum of bounded gains. Were gains independent with a negative mean, the
    largest of n such sums would exceed t with probability about n exp(-lambda t), lambda > 0 the solution of
    mean(exp(lambda gain)) = 1 (Karlin and Altschul, PNAS 1990). lambda is read from the set itself, its own shifts
    included, which makes it smaller and the test stricter. Rows that were given a caption are weighed against that
    one in the next round.

    Where a row was dropped near the top of a table, most of its captions are wrong: gains have no negative mean, and
    there is no lambda. A wide shift is told by gains that are positive one after the other: if their signs were those
    of coins, sum(g) >= t sqrt(sum(g^2)) would have p <= exp(-t^2 / 2) (Hoeffding, JASA 1963).

    Args:
        gains: `[D, n]`, row i: fit of its medium to the caption of row i + offsets[d] minus fit to its own, any unit;
            NaN where unknown.
        offsets: `[D]`.
        tried: number of offsets from which these were picked: all of them count as tests.
        related: bool `[D, n]`: the two rows share something, which says nothing of a shift.
    """
    least = np.log(max(tried, 1) * max(gains.shape[1], 1) / FALSE_SHIFTS)
    bounded = _bounded(gains, related)
    strongest: list[Shift] = []
    refused: list[Shift] = []
    segments = [_next_segment(bounded[k], int(d), refused) for k, d in enumerate(offsets)]
    while len(strongest) < MAX_SHIFTS and len(refused) < MOST_REFUSED:
        best, wide = _widest(bounded, segments, tried)
        if wide is not None and _deviations(bounded, wide, best) > STANDS_OUT:
            segments[best] = wide
        else:
            best = max(range(len(segments)), key=lambda k: segments[k].strength, default=-1)
            if best < 0 or segments[best].strength < least:
                break
        shift = segments[best]
        if _deviations(bounded, shift, best) > STANDS_OUT:
            strongest.append(shift)
            rows = slice(shift.start, shift.stop)
            bounded[:, rows] = np.clip(bounded[:, rows] - bounded[best, rows], -LIMIT, LIMIT)
            segments = [_next_segment(bounded[k], int(d), refused) for k, d in enumerate(offsets)]
        else:
            refused.append(shift)
            segments[best] = _next_segment(bounded[best], shift.offset, refused)
    joined = _joined(strongest)
    if all(a.stop <= b.start for a, b in pairwise(sorted(joined, key=lambda shift: shift.start))):
        return joined
    chosen = np.isin(offsets, [shift.offset for shift in joined])
    return _separated(joined, _bounded(gains[chosen], None if related is None else related[chosen]), offsets[chosen])


def _next_segment(gains: Floats, offset: int, refused: Sequence[Shift]) -> Shift:
    """The best segment of an offset, `[n]`, outside of those that were refused."""
    gains = gains.copy()
    for shift in refused:
        if shift.offset == offset:
            gains[shift.start : shift.stop] = 0
    return _best_segment(gains, offset, _rates(gains[None])[0])


def _bounded(gains: Floats, related: Bools | None) -> Floats:
    """float32 `[D, n]`: the gains of each offset in the typical size of those that are known, clipped; 0 if unknown."""
    bounded = gains.astype(np.float32)
    bounded[~np.isfinite(bounded)] = 0
    if related is not None:
        bounded[related] = 0
    for gains_of_offset in bounded:
        if gains_of_offset.any():
            typical = np.median(np.abs(gains_of_offset[gains_of_offset != 0]))
            np.divide(gains_of_offset, typical, out=gains_of_offset)
    return np.clip(bounded, -LIMIT, LIMIT, out=bounded)


def _separated(shifts: list[Shift], bounded: Floats, offsets: Ints) -> list[Shift]:
    """Shifts that overlap, made disjoint: each row goes to one of its shifts' offsets, or to none; strongest first.

    Where two rows of a table were dropped, the captions between them are wrong at either offset, so that the gains
    `[K, n]` of the wrong one are around 0 there and do not say where it begins.
    """
    found_at = np.zeros(bounded.shape, dtype=bool)
    for shift in shifts:
        found_at[offsets == shift.offset, shift.start : shift.stop] = True
    path = _best_path(np.concatenate([np.zeros_like(bounded[:1]), np.where(found_at, bounded, -np.inf)]))  # 0: none
    strength = {shift.offset: shift.strength for shift in reversed(shifts)}  # of the strongest at each offset
    ends = np.flatnonzero(np.diff(path)) + 1
    found = []
    for start, stop in pairwise([0, *ends.tolist(), len(path)]):
        if path[start] and stop - start >= MIN_ROWS:
            offset = int(offsets[path[start] - 1])
            found.append(Shift(offset, start, stop, strength[offset]))
    return sorted(found, key=lambda shift: -shift.strength)


def _best_path(scores: Floats) -> Ints:
    """int64 `[n]`: the state of each row for which scores `[states, n]` sum up to most, less `CHANGE` for each change.

    By dynamic programming (Viterbi), O(states n).
    """
    states, n = scores.shape
    total, before = scores[:, 0].astype(np.float64), np.empty((n, states), dtype=np.int16)
    for row in range(1, n):
        best = int(total.argmax())
        stays = total >= total[best] - CHANGE
        before[row] = np.where(stays, np.arange(states), best)
        total = np.where(stays, total, total[best] - CHANGE) + scores[:, row]
    path = np.empty(n, dtype=np.int64)
    path[-1] = total.argmax()
    for row in range(n - 1, 0, -1):
        path[row - 1] = before[row, path[row]]
    return path


def _widest(bounded: Floats, shifts: Sequence[Shift], tried: int) -> tuple[int, Shift | None]:
    """(offset's number, shift): the strongest wide one of the best segments per offset; (-1, None) without any."""
    n = bounded.shape[1]
    if len(bounded) <= FEWEST_OTHERS:  # rows that are alike are no coins: only other offsets tell
        return -1, None
    strongest, best = np.log(max(tried, 1) * max(n, 1) ** 2 / (2 * FALSE_SHIFTS)), -1
    for number, shift in enumerate(shifts):
        gains = bounded[number, shift.start : shift.stop].astype(np.float64)
        if len(gains) < max(MIN_ROWS, WIDE * n) or gains.sum() <= 0:
            continue
        strength = gains.sum() ** 2 / (2 * np.square(gains).sum())
        if strength > strongest:
            strongest, best = strength, number
    return best, replace(shifts[best], strength=float(strongest)) if best >= 0 else None


def _deviations(bounded: Floats, shift: Shift, chosen: int) -> float:
    """Robust deviations by which a shift's sum lies above those of the other offsets over the same rows.

    Rows that are alike fit each other's captions now and then, at one offset as at another: that is no shift. Infinite
    where there are fewer than `FEWEST_OTHERS`.
    """
    sums = bounded[:, shift.start : shift.stop].sum(1, dtype=np.float64)
    others = np.delete(sums, chosen)
    if len(others) < FEWEST_OTHERS:
        return np.inf
    median = np.median(others)
    return float((sums[chosen] - median) / max(1.4826 * np.median(np.abs(others - median)), 1e-9))


def _joined(shifts: list[Shift]) -> list[Shift]:
    """Merges two shifts with the same offset if the gap is shorter than the shorter shift; strongest first."""
    joined: list[Shift] = []
    for shift in sorted(shifts, key=lambda s: (s.offset, s.start)):
        last = joined[-1] if joined else Shift(0, 0, 0, 0.0)
        length = min(last.stop - last.start, shift.stop - shift.start)
        if last.offset == shift.offset and shift.start - last.stop < length:
            joined[-1] = Shift(shift.offset, last.start, shift.stop, last.strength + shift.strength)
        else:
            joined.append(shift)
    return sorted(joined, key=lambda s: -s.strength)


def _rates(values: Floats) -> Floats:
    """`[D]`: lambda > 0 with mean(exp(lambda values)) = 1, by bisection on a histogram; 0 where the mean is not < 0."""
    edges = np.linspace(-LIMIT, LIMIT, BINS + 1)
    # the upper edge stands for its bin: lambda comes out too small rather than too large
    share = np.stack([np.histogram(row[row != 0], edges)[0] / max((row != 0).sum(), 1) for row in values])
    low, high = np.zeros(len(values)), np.full(len(values), 50.0)
    for _ in range(50):
        middle = (low + high) / 2
        above = (share * np.exp(middle[:, None] * edges[None, 1:])).sum(1) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low


def _best_segment(values: Floats, offset: int, rate: float) -> Shift:
    """The stretch of at least `MIN_ROWS` rows with the largest sum, at lambda `rate`; O(n)."""
    total = np.r_[0.0, np.cumsum(values, dtype=np.float64)]
    if len(values) < MIN_ROWS:
        return Shift(offset, 0, 0, 0.0)
    lowest = np.minimum.accumulate(total[: len(total) - MIN_ROWS])
    gain = total[MIN_ROWS:] - lowest
    end = int(gain.argmax())
    start = int(np.flatnonzero(total[: end + 1] == lowest[end])[-1])
    return Shift(offset, start, end + MIN_ROWS, float(rate * gain[end]))


@dataclass(frozen=True)
class Ends:
    """The bounds that a shift may have: its first row is one of `starts`, its last the one before one of `stops`.

    Both are (lowest, highest); equal ones are known.
    """

    starts: tuple[int, int]
    stops: tuple[int, int]

    @property
    def open_rows(self) -> list[int]:
        """The rows that are in the shift under some of the bounds only."""
        return [*range(*self.starts), *range(*self.stops)]

    def outside(self, is_taken: Bools) -> Ends:
        """Without those that would reach over rows that are taken, bool `[n]`, by another shift."""
        (lowest, start), (stop, highest) = self.starts, self.stops
        before, after = np.flatnonzero(is_taken[lowest:start]), np.flatnonzero(is_taken[stop:highest])
        lowest = lowest + int(before[-1]) + 1 if len(before) else lowest
        return Ends((lowest, start), (stop, stop + int(after[0]) if len(after) else highest))


def sharpen(shift: Shift, gains: Floats, misfit: Floats, repeated: Floats) -> Shift:
    """The same shift with the bounds, within `REACH` rows, for which the gains sum up to most.

    |offset| rows beside the shift lose their captions (see `left_over`): where those fit after all, the shift ends
    elsewhere. Single gains are too weak to tell.

    `gains` `[n]` are those of its offset, NaN where unknown; `misfit` `[n]` is how badly rows fit as they are, in the
    same unit: above 0 if rather wrong; `repeated` `[n]` is evidence that the row is the first of a shift (the last, for
    a negative offset).
    """
    bounded, bounded_misfit = (np.clip(np.nan_to_num(values), -LIMIT, LIMIT) for values in (gains, misfit))
    starts, stops = _sums(shift, bounded, bounded_misfit, repeated)
    of_start, of_stop = _reach(shift, len(gains))
    start = of_start[0] + int(starts[of_start].argmax())
    stop = of_stop[-1] - int(stops[of_stop][::-1].argmax())
    return Shift(shift.offset, int(start), int(stop), shift.strength)


def possible_ends(shift: Shift, gains: Floats, misfit: Floats, repeated: Floats) -> Ends:
    """The bounds of a sharpened shift with at least `AS_LIKELY` times the likelihood of the likeliest, and its own.

    The log likelihood of a bound sums per row log N(gain; in the shift) - log N(gain; elsewhere) over the rows that it
    puts into the shift, and the same of the misfit over the rows that lose their captions. Both normal distributions
    are the set's own, by medians. The arguments are those of `sharpen`, but a gain is NaN, too, where a row would get
    the caption that it has: it says nothing.
    """
    inside = np.zeros(len(gains), dtype=bool)
    inside[shift.start : shift.stop] = True
    starts, stops = _sums(shift, _log_odds(gains, inside), _log_odds(misfit, inside), repeated)
    ends = []
    for sums, bounds, own in zip((starts, stops), _reach(shift, len(gains)), (shift.start, shift.stop), strict=True):
        likely = bounds[sums[bounds] >= sums[bounds].max() + np.log(AS_LIKELY)]
        ends.append((int(min(likely[0], own)), int(max(likely[-1], own))))
    return Ends(*ends)


def _log_odds(values: Floats, inside: Bools) -> Floats:
    """`[n]`: log N(value; those inside) - log N(value; the others), bounded; 0 where unknown.

    With fewer than `MIN_ROWS` known values on a side, too few for its deviation: the bounded values themselves, which
    are above 0 in the shift and below it elsewhere.
    """
    known = np.isfinite(values)
    if min((known & inside).sum(), (known & ~inside).sum()) < MIN_ROWS:
        return np.clip(np.nan_to_num(values), -LIMIT, LIMIT)
    logs = []
    for group in (known & inside, known & ~inside):
        median = np.median(values[group])
        deviation = max(1.4826 * np.median(np.abs(values[group] - median)), 1e-3)
        logs.append(-0.5 * ((values - median) / deviation) ** 2 - np.log(deviation))
    return np.clip(np.nan_to_num(logs[0] - logs[1]), -MOST_LOG_ODDS, MOST_LOG_ODDS)


def _sums(shift: Shift, gains: Floats, misfit: Floats, repeated: Floats) -> tuple[Floats, Floats]:
    """(`[n + 1]` what speaks for a start at each bound, the same for a stop), up to a constant each."""
    n, d = len(gains), shift.offset
    total, lost = (np.r_[0.0, np.cumsum(values)] for values in (gains, misfit))
    bound = np.arange(n + 1)
    beside = np.clip(bound + d, 0, n)  # lost are the rows between a bound and this
    starts, stops = -total, total
    if abs(d) < shift.stop - shift.start:
        worth = np.sign(d) * (lost[beside] - lost[bound])
        starts, stops = (starts, stops + worth) if d > 0 else (starts + worth, stops)
    return (starts + np.r_[repeated, 0], stops) if d > 0 else (starts, stops + np.r_[0, repeated])


def _reach(shift: Shift, n: int) -> tuple[Ints, Ints]:
    """The bounds that may be its start, and its stop: within `REACH` rows, on their side of its middle."""
    middle = (shift.start + shift.stop) // 2
    of_start = np.arange(max(shift.start - REACH, 0), min(shift.start + REACH, middle) + 1)
    return of_start, np.arange(max(shift.stop - REACH, middle), min(shift.stop + REACH, n) + 1)


def left_over(shift: Shift, rows: int) -> tuple[Ints, Ints]:
    """(rows beside the shift whose captions it takes, its rows whose captions no row takes), of `rows` in all.

    Where the captions of a block went round, the second belong to the first; where a row was dropped or inserted,
    the first lost theirs.
    """
    d, start, stop = shift.offset, shift.start, shift.stop
    if abs(d) >= stop - start:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if d > 0:
        beside, free = np.arange(stop, stop + d), np.arange(start, start + d)
    else:
        beside, free = np.arange(start + d, start), np.arange(stop + d, stop)
    exists = (beside >= 0) & (beside < rows)
    return beside[exists], free[exists]


def one_to_one(row: Ints, column: Ints, worth: Floats, q: int) -> Ints:
    """`[q]`: the column that each of q rows takes of as many, -1 where it takes none: the largest sum of worth.

    Edge e lets `row[e]` take `column[e]` (int64 `[e]`) for `worth[e]` > 0; the `CANDIDATES` best of a row count.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if not q:
        return np.zeros(0, np.int64)
    order = np.lexsort((column, -worth, row))
    row, column, worth = row[order], column[order], worth[order]
    best = np.arange(len(row)) - np.searchsorted(row, row) < CANDIDATES  # position among the edges of its row
    row, column, worth = row[best], column[best], worth[best]
    # Column q + i stands for row i taking none, so that a full matching exists; 1 + worth keeps all weights above 0.
    rows = np.arange(q)
    weight = np.r_[1 + worth, np.ones(q)]
    graph = csr_matrix((weight, (np.r_[row, rows], np.r_[column, q + rows])), shape=(q, 2 * q))
    chosen = min_weight_full_bipartite_matching(graph, maximize=True)[1]
    return np.where(chosen < q, chosen, -1)


def cycles(takes: Ints) -> list[list[int]]:
    """Closed rings of a one-to-one choice `[q]` (-1: none), each [i, takes[i], takes[takes[i]], ...], i the least."""
    seen: set[int] = set()
    rings = []
    for first in range(len(takes)):
        ring, at = [], first
        while at >= 0 and at not in seen:
            seen.add(at)
            ring.append(at)
            at = int(takes[at])
        if len(ring) > 1 and at == first:
            rings.append(ring)
    return rings


def shift_sentence(
    offset: int, first: tuple[int, ...], last: tuple[int, ...], ids: Sequence[str], lost: Sequence[int]
) -> str:
    """What a shift seems to be, in one line; an end that is not known is a range of rows.

    `first` and `last`: (lowest, highest) possible first and last row.
    """
    step, where = abs(offset), "after" if offset > 0 else "before"
    fewest, most = max(last[0] - first[1] + 1, 0), last[1] - first[0] + 1
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    text = (
        f"{count} rows from {_one_of(first, ids)} to {_one_of(last, ids)} appear to hold captions shifted by {step}: "
        f"each fits the caption of the row {step} {where} it"
    )
    if not len(lost):
        return text
    beside = last if offset > 0 else first
    if beside[0] != beside[1]:  # which rows lost theirs depends on where the shift ends
        return f"{text}; {count_text(len(lost), 'caption')} beside that end may be gone"
    return f"{text}; the caption of {', '.join(ids[row] for row in lost[:3])} is gone"


def _one_of(ends: tuple[int, ...], ids: Sequence[str]) -> str:
    """The id of a known end, or those between which it lies."""
    return ids[ends[0]] if ends[0] == ends[1] else f"one of {ids[ends[0]]} to {ids[ends[1]]}"


def batch_rows(repair: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Rows of a summary's repair: (that its batch relabels, that it asks about, that would get the same caption)."""
    uncertain, same = sorted(repair.get("uncertain") or ()), sorted(repair.get("same") or ())
    return sorted(set(repair["rows"]) - {*uncertain, *same}), uncertain, same


def batch_text(repair: Mapping[str, Any]) -> str:
    """What the batch of a summary's repair does: rows that it relabels, asks about, and leaves as they are."""
    certain, uncertain, same = batch_rows(repair)
    text = f"relabels {count_text(len(certain), 'row')}"
    if uncertain:
        text += f"; asks about {count_text(len(uncertain), 'row')} at an end that is not certain"
    if same:
        text += f"; {count_text(len(same), 'row')} would get the same caption again"
    return text


def ring_repair(gains: Mapping[int, float], ids: Sequence[str]) -> Repair:
    """A swap (two rows) or a cycle, in which each of the caller's rows (-> its gain) takes the next one's caption."""
    ring = tuple(gains)
    sources = (*ring[1:], ring[0])
    gain = float(np.mean(list(gains.values())))
    names = [ids[row] for row in ring[:6]]
    if len(ring) == 2:
        return Repair("swap", ring, sources, gain, f"{names[0]} and {names[1]} appear to hold each other's caption")
    chain = ", ".join(names) + (", ..." if len(ring) > 6 else "")
    return Repair("cycle", ring, sources, gain, f"{len(ring)} rows appear to hold each other's captions: {chain}")
