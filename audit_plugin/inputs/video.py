"""Reads videos and animated images as a few frames, evenly spaced."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from .files import MAX_PACKETS, MediaError, container, decoded, open_medium, seconds_of
from .images import check_size, flatten, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL import Image

FRAMES = 8
READING = f"frames{FRAMES}-sought"  # part of a video encoder's key, as `images.READING` is of an image encoder's
LONGEST_SIDE = 768  # to which frames are reduced; encoders take less
SEEK_SECONDS = 20.0  # longer videos are not decoded from end to end
MAX_WORK = 5e9  # pixels decoded of a longer video: about half of what a processor does in the time that it has
FRAME_WORK = 20_000  # pixels that could be decoded in the time that handing over a frame takes
SKIPPED_UNTIL = 1.0  # seconds before a moment: until then, frames that no other frame needs are not decoded
SEEK_BACK = (0.0, 5.0, 30.0, 120.0, math.inf)  # seconds before a moment, where a key frame before it is looked for
SEEK_PACKETS = 20_000  # in which a key frame is looked for
MAX_DECODED = 5_000  # frames of an animation, or of a video of at most 20 s
ANIMATION_MEGAPIXELS = 2_000
# Pillow also identifies some videos (MPEG) that it cannot decode: only these formats are given to it.
_IMAGES = ("GIF", "PNG", "WEBP", "JPEG", "BMP", "TIFF")
_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


def read_video(path: str) -> list[Image.Image]:
    """At most 8 frames (RGB, upright, transparency on white), those shown in the middle of 8 equal parts.

    Of videos over 20 s, each is decoded from the key frame before it. Where key frames are so rare that this takes
    more than `MAX_WORK`, an earlier frame of the same part stands for the moment, or the part is left out.
    Animated images (GIF, WebP, APNG) are sampled evenly over their frames; a still image is one frame.

    Raises:
        MediaError: there is no such file, no video track, no frames, the file is damaged or too large, or more than
            half of the parts are out of reach.
    """
    if _is_image(path):
        with opened(path, _IMAGES, "video") as image:
            return _animation_frames(image, path)
    with _open_track(path) as (media, stream):
        seconds = seconds_of(stream) or (media.duration or 0) / 1e6
        if seconds <= SEEK_SECONDS:  # some headers are wrong or silent; the packets of short files are quickly read
            seconds = _measure_seconds(media, stream)
    moments = [(number + 0.5) / FRAMES * seconds for number in range(FRAMES)]
    if seconds <= SEEK_SECONDS:
        pictures = _pictures_at(path, moments, [])
    else:
        with _open_track(path) as (media, stream):
            key_frames = _key_frames_before(media, stream, moments)
        # a file that cannot seek is decoded from end to end
        pictures = _pictures_at(path, moments, key_frames) or _pictures_at(path, moments, [])
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


def _begin(stream: Any) -> float:
    """Seconds by the file's clock at which a track begins."""
    return float((stream.start_time or 0) * stream.time_base)


class KeyFrame(NamedTuple):
    """Where decoding begins for a moment; both in seconds since the track's beginning."""

    target: float  # of the search that finds it
    time: float


FROM_BEGINNING = KeyFrame(0.0, -math.inf)  # no search is needed: decoding begins, or goes on


def _key_frames_before(media: InputContainer, stream: Any, moments: list[float]) -> list[KeyFrame]:
    """The key frame before each moment, found without decoding; [] if the file cannot seek, or has no clock."""
    key_frames = [_key_frame_before(media, stream, moment) for moment in moments]
    known = [key_frame for key_frame in key_frames if key_frame is not None]
    return known if len(known) == len(moments) else []


def _key_frame_before(media: InputContainer, stream: Any, moment: float) -> KeyFrame | None:
    import av

    begin = _begin(stream)
    for back in SEEK_BACK:  # some formats find what lies behind the moment
        target = max(0.0, moment - back)
        try:
            media.seek(int((begin + target) / stream.time_base), stream=stream)
        except av.FFmpegError:
            return None
        packets = islice(media.demux(stream), SEEK_PACKETS)
        packet = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        if packet is None:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return None
        time = float(stamp * stream.time_base) - begin
        if time <= moment:
            return KeyFrame(target, time)
    return FROM_BEGINNING


class _Cursor:
    """Decodes a track forward, and holds the frame that is shown at the moment that it has reached."""

    def __init__(self, media: InputContainer, stream: Any, work: float) -> None:
        self.media, self.stream = media, stream
        self.work = work  # pixels that may still be decoded; infinite: `MAX_DECODED` frames, and none is skipped
        self.moment = 0.0
        self.shown: tuple[float, Any] | None = None  # (seconds since the track's beginning, frame)
        self.following: tuple[float, Any] | None = None
        self.frames = self._timed_frames(0.0)

    def seek(self, key_frame: KeyFrame) -> None:
        """Goes to a key frame. Raises av.FFmpegError."""
        self.media.seek(int((_begin(self.stream) + key_frame.target) / self.stream.time_base), stream=self.stream)
        self.shown = self.following = None
        self.frames = self._timed_frames(math.nan)

    def move_to(self, moment: float) -> bool:
        """Whether the frame that is shown at the moment, or the last of the track, was reached."""
        self.moment = moment
        while self.following is None or self.following[0] <= moment:
            self.shown = self.following or self.shown
            if self.work <= 0 and self.shown is not None:
                self.following = None
                return False
            self.following = next(self.frames, (math.inf, None))
        if self.shown is None and self.following[1] is not None:
            self.shown = self.following  # nothing is shown before it
        return True

    def _timed_frames(self, untimed: float) -> Iterator[tuple[float, Any]]:
        """(seconds since the track's beginning, frame); `untimed` is where frames without a clock begin."""
        begin, rate = _begin(self.stream), _frame_rate(self.stream)
        most = MAX_DECODED if math.isinf(self.work) else None
        for number, frame in enumerate(islice(decoded(self.media, self.stream, "video", self._skip), most)):
            self.work -= frame.width * frame.height + FRAME_WORK
            yield frame.time - begin if frame.time is not None else untimed + number / rate, frame

    def _skip(self, packet: Any) -> None:
        """Lets the decoder leave out frames that no other frame needs, far from the moment."""
        if math.isinf(self.work):
            return
        margin = SKIPPED_UNTIL + 2 / _frame_rate(self.stream)
        time = math.inf if packet.pts is None else float(packet.pts * self.stream.time_base) - _begin(self.stream)
        self.stream.codec_context.skip_frame = "NONREF" if time < self.moment - margin else "DEFAULT"


def _pictures_at(path: str, moments: list[float], key_frames: list[KeyFrame]) -> list[Image.Image]:
    """The frames shown at the moments, without repetitions; by seeking where key frames are given.

    Returns [] where frames have no clock after seeking, or none can be decoded.
    """
    import av

    part = moments[1] - moments[0]
    pictures: dict[float, Image.Image] = {}
    out_of_reach = 0
    with _open_track(path) as (media, stream):
        cursor = _Cursor(media, stream, MAX_WORK if part * FRAMES > SEEK_SECONDS else math.inf)
        for number, moment in enumerate(moments):
            # a key frame behind what was decoded last is nearer than that
            if key_frames and key_frames[number].time > (cursor.shown[0] if cursor.shown else -math.inf):
                try:
                    cursor.seek(key_frames[number])
                except av.FFmpegError:
                    return []
            is_reached = cursor.move_to(moment)
            if cursor.shown is None:
                continue
            time, frame = cursor.shown
            if math.isnan(time):
                return []
            if not is_reached and time < moment - part / 2:
                out_of_reach += 1
            elif time not in pictures:
                pictures[time] = _picture(frame)
    if out_of_reach > FRAMES / 2:
        raise MediaError(
            f"video has too few key frames: {out_of_reach} of its {FRAMES} parts would take too long to reach; write "
            "it again with one every few seconds (ffmpeg -g 250)"
        )
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
