"""Checks of what a caller passes, at the door: one sentence that names the parameter, its value and what to give."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from pathlib import Path

from audit_plugin.arrays import AuditError

MOST_CHARACTERS = 1_000_000  # of a text or a note: a document of the database holds 16 MB
NAME_CHARACTERS = 1_000  # of a name, an id or a key
MOST_SECONDS = 1e9
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shortened(value: object) -> str:
    """A value as a message shows it."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"


def check_text(parameter: str, value: object, most: int = MOST_CHARACTERS) -> str:
    """The value, if it is a text.

    Raises:
        AuditError: it is not, or it is too long.
    """
    if not isinstance(value, str):
        raise AuditError(f"{parameter} {shortened(value)} is of type {type(value).__name__}; give a text")
    if len(value) > most:
        raise AuditError(f"{parameter} {shortened(value)} has {len(value):,} characters; give at most {most:,}")
    return value


def check_name(parameter: str, value: object) -> str:
    """The value, if it is a name, an id or a key that a database can hold; it may be empty.

    Raises:
        AuditError: it is another value.
    """
    name = check_text(parameter, value, NAME_CHARACTERS)
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise AuditError(f"{parameter} {shortened(name)} has a character that no name can have; give another name")
    return name


def check_whole(parameter: str, value: object, low: int = 0, high: int = 2**31 - 1) -> int:
    """The value as an int, if it is a whole number of Python or numpy from `low` to `high`.

    Raises:
        AuditError: it is another value.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise AuditError(f"{parameter} {shortened(value)} is of type {type(value).__name__}; give a whole number")
    if not low <= number <= high:
        raise AuditError(f"{parameter} {shortened(number)} is out of range; give a whole number from {low} to {high}")
    return number


def check_seconds(parameter: str, value: object) -> float:
    """The value as a float, if it is a time in seconds.

    Raises:
        AuditError: it is another value.
    """
    try:
        seconds = math.nan if isinstance(value, bool | str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= MOST_SECONDS:
        raise AuditError(f"{parameter} {shortened(value)} is not a time; give seconds, from 0 to {MOST_SECONDS:.0f}")
    return seconds


def check_path(parameter: str, value: object) -> Path:
    """The value as a path, if a file can have it.

    Raises:
        AuditError: it is another value.
    """
    if not isinstance(value, str | Path):
        raise AuditError(f"{parameter} {shortened(value)} is of type {type(value).__name__}; give a path")
    try:
        usable = bool(str(value)) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise AuditError(f"{parameter} {shortened(str(value))} is not a path that a file can have; give another one")
    return Path(value)
