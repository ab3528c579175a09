"""What every modality shares: the error of one medium, its bytes, content digests, and safe opening with FFmpeg.

A medium is named by a path, or by a value that says where its bytes lie inside a tar shard or a table (`member_of`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from audit_plugin.arrays import AuditError
from audit_plugin.store import open_regular

from .table_cells import cell_bytes
from .threads import StoppedError, check_stopped

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_BYTES = 4 << 30  # of one medium
MAX_PACKETS = 1_000_000  # of one track
_MEMBER = re.compile(
    r"(?P<file>.+\.(?P<kind>tar|parquet|pq|arrow|feather))::(?P<name>[\w.-]+)@(?P<start>\d{1,18})\+(?P<size>\d{1,18})",
    re.DOTALL | re.IGNORECASE,
)
CHUNK = 1 << 18  # bytes read at once
_NAME_CHARACTERS = 100  # of a member's name that its value repeats

# FFmpeg also reads playlists and lists of files, through which a hostile file could read others: only containers.
_CONTAINERS = """
    aac ac3 aiff amr ape asf au av1 avi caf eac3 flac flv h264 hevc ivf m4v matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3
    mpeg mpegts mpegvideo mxf nut obu ogg tta w64 wav wv
"""


class MediaError(Exception):
    """One medium cannot be used; the message is the reason that the user reads in `failure`."""


def member_of(file: str, name: str, start: int, size: int) -> str:
    """The value that stands for bytes inside of a file; it is read like any path.

    Of an uncompressed tar file (`file` ends in `.tar`) these are `size` bytes from `start` on; of a table (`.parquet`,
    `.pq`, `.arrow`, `.feather`) those of the cell in row `start` and column `size`, both counted from 0. Characters of
    the name that are unsafe in a path are replaced.
    """
    safe_name = re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2])[-_NAME_CHARACTERS:] or "member"
    return f"{file}::{safe_name}@{start}+{size}"


def name_of_member(value: str) -> str:
    """The name of the member of a file that a value stands for; "" where the value is a path."""
    member = _MEMBER.fullmatch(value)
    return member["name"] if member else ""


def file_of(value: str) -> str:
    """The file that is opened for a value: its path, or the tar file or table that holds the member."""
    member = _MEMBER.fullmatch(value)
    return member["file"] if member else value


def open_medium(value: str, most: int | None = MAX_BYTES) -> io.BufferedReader:
    """Opens a file, or a member of a tar file or table, for reading bytes; it never waits, as pipes do.

    Raises:
        OSError: there is no such file, it is no regular file, it has more than `most` bytes (None: any number), or a
            tar file ends before the member does.
        ValueError: the path holds a null character.
    """
    member = _MEMBER.fullmatch(value)
    if member is None:
        file = open_regular(value)
        _check_bytes(file, os.fstat(file.fileno()).st_size, most)
        return file
    start, size = int(member["start"]), int(member["size"])
    if member["kind"].lower() != "tar":
        data = cell_bytes(member["file"], start, size)
        if most is not None and len(data) > most:
            raise OSError(f"{len(data)} bytes, over the limit of {most}")
        return io.BufferedReader(cast("io.RawIOBase", io.BytesIO(data)))
    file = open_regular(member["file"])
    _check_bytes(file, size, most)
    if start + size > os.fstat(file.fileno()).st_size:
        file.close()
        raise OSError("the tar file ends too early")
    return io.BufferedReader(_Window(file, start, size))


def _check_bytes(file: io.BufferedReader, size: int, most: int | None) -> None:
    if most is not None and size > most:
        file.close()
        raise OSError(f"{size} bytes, over the limit of {most}")


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError(errno.EINVAL, "the position is negative")
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._file.fileno(), wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def file_digest(path: str, most: int | None = MAX_BYTES) -> str:
    """sha256 (hex) of the bytes of a file, or of a member of a tar file.

    Raises:
        MediaError: it cannot be read, is empty, or has more than `most` bytes (None: any number).
    """
    digest, total = hashlib.sha256(), 0
    chunk = memoryview(bytearray(CHUNK))
    try:
        with open_medium(path, most) as file:
            # what claims to be empty is not read: files of the system without a size may never end
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            while size and (count := file.readinto(chunk)):
                check_stopped()
                total += count
                if total > size:
                    raise OSError("it grows while it is read")
                digest.update(chunk[:count])
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    if not total:
        raise MediaError("file is empty (0 bytes)")
    return digest.hexdigest()


def unreadable(error: OSError | ValueError) -> MediaError:
    """The error of a path that cannot be opened.

    Raises:
        AuditError: it is not the path's fault, but this process can open no more files.
    """
    if isinstance(error, FileNotFoundError):
        return MediaError("file not found")
    if isinstance(error, IsADirectoryError):
        return MediaError("is a folder, not a file")
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise AuditError("too many files are open; raise the limit (ulimit -n), or close other programs") from error
        return MediaError(f"file cannot be read ({error.strerror or error})")
    return MediaError("path is not valid")  # it holds a null character


def failure_of(error: Exception) -> str:
    """The reason why one medium cannot be used, after any exception of what read or prepared it.

    Raises:
        AuditError, StoppedError: the error itself, where it is not the medium's.
    """
    if isinstance(error, AuditError | StoppedError):
        raise error
    if isinstance(error, MediaError):
        return str(error)
    return f"cannot be used ({type(error).__name__}: {first_line(error)})"


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
        except MemoryError:
            raise
        except Exception as error:
            raise MediaError(f"not {kind} that can be read, or damaged") from error
        try:
            yield opened
        except (MediaError, MemoryError):
            raise
        except Exception as error:  # decoders raise anything on hostile bytes; one bad file must not end the run
            raise damaged(kind, error) from error


def decoded(
    media: InputContainer, stream: Any, kind: str, before: Callable[[Any], None] = lambda _packet: None
) -> Iterator[Any]:
    """The frames of a stream; single damaged packets are skipped, as players do.

    `before` is called with each packet before it is decoded.

    Raises:
        MediaError: no packet could be decoded.
    """
    import av

    has_frames, first_error = False, ""
    for packet in islice(media.demux(stream), MAX_PACKETS):
        before(packet)
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
