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
# Channels are averaged, unless they cancel: where their mean keeps less than this share of the energy that the mean of
# unrelated channels keeps (their own mean energy / their number), the loudest channel is taken. In stereo that is a
# correlation below -0.5, such as left = -right. One rule for the whole track, so that its pieces are alike.
LEAST_KEPT = 0.5
READING = "loudest"  # part of an audio encoder's key, as `images.READING` is of an image encoder's
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
    """The first audio track, channels averaged (the loudest one where they cancel), resampled to 48 kHz.

    Tracks up to 100 s are read completely. Of longer ones the middle 10 s of ten equal parts are read (the first 100 s
    where the file has no seek positions). NaN and infinite samples become 0; peaks above 1 are scaled down to 1.

    Raises:
        MediaError: there is no such file, no audio track, no samples, or the file is damaged.
    """
    mixer = _Mixer()
    sound = _read_track(path, mixer)
    loudest = mixer.loudest_of_canceling()
    return sound if loudest is None else _read_track(path, _Mixer(loudest))


class _Mixer:
    """Makes one channel of several, and measures whether they cancel each other."""

    def __init__(self, channel: int | None = None) -> None:
        self.channel = channel  # its number; None: the mean of all
        self.energies: NDArray[np.float64] = np.zeros(0)  # sums of squares, by channel
        self.mean_energy = 0.0

    def mono(self, frame: Any) -> NDArray[np.float32]:
        """float32 `[samples]`; NaN and infinite samples count as 0."""
        # not by FFmpeg, whose mixing makes two equal channels louder than one
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        samples = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        if len(self.energies) != len(samples):  # at the beginning, or where a file changes its channels
            self.energies, self.mean_energy = np.zeros(len(samples)), 0.0
        mean: NDArray[np.float64] = samples.mean(axis=0)
        self.energies += (samples**2).sum(axis=1)
        self.mean_energy += float((mean**2).sum())
        one = mean if self.channel is None else samples[min(self.channel, len(samples) - 1)]
        return one.astype(np.float32)

    def loudest_of_canceling(self) -> int | None:
        """The number of the loudest channel where their mean loses most of the energy (`LEAST_KEPT`); else None."""
        count = len(self.energies)
        if count < 2 or self.mean_energy >= LEAST_KEPT * self.energies.mean() / count:
            return None
        return int(self.energies.argmax())


def _read_track(path: str, mixer: _Mixer) -> Sound:
    with _open_track(path) as (media, stream):
        declared = seconds_of(stream) or (media.duration or 0) / 1e6
        if declared > MAX_SECONDS:
            windows = _decode_windows(media, stream, declared, mixer)
            if windows:
                return Sound(_limit_peak(windows), declared)
    with _open_track(path) as (media, stream):  # opened again, because not every file can be rewound
        wave = _decode(media, stream, 0.0, MAX_SECONDS, mixer)
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


def _decode_windows(media: InputContainer, stream: Any, seconds: float, mixer: _Mixer) -> list[NDArray[np.float32]]:
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
        windows.append(_decode(media, stream, start, PIECE_SECONDS, mixer))
    return [wave for wave in windows if len(wave)]


def _decode(media: InputContainer, stream: Any, start: float, seconds: float, mixer: _Mixer) -> NDArray[np.float32]:
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
            parts.append(mixer.mono(resampled)[skip:])
            count += len(parts[-1])
            skip = 0
        if count >= wanted:
            break
    else:
        if has_frames:
            parts += [mixer.mono(resampled) for resampled in resampler.resample(None)]  # the end of its filter
    if has_frames and not sum(map(len, parts)):
        return np.zeros(1, np.float32)  # less than a millisecond, too short for the resampler's filter
    return np.concatenate([np.zeros(0, np.float32), *parts])[:wanted]


def _limit_peak(pieces: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
    """The pieces, scaled down together to a peak of 1 where it is higher, as in some files of floats."""
    peak = max(float(np.abs(piece).max()) for piece in pieces)
    return tuple((piece / np.float32(max(peak, 1.0))).astype(np.float32) for piece in pieces)
