"""Reads audio: any rate, any number of channels, any common container, also the audio track of a video."""

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
MAX_SECONDS = MAX_PIECES * PIECE_SECONDS
MAX_CHANNELS = 64
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
# Formats whose duration is estimated from the bit rate: an early end does not prove that the file is damaged.
_ESTIMATED_DURATION = {"aac", "ac3", "amr", "eac3", "mp3"}
_LEAST_SHARE = 0.8  # of the declared duration that an undamaged file holds


@dataclass(frozen=True)
class Sound:
    """Audio as encoders take it.

    Attributes:
        pieces: float32 `[samples]` each, mono, 48 kHz, at most 10 s long, in order of time.
        seconds: duration of the track, of which long files give only evenly spaced pieces.
    """

    pieces: tuple[NDArray[np.float32], ...]
    seconds: float


def read_audio(path: str) -> Sound:
    """The first audio track, channels averaged, resampled to 48 kHz.

    Tracks up to 100 s are read completely. Of longer ones the middle 10 s of ten equal parts are read (the first 100 s
    where the file has no seek positions). NaN and infinite samples become 0; peaks above 1 are scaled down to 1.

    Raises:
        MediaError: there is no such file, no audio track, no samples, or the file is damaged.
    """
    with _open_track(path) as (media, stream):
        declared = seconds_of(stream) or (media.duration or 0) / 1e6
        if declared > MAX_SECONDS:
            windows = _decode_windows(media, stream, declared)
            if windows:
                return Sound(_limit_peak(windows), declared)
    with _open_track(path) as (media, stream):  # opened again, because not every file can be rewound
        wave = _decode(media, stream, 0.0, MAX_SECONDS)
        if not len(wave):
            raise MediaError("audio is empty (0 samples)")
        seconds = len(wave) / RATE
        declared = seconds_of(stream) or 0
        is_exact = media.format.name not in _ESTIMATED_DURATION
        if is_exact and seconds + 0.1 < _LEAST_SHARE * min(declared, MAX_SECONDS):
            raise damaged("audio", f"ends after {seconds:.1f} of {declared:.1f} s")
    count = max(1, math.ceil(seconds / PIECE_SECONDS - 1e-9))
    return Sound(_limit_peak(np.array_split(wave, count)), seconds)


@contextlib.contextmanager
def _open_track(path: str) -> Iterator[tuple[InputContainer, Any]]:
    with container(path, "audio") as media:
        stream = next(iter(media.streams.audio), None)
        if stream is None:
            raise MediaError("no audio track")
        codec = stream.codec_context
        if not LOWEST_RATE <= codec.sample_rate <= HIGHEST_RATE:
            raise MediaError(
                f"audio has {codec.sample_rate} samples per second, outside {LOWEST_RATE} to {HIGHEST_RATE}"
            )
        if not 1 <= codec.channels <= MAX_CHANNELS:
            raise MediaError(f"audio has {codec.channels} channels, the limit is {MAX_CHANNELS}")
        yield media, stream


def _decode_windows(media: InputContainer, stream: Any, seconds: float) -> list[NDArray[np.float32]]:
    """The middle 10 s of ten equal parts, without those that a damaged file does not hold; [] if it cannot seek."""
    import av

    part = seconds / MAX_PIECES
    begin = float((stream.start_time or 0) * stream.time_base)
    windows = []
    for number in range(MAX_PIECES):
        start = begin + (number + 0.5) * part - PIECE_SECONDS / 2
        try:
            media.seek(int(start / stream.time_base), stream=stream)
        except av.FFmpegError:
            return []
        windows.append(_decode(media, stream, start, PIECE_SECONDS))
    return [wave for wave in windows if len(wave)]


def _decode(media: InputContainer, stream: Any, start: float, seconds: float) -> NDArray[np.float32]:
    """Mono float32 `[samples]` at 48 kHz from `start` on, at most `seconds` long (less where the track ends)."""
    import av

    # with the channels side by side: the library reads beyond its memory where eight or more lie apart
    is_wide = stream.codec_context.channels >= 8
    resampler = av.AudioResampler(format="flt" if is_wide else "fltp", rate=RATE)
    wanted = math.ceil(seconds * RATE)
    parts: list[NDArray[np.float32]] = []
    count = 0
    has_frames = False
    for frame in decoded(media, stream, "audio"):
        if start and frame.time is not None and frame.time + frame.samples / frame.sample_rate <= start:
            continue
        skip = 0  # samples of the first frame that lie before `start`
        if not has_frames and start and frame.time is not None:
            skip = max(0, round((start - frame.time) * RATE))
        has_frames = True
        frame.pts = None  # the resampler would fill the gaps that wrong time stamps leave
        for resampled in resampler.resample(frame):
            parts.append(_mono(resampled)[skip:])
            count += len(parts[-1])
            skip = 0
        if count >= wanted:
            break
    else:
        if has_frames:
            parts += [_mono(resampled) for resampled in resampler.resample(None)]  # the end of its filter
    if has_frames and not sum(map(len, parts)):
        return np.zeros(1, np.float32)  # less than a millisecond, too short for the resampler's filter
    return np.concatenate([np.zeros(0, np.float32), *parts])[:wanted]


def _mono(frame: Any) -> NDArray[np.float32]:
    # not by FFmpeg, whose mixing makes two equal channels louder than one
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    values: NDArray[np.float32] = samples.mean(axis=0, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _limit_peak(pieces: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
    """The pieces, scaled down together to a peak of 1 where it is higher, as in some files of floats."""
    peak = max(float(np.abs(piece).max()) for piece in pieces)
    return tuple((piece / np.float32(max(peak, 1.0))).astype(np.float32) for piece in pieces)
