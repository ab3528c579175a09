"""Reading sound: any rate, any number of channels, any common container, also the sound track of a video."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .files import MediaError, container, damaged, decoded, seconds_of

if TYPE_CHECKING:
    from av.container import InputContainer

RATE = 48_000
PIECE_SECONDS = 10.0
MAX_PIECES = 10
WHOLE_SECONDS = MAX_PIECES * PIECE_SECONDS
MAX_CHANNELS = 64
RATES = (1_000, 768_000)
# Their length is a guess from the bit rate, so that an early end proves nothing.
_GUESSED = {"aac", "ac3", "amr", "eac3", "mp3"}
_TORN = 0.8


@dataclass(frozen=True)
class Sound:
    """What is heard.

    Attributes:
        pieces: float32 `[samples]` each, mono, 48 kHz, at most 10 s long, in order of time.
        seconds: duration of the whole track, of which long files give only evenly spaced pieces.
    """

    pieces: tuple[NDArray[np.float32], ...]
    seconds: float


def read_audio(path: str) -> Sound:
    """The first sound track, channels averaged, resampled to 48 kHz.

    Up to 100 s are read whole, in equal pieces of at most 10 s; of longer tracks the middle 10 s of ten equal parts,
    found by seeking (where a file cannot be sought, its first 100 s). Samples that are no numbers become 0; a track
    with peaks above 1 is scaled down to 1.
    """
    with _track(path) as (media, stream):
        claimed = seconds_of(stream) or (media.duration or 0) / 1e6
        if claimed > WHOLE_SECONDS and (windows := _windows(media, stream, claimed)):
            return Sound(_clean(windows), claimed)
    with _track(path) as (media, stream):  # opened anew, because not every file can be rewound
        wave = _decode(media, stream, 0.0, WHOLE_SECONDS)
        if not len(wave):
            raise MediaError("audio is empty (0 samples)")
        seconds = len(wave) / RATE
        _check_whole(media, stream, seconds)
    count = max(1, math.ceil(seconds / PIECE_SECONDS - 1e-9))
    return Sound(_clean(np.array_split(wave, count)), seconds)


@contextlib.contextmanager
def _track(path: str) -> Iterator[tuple[InputContainer, Any]]:
    with container(path, "audio") as media:
        stream = next(iter(media.streams.audio), None)
        if stream is None:
            raise MediaError("no audio track")
        _check(stream.codec_context)
        yield media, stream


def _check(codec: Any) -> None:
    if not RATES[0] <= codec.sample_rate <= RATES[1]:
        raise MediaError(f"audio has {codec.sample_rate} samples per second, outside {RATES[0]} to {RATES[1]}")
    if not 1 <= codec.channels <= MAX_CHANNELS:
        raise MediaError(f"audio has {codec.channels} channels, the limit is {MAX_CHANNELS}")


def _check_whole(media: InputContainer, stream: Any, found: float) -> None:
    """A header that names much more than there is belongs to a torn file."""
    declared = seconds_of(stream)
    if declared and media.format.name not in _GUESSED and found + 0.1 < _TORN * min(declared, WHOLE_SECONDS):
        raise damaged("audio", f"ends after {found:.1f} of {declared:.1f} s")


def _windows(media: InputContainer, stream: Any, seconds: float) -> list[NDArray[np.float32]]:
    """The middle 10 s of ten equal parts; those that a lying or torn file does not hold are left out."""
    import av

    part = seconds / MAX_PIECES
    begin = float((stream.start_time or 0) * stream.time_base)
    found = []
    for number in range(MAX_PIECES):
        start = begin + (number + 0.5) * part - PIECE_SECONDS / 2
        try:
            media.seek(int(start / stream.time_base), stream=stream)
        except av.FFmpegError:
            return []
        found.append(_decode(media, stream, start, PIECE_SECONDS))
    return [wave for wave in found if len(wave)]


def _decode(media: InputContainer, stream: Any, start: float, seconds: float) -> NDArray[np.float32]:
    """Mono float32 at 48 kHz from `start` on, at most `seconds` of it (less where the track ends)."""
    import av

    resampler = av.AudioResampler(format="fltp", rate=RATE)
    wanted, count = math.ceil(seconds * RATE), 0
    parts: list[NDArray[np.float32]] = []
    fed = False
    for frame in _frames(media, stream, start):
        before = max(0, round((start - frame.time) * RATE)) if not fed and start and frame.time is not None else 0
        fed, frame.pts = True, None  # gaps and jumps of broken clocks are of no interest: samples follow each other
        for out in resampler.resample(frame):
            parts.append(_mono(out)[before:])
            count += len(parts[-1])
            before = 0
        if count >= wanted:
            break
    else:
        parts += [_mono(out) for out in resampler.resample(None)] if fed else []
    if fed and not sum(map(len, parts)):
        return np.zeros(1, np.float32)  # less than a millisecond: too short for the resampler's filter to say anything
    return np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)


def _frames(media: InputContainer, stream: Any, start: float) -> Iterator[Any]:
    """Decoded frames from the one that holds `start`."""
    for frame in decoded(media, stream, "audio"):
        if not start or frame.time is None or frame.time + frame.samples / frame.sample_rate > start:
            yield frame


def _mono(frame: Any) -> NDArray[np.float32]:
    # averaged here: FFmpeg's own mixing makes two equal channels louder than one
    values: NDArray[np.float32] = frame.to_ndarray().mean(axis=0, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _clean(pieces: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
    """Scaled down to a peak of 1 where a file of floats holds more (some hold whole numbers)."""
    peak = max(float(np.abs(piece).max()) for piece in pieces)
    return tuple((piece / np.float32(max(peak, 1.0))).astype(np.float32) for piece in pieces)
