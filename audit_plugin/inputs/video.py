"""Reading videos and animated images as a few frames, evenly spaced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from .files import MediaError, container, decoded, is_cover, open_medium, seconds_of
from .images import check_size, flatten, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL import Image

FRAMES = 8
LONGEST_SIDE = 768  # of a frame that is kept: encoders take less
SEEK_SECONDS = 20.0  # longer videos are not decoded from end to end
REACH = 150  # frames decoded after the key frame before a moment, at most
MAX_DECODED = 5_000
MAX_PACKETS = 1_000_000
ANIMATION_MEGAPIXELS = 2_000
# Named, because Pillow would also claim real videos (MPEG) that it cannot decode.
_IMAGES = ("GIF", "PNG", "WEBP", "JPEG", "BMP", "TIFF")
_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


def read_video(path: str) -> list[Image.Image]:
    """At most 8 frames (RGB, upright, transparency on white), those shown in the middle of 8 equal parts.

    Animated images (GIF, WebP, APNG) are sampled evenly over their frames; a still image is one frame.
    """
    if _is_image(path):
        with opened(path, _IMAGES, "video") as image:
            return _animation(image)
    with _track(path) as (media, stream):
        seconds = seconds_of(stream) or (media.duration or 0) / 1e6
        if seconds <= SEEK_SECONDS:  # some headers are wrong or silent; of short files the packets tell
            seconds = _measured(media, stream)
    moments = [(number + 0.5) / FRAMES * seconds for number in range(FRAMES)]
    pictures = []
    if seconds > SEEK_SECONDS:
        with _track(path) as (media, stream):
            pictures = _sought(media, stream, moments)
    if not pictures:
        with _track(path) as (media, stream):  # opened anew, because not every file can be rewound
            pictures = [_picture(frame) for frame in _shown(_decoded(media, stream), moments)]
    if not pictures:
        raise MediaError("video has no frames")
    return pictures


@contextlib.contextmanager
def _track(path: str) -> Iterator[tuple[InputContainer, Any]]:
    with container(path, "video") as media:
        stream = next((s for s in media.streams.video if not is_cover(s)), None)
        if stream is None:
            raise MediaError("no video track")
        check_size(stream.codec_context.width, stream.codec_context.height, "video")
        stream.codec_context.thread_count = 1  # files are read side by side already
        yield media, stream


def _is_image(path: str) -> bool:
    try:
        with open_medium(path) as file:
            head = file.read(12)
    except (OSError, ValueError):
        return False
    return head.startswith(_SIGNATURES) or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


def _animation(image: Image.Image) -> list[Image.Image]:
    from PIL import ImageOps

    total = getattr(image, "n_frames", 1)
    megapixels = max(image.width * image.height / 1e6, 1e-6)
    total = min(total, max(FRAMES, int(ANIMATION_MEGAPIXELS / megapixels)))
    frames = []
    for number in sorted({int((part + 0.5) * total / FRAMES) for part in range(FRAMES)}):
        image.seek(number)
        frame = flatten(ImageOps.exif_transpose(image))
        frame.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        frames.append(frame)
    return frames


def _measured(media: InputContainer, stream: Any) -> float:
    """Seconds from the first packet to the end of the last, without decoding any."""
    packets = [(p.pts, p.duration or 0) for p in islice(media.demux(stream), MAX_PACKETS) if p.size]
    times = [(pts, pts + length) for pts, length in packets if pts is not None]
    if not times:
        return len(packets) / _rate(stream)
    return float((max(end for _, end in times) - min(begin for begin, _ in times)) * stream.time_base)


def _rate(stream: Any) -> float:
    return float(stream.average_rate or 25)


def _decoded(media: InputContainer, stream: Any) -> Iterator[tuple[float, Any]]:
    """(seconds since the stream's start, frame), a bounded number."""
    begin = float((stream.start_time or 0) * stream.time_base)
    for number, frame in enumerate(islice(decoded(media, stream, "video"), MAX_DECODED)):
        yield (frame.time - begin if frame.time is not None else number / _rate(stream)), frame


def _shown(frames: Iterator[tuple[float, Any]], moments: list[float]) -> list[Any]:
    """The frame on the screen at each of the ascending moments, repeats left out."""
    waiting, chosen = list(moments), []
    before = None
    for time, frame in frames:
        while waiting and before is not None and time > waiting[0]:
            chosen.append(before)
            waiting.pop(0)
        before = frame
        if not waiting:
            break
    chosen += [before] if waiting and before is not None else []
    return [frame for i, frame in enumerate(chosen) if i == 0 or frame is not chosen[i - 1]]


def _sought(media: InputContainer, stream: Any, moments: list[float]) -> list[Image.Image]:
    """The frames at the moments by seeking to the key frame before each; nothing where the file cannot be sought."""
    import av

    begin = float((stream.start_time or 0) * stream.time_base)
    chosen: dict[float, Image.Image] = {}
    for moment in moments:
        try:
            media.seek(int((begin + moment) / stream.time_base), stream=stream)
        except av.FFmpegError:
            return []
        found = None
        for time, frame in islice(_decoded(media, stream), REACH):
            if found is not None and time > moment:
                break
            found = (time, frame)
        if found and found[0] not in chosen:
            chosen[found[0]] = _picture(found[1])
    return [chosen[time] for time in sorted(chosen)]


def _picture(frame: Any) -> Image.Image:
    from PIL import Image

    check_size(frame.width, frame.height, "video")
    scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    kind = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    picture = flatten(Image.fromarray(frame.reformat(*size, format=kind).to_ndarray()))
    turn = round(frame.rotation / 90) * 90 % 360  # counterclockwise, as Pillow turns
    return picture.rotate(turn, expand=True) if turn else picture
