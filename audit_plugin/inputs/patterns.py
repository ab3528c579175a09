"""Patterns of names, such as `a-*.tar`, `s/{00000..00010}.tar` or `{train,val}.csv`, and the files that they name."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from audit_plugin.arrays import AuditError, count_text

from .rows import brief

MAX_FILES = 100_000
_CHOICE = re.compile(r"\{([^{},]*(?:,[^{},]*)+)\}")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def files_of(pattern: str) -> list[Path]:
    """The files that a pattern such as `a-*.tar` or `s/{00..10}.tar` names, as absolute paths in the order of names.

    Raises:
        AuditError: it stands for too many.
    """
    return [Path(name).absolute() for each in expand_ranges(pattern) for name in sorted(glob.glob(each))]


def missing_note(pattern: str) -> str:
    """A sentence on the files of a range that are not there; "" where all are."""
    names = [] if os.path.lexists(pattern) or "\0" in pattern else list(expand_ranges(pattern))
    missing = [name for name in names if not re.search(r"[*?\[]", name) and not os.path.lexists(name)]
    if not missing:
        return ""
    first = brief(os.path.basename(missing[0]))
    return f"{len(missing):,} of the {count_text(len(names), 'file')} that were named are not there, such as {first}"


def expand_ranges(pattern: str) -> Iterator[str]:
    """`a{08..11}` as `a08`, `a09`, `a10`, `a11`; `{train,val}.tar` as `train.tar`, `val.tar`."""
    if choice := _CHOICE.search(pattern):
        for name in choice[1].split(","):
            yield from expand_ranges(f"{pattern[: choice.start()]}{name}{pattern[choice.end() :]}")
        return
    count = 1
    for first, last in _RANGE.findall(pattern):
        count *= max(0, int(last) - int(first) + 1)
    if count > MAX_FILES:
        raise AuditError(f"{pattern!r} stands for {count:,} files; the limit is {MAX_FILES:,}")
    numbers = _RANGE.search(pattern)
    if numbers is None:
        yield pattern
        return
    first, last = numbers.groups()
    for number in range(int(first), int(last) + 1):
        yield from expand_ranges(f"{pattern[: numbers.start()]}{number:0{len(first)}}{pattern[numbers.end() :]}")


def is_gone(path: str) -> bool:
    """Whether a manifest, or each shard that a pattern names, was deleted; False where nobody can see that."""
    from .remote import is_remote

    if is_remote(path):  # nobody looks
        return False
    try:
        os.stat(path)
        return False
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):
        return False
    try:
        return not files_of(path)
    except AuditError:
        return True
