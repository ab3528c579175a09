"""Reads videos and animated images as a few frames, evenly spaced."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from .files import MAX_PACKETS, MediaError, container, decoded, open_medium, seconds_of
from .images import check_size, flatten, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL import Image

FRAMES = 8
LONGEST_SIDE = 768  # to which frames are reduced; encoders take less
SEEK_SECONDS = 20.0  # longer videos are not decoded from end to end
MAX_FROM_KEY_FRAME = 150  # frames decoded after the key frame before a moment
MAX_DECODED = 5_000
ANIMATION_MEGAPIXELS = 2_000
# Pillow also identifies some videos (MPEG) that it cannot decode: only these formats are given to it.
_IMAGES = ("GIF", "PNG", "WEBP", "JPEG", "BMP", "TIFF")
_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


def read_video(path: str) -> list[Image.Image]:
    """At most 8 frames (RGB, upright, transparency on white), those shown in the middle of 8 equal parts.

    Animated images (GIF, WebP, APNG) are sampled evenly over their frames; a still image is one frame.

    Raises:
        MediaError: there is no such file, no video track, no frames, or the file is damaged or too large.
    """
    if _is_image(path):
        with opened(path, _IMAGES, "video") as image:
            return _animation_frames(image, path)
    with _open_track(path) as (media, stream):
        seconds = seconds_of(stream) or (media.duration or 0) / 1e6
        if seconds <= SEEK_SECONDS:  # some headers are wrong or silent; the packets of short files are quickly read
            seconds = _measure_seconds(media, stream)
    moments = [(number + 0.5) / FRAMES * seconds for number in range(FRAMES)]
    pictures: list[Image.Image] = []
    if seconds > SEEK_SECONDS:
        with _open_track(path) as (media, stream):
            pictures = _seek_pictures(media, stream, moments)
    if not pictures:
        with _open_track(path) as (media, stream):  # opened again, because not every file can be rewound
            pictures = [_picture(frame) for _, frame in _frames_at(_timed_frames(media, stream), moments)]
    if not pictures:
        raise MediaError("video has no frames")
    return pictures


@contextlib.contextmanager
def _open_track(path: str) -> Iterator[tuple[InputContainer, Any]]:
    import av

    cover = av.stream.Disposition.attached_pic  # the picture in an audio file
    with container(path, "video") as media:
        stream = next((s for s in media.streams.video if not s.disposition & cover), None)
        if stream is None:
            raise MediaError("no video track")
        check_size(stream.codec_context.width, stream.codec_context.height, "video")
        stream.codec_context.thread_count = 1  # several files are read at once already
        yield media, stream


def _is_image(path: str) -> bool:
    try:
        with open_medium(path) as file:
            head = file.read(12)
    except (OSError, ValueError):
        return False
    return head.startswith(_SIGNATURES) or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


def _animation_frames(image: Image.Image, path: str) -> list[Image.Image]:
    from PIL import ImageOps

    megapixels = max(image.width * image.height / 1e6, 1e-6)
    # frames are decoded one after the other up to the last that is used
    most = max(FRAMES, int(ANIMATION_MEGAPIXELS / megapixels))
    total = _count_frames(image, path, min(most, MAX_DECODED))
    frames = []
    for number in sorted({int((part + 0.5) * total / FRAMES) for part in range(FRAMES)}):
        image.seek(number)
        check_size(image.width, image.height, "video")  # pages of a TIFF have sizes of their own
        frame = flatten(ImageOps.exif_transpose(image))
        frame.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        frames.append(frame)
    return frames


def _count_frames(image: Image.Image, path: str, most: int) -> int:
    """The number of frames, at most `most`; Pillow's own `n_frames` walks over all of a million of them."""
    if image.format == "GIF":
        with open_medium(path) as file:
            return _count_gif_frames(file, most)
    if image.format == "TIFF":
        try:
            image.seek(most - 1)  # reads the directories of so many pages, and no pixels
        except EOFError:
            most = image.tell() + 1
        image.seek(0)
        return most
    return min(getattr(image, "n_frames", 1), most)  # which the others declare at their beginning


def _count_gif_frames(file: io.BufferedReader, most: int) -> int:
    """Walks over the blocks of a GIF until `most` of them are frames, or it ends; at least 1."""
    file.seek(10)
    file.seek(_palette_bytes(file.read(3)[0]), os.SEEK_CUR)
    count = 0
    while count < most:
        kind = file.read(1)
        if kind == b",":  # a frame
            flags = file.read(9)[8:]
            if not flags:
                break
            count += 1
            file.seek(_palette_bytes(flags[0]) + 1, os.SEEK_CUR)
        elif kind == b"!":  # an extension
            file.seek(1, os.SEEK_CUR)
        elif kind in (b"", b";"):
            break
        else:
            continue  # Pillow skips what it does not know
        while length := file.read(1)[:1].ljust(1, b"\0")[0]:
            file.seek(length, os.SEEK_CUR)
    return max(count, 1)


def _palette_bytes(flags: int) -> int:
    """The size of the palette that follows, by the flags of a GIF's screen or frame."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _measure_seconds(media: InputContainer, stream: Any) -> float:
    """Seconds from the first packet to the end of the last, without decoding any."""
    count = 0
    begins, ends = [], []
    for packet in islice(media.demux(stream), MAX_PACKETS):
        if not packet.size:
            continue
        count += 1
        if packet.pts is not None:
            begins.append(packet.pts)
            ends.append(packet.pts + (packet.duration or 0))
    if not begins:
        return count / _frame_rate(stream)
    return float((max(ends) - min(begins)) * stream.time_base)


def _frame_rate(stream: Any) -> float:
    return float(stream.average_rate or 25)


def _timed_frames(media: InputContainer, stream: Any) -> Iterator[tuple[float, Any]]:
    """(seconds since the stream's start, frame) of at most `MAX_DECODED` frames."""
    begin = float((stream.start_time or 0) * stream.time_base)
    for number, frame in enumerate(islice(decoded(media, stream, "video"), MAX_DECODED)):
        time = frame.time - begin if frame.time is not None else number / _frame_rate(stream)
        yield time, frame


def _frames_at(frames: Iterator[tuple[float, Any]], moments: list[float]) -> list[tuple[float, Any]]:
    """(time, frame) of the frame that is shown at each of the ascending moments, without repetitions."""
    waiting = deque(moments)
    shown: list[tuple[float, Any]] = []
    previous = None
    for current in chain(frames, [(math.inf, None)]):  # the last frame is shown until the end
        while waiting and previous is not None and current[0] > waiting[0]:
            waiting.popleft()
            if not shown or shown[-1] is not previous:
                shown.append(previous)
        if not waiting:
            break
        previous = current
    return shown


def _seek_pictures(media: InputContainer, stream: Any, moments: list[float]) -> list[Image.Image]:
    """The frames at the moments, found by seeking to the key frame before each; [] if the file cannot seek."""
    import av

    begin = float((stream.start_time or 0) * stream.time_base)
    pictures: dict[float, Image.Image] = {}
    for moment in moments:
        try:
            media.seek(int((begin + moment) / stream.time_base), stream=stream)
        except av.FFmpegError:
            return []
        frames = islice(_timed_frames(media, stream), MAX_FROM_KEY_FRAME)
        for time, frame in _frames_at(frames, [moment]):
            if time not in pictures:
                pictures[time] = _picture(frame)
    return [pictures[time] for time in sorted(pictures)]


def _picture(frame: Any) -> Image.Image:
    from PIL import Image

    check_size(frame.width, frame.height, "video")
    scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    pixel_format = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    picture = flatten(Image.fromarray(frame.reformat(*size, format=pixel_format).to_ndarray()))
    degrees = round(frame.rotation / 90) * 90 % 360  # counterclockwise, as in Pillow
    return picture.rotate(degrees, expand=True) if degrees else picture
