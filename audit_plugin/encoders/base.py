"""What an encoder is, and which family of encoders takes which modality.

It turns one medium into *pieces* (an image is one, a long text several), each piece into a vector; the medium's
feature is the mean over its pieces. Pieces of one shape are encoded in batches of one size, so that a feature never
depends on what else is in its batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Floats

MAX_PIECES = 64
TEXT_BUCKETS = (8, 16, 32, 64, 128, 256)
SUPPORTS = {
    "offline": ("image", "text", "audio", "video"),
    "open_clip": ("image", "text", "video"),
    "clap": ("text", "audio"),
}


@dataclass(frozen=True)
class Identity:
    """What is known of an encoder without loading it.

    Attributes:
        key: name, weights and preprocessing: features with equal keys are interchangeable.
        space: encoders with one non-empty `space` embed into a common space.
        english: captions in other scripts are outside what it was trained on.
        bf16: it can also compute with weights in bf16 (`Encoder.to_bf16`).
    """

    key: str
    space: str = ""
    english: bool = False
    bf16: bool = False


@dataclass(frozen=True)
class Encoder:
    """One modality's encoder.

    Attributes:
        identity: who it is.
        batch: pieces per batch.
        prepare: medium as `Modality.read` gives it -> its pieces (arrays).
        encode: stacked pieces `[batch, ...]` -> float32 `[batch, d]`.
        to_bf16: gives an `encode` with a copy of the weights in bf16, where `identity.bf16`.
        overlap: media are prepared while others are encoded, by another chip; on one chip the threads of both would
            hold each other up.
    """

    identity: Identity
    batch: int
    prepare: Callable[[Any], list[np.ndarray]]
    encode: Callable[[np.ndarray], Floats]
    to_bf16: Callable[[], Callable[[np.ndarray], Floats]] | None = None
    overlap: bool = False


def of_frames(image: Encoder, identity: Identity) -> Encoder:
    """An image encoder that takes a video's frames as its pieces."""
    prepare = image.prepare  # alone, so that weights in full precision can be let go
    return Encoder(
        identity,
        image.batch,
        lambda frames: [piece for frame in frames for piece in prepare(frame)],
        image.encode,
        image.to_bf16,
        image.overlap,
    )


def assign(name: str, modalities: Sequence[str], default: str = "") -> dict[str, tuple[str, ...]]:
    """Encoder -> the modalities that it takes, for names of encoders joined by "+"; the first that can takes each.

    Args:
        name: such as `open_clip:ViT-B-32+clap:FOLDER`.
        modalities: what has to be encoded.
        default: takes what no encoder of the name can.

    Raises:
        AuditError: unknown family, or a modality that no named encoder takes.
    """
    parts = re.split(rf"\+(?=(?:{'|'.join(SUPPORTS)})(?::|\+|$))", name)  # a path may hold a plus sign too
    for part in parts:
        if not _valid(part):
            raise AuditError(
                f"encoder {part!r} is not known; use auto, offline, open_clip:MODEL[:WEIGHTS], clap:FOLDER_OR_NAME, "
                "or several joined by +, for example open_clip:ViT-B-32:laion2b_s34b_b79k"
            )
    parts += [default] if default else []
    taken: dict[str, tuple[str, ...]] = {}
    for modality in modalities:
        able = next((part for part in parts if modality in SUPPORTS[part.partition(":")[0]]), None)
        if able is None:
            raise AuditError(f"encoder {name!r} takes no {modality}; add one that does, such as {name}+offline")
        taken[able] = (*taken.get(able, ()), modality)
    return taken


def _valid(part: str) -> bool:
    family, _, rest = part.partition(":")
    return part == "offline" or (family != "offline" and family in SUPPORTS and bool(rest))


def pad_to_bucket(ids: Sequence[int], fill: int = 0) -> np.ndarray:
    """Token ids, int64, padded to the smallest bucket that holds them: decided by this text alone."""
    size = next((b for b in TEXT_BUCKETS if len(ids) <= b), TEXT_BUCKETS[-1])
    padded = np.full(size, fill, dtype=np.int64)
    padded[: min(len(ids), size)] = ids[:size]
    return padded


def split_text(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in parts that fit the encoder, halved near a space; at most `MAX_PIECES`, from the start."""
    parts: list[str] = []
    todo = [text]
    while todo and len(parts) < MAX_PIECES:
        part = todo.pop()
        if len(part) < 2 or fits(part):
            parts.append(part)
            continue
        middle = len(part) // 2
        space = part.rfind(" ", 0, middle)
        cut = space if space > middle // 2 else middle
        todo += [part[cut:].strip() or part[cut:], part[:cut]]
    return parts
