"""Constant row offsets: reads every row's medium against the captions of the rows around it, in the caller's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints
from audit_plugin.scoring.evidence import Evidence

from .join_bugs import MIN_ROWS, Ends, Repair, Shift, find_shifts, left_over, possible_ends, sharpen, shift_sentence
from .pair_scores import TRIALS, Weighing, embed_rows, suspicion, weighted_sum, with_tables

NEAR = 50  # offsets up to which all are tried
WORST_ROWS = 2048  # that vote for offsets further away
FAR_OFFSETS = 8  # of these that are tried at most
CONTROLS = 8  # far offsets of either sign that these are compared with
BLOCK_ROWS = 256  # changes no result
VOTER_ROWS = 32  # whose similarities to all captions are in memory at once; changes no result
MOST_CLOSINGS = 100  # pairs of ends that are asked whether the block goes round
ROUND = 0.5  # mean suspicion, in robust deviations, below which the rows beside a shift take its left-over captions
Read = Callable[[Ints, torch.Tensor, torch.Tensor], None]  # (q non-members, their embeddings of either side `[q, o]`)
OF_THE_PAIR = ("contrast", "zero_shot")  # not the votes: a row's neighbors often lie in the shift themselves


def shift_repairs(weighing: Weighing, canonical_of: Ints, ids: Sequence[str]) -> list[Repair]:
    """Shifts of captions against media in the caller's row order, each with the captions suggested for its rows.

    A row beside the shift joins it where it fits the caption left over (a block that went round), and is named as lost
    where it does not (a row dropped or inserted).

    `canonical_of` `[total]` is the canonical row of each of the caller's rows `[total]`, -1 where it is incomplete.
    """
    close_offsets = np.r_[-NEAR:0, 1 : NEAR + 1]
    votes = FarVotes(weighing, canonical_of)
    shifts = _find(weighing, canonical_of, close_offsets, len(close_offsets), votes.read)
    far_offsets = votes.elected(len(canonical_of))
    if len(far_offsets):
        asked = np.r_[far_offsets, control_offsets(len(canonical_of), far_offsets)]
        found = _find(weighing, canonical_of, asked, 2 * len(canonical_of))
        shifts += [(shift, gains) for shift, gains in found if shift.offset in far_offsets]
    is_taken = np.zeros(len(canonical_of), dtype=bool)
    repairs = []
    for number, (whole, _) in enumerate(shifts):
        shift = _longest_free(whole, is_taken)
        if shift.stop - shift.start < MIN_ROWS:
            continue
        repair = _repair(weighing, shift, _beyond_others(shifts, number), is_taken, canonical_of, ids)
        if repair is not None and not is_taken[list(repair.rows)].any():
            is_taken[list(repair.rows)] = True
            repairs.append(repair)
    return repairs


def control_offsets(rows: int, far_offsets: Ints) -> Ints:
    """At most 2 `CONTROLS` offsets that nobody elected, up to half of the rows: what chance gives far offsets."""
    sizes = np.unique(np.linspace(NEAR + 1, max(rows // 2, NEAR + 1), CONTROLS).astype(np.int64))
    controls = np.r_[-sizes, sizes]
    return controls[np.abs(controls[:, None] - far_offsets).min(1) > 1]


def _beyond_others(shifts: Sequence[tuple[Shift, Floats]], number: int) -> Floats:
    """`[n]`: the gains of one shift; over what the other shift gives in the rows of others.

    Where two rows were dropped, the captions between them are wrong at the offset of the second as they are: only the
    offset of the first says that they belong to it.
    """
    gains = shifts[number][1].copy()
    for other, (shift, of_shift) in enumerate(shifts):
        if other != number:
            gains[shift.start : shift.stop] -= np.maximum(of_shift[shift.start : shift.stop], 0)
    return gains


def _longest_free(shift: Shift, is_taken: Bools) -> Shift:
    """The longest stretch of a shift whose rows no other one has taken; `is_taken` is `[n]`."""
    bounds = np.flatnonzero(np.diff(~is_taken[shift.start : shift.stop], prepend=False, append=False))
    stretches = [(int(stop - start), -int(start)) for start, stop in bounds.reshape(-1, 2)]
    length, start = max(stretches, default=(0, 0))
    return replace(shift, start=shift.start - start, stop=shift.start - start + length)


def _find(
    weighing: Weighing, canonical_of: Ints, offsets: Ints, tried: int, also: Read | None = None
) -> list[tuple[Shift, Floats]]:
    """Shifts by one of the offsets, each with its gains `[n]`."""
    gains = offset_gains(weighing, canonical_of, offsets, also)
    related = _related(weighing.evidence, canonical_of, offsets)
    shifts = find_shifts(gains, offsets, tried, related)
    return [(shift, gains[offsets == shift.offset][0]) for shift in shifts]


def offset_gains(weighing: Weighing, canonical_of: Ints, offsets: Ints, also: Read | None = None) -> Floats:
    """`[D, n]`: how much better row i's medium fits the caption of row i + offset than its own, in robust deviations.

    The difference of the two contrasts, in which the medium's own hub cancels: M_i,i+d - M_ii - (h_i+d - h_i), each
    similarity over those of the first `TRIALS` trials that held out its two rows. NaN where none did or where a row is
    incomplete. Both are weighted sums over the kinds of evidence (`OF_THE_PAIR`), in robust deviations.

    `also` is shown each trial, whose embeddings are the costly part; the `offsets` are `[D]`.
    """
    total = np.zeros((len(offsets), len(canonical_of)), np.float32)
    at = np.maximum(canonical_of, 0)
    trials = weighing.evidence.required_trials
    a, b = (weighing.evidence.modalities.index(name) for name in weighing.pair)
    for number, member in enumerate(trials.member[:TRIALS]):
        rows = np.flatnonzero(~member)
        if not len(rows):
            continue
        embeddings = trials.embed(number, torch.from_numpy(rows))
        left, right = embeddings[a].float(), embeddings[b].float()
        if also is not None:
            also(rows, left, right)
        place = np.zeros(len(member), np.int64)  # of each non-member among them
        place[rows] = np.arange(len(rows))
        usable = (canonical_of >= 0) & ~member[at]
        _add_band(left, right, place[at], usable, offsets, total)
        del embeddings, left, right  # before the next ones are made
    usable = (canonical_of >= 0) & ~trials.member[:TRIALS, at]  # [r, n]
    for k, d in enumerate(offsets):  # no table of all counts
        count = sum((row & _beside(row, np.array([d]))[0]).astype(np.uint8) for row in usable)
        with np.errstate(invalid="ignore", divide="ignore"):
            total[k] /= count
    _fall(weighing, "contrast", at, offsets, total)
    if "zero_shot" in weighing.weights:
        sides = weighing.evidence.in_one_space(weighing.pair)
        assert sides is not None  # or it has no weight
        x, y = (torch.from_numpy(side) for side in sides)
        frozen = np.zeros_like(total)
        _add_band(x, y, at, canonical_of >= 0, offsets, frozen)
        _fall(weighing, "zero_shot", at, offsets, frozen)
        total += frozen
    return total


def _fall(weighing: Weighing, name: str, at: Ints, offsets: Ints, similarity: Floats) -> None:
    """Turns similarities `[D, n]`, in place, into gains: the fall of one kind of evidence with each caption offered."""
    media, captions = (hub[at] for hub in weighing.hubs[name])
    own, weight = weighing.own[name][at] - media, weighing.weights[name] / weighing.scale[name][1]
    for k in range(len(offsets)):
        similarity[k] += own - _beside(captions, offsets[k : k + 1])[0]
    similarity *= np.float32(weight)


def _add_band(left: torch.Tensor, right: torch.Tensor, at: Ints, usable: Bools, offsets: Ints, total: Floats) -> None:
    """Adds, in place, to `[D, n]`: similarity of left[at[i]] and right[at[i + offset]], 0 unless both are usable."""
    n, is_near = len(at), np.abs(offsets) <= NEAR
    for start in range(0, n, BLOCK_ROWS):
        stop, first = min(start + BLOCK_ROWS, n), max(start - NEAR, 0)
        block = _caller_rows(left, at, usable, start, stop)
        if is_near.any():
            around = (block @ _caller_rows(right, at, usable, first, min(stop + NEAR, n)).T).cpu().numpy()
            row = np.arange(stop - start)
            column = row[None] + start + offsets[is_near][:, None] - first
            inside = (column >= 0) & (column < around.shape[1])
            near = np.where(inside, around[row[None], np.clip(column, 0, around.shape[1] - 1)], 0)
            total[is_near, start:stop] += near
        for k in np.flatnonzero(~is_near):
            d = int(offsets[k])
            low, high = max(start, -d), min(stop, n - d)
            if low < high:
                other = _caller_rows(right, at, usable, low + d, high + d)
                total[k, low:high] += (block[low - start : high - start] * other).sum(1).cpu().numpy()


def _caller_rows(side: torch.Tensor, at: Ints, usable: Bools, start: int, stop: int) -> torch.Tensor:
    """`[stop - start, o]`: these rows in the caller's order, 0 where not usable; no copy of the set is made."""
    rows, factor = (torch.from_numpy(values[start:stop]).to(side.device) for values in (at, usable))
    return side[rows].float() * factor[:, None]


def _beside(values: np.ndarray, offsets: Ints) -> np.ndarray:
    """`[D, n]`: values[i + offset]; 0 or False beyond the ends."""
    n, out = len(values), np.zeros((len(offsets), len(values)), dtype=values.dtype)
    for row, d in zip(out, offsets.tolist(), strict=True):
        start, stop = max(-d, 0), min(n, n - d)
        if start < stop:
            row[start:stop] = values[start + d : stop + d]
    return out


def _related(evidence: Evidence, canonical_of: Ints, offsets: Ints) -> Bools:
    """bool `[D, n]`: the rows share a medium, a text or a group, so that one fits the other's caption by right."""
    out = np.zeros((len(offsets), len(canonical_of)), dtype=bool)
    for number in (*evidence.contents.values(), evidence.leave_together):
        values = np.where(canonical_of >= 0, number[canonical_of] + 1, 0)
        for k in range(len(offsets)):  # a table of all numbers would take 8 bytes a cell
            out[k] |= _beside(values, offsets[k : k + 1])[0] == values
    return out


class FarVotes:
    """Offsets beyond `NEAR`: where the worst rows' media, over all trials, find their best caption."""

    def __init__(self, weighing: Weighing, canonical_of: Ints) -> None:
        self.caller_of = np.full(len(weighing.evidence), -1)
        self.caller_of[canonical_of[canonical_of >= 0]] = np.flatnonzero(canonical_of >= 0)
        own = np.nan_to_num(weighing.own["contrast"], nan=-np.inf)
        self.worst = np.sort(np.argsort(-own, kind="stable")[:WORST_ROWS])
        self.hubs = np.nan_to_num(weighing.hubs["contrast"][1])
        self.offsets = [np.zeros(0, np.int64)]

    def read(self, held_out: Ints, left: torch.Tensor, right: torch.Tensor) -> None:
        """Adds the votes of one trial, see `Read`."""
        rows = np.intersect1d(self.worst, held_out)
        if not len(rows):
            return
        q, hub = (torch.from_numpy(v).to(left.device) for v in (np.searchsorted(held_out, rows), self.hubs[held_out]))
        best = torch.empty_like(q)  # one array for all, as in `contrast.all_log_means`
        for block, of_block in zip(left[q].split(VOTER_ROWS), best.split(VOTER_ROWS), strict=True):
            torch.argmax((block @ right.T).sub_(hub), 1, out=of_block)
        self.offsets.append(self.caller_of[held_out[best.cpu().numpy()]] - self.caller_of[rows])

    def elected(self, rows: int) -> Ints:
        """The offsets with clearly more votes than chance gives one of them, most votes first."""
        voted = np.concatenate(self.offsets)
        offsets, counts = np.unique(voted[np.abs(voted) > NEAR], return_counts=True)
        ranked = np.lexsort((offsets, np.abs(offsets), -counts))[:FAR_OFFSETS]
        usual = counts.sum() / max(2 * rows, 1)
        return offsets[ranked][counts[ranked] > 3 * usual + 10]


def _repair(
    weighing: Weighing, shift: Shift, gains: Floats, is_taken: Bools, canonical_of: Ints, ids: Sequence[str]
) -> Repair | None:
    """The shift with its bounds made sharp and the rows beside it decided.

    `gains` `[n]` are those of its offset; a row that `is_taken` `[n]` belongs to a stronger shift.
    """
    # how badly each pair fits as it is, in the unit of `offset_gains`; 0: the set's median
    of_pair = {kind: weighing.own[kind] for kind in OF_THE_PAIR if kind in weighing.own}
    misfit = weighted_sum(of_pair, weighing)[np.maximum(canonical_of, 0)]
    # above 0: nearer to the shift's typical row than to the set's
    misfit = np.where(canonical_of >= 0, misfit, 0) - np.nanmedian(misfit[shift.start : shift.stop]) / 2
    same = _same_caption(weighing, shift.offset, canonical_of)
    repeated = _repeats(weighing, shift.offset, canonical_of)
    shift = sharpen(shift, np.where(is_taken, -np.inf, np.where(same, 0.0, gains)), misfit, repeated)
    ends = possible_ends(shift, np.where(same | is_taken, np.nan, gains), misfit, repeated).outside(is_taken)
    rows = np.arange(shift.start, shift.stop)
    pairs = [*zip(rows.tolist(), (rows + shift.offset).tolist(), strict=True)]
    beside, free = left_over(shift, len(canonical_of))
    closing: set[int] = set()
    if is_taken[beside].any():  # by the shift beside this one: nothing went round, and these rows have their captions
        beside = beside[~is_taken[beside]]
    elif _went_round(weighing, canonical_of, beside, free):
        closing = set(beside.tolist())
        pairs += zip(beside.tolist(), free.tolist(), strict=True)
        ends = _closed_ends(weighing, canonical_of, shift, ends)
        beside = beside[:0]

    def complete(row: int, source: int) -> bool:
        return 0 <= source < len(canonical_of) and min(canonical_of[row], canonical_of[source]) >= 0

    pairs = sorted(pair for pair in pairs if complete(*pair))
    changed = np.setdiff1d(rows, np.flatnonzero(same))
    mean = float(np.nan_to_num(gains[changed]).mean()) if len(changed) else 0.0
    if mean <= 0 or not pairs:
        return None
    left, right = (tuple(p[side] for p in pairs) for side in (0, 1))
    taken, again = dict(pairs), tuple(row for row, source in pairs if _is_same(weighing, canonical_of, row, source))
    open_rows = {row for row in ends.open_rows if row in closing or not same[row]}
    if open_rows:  # which captions are left over depends on both ends
        open_rows |= closing
    open_rows = {row for row in open_rows - {*again} if complete(row, taken.get(row, row + shift.offset))}
    lost = tuple(beside.tolist())
    first, last = ends.starts, (ends.stops[0] - 1, ends.stops[1] - 1)
    return Repair(
        "shift",
        left,
        right,
        round(mean, 3),
        shift_sentence(shift.offset, first, last, ids, lost),
        lost,
        first,
        last,
        uncertain=tuple(sorted(open_rows)),
        same=again,
        offset=shift.offset,
    )


def _closed_ends(weighing: Weighing, canonical_of: Ints, shift: Shift, ends: Ends) -> Ends:
    """Of the possible ends of a block that went round, those that close it too, with the rows that close it."""
    starts, stops = (range(low, high + 1) for low, high in (ends.starts, ends.stops))
    closing = [(shift.start, shift.stop)]
    if len(starts) * len(stops) <= MOST_CLOSINGS:
        for start, stop in product(starts, stops):
            beside, free = left_over(replace(shift, start=start, stop=stop), len(canonical_of))
            if _went_round(weighing, canonical_of, beside, free):
                closing.append((start, stop))
    else:
        closing += product(starts, stops)
    before, after = min(shift.offset, 0), max(shift.offset, 0)  # the rows that close it lie before or after it
    of_start, of_stop = ([pair[side] for pair in closing] for side in (0, 1))
    return Ends(
        (max(min(of_start) + before, 0), max(max(of_start) + before, 0)),
        (min(of_stop) + after, min(max(of_stop) + after, len(canonical_of))),
    )


def _same_caption(weighing: Weighing, offset: int, canonical_of: Ints) -> Bools:
    """bool `[n]`: the rows whose caption is that of the row `offset` further on."""
    content = weighing.evidence.contents[weighing.pair[1]]
    values = np.where(canonical_of >= 0, content[canonical_of] + 1, 0)  # 0 beyond the ends too
    return (_beside(values, np.array([offset]))[0] == values) & (values > 0)


def _is_same(weighing: Weighing, canonical_of: Ints, row: int, source: int) -> bool:
    content = weighing.evidence.contents[weighing.pair[1]]
    return bool(content[canonical_of[row]] == content[canonical_of[source]])


def _repeats(weighing: Weighing, offset: int, canonical_of: Ints) -> Floats:
    """`[n]`: evidence that a shift begins (ends, for a negative offset) with a row, whose caption stands twice."""
    content = weighing.evidence.contents[weighing.pair[1]]
    values = np.where(canonical_of >= 0, content[canonical_of], -1 - np.arange(len(canonical_of)))
    twice = _beside(values + len(canonical_of) + 1, np.array([-offset]))[0] == values + len(canonical_of) + 1
    return np.where(twice, np.log(len(canonical_of) / (1 + twice.sum())), 0.0)


def _went_round(weighing: Weighing, canonical_of: Ints, beside: Ints, free: Ints) -> bool:
    """Whether the rows beside a shift fit the captions that nobody in it takes: better than halfway to the usual."""
    if not len(beside) or len(beside) != len(free) or min(canonical_of[beside].min(), canonical_of[free].min()) < 0:
        return False
    weighing = with_tables(weighing, canonical_of[[*beside, *free]])
    media, captions = (embed_rows(weighing, canonical_of[rows]) for rows in (beside, free))
    fits = np.diagonal(suspicion(weighing, media, captions))
    return bool(np.isfinite(fits).any() and np.nanmean(fits) < ROUND)
