"""What the machine lacks, in one sentence: disk, memory, processes, open files. Whatever package raised the error."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from audit_plugin.arrays import AuditError

AGAIN = "run the same command again: finished parts are kept"
FULL = (errno.ENOSPC, errno.EDQUOT)
# Packages that do not pass the system's number on: numpy, C++, torch and onnxruntime, threads of Python, pymongo.
FULL_TEXT = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written|OutOfDiskSpace")
MEMORY_TEXT = re.compile(
    r"Unable to allocate|not enough memory|(?:[Cc]an(?:'t|not)|Failed to) allocate memory(?! in static TLS)|bad_alloc|"
    r"DefaultCPUAllocator|failed to map segment from shared object(?!: Operation not permitted)|"
    r"cannot create std::vector larger"
)
# Of C extensions that had no memory for the object of their error, most often while they are imported.
NO_ERROR_TEXT = re.compile(
    r"error return without exception set|returned NULL without setting an exception|failed without raising an exception"
)
FILES_TEXT = re.compile(r"Too many open files")
PROCESS_TEXT = re.compile(r"can't start new thread|can't start new process|Resource temporarily unavailable")
AMOUNT = re.compile(r"(?:allocate|tried to allocate) ([\d.]+ ?[KMGT]?i?B|\d+ bytes)")
LEAST_ADDRESSES = 5_000_000_000  # bytes of address space that torch and its libraries map, most of it never used
MOST_CAUSES = 20  # of an error, which may form a loop


def disk_error(path: Path, error: OSError, size: int | None = None, written: int = 0) -> AuditError:
    """One sentence for a file, or folder, that could not be written.

    Of `size` bytes where that is known; else `written` are those that the disk had room for.
    """
    if _is_full(error):
        return AuditError(_full_sentence(path, size, written))
    if sentence := plain_error(error):
        return AuditError(sentence)
    return AuditError(f"{path} cannot be written ({error.strerror or error}); choose another folder")


def plain_error(error: BaseException) -> str | None:
    """One sentence on an error that comes from a lack of disk, memory, processes or open files; None for any other."""
    for cause in causes_of(error):
        text = str(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        if _is_full(cause):
            named = cause.filename if isinstance(cause, OSError) else None
            return _full_sentence(Path(named)) if isinstance(named, str) else _full_anywhere()
        if number in (errno.EMFILE, errno.ENFILE) or FILES_TEXT.search(text):
            return f"too many files are open at once; raise the limit (ulimit -n 4096), and {AGAIN}"
        if "CUDA out of memory" in text:
            return f"the GPU's memory is too small; close other programs that use it, or use --device cpu, and {AGAIN}"
        if (
            isinstance(cause, MemoryError)
            or number == errno.ENOMEM
            or MEMORY_TEXT.search(text)
            or _lost_its_error(cause)
        ):
            amount = AMOUNT.search(text)
            asked = f" ({amount[1]} could not be had)" if amount else ""
            return f"the memory is too small{asked}; close other programs, or use fewer --trials or rows, and {AGAIN}"
        if number == errno.EAGAIN or PROCESS_TEXT.search(text):
            return f"no more threads or processes can be started; close other programs (ulimit -u), and {AGAIN}"
    return None


def raise_shortage(error: BaseException) -> None:
    """Raises the sentence of `plain_error`, if it has one: a package that cannot be loaded is not always missing."""
    if sentence := plain_error(error):
        raise AuditError(sentence) from error


def check_memory() -> None:
    """Raises AuditError where a limit of this shell leaves too little memory: libraries crash instead of saying so."""
    limit = _address_limit()
    if 0 <= limit < LEAST_ADDRESSES:
        raise AuditError(
            f"this shell limits memory to {size_text(limit)} (ulimit -v), but the libraries alone reserve "
            f"{size_text(LEAST_ADDRESSES)}; raise the limit, and {AGAIN}"
        )


def size_text(size: float) -> str:
    """`1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _address_limit() -> int:
    """Bytes of addresses that this process may have (ulimit -v), or -1: no limit."""
    try:
        import resource
    except ImportError:
        return -1  # no such limits on this system
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return -1 if limit == resource.RLIM_INFINITY else limit


def _lost_its_error(error: BaseException) -> bool:
    """Whether a C extension failed without saying why, which under a limit of memory is for lack of it."""
    return isinstance(error, SystemError) and bool(NO_ERROR_TEXT.search(str(error))) and _address_limit() >= 0


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return bool(FULL_TEXT.search(str(error)))


def _full_sentence(path: Path, size: int | None = None, written: int = 0) -> str:
    needs = size_text(size) if size else f"more than {size_text(written)}"
    needed = f"{path.name} needs {needs}, " if size or written else f"{path.name} cannot be written, "
    free = "and the rest is unknown"
    with contextlib.suppress(OSError):
        free = f"{size_text(shutil.disk_usage(path.parent).free)} are free"
    return f"no space left in {path.parent}: {needed}{free}; free some space, or choose another folder, and {AGAIN}"


def _full_anywhere() -> str:
    """Where the error names no file: the places that are written to, with what is free."""
    import tempfile

    from .files import cache_root

    places = []
    for name, place in (("cache", cache_root()), ("temporary files", Path(tempfile.gettempdir())), ("here", Path())):
        with contextlib.suppress(OSError):
            existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
            places.append(f"{name} {existing}: {size_text(shutil.disk_usage(existing).free)} free")
    return f"no space left on a disk ({', '.join(places)}); free some space, and {AGAIN}"
