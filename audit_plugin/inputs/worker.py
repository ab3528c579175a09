"""The process that decodes media: hostile bytes can only crash, stall or fill it, which costs one medium.

It is started by `reading`, reads one request per line from stdin, and writes the medium to what was its stdout.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from audit_plugin.arrays import AuditError

from .audio import read_audio
from .files import failure_of
from .images import allow_heic, read_image, read_image_or_crop
from .packing import packed
from .video import read_video

EXTRA_SECONDS = 5  # by the clock, besides those of a processor: for other work on the machine, or a slow disk
IDLE_SECONDS = 300  # after which an unused process ends
MEMORY_BYTES = 3_000_000_000

READERS: dict[str, Callable[[str], Any]] = {
    "image": read_image_or_crop,
    "whole image": read_image,
    "audio": read_audio,
    "video": read_video,
}


def serve(lifeline: int) -> None:
    """Answers requests until stdin ends, or the process that holds the other end of the pipe `lifeline` does."""
    _end_with_parent(lifeline)
    _limit_resources()
    _allow_large_metadata()
    allow_heic()
    replies = os.fdopen(os.dup(1), "wb")  # whatever a library prints must not come between the replies
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    _reply(replies, {"ready": True}, iter(()))
    signal.alarm(IDLE_SECONDS)
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        # the kernel ends the process, also where a decoder lets no Python run
        signal.alarm(request["seconds"] + EXTRA_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            last_second = math.ceil(time.process_time()) + request["seconds"]
            resource.setrlimit(resource.RLIMIT_CPU, (last_second, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        header, body = _answer(request)
        signal.alarm(0)  # the other side may be suspended
        _reply(replies, header, body)
        if "memory" in header:
            return  # what is left of the memory is in pieces
        signal.alarm(IDLE_SECONDS)


def _end_with_parent(lifeline: int) -> None:
    """Lets the kernel end this process as soon as the parent dies, whatever it is doing."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's matter
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, OSError):  # elsewhere the end of stdin and the alarm must do
        # opened again: workers share what they inherited, and only the last one to claim it would be ended
        lifeline = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _limit_resources() -> None:
    limits = ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0))
    for kind, limit in limits:
        hard = resource.getrlimit(kind)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):  # not every system knows every limit
            resource.setrlimit(kind, (most, most))


def _allow_large_metadata() -> None:
    """Lets PNG files have a color profile or a text of 1 to 64 MB, as scanners and editors write."""
    from PIL import PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], Iterator[bytes]]:
    """(header, body) of the reply to a request."""
    nothing: Iterator[bytes] = iter(())
    try:
        if request["folder"]:
            os.chdir(request["folder"])  # relative paths mean what they mean to the parent
        return packed(READERS[request["reader"]](request["value"]))
    except AuditError as error:
        return {"broken": str(error)}, nothing
    except MemoryError:
        limit = f"needs more than {MEMORY_BYTES / 1e9:.0f} GB of memory to be read"
        return {"failure": limit, "memory": True}, nothing
    except Exception as error:  # decoders raise anything on hostile bytes
        return {"failure": failure_of(error)}, nothing


def _reply(replies: BinaryIO, header: dict[str, Any], body: Iterator[bytes]) -> None:
    text = json.dumps(header).encode()
    replies.write(len(text).to_bytes(4, "big") + text)
    for part in body:
        replies.write(part)
    replies.flush()
