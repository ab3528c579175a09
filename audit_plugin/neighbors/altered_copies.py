"""Finds images that are cropped, mirrored, bordered or gray copies of another one: features propose, pixels decide.

The nearest other contents of a copy hold its source, by any of these changes. Of the pairs that are near enough and
alike in what was measured of their pixels, one image is laid upon the other: the best place of the smaller one by
normalized correlation of 32 x 32 gray values, refined at 64 x 64; then the whole images, cut to that place, are
compared patch by patch (`image_copies.difference`). Of a pair, the one that lost something is the copy; only where
neither did, as in a mirrored pair, the later row is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from audit_plugin.arrays import Bools, Floats, Ints, Neighbors, SampleFacts, count_text
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.reading import ReadApart

from .image_copies import GREY, SIDE, difference, pairs_by_component, signature
from .near_duplicates import usual_distance

if TYPE_CHECKING:
    from PIL.Image import Image

    from .neighborhood import Neighborhood

CLOSEST = 3  # nearest contents among which a copy's source may be
NEAREST = 0.9  # of the usual distance around: where it may be
ALIKE = {"dark": 0.2, "bright": 0.2, "entropy": 0.7}  # by which measures of a copy and its source differ at most
ALIKE_GRAY = {"dark": 0.03, "bright": 0.03, "entropy": 0.15}  # the same of a gray copy, however far features put it
BORDER, GRAY = 0.02, 0.02  # shares from which on an image has a border, and below which it has no color
PLAIN = 8  # gray values of 255 that a border may span
LEAST_CONTRAST = 5  # of 255: deviation of the gray values of an image that can be laid upon another one
COARSE = 32  # gray values along a side, where the place is searched
SMALLEST = 26  # of COARSE: a copy keeps 80% of each side
CORRELATION, WORST = 0.9, 1.2  # least correlation; largest difference after it was laid upon the source
STEPS = (1.0, 0.5, 0.25)  # of SIDE, by which the edges of the place are moved
LEAST_LEFT = 0.7  # of a side
CUT = 0.985  # of a side, below which a copy counts as cropped
CLEARLY_BETTER = 0.7  # and the error at its place, of that at the whole image: else a change of brightness moved it
LONGEST = 512  # pixels of the longer side of an image that is compared
LOOKS = 64  # images in memory, at most 0.8 MB each
KINDS = ("mirrored", "cropped", "bordered", "gray")  # changes, in the order in which they are named
NONE, MIRRORED = frozenset[str](), frozenset({"mirrored"})

Read = Callable[[int], "Image | None"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AlteredCopies:
    """Of n rows: the row that each is an altered copy of, int64 `[n]` (-1: none), and how, object `[n]`; notes on them.

    No source is itself a copy.
    """

    source: Ints
    how: Any
    notes: tuple[str, ...] = ()

    @classmethod
    def none(cls, n: int) -> AlteredCopies:
        """No copies among n rows."""
        return cls(np.full(n, -1, dtype=np.int64), np.full(n, "", dtype=object))


@dataclass(frozen=True)
class _Look:
    """An image without its border: itself, its signature, its gray values; whether it is gray, the border's share."""

    image: Image
    signature: Any
    gray: Image
    is_gray: bool
    border: float


@dataclass(frozen=True)
class _Link:
    """Rows of two contents that show the same: the copy, its source, the changes, and how far they are apart.

    `is_either`: neither lost anything, and the source may be the copy as well.
    """

    copy: int
    source: int
    changes: frozenset[str]
    difference: float
    is_either: bool


@dataclass(frozen=True)
class _Rows:
    """What is known of n rows: contents, copies that are known, user groups, `[n]` each, and texts `[n, t]`."""

    content: Ints
    copy_group: Ints
    texts: Ints
    user_groups: Ints

    @functools.cached_property
    def by_content(self) -> tuple[Ints, Ints]:
        """(rows sorted by content, those contents)."""
        order = np.argsort(self.content, kind="stable")
        return order, self.content[order]

    def like(self, row: int) -> Ints:
        """The rows with the content of a row, in their order."""
        order, contents = self.by_content
        start, end = np.searchsorted(contents, [self.content[row], self.content[row] + 1])
        return order[start:end]

    def sources(self, copy: int, source: int, by_text: bool) -> dict[int, int]:
        """Each row with the content `copy` -> the first one with the content `source` that it may be a copy of.

        Of another user group, and of the same text if `by_text`; rows without one are left out. Linear in the rows.
        """
        firsts: dict[tuple[int, ...], list[int]] = {}  # text -> the first rows of two user groups

        def text(row: int) -> tuple[int, ...]:
            return tuple(self.texts[row].tolist()) if by_text else ()

        for row in self.like(source).tolist():
            rows = firsts.setdefault(text(row), [])
            if not rows or (len(rows) == 1 and self.user_groups[rows[0]] != self.user_groups[row]):
                rows.append(row)
        found = {}
        for row in self.like(copy).tolist():
            for first in firsts.get(text(row), ()):
                if self.user_groups[first] != self.user_groups[row]:
                    found[row] = first
                    break
        return found


def find_altered_copies(
    paths: Sequence[str], facts: SampleFacts, neighborhood: Neighborhood, copy_group: Ints, progress: Progress
) -> AlteredCopies:
    """Altered copies among n images; those of one `copy_group` `[n]` are copies already and are not looked at.

    A mirrored image counts where the texts are the same: a hand that points left is not a copy of one that points
    right. Rows of one user group are not copies of each other. `progress`: called with (stage, done, total).
    """
    if facts.pixels is None or not len(paths):
        return AlteredCopies.none(len(facts))
    read_image = ReadApart("image")
    unread = set(np.unique(facts.contents["image"][~np.isfinite(facts.pixels).all(axis=1)]).tolist())

    def read(row: int) -> Image | None:
        try:
            return read_image(paths[row])
        except MediaError:  # gone since it was encoded
            unread.add(int(facts.contents["image"][row]))
            return None

    by_cosine = Neighbors(neighborhood.neighbors["image"].indices, neighborhood.cosines["image"])
    texts = [facts.contents[name] for name in facts.words]
    same_text = np.stack(texts, axis=1) if texts else np.zeros((len(facts), 0), dtype=np.int64)
    owners = np.arange(len(facts)) if facts.user_groups is None else facts.user_groups
    content = facts.contents["image"]
    copies = altered_copies(by_cosine, content, facts.pixels, copy_group, same_text, owners, read, progress)
    if not unread:
        return copies
    note = (
        f"{count_text(len(unread), 'image')} could not be read again: whether they are cropped, mirrored, bordered or "
        "gray copies is not known; restore the files, and run the same command again"
    )
    return replace(copies, notes=(note,))


def altered_copies(
    neighbors: Neighbors,
    content: Ints,
    pixels: Floats,
    copy_group: Ints,
    texts: Ints,
    user_groups: Ints,
    read: Read,
    progress: Progress = lambda *_: None,
) -> AlteredCopies:
    """The same from arrays.

    Memory: `LOOKS` images of `LONGEST` pixels; pairs that share images follow each other, so that few are read twice.

    Args:
        neighbors: over distinct contents, `similarities` their cosines `[n, k]`.
        content: `[n]`, equal numbers are the same image.
        pixels: `[n, 8]`, see `encoders.pixels`.
        copy_group: `[n]`, copies that are known.
        texts: `[n, t]` content ids of the texts.
        user_groups: `[n]`, rows of one are not copies of each other.
        read: row -> the image as RGB, or None.
        progress: called with (stage, done, total).
    """
    rows = _Rows(content, copy_group, texts, user_groups)

    @functools.lru_cache(maxsize=LOOKS)
    def look(row: int) -> _Look | None:
        image = read(row)
        return None if image is None else _look(image)

    def link(row: int, other: int) -> _Link | None:
        left, right = look(row), look(other)
        return None if left is None or right is None else _link(row, other, left, right)

    links, done = [], 0
    pairs = _candidates(neighbors, rows, pixels)
    for linked in pairs_by_component(pairs, len(content)):
        for row, other in linked.tolist():
            proposed = link(row, other)
            if proposed and rows.sources(proposed.copy, proposed.source, "mirrored" in proposed.changes):
                links.append(proposed)
            done += 1
            progress("compare images", done, len(pairs))
    return _resolved(links, rows, link)


def _resolved(links: Sequence[_Link], rows: _Rows, link_of: Callable[[int, int], _Link | None]) -> AlteredCopies:
    """Of each content that is a copy, the source that is not one: links followed to their end, without cycles.

    Known copies are one node. What lost something decides first, by the fewest changes, whatever the order of the rows.
    How a copy differs from the end of its links is asked of `link_of`, or else put together from them.
    """
    copies = AlteredCopies.none(len(rows.content))
    parent: dict[int, _Link] = {}  # of a node

    def path(link: _Link) -> Iterator[_Link]:
        """The link, and those from its source on."""
        yield link
        while following := parent.get(int(rows.copy_group[link.source])):
            yield (link := following)

    accepted: dict[int, _Link] = {}  # by row of the copy
    for link in sorted(links, key=lambda link: (link.is_either, len(link.changes), link.difference, link.copy)):
        node, node_of_source = int(rows.copy_group[link.copy]), int(rows.copy_group[link.source])
        if link.is_either and node in parent and node_of_source not in parent:
            directed, node = replace(link, copy=link.source, source=link.copy), node_of_source
        else:
            directed = link
        root = [*path(directed)][-1].source
        if rows.copy_group[root] != node and directed.copy not in accepted:
            accepted[directed.copy] = directed
            parent.setdefault(node, directed)
    for link in accepted.values():
        steps = [*path(link)]
        root = steps[-1].source
        direct = link if len(steps) == 1 else link_of(link.copy, root)
        if direct and (direct.is_either or direct.copy == link.copy):
            changes = direct.changes
        else:  # twice mirrored is not mirrored
            changes = functools.reduce(lambda c, step: (c | step.changes) - (c & step.changes & MIRRORED), steps, NONE)
        by_text = "mirrored" in changes and len(steps) == 1  # of more steps, each was compared by itself
        for row, source in rows.sources(link.copy, root, by_text).items():
            copies.source[row] = source
            copies.how[row] = " and ".join(kind for kind in KINDS if kind in changes) or "altered"
    return copies


def _candidates(neighbors: Neighbors, rows: _Rows, pixels: Floats) -> Ints:
    """Pairs of rows `[q, 2]`, each once: near contents, alike by their measures, not within one user group."""
    from audit_plugin.encoders.pixels import MEASURES

    content, owners = rows.content, rows.user_groups
    _, first, number = np.unique(content, return_index=True, return_inverse=True)
    lowest, highest = np.full(len(first), len(content)), np.full(len(first), -1)  # user groups with each content
    np.minimum.at(lowest, number.reshape(-1), owners)
    np.maximum.at(highest, number.reshape(-1), owners)

    at, column = np.nonzero(neighbors.indices[first] >= 0)
    row, other = first[at], neighbors.indices[first[at], column].astype(np.int64)
    left, right = number.reshape(-1)[row], number.reshape(-1)[other]
    in_one_group = np.minimum(lowest[left], lowest[right]) == np.maximum(highest[left], highest[right])
    may_be = ~in_one_group & (rows.copy_group[row] != rows.copy_group[other])
    similarity = np.full((len(first), neighbors.indices.shape[1]), -np.inf)
    similarity[at[may_be], column[may_be]] = neighbors.similarities[row[may_be], column[may_be]]
    rank = np.argsort(np.argsort(-similarity, axis=1, kind="stable"), axis=1)  # among those that may be copies
    usual = usual_distance(neighbors)
    with np.errstate(invalid="ignore"):
        is_near = 1 - neighbors.similarities[row, column] <= NEAREST * np.sqrt(usual[row] * usual[other])
        of = {name: pixels[:, number] for number, name in enumerate(MEASURES)}

        def differ_at_most(limits: dict[str, float]) -> Bools:
            return np.logical_and.reduce(
                [abs(of[name][row] - of[name][other]) <= most for name, most in limits.items()]
            )

        has_color = of["color"] >= GRAY
        is_alike = differ_at_most(ALIKE) | (abs(of["border"][row] - of["border"][other]) >= BORDER)
        is_gray_copy = (has_color[row] != has_color[other]) & differ_at_most(ALIKE_GRAY)
    proposed = (is_near & is_alike & (rank[at, column] < CLOSEST)) | is_gray_copy
    return np.unique(np.sort(np.stack([row, other], axis=1)[proposed & may_be], axis=1), axis=0)


def _look(image: Image) -> _Look:
    from PIL import Image as Pil

    if max(image.size) > LONGEST:
        width, height = (max(1, round(side * LONGEST / max(image.size))) for side in image.size)
        image = image.resize((width, height), Pil.Resampling.BOX)
    gray = np.asarray(image.convert("L")).astype(np.int16)
    rows, columns = (np.flatnonzero(np.ptp(gray, axis=axis) > PLAIN) for axis in (1, 0))
    inner = image
    if len(rows) and len(columns):
        inner = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    small = signature(inner)
    spread = np.quantile(small.max(axis=2) - small.min(axis=2), 0.99) / 255
    gray_image = Pil.fromarray((small @ GREY).astype(np.float32))
    border = 1 - inner.width * inner.height / (image.width * image.height)
    return _Look(inner, small, gray_image, bool(spread < GRAY), border)


def _link(row: int, other: int, left: _Look, right: _Look) -> _Link | None:
    """Which of two rows is an altered copy of the other by what was seen of them, or None; symmetric."""
    if min(np.asarray(look.gray).std() for look in (left, right)) < LEAST_CONTRAST:
        return None
    if left.signature.tobytes() > right.signature.tobytes():  # so that ties do not depend on the order of the rows
        row, other, left, right = other, row, right, left
    places = [(_coarse(whole, part), whole, part) for whole, part in ((left, right), (right, left))]
    (correlation, flipped, size, x, y), whole, part = max(places, key=lambda place: place[0])
    if correlation < CORRELATION:
        return None
    scale = SIDE / COARSE
    start = [x * scale, y * scale, (x + size) * scale, (y + size) * scale]
    box, is_moved = _refined(whole.gray, _gray(part, flipped), start)
    apart = _difference_at(whole, part, flipped, box)
    if not apart <= WORST:
        return None
    losses: dict[str, _Look] = {}  # change -> the image that it was made to; what decides first
    if left.is_gray != right.is_gray:
        losses["gray"] = left if left.is_gray else right
    if is_moved and min(box[2] - box[0], box[3] - box[1]) < CUT * SIDE:
        losses["cropped"] = part
    less, more = sorted((left, right), key=lambda look: look.border)
    if more.border - less.border >= BORDER:  # an image on a plain ground has a margin, of which a crop takes a part
        losses |= {"bordered": more} if less.border < BORDER else {"cropped": losses.get("cropped", less)}
    later = left if row > other else right
    copy = next(iter(losses.values()), later)
    changes = {change for change, look in losses.items() if look is copy} | ({"mirrored"} if flipped else set())
    ends = (row, other) if copy is left else (other, row)
    return _Link(*ends, frozenset(changes), apart, not losses)


def _gray(look: _Look, flipped: bool) -> Image:
    from PIL import ImageOps

    return ImageOps.mirror(look.gray) if flipped else look.gray


def _coarse(whole: _Look, part: _Look) -> tuple[float, bool, int, int, int]:
    """(correlation, whether mirrored, size, x, y) of the best place of the part in the whole, by `COARSE` values."""
    from PIL.Image import Resampling

    values = np.asarray(whole.gray.resize((COARSE, COARSE), Resampling.BOX), dtype=np.float32)
    best = (-1.0, False, COARSE, 0, 0)
    for size in range(COARSE, SMALLEST - 1, -1):
        windows = sliding_window_view(values, (size, size)).reshape(-1, size * size)
        norms = np.sqrt(np.maximum((windows**2).sum(1) - windows.sum(1) ** 2 / size**2, 1e-6))
        for flipped in (False, True):
            shrunk = _gray(part, flipped).resize(
                (size, size), Resampling.BOX if size == COARSE else Resampling.BILINEAR
            )
            small = np.asarray(shrunk, dtype=np.float32)
            centered = (small - small.mean()).reshape(-1)
            correlation = windows @ centered / (norms * max(float(np.linalg.norm(centered)), 1e-6))
            at = int(correlation.argmax())
            if correlation[at] > best[0]:
                places = COARSE - size + 1
                best = (float(correlation[at]), flipped, size, at % places, at // places)
    return best


def _refined(whole: Image, part: Image, box: list[float]) -> tuple[list[float], bool]:
    """(the box in the whole, left, top, right, bottom of `SIDE`, that resembles the part most; clearly more than all).

    Edge by edge, by the mean difference after the brightness was fitted.
    """
    from PIL.Image import Resampling

    target = np.asarray(part, dtype=np.float32)

    def error(box: list[float]) -> float:
        left, top, right, bottom = box
        cut = np.asarray(whole.resize((SIDE, SIDE), Resampling.BILINEAR, box=(left, top, right, bottom)), np.float32)
        gain = float((cut * target).sum() / max(float((cut * cut).sum()), 1e-6))
        return float(np.abs(gain * cut - target).mean())

    least, of_all = error(box), error([0.0, 0.0, SIDE, SIDE])
    for step in STEPS:
        for edge, move in ((edge, move) for _ in range(3) for edge in range(4) for move in (step, -step)):
            moved = list(box)
            moved[edge] = min(max(moved[edge] + move, 0.0), float(SIDE))
            if min(moved[2] - moved[0], moved[3] - moved[1]) < LEAST_LEFT * SIDE:
                continue
            if (value := error(moved)) < least:
                least, box = value, moved
    return box, least < CLEARLY_BETTER * of_all


def _difference_at(whole: _Look, part: _Look, flipped: bool, box: list[float]) -> float:
    """How far the whole, cut to the box, and the part are apart; in gray values where one of them has no color."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    width, height = whole.image.size
    left, top, right, bottom = np.array(box) / SIDE * [width, height, width, height]
    cut = whole.image.resize((SIDE, SIDE), Resampling.BILINEAR, box=(left, top, right, bottom))
    pictures = [cut, ImageOps.mirror(part.image) if flipped else part.image]
    if whole.is_gray != part.is_gray:
        pictures = [picture.convert("L").convert("RGB") for picture in pictures]
    one, other = (signature(picture)[None] for picture in pictures)
    return float(difference(one, other)[0])
