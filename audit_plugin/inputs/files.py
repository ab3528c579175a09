"""What every modality shares: the error of one medium, content digests, and opening a file safely with FFmpeg."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .members import open_medium

if TYPE_CHECKING:
    from av.container import InputContainer

_CHUNK = 1 << 20

# FFmpeg also reads playlists and lists of files, which would fetch whatever hostile bytes name: only containers.
_CONTAINERS = """
    aac ac3 aiff amr ape asf au av1 avi caf eac3 flac flv h264 hevc ivf m4v matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3
    mpeg mpegts mpegvideo mxf nut obu ogg tta w64 wav wv
"""


class MediaError(Exception):
    """One medium cannot be used; the message is the reason that the user reads in `failure`."""


def file_digest(path: str) -> str:
    """sha256 (hex) of the bytes of a file, or of a member of a tar file."""
    sha, empty = hashlib.sha256(), True
    try:
        with open_medium(path) as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                empty = False
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    if empty:
        raise MediaError("file is empty (0 bytes)")
    return sha.hexdigest()


def unreadable(error: OSError | ValueError) -> MediaError:
    """Why a path cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return MediaError("file not found")
    if isinstance(error, IsADirectoryError):
        return MediaError("is a folder, not a file")
    if isinstance(error, OSError):
        return MediaError(f"file cannot be read ({error.strerror or error})")
    return MediaError("path is not valid")  # it holds a null character


def text_digest(text: str) -> str:
    """sha256 (hex) of a text."""
    if not text.strip():
        raise MediaError("text is empty")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_text(text: str) -> str:
    """The text without surrounding white space; lone surrogates become replacement characters."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def damaged(kind: str, error: BaseException | str) -> MediaError:
    """One line on a file that a decoder refused."""
    why = error if isinstance(error, str) else f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return MediaError(f"{kind} is damaged ({why})")


@contextlib.contextmanager
def container(path: str, kind: str) -> Iterator[InputContainer]:
    """An opened media container; whatever a decoder raises inside becomes a `MediaError` about `kind`.

    The file is opened here and handed over as bytes, so that FFmpeg sees no path: names such as `concat:a|b` or
    `http://...` are only names, and nothing but the file itself is read.
    """
    import av

    options = {"format_whitelist": ",".join(_CONTAINERS.split()), "protocol_whitelist": "file"}
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_medium(path))
        except (OSError, ValueError) as error:
            raise unreadable(error) from error
        try:
            opened = stack.enter_context(av.open(file, "r", options=options, metadata_errors="replace"))
        except Exception as error:
            raise MediaError(f"not {kind} that can be read, or damaged") from error
        try:
            yield opened
        except MediaError:
            raise
        except Exception as error:  # decoders raise anything on hostile bytes; one bad file must not end the run
            raise damaged(kind, error) from error


def decoded(media: InputContainer, stream: Any, kind: str) -> Iterator[Any]:
    """The frames of a stream; single bad packets are skipped, as players do.

    Raises:
        MediaError: not one packet was good.
    """
    import av

    good, bad = False, ""
    for packet in media.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            bad = bad or f"{type(error).__name__}: {error.strerror}"
            continue
        good = good or bool(frames)
        yield from frames
    if bad and not good:
        raise damaged(kind, bad)


def is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a sound file."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def seconds_of(stream: Any) -> float | None:
    """The duration that a stream claims for itself, in seconds."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
