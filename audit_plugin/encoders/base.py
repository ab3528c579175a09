"""What an encoder is.

It turns one medium into *pieces* (an image is one, a long text several), each piece into a vector; the medium's
feature is the mean over its pieces. Pieces of one shape are encoded in batches of one size, unless the encoder takes
any (`any_batch`), so that a feature never depends on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats

Encode = Callable[[np.ndarray], Floats]  # stacked pieces `[batch, ...]` -> float32 `[batch, d]`

MAX_PIECES = 64
TEXT_BUCKETS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class EncoderIdentity:
    """What is known of an encoder without loading it."""

    key: str  # name, weights and preprocessing: features with equal keys are interchangeable
    space: str = ""  # encoders with one non-empty `space` embed into a common space
    english: bool = False  # captions in other scripts are outside what it was trained on
    bf16: bool = False  # it can also compute with weights in bf16 (`Encoder.to_bf16`)


CUDA_MARK = ":cuda"  # in the key of features that a GPU computes: their last digits are others than those of a CPU


def on_device(identity: EncoderIdentity, device: str) -> EncoderIdentity:
    """The identity of an encoder that computes on a device."""
    return replace(identity, key=identity.key + CUDA_MARK) if device == "cuda" else identity


def same_weights(key: str, other: str) -> bool:
    """Whether two keys differ at most in the device that computes."""
    return key.replace(CUDA_MARK, "") == other.replace(CUDA_MARK, "")


@dataclass(frozen=True)
class Encoder:
    """One modality's encoder."""

    identity: EncoderIdentity
    batch: int  # pieces per batch
    prepare: Callable[[Any], list[np.ndarray]]  # medium as `Modality.read` returns it -> its pieces
    encode: Encode
    to_bf16: Callable[[], Encode] | None = None  # makes an `encode` with a bf16 copy of the weights (`identity.bf16`)
    # media are prepared while others are encoded, for encoders on another chip; on one chip the threads of both would
    # slow each other down
    overlap: bool = False
    # a piece has the same vector, to the byte, in a batch of any size: none is filled up
    any_batch: bool = False


def frames_encoder(image: Encoder, identity: EncoderIdentity) -> Encoder:
    """The encoder of videos that encodes each of their frames as the image encoder does."""
    return replace(image, identity=identity, prepare=frames_preparer(image.prepare))


def frames_preparer(prepare: Callable[[Any], list[np.ndarray]]) -> Callable[[Sequence[Any]], list[np.ndarray]]:
    """Frames -> the pieces of each, as `prepare` makes them of an image."""

    # only `prepare` is captured: a closure over an encoder would keep weights that `to_bf16` has replaced
    def prepare_frames(frames: Sequence[Any]) -> list[np.ndarray]:
        return [piece for frame in frames for piece in prepare(frame)]

    return prepare_frames


def pad_to_bucket(ids: Sequence[int], fill: int = 0, buckets: Sequence[int] = TEXT_BUCKETS) -> np.ndarray:
    """Token ids, int64, padded to the smallest of `buckets` that holds them: no other text matters."""
    size = next((bucket for bucket in buckets if len(ids) <= bucket), buckets[-1])
    padded = np.full(size, fill, dtype=np.int64)
    padded[: min(len(ids), size)] = ids[:size]
    return padded


def split_text(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in parts that fit the encoder, halved near a space; at most `MAX_PIECES`, from the start."""
    parts: list[str] = []
    waiting = [text]
    while waiting and len(parts) < MAX_PIECES:
        part = waiting.pop()
        if len(part) < 2 or fits(part):
            parts.append(part)
            continue
        middle = len(part) // 2
        space = part.rfind(" ", 0, middle)
        cut = space if space > middle // 2 else middle
        first, second = part[:cut], part[cut:]
        waiting += [second.strip() or second, first]
    return parts
