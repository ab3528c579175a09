"""The boxes that stand in the values of images: where they lie, and in images of which size."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from audit_plugin.arrays import Boxes, dense_ids

from .files import MediaError
from .image_size import upright_size
from .images import is_crop, path_and_box

UNKNOWN = (np.nan, np.nan)  # width and height


def boxes_of(values: Sequence[str], ids: Sequence[str], reads_files: bool = True) -> Boxes | None:
    """The boxes among the values of n images, None without any.

    Args:
        values: paths of images, or values from `crop_of`.
        ids: `[n]`, names of the samples.
        reads_files: the beginning of each image with a box is read, for its size; one that cannot be read has none.
    """
    rows, paths, sides = [], [], []
    for row, value in enumerate(values):
        if not is_crop(value):
            continue
        with contextlib.suppress(MediaError):  # the value is damaged, and so not read
            path, box = path_and_box(value)
            rows.append(row)
            paths.append(path)
            sides.append(box)
    if not rows:
        return None
    images = dense_ids(paths, by_first_row=True)
    sizes = np.array([_size(path) if reads_files else UNKNOWN for path in dict.fromkeys(paths)])
    return Boxes(
        rows=np.array(rows, dtype=np.int64),
        images=images,
        objects=dense_ids([ids[row] for row in rows]),
        sides=np.array(sides, dtype=np.float64),
        sizes=sizes[images],
    )


def _size(path: str) -> tuple[float, float]:
    try:
        return upright_size(path)
    except MediaError:
        return UNKNOWN
