"""What is wrong with the boxes of objects in images: beyond the image, too small, twice, or odd for their class.

Boxes of one image are compared with each other, and the size and shape of a box with those of the inner boxes of its
class: at the edge of an image only a part of an object is seen, which may have any shape. A size or shape must lie
beyond an absolute bound and beyond the tail of its class. What many boxes show is the style of the set or of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Bools, Boxes, Floats, Ints, count_text
from audit_plugin.inputs.images import box_fault
from audit_plugin.inputs.rows import brief

from .tails import tail_cut

BEYOND = 1.0  # pixels by which boxes that are rounded may lie beyond the image
ROUNDING = 1e-6  # shares to which the values of boxes are known
TINY = 2.0  # pixels of a side, below which nothing is seen
SAME = 0.9  # intersection over union of boxes of one object
REACH = (1 - SAME) / SAME  # widths by which the left sides of such boxes differ at most
MOST_COMPARED = 256  # of the boxes of an image within reach to the right of one: the memory stays O(b)
COMMON = 0.1  # share of the boxes above which a trait is a style
LEAST_BOXES = 3  # that show a style
EDGE = 0.005  # shares of the image, nearer than which a box touches its edge
LEAST_OF_CLASS = 50  # inner boxes, from which on the class has a usual size and shape
RATE = 0.001  # share of the clean boxes of a class beyond each tail
TIMES_LARGER, TIMES_LONGER = 1.5, 1.0  # log2 of the area, and of width / height, from the median: 2.8 and 2 times
COMMON_IN_CLASS = 0.05  # share of its boxes above which an odd size or shape is a style of the class
# share and number of the boxes of a class from edge to edge of the image, above which such boxes are not too large
CLOSE_UPS, LEAST_CLOSE_UPS = 0.01, 10
SHOWN = 3  # classes that a note names
LONGEST_NAME = 40  # characters of a class that is quoted


@dataclass(frozen=True)
class Twins:
    """Nearly the same boxes, by the number of a row.

    Attributes:
        rows: int64 `[n]`, the row with the box that overlaps most, -1 for none.
        overlaps: float64 `[n]`, their intersection over union, NaN for none.
    """

    rows: Ints
    overlaps: Floats

    @staticmethod
    def none(n: int) -> Twins:
        """Of n rows."""
        return Twins(np.full(n, -1), np.full(n, np.nan))


@dataclass(frozen=True)
class BoxProblems:
    """What checks found in the boxes of n rows.

    Attributes:
        alone: object `[n]`: what is wrong with the box by itself, `beyond the image (left -12, ...)`, or "".
        doubled: earlier boxes of the same class that are nearly the same: the first one of each has none.
        contested: boxes of another class that are nearly the same.
        classes: object `[n]`: the names of the classes, "" where there are none.
        notes: for people.
    """

    alone: NDArray[Any]
    doubled: Twins
    contested: Twins
    classes: NDArray[Any]
    notes: tuple[str, ...] = ()

    @staticmethod
    def none(n: int) -> BoxProblems:
        """Of n rows without boxes."""
        nothing = np.full(n, "", dtype=object)
        return BoxProblems(nothing, Twins.none(n), Twins.none(n), nothing)

    @property
    def has_any(self) -> Bools:
        """bool `[n]`: a check found something."""
        return np.asarray((self.alone != "") | (self.doubled.rows >= 0) | (self.contested.rows >= 0), dtype=bool)

    def texts(self, ids: Sequence[str]) -> NDArray[Any]:
        """Object `[n]`: all that was found, as people read it, or ""; `ids` `[n]` name the rows of the other boxes."""
        out = self.alone.copy()
        for twins, whose in ((self.doubled, "the same class"), (self.contested, "another class")):
            for row in np.flatnonzero(twins.rows >= 0):
                other = twins.rows[row]
                of_class = f", of {whose} {brief(self.classes[other], LONGEST_NAME)}" if self.classes[other] else ""
                found = f"nearly the same box as {ids[other]}{of_class} (overlap {twins.overlaps[row]:.0%})"
                out[row] = "; ".join(filter(None, (out[row], found)))
        return out


def check_boxes(boxes: Boxes, labels: Sequence[str], are_classes: bool, n: int) -> BoxProblems:
    """What is wrong with b boxes of n rows.

    Args:
        boxes: the boxes.
        labels: `[n]` texts that belong to them, "" for none: equal ones are one class.
        are_classes: whether the texts are names of classes; descriptions of objects are not: boxes with different
            ones may be the same, and have no usual size.
        n: number of rows.
    """
    names = np.array([labels[row] for row in boxes.rows], dtype=object)
    classes = np.where(names == "", -1, np.unique(names, return_inverse=True)[1])
    doubled, contested = near_twins(boxes, classes)
    notes = [_unknown_sizes(boxes)]
    if not are_classes:
        contested = Twins.none(len(boxes))
    elif _is_style(contested.rows >= 0, len(boxes), COMMON):
        share = (contested.rows >= 0).mean()
        notes.append(_style(share, "are nearly the same as one of another class"))
        contested = Twins.none(len(boxes))
    found, of_position = _by_position(boxes)
    odd, of_classes = _odd_for_class(boxes, names) if are_classes else (np.full(len(boxes), "", dtype=object), [])
    alone = np.array(["; ".join(filter(None, parts)) for parts in zip(found, odd, strict=True)], dtype=object)

    def of_rows(values: NDArray[Any], missing: Any) -> NDArray[Any]:
        out = np.full(n, missing, dtype=values.dtype)
        out[boxes.rows] = values
        return out

    def twins_of_rows(twins: Twins) -> Twins:
        rows = np.where(twins.rows >= 0, boxes.rows[twins.rows], -1)
        return Twins(of_rows(rows, -1), of_rows(twins.overlaps, np.nan))

    return BoxProblems(
        alone=of_rows(alone, ""),
        doubled=twins_of_rows(doubled),
        contested=twins_of_rows(contested),
        classes=of_rows(names if are_classes else np.full(len(boxes), "", dtype=object), ""),
        notes=tuple(filter(None, [*notes, *of_position, *of_classes])),
    )


# --- twice -----------------------------------------------------------------------------------------------------------


def near_twins(boxes: Boxes, classes: Ints) -> tuple[Twins, Twins]:
    """(earlier boxes of the same class, any boxes of another class) with an overlap of at least `SAME`, of each box.

    Boxes are numbered as in `boxes`; a class of -1 is none, and no other one. Those of one image are sorted by their
    left sides, and each is compared with the next one, with the one after it and so on, as long as that is within
    `REACH`: O(pairs within reach) time and O(b) memory. Of more than `MOST_COMPARED` within reach of one box, the
    nearest are compared.
    """
    left, width = boxes.sides[:, 0], boxes.sides[:, 2]
    order = np.lexsort((left, boxes.images))  # stable: equal boxes stay in the order of their rows
    is_box = _is_box(boxes.sides)
    with np.errstate(over="ignore", invalid="ignore"):
        reach = left + REACH * width
    doubled, contested = Twins.none(len(boxes)), Twins.none(len(boxes))
    places = np.arange(len(boxes))
    for step in range(1, min(MOST_COMPARED, len(boxes) - 1) + 1):
        places = places[places + step < len(boxes)]
        first, second = order[places], order[places + step]
        with np.errstate(invalid="ignore"):  # NaN is never within reach
            is_near = (boxes.images[first] == boxes.images[second]) & (left[second] <= reach[first])
        places, first, second = places[is_near], first[is_near], second[is_near]
        if not len(places):
            break
        overlap = intersection_over_union(boxes.sides[first], boxes.sides[second])
        hits = (overlap >= SAME) & is_box[first] & is_box[second] & (boxes.objects[first] != boxes.objects[second])
        first, second, overlap = first[hits], second[hits], overlap[hits]
        same = classes[first] == classes[second]
        other = ~same & (classes[first] >= 0) & (classes[second] >= 0)
        earlier, later = np.minimum(first, second), np.maximum(first, second)
        _keep_best(doubled, later[same], earlier[same], overlap[same])
        _keep_best(contested, first[other], second[other], overlap[other])
        _keep_best(contested, second[other], first[other], overlap[other])
    return doubled, contested


def _keep_best(twins: Twins, rows: Ints, others: Ints, overlaps: Floats) -> None:
    """Fills in the twins of rows that overlap more than the ones so far; of equal ones the first row."""
    order = np.lexsort((others, -overlaps, rows))
    rows, others, overlaps = rows[order], others[order], overlaps[order]
    is_best = np.ones(len(rows), dtype=bool)
    is_best[1:] = rows[1:] != rows[:-1]
    rows, others, overlaps = rows[is_best], others[is_best], overlaps[is_best]
    known = np.where(twins.rows[rows] >= 0, twins.overlaps[rows], -1.0)
    better = (overlaps > known) | ((overlaps == known) & (others < twins.rows[rows]))
    twins.rows[rows[better]] = others[better]
    twins.overlaps[rows[better]] = overlaps[better]


def intersection_over_union(first: Floats, second: Floats) -> Floats:
    """float64 `[q]` of boxes `[q, 4]` each: left, top, width, height; not finite or negative where a box is no box."""
    with np.errstate(all="ignore"):
        start = np.maximum(first[:, :2], second[:, :2])
        end = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
        shared = np.clip(end - start, 0, None).prod(axis=1)
        return np.asarray(shared / (first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - shared))


# --- where it lies ---------------------------------------------------------------------------------------------------


def _is_box(sides: Floats) -> Bools:
    """bool `[b]`: finite, and with an area."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(sides).all(axis=1) & (sides[:, 2:] > 0).all(axis=1))


def _by_position(boxes: Boxes) -> tuple[NDArray[Any], list[str]]:
    """(object `[b]`: which boxes show nothing, reach beyond their image or are tiny, with their values; notes)."""
    found = np.full(len(boxes), "", dtype=object)
    for at in np.flatnonzero(~_is_box(boxes.sides)):
        found[at] = f"the box {box_fault(boxes.sides[at].tolist())}"
    with np.errstate(all="ignore"):
        starts, lengths = boxes.sides[:, :2] * boxes.sizes, boxes.sides[:, 2:] * boxes.sizes  # pixels
        ends = starts + lengths
        allowed = BEYOND + 2 * ROUNDING * boxes.sizes
        is_beyond = ((starts < -allowed) | (ends > boxes.sizes + allowed)).any(axis=1) & (found == "")
        is_tiny = (lengths < TINY - ROUNDING * boxes.sizes).any(axis=1) & (found == "")
    notes = []
    for name, trait, has_it in (
        ("beyond the image", "reach beyond their image", is_beyond),
        ("tiny", "are tiny", is_tiny),
    ):
        if _is_style(has_it, len(boxes), COMMON):
            notes.append(_style(has_it.mean(), trait))
            continue
        for at in np.flatnonzero(has_it):
            (left, top), (right, bottom), (width, height) = starts[at], ends[at], boxes.sizes[at]
            sides = f"{left:.5g} to {right:.5g} of {width:.0f} pixels across, {top:.5g} to {bottom:.5g} of {height:.0f}"
            found[at] = "; ".join(filter(None, (found[at], f"{name} ({sides} down)")))
    return found, notes


def _unknown_sizes(boxes: Boxes) -> str:
    count = len(np.unique(boxes.images[np.isnan(boxes.sizes).any(axis=1)]))
    if not count:
        return ""
    return (
        f"the size of {count_text(count, 'image')} with boxes is not known: these are compared with each other, and "
        "nothing else of them is checked"
    )


def _is_style(has_it: Bools, total: int, most: float) -> bool:
    count = int(has_it.sum())
    return count >= LEAST_BOXES and count > most * total


def _style(share: float, trait: str) -> str:
    return f"{share:.0%} of the boxes {trait}: the style of the set, which is not flagged"


# --- size and shape --------------------------------------------------------------------------------------------------


def _odd_for_class(boxes: Boxes, names: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """(object `[b]`: sizes and shapes that are odd for the class, with their values; notes). `names` `[b]`."""
    found = np.full(len(boxes), "", dtype=object)
    with np.errstate(all="ignore"):
        log_sides = np.log2(boxes.sides[:, 2:])
        log_area = log_sides.sum(axis=1)  # as a share of the image; a product could overflow
        log_shape = (log_sides + np.log2(boxes.sizes)) @ np.array([1.0, -1.0])  # of width / height in pixels
        ends = boxes.sides[:, :2] + boxes.sides[:, 2:]
        is_free = (boxes.sides[:, :2] > EDGE, ends < 1 - EDGE)  # [b, 2] each: of the left and top, the right and bottom
        is_inner = np.asarray((is_free[0] & is_free[1]).all(axis=1))
        is_close_up = np.asarray((~is_free[0] & ~is_free[1]).any(axis=1))
    is_known = _is_box(boxes.sides) & np.isfinite(log_shape)
    styles: dict[str, list[str]] = {"size": [], "shape": []}
    notes: list[str] = []
    order = np.argsort(classes := np.unique(names, return_inverse=True)[1], kind="stable")
    for of_class in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1) if len(boxes) else ():
        name, members = names[of_class[0]], of_class[is_known[of_class]]
        inner = members[is_inner[members]]
        if not name or len(inner) < LEAST_OF_CLASS:
            continue
        quoted, close_ups = brief(name, LONGEST_NAME), is_close_up[members]
        whole = members
        if close_ups.sum() >= max(LEAST_CLOSE_UPS, CLOSE_UPS * len(members)):
            whole = members[~close_ups]
            notes.append(
                f"{int(close_ups.sum()):,} boxes of {quoted} reach from edge to edge of their image: close-ups, which "
                "are not taken for too large"
            )
        for what, values, least in (("size", log_area, TIMES_LARGER), ("shape", log_shape, TIMES_LONGER)):
            usual = np.quantile(values[inner], [0.25, 0.75])
            # what is cut off at the edge is smaller than usual, but not larger
            judged = whole if what == "size" else inner
            odd = _beyond(values, judged, inner, least)
            odd = np.union1d(odd, _beyond(-values, inner, inner, least))
            if _is_style(np.isin(judged, odd), len(judged), COMMON_IN_CLASS):
                styles[what].append(quoted)
                continue
            for at in odd:
                text = f"odd {what} for the class {quoted} ({_of_class(what, values[at], usual)})"
                found[at] = "; ".join(filter(None, (found[at], text)))
    return found, notes[:SHOWN] + [
        f"more than {COMMON_IN_CLASS:.0%} of the boxes of {', '.join(of[:SHOWN])}{' and others' * (len(of) > SHOWN)} "
        f"have another {what} than most: the style of the class, which is not flagged"
        for what, of in styles.items()
        if of
    ]


def _beyond(values: Floats, rows: Ints, bulk: Ints, least: float) -> Ints:
    """Those of the rows whose values lie beyond the tail of the `bulk`, and `least` above its median."""
    cut = max(tail_cut(values[bulk], RATE), float(np.median(values[bulk])) + least)
    return rows[values[rows] > cut]


def _of_class(what: str, value: float, usual: Floats) -> str:
    """A log2 of an area or a shape beside the quartiles `[2]` of the class."""
    own, low, high = (f"{100 * v:.3g}%" if what == "size" else f"{v:.3g}" for v in np.exp2([value, *usual]))
    shown = f"{own} of the image" if what == "size" else f"width / height {own}"
    return f"{shown}, where half of the class have {low} to {high}"
