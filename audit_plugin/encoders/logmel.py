"""Features of sound without trained weights: what is heard, and in which order, from its log-mel spectrum.

Two blocks side by side. *Course*: smoothed cepstra, mean and deviation over all of the sound, halves, quarters and
eighths; it is alike where two voices say the same sentence. *Events*: how much of the sound resembles each of many
fixed random patterns of a quarter of a second, wherever it occurs; it is alike where sentences share words. Loudness
and the constant coloring of the channel are removed, except for a small share of the mean spectrum: steady sounds have
nothing else.
"""

from __future__ import annotations

import functools

import numpy as np

from audit_plugin.arrays import Floats
from audit_plugin.inputs.audio import RATE

MELS, LOWEST_HZ, HIGHEST_HZ = 64, 50.0, 7600.0
WINDOW, HOP, FFT = RATE * 25 // 1000, RATE // 100, 2048
FLOOR_DB, TRIM_DB = 60.0, 35.0
COURSE_CEPSTRA, EVENT_CEPSTRA = 20, 13
LEVELS, DEVIATION_LEVELS = (1, 2, 4, 8), (1, 2, 4)
COLOR = 0.3  # weight of the mean spectrum
PATTERNS, PATTERN_FRAMES, THRESHOLD = 512, 25, 0.7
EVENT_WEIGHT = 2.0
KEY = (
    f"logmel:{MELS}:{LOWEST_HZ:g}-{HIGHEST_HZ:g}:{FLOOR_DB:g}-{TRIM_DB:g}dB:"
    f"course{COURSE_CEPSTRA}:{COLOR:g}:events{PATTERNS}x{PATTERN_FRAMES}x{EVENT_CEPSTRA}:{THRESHOLD:g}:{EVENT_WEIGHT:g}"
)
# Small against the usual lengths of the blocks, so that near silence is not blown up to a direction of its own.
_QUIET = 0.1


def describe(wave: Floats) -> Floats:
    """The feature of a sound: float32 `[1013]`, finite for all float32 `[samples]` at 48 kHz, even silence."""
    if wave.ndim != 1 or not len(wave):
        raise ValueError(f"expected a wave [samples], got {wave.shape}")
    levels = trimmed(mel_power(wave))
    mean = levels.mean(axis=0)
    centered = levels - mean
    course = np.concatenate([COLOR * (mean - mean.mean()) @ _cosines(COURSE_CEPSTRA), _course(centered)])
    events = _events(centered)
    blocks = [
        course / (np.linalg.norm(course) + _QUIET),
        EVENT_WEIGHT * events / (np.linalg.norm(events) + _QUIET),
        [_QUIET],  # gives silence a direction too: silent clips are alike
    ]
    return np.concatenate(blocks).astype(np.float32)


def mel_power(wave: Floats) -> Floats:
    """Power in 64 mel bands `[frames, 64]`, one frame per 10 ms."""
    padded = np.pad(wave.astype(np.float64), (0, max(0, WINDOW - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    return np.square(np.abs(np.fft.rfft(frames, FFT))) @ _filters()


def trimmed(power: Floats) -> Floats:
    """log10 of the power `[frames, 64]`, without soft beginning and end, floored at 60 dB below the loudest band."""
    energy = power.sum(axis=1)
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (-TRIM_DB / 10))
    inner = power[loud[0] : loud[-1] + 1]
    return np.log10(np.maximum(inner, power.max() * 10 ** (-FLOOR_DB / 10) + 1e-30))


def _course(centered: Floats) -> Floats:
    """Mean and deviation of the cepstra in equal parts of the time, at several levels; parts weigh 1 / sqrt(parts)."""
    cepstra = centered @ _cosines(COURSE_CEPSTRA)
    parts = []
    for level in LEVELS:
        for part in _split(cepstra, level):
            parts.append(part.mean(axis=0) / np.sqrt(level))
            if level in DEVIATION_LEVELS:
                parts.append(part.std(axis=0) / np.sqrt(level))
    changes = np.diff(cepstra, axis=0, prepend=cepstra[:1])
    return np.concatenate([*parts, *(part.std(axis=0) for part in _split(changes, 2))])


def _events(centered: Floats) -> Floats:
    """Mean excess over a threshold of the likeness to each pattern `[512]`: order does not matter."""
    cepstra = centered @ _cosines(EVENT_CEPSTRA)
    cepstra = cepstra / (cepstra.std(axis=0) + 0.05)
    half = PATTERN_FRAMES // 2
    padded = np.pad(cepstra, ((half, PATTERN_FRAMES - 1 - half), (0, 0)))
    spots = np.lib.stride_tricks.sliding_window_view(padded, PATTERN_FRAMES, axis=0)[::2]
    likeness = spots.reshape(len(spots), -1) @ _patterns()
    return np.maximum(likeness - THRESHOLD, 0).mean(axis=0)


def _split(values: Floats, count: int) -> list[Floats]:
    """Equal parts in time `[frames, c]` each; with fewer frames than parts, each part is one frame."""
    edges = np.linspace(0, len(values), count + 1)
    starts = np.minimum(np.floor(edges[:-1]).astype(int), len(values) - 1)
    return [values[start : max(start + 1, int(np.ceil(end)))] for start, end in zip(starts, edges[1:], strict=True)]


@functools.cache
def _filters() -> Floats:
    """Triangles `[bins, 64]` between 50 and 7600 Hz, evenly spaced on the mel scale."""
    # mel(f) = 2595 log10(1 + f / 700)
    low = 2595 * np.log10(1 + LOWEST_HZ / 700)
    high = 2595 * np.log10(1 + HIGHEST_HZ / 700)
    edges = 700 * (10 ** (np.linspace(low, high, MELS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(FFT, 1 / RATE)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)


@functools.cache
def _cosines(count: int) -> Floats:
    """The first cosines over the bands `[64, count]`: they smooth away the pitch of the voice."""
    angles = np.outer(np.arange(MELS) + 0.5, np.arange(count)) * np.pi / MELS
    return np.cos(angles) * np.sqrt(2 / MELS)


@functools.cache
def _patterns() -> Floats:
    size = PATTERN_FRAMES * EVENT_CEPSTRA
    # the legacy generator: its numbers are guaranteed to stay the same in all versions of numpy
    draw = np.random.RandomState(0).standard_normal((size, PATTERNS))
    return draw / np.sqrt(size)
