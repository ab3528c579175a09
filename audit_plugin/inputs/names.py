"""What names say: the usual ones of columns, and the modality of a file by its ending."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from audit_plugin.arrays import MODALITIES

# Names of columns that are taken where none is named, in small letters with `_` for blanks.
USUAL_NAMES = {
    "image": "image images img jpg jpeg png image_path img_path image_file image_name image_filename image_file_name "
    "picture photo",
    "text": "text texts caption captions txt sentence sentences description comment raw transcription transcript "
    "conversation conversations messages",
    "audio": "audio sound wav mp3 flac audio_path audio_file audio_filepath audio_file_name",
    "video": "video mp4 video_path video_file video_file_name clip",
    "label": "label labels class class_name category cls",
    "split": "split",
}
# Files of any modality, which their endings say.
FILES = "path file_path filepath file_name filename"


def columns_called(names: str, header: Sequence[str]) -> list[str]:
    """The columns with one of some names, whatever their case and blanks."""
    usual = names.split()
    return [column for column in header if _folded(column) in usual]


def is_usual(name: str) -> bool:
    """Whether a column with this name is taken where none is named."""
    return _folded(name) in " ".join((*USUAL_NAMES.values(), FILES)).split()


def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def modality_of_file(path: str) -> str:
    """The modality that the ending of a path says, "" for none or text."""
    ending = os.path.splitext(path.strip())[1].lower().removeprefix(".")
    names = (name for name, modality in MODALITIES.items() if not modality.is_text and ending in modality.suffixes)
    return next(names, "")


def is_file_name(text: str) -> bool:
    """Whether a text is the name of a medium."""
    return "\n" not in text and modality_of_file(text) != ""
