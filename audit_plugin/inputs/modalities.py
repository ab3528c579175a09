"""The table of modalities. A new modality is one entry here, and an encoder that takes it (`encoders.registry`).

Readers raise `MediaError` with a short reason, which is recorded as the failure of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from audit_plugin.arrays import MODALITIES, Modality
from audit_plugin.store import raise_shortage

from .augment import augment_audio, augment_image, augment_text, augment_video
from .files import MediaError, failure_of, file_digest, read_text, text_digest
from .images import image_digest
from .reading import ReadApart, read_each

__all__ = ["MODALITIES", "read_media", "read_medium", "register"]


def register(modality: Modality) -> None:
    """Adds a modality. It is a setting, option and form entry if `audit_plugin.config` is imported after this."""
    MODALITIES[modality.name] = modality


def read_media(modality: str, values: Sequence[str]) -> Iterator[Any]:
    """The medium of each value as encoders take it, or a `MediaError`, whatever its reader raised."""
    read = MODALITIES[modality].read
    if isinstance(read, ReadApart):
        yield from read_each(read.reader, values)
        return
    for value in values:
        try:
            yield read(value)
        except Exception as error:
            raise_shortage(error)  # of this process: no fault of the medium
            yield MediaError(failure_of(error))


def read_medium(modality: str, value: str) -> Any:
    """The medium as encoders take it.

    Raises:
        MediaError: whatever its reader raised.
    """
    (medium,) = read_media(modality, [value])
    if isinstance(medium, MediaError):
        raise medium
    return medium


for _modality in (
    Modality(
        "image",
        content="the path of an image",
        digest=image_digest,
        read=ReadApart("image"),
        augment=augment_image,
        default="the sample's own file",
        suffixes=(
            "jpg",
            "jpeg",
            "png",
            "webp",
            "gif",
            "bmp",
            "tif",
            "tiff",
            "heic",
            "heif",
            "avif",
            "jp2",
            "jfif",
            "ppm",
        ),
        fiftyone_types=("image", "unknown", "mixed"),
        picture=lambda image: image,
        per_second=(20.0, 800.0),
    ),
    Modality(
        "text",
        content="the caption",
        digest=text_digest,
        read=read_text,
        augment=augment_text,
        default="detected by its name",
        is_text=True,
        suffixes=("txt",),
        per_second=(100.0, 4000.0),
    ),
    Modality(
        "audio",
        content="the path of an audio file",
        digest=file_digest,
        read=ReadApart("audio"),
        augment=augment_audio,
        suffixes=("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "aif", "aiff"),
        fiftyone_types=("video", "unknown", "mixed"),
        symbol="♪ sound",
        per_second=(20.0, 20.0),
    ),
    Modality(
        "video",
        content="the path of a video",
        digest=file_digest,
        read=ReadApart("video"),
        augment=augment_video,
        suffixes=("mp4", "m4v", "webm", "mkv", "mov", "avi", "mpg", "mpeg", "wmv", "flv", "3gp"),
        fiftyone_types=("video", "image", "unknown", "mixed"),  # animated images are images to FiftyOne
        picture=lambda frames: frames[0],
        per_second=(2.0, 10.0),
    ),
):
    register(_modality)
