"""The table of modalities: how each medium is named, checked, read and varied. A new modality is one entry here.

Readers raise `MediaError` with a short reason; the pipeline records it for that row and goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .audio import read_audio
from .augment import augment_audio, augment_image, augment_text, augment_video
from .files import file_digest, read_text, text_digest
from .images import image_digest, read_whole_or_crop
from .video import read_video


@dataclass(frozen=True)
class Modality:
    """One kind of medium.

    Attributes:
        name: its word in columns, options and fields.
        is_text: values are texts, not paths; near-duplicates are sought in the other modalities only.
        digest: value -> sha256 (hex) of the content, the key of every cache.
        read: value -> what encoders take (`PIL.Image` in RGB, the text, a `Sound`, a list of frames).
        augment: what `read` gives, a generator -> a slightly different one of the same kind.
    """

    name: str
    is_text: bool
    digest: Callable[[str], str]
    read: Callable[[str], Any]
    augment: Callable[[Any, np.random.Generator], Any]


# The order decides the order of the pairs, and so the names of the columns of results.
MODALITIES: dict[str, Modality] = {
    "image": Modality("image", is_text=False, digest=image_digest, read=read_whole_or_crop, augment=augment_image),
    "text": Modality("text", is_text=True, digest=text_digest, read=read_text, augment=augment_text),
    "audio": Modality("audio", is_text=False, digest=file_digest, read=read_audio, augment=augment_audio),
    "video": Modality("video", is_text=False, digest=file_digest, read=read_video, augment=augment_video),
}
