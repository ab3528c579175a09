"""Small real media, made with the same encoders that people use."""

from __future__ import annotations

import fractions
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.embed import BatchEncoder, Encoded, encode_pieces, prepare_contents

SIZE = (64, 48)


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """Float `[samples]`, a sine of half the full scale."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_wav(path: Path, channels: np.ndarray, rate: int) -> str:
    """Float `[samples]` or `[channels, samples]` as 16-bit PCM."""
    values = np.atleast_2d(channels)
    with wave.open(str(path), "wb") as file:
        file.setparams((len(values), 2, rate, 0, "NONE", ""))
        file.writeframes((values.T * 32767).round().astype("<i2").tobytes())
    return str(path)


def write_sound(path: Path, channels: np.ndarray, rate: int, codec: str, layout: str = "mono") -> str:
    """Float `[channels, samples]` with one of FFmpeg's codecs; the container follows from the name."""
    import av

    with av.open(str(path), "w") as media:
        stream = media.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.atleast_2d(channels).astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        stream.codec_context.open()  # only then it knows its frame size
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 0)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            media.mux(stream.encode(part))
        media.mux(stream.encode(None))
    return str(path)


def write_video(
    path: Path,
    colors: list[tuple[int, int, int]],
    rate: int = 10,
    codec: str = "libx264",
    sound: bool = False,
    **options: str,
) -> str:
    """One frame per color; `sound` adds a 440 Hz track."""
    import av

    with av.open(str(path), "w") as media:
        stream = media.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        track = media.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number, color in enumerate(colors):
            pixels = np.broadcast_to(np.array(color, np.uint8), (SIZE[1], SIZE[0], 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, rate)
            media.mux(stream.encode(frame))
        media.mux(stream.encode(None))
        if track:
            wave_form = tone(440, len(colors) / rate, 16_000).astype(np.float32)
            for start in range(0, len(wave_form), 1024):
                part = av.AudioFrame.from_ndarray(wave_form[None, start : start + 1024], format="fltp", layout="mono")
                part.sample_rate, part.pts = 16_000, start
                media.mux(track.encode(part))
            media.mux(track.encode(None))
    return str(path)


def write_clock(path: Path, count: int, rate: int, codec: str, **options: str) -> str:
    """A video whose frames carry their number, as 12 black or white fields: 4 a row, the lowest bit first."""
    import av

    with av.open(str(path), "w") as media:
        stream = media.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            bits = (number >> np.arange(12)) & 1
            fields = (bits.reshape(3, 4) * 255).astype(np.uint8)
            gray = fields.repeat(SIZE[1] // 3, 0).repeat(SIZE[0] // 4, 1)
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, fractions.Fraction(1, rate)
            media.mux(stream.encode(frame))
        media.mux(stream.encode(None))
    return str(path)


def encode_contents(
    modality: str, values: Mapping[str, str | None], encoder: Encoder, view: int = 0
) -> Iterator[Encoded]:
    """Contents (digest -> path or text), each as soon as it is encoded."""
    return encode_pieces(prepare_contents(modality, values, encoder, view), BatchEncoder(encoder))


def write_still(path: Path, values: np.ndarray, pixel_format: str) -> str:
    """uint16 `[height, width, channels]` by FFmpeg, which writes colors of 16 bits where Pillow writes 8."""
    import av

    codec = av.CodecContext.create("png" if path.suffix == ".png" else "tiff", "w")
    codec.height, codec.width = values.shape[:2]
    codec.pix_fmt, codec.time_base = pixel_format, fractions.Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=pixel_format)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)]))
    return str(path)
