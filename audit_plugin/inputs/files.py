"""What every modality shares: the error of one medium, its bytes, content digests, and safe opening with FFmpeg.

A medium is named by a path, or by a value that says where its bytes lie inside a tar shard (`member_of`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_MEMBER_BYTES = 1 << 30  # a member of a tar file is read at once
_MEMBER = re.compile(r"(?P<tar>.+\.tar)::(?P<name>[\w.-]+)@(?P<start>\d{1,18})\+(?P<size>\d{1,18})", re.DOTALL)
_NAME_CHARACTERS = 100  # of a member's name that its value repeats

# FFmpeg also reads playlists and lists of files, through which a hostile file could read others: only containers.
_CONTAINERS = """
    aac ac3 aiff amr ape asf au av1 avi caf eac3 flac flv h264 hevc ivf m4v matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3
    mpeg mpegts mpegvideo mxf nut obu ogg tta w64 wav wv
"""


class MediaError(Exception):
    """One medium cannot be used; the message is the reason that the user reads in `failure`."""


def member_of(tar: str, name: str, start: int, size: int) -> str:
    """The value that stands for `size` bytes from `start` on in an uncompressed tar file; it is read like any path.

    The path `tar` ends in `.tar`; characters of the member's name that are unsafe in a path are replaced.
    """
    safe_name = re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2])[-_NAME_CHARACTERS:] or "member"
    return f"{tar}::{safe_name}@{start}+{size}"


def name_of_member(value: str) -> str:
    """The name of the tar member that a value stands for; "" where the value is a path."""
    member = _MEMBER.fullmatch(value)
    return member["name"] if member else ""


def file_of(value: str) -> str:
    """The file that is opened for a value: its path, or the tar file that holds the member."""
    member = _MEMBER.fullmatch(value)
    return member["tar"] if member else value


def open_medium(value: str) -> io.BufferedReader | io.BytesIO:
    """Opens a file, or a member of a tar file, for reading bytes.

    Raises:
        OSError: there is no such file, or it ends before the member does.
        ValueError: the path holds a null character.
    """
    member = _MEMBER.fullmatch(value)
    if member is None:
        return open(value, "rb")
    size = int(member["size"])
    if size > MAX_MEMBER_BYTES:
        raise OSError(f"{size} bytes, over the limit of {MAX_MEMBER_BYTES}")
    with open(member["tar"], "rb") as file:
        file.seek(int(member["start"]))
        data = file.read(size)
    if len(data) < size:
        raise OSError("the tar file ends too early")
    return io.BytesIO(data)


def file_digest(path: str) -> str:
    """sha256 (hex) of the bytes of a file, or of a member of a tar file."""
    try:
        with open_medium(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    if digest == hashlib.sha256().hexdigest():
        raise MediaError("file is empty (0 bytes)")
    return digest


def unreadable(error: OSError | ValueError) -> MediaError:
    """The error of a path that cannot be opened."""
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


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, or its type where it has none, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def damaged(kind: str, error: BaseException | str) -> MediaError:
    """The error of a file that a decoder refused, in one line."""
    if not isinstance(error, str):
        error = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return MediaError(f"{kind} is damaged ({error})")


@contextlib.contextmanager
def container(path: str, kind: str) -> Iterator[InputContainer]:
    """An open media container; whatever a decoder raises inside becomes a `MediaError` about `kind`.

    FFmpeg reads the bytes of the open file and sees no path: names such as `concat:a|b` or `http://...` have no
    meaning, and no other file is read.
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
    """The frames of a stream; single damaged packets are skipped, as players do.

    Raises:
        MediaError: no packet could be decoded.
    """
    import av

    has_frames, first_error = False, ""
    for packet in media.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            first_error = first_error or f"{type(error).__name__}: {error.strerror}"
            continue
        has_frames = has_frames or bool(frames)
        yield from frames
    if first_error and not has_frames:
        raise damaged(kind, first_error)


def seconds_of(stream: Any) -> float | None:
    """The duration that a stream declares, in seconds."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
