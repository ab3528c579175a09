"""What other annotation tools get of a row to review, and what all their formats share."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.parsers import expat

from audit_plugin.arrays import AuditError

from .checks import MOST_SECONDS, shortened
from .decisions import NO_TIME

DECISIONS = ("keep", "remove", "relabel", "unsure")
PROPOSED = ("keep", "remove", "relabel")  # actions of an audit that are decisions
LONGEST_SECONDS = 600.0  # after a longer pause the reviewer was away, and the decision is not timed


@dataclass(frozen=True)
class ReviewTask:
    """A row to review. Texts are those of the data: hostile, and unchanged.

    Attributes:
        name: id of the sample or object.
        caption: position of the text that is in question.
        path: of the sample's file.
        media: image, audio or video.
        text: the caption or class label.
        suggestion: what the audit suggests instead, or "".
        action: what the audit proposes.
        evidence: sentences: flags and reason, scores, words that do not fit.
        score: probability that it is wrong, 0 to 1; NaN where it is unknown.
        digest: of the content, by which a decision is stale when it changes (`content_digest`).
        box: left, top, width, height of an object as shares of the image; () where the row is a sample.
        size: width and height of the image in pixels, (0, 0) where they are unknown.
    """

    name: str
    caption: int
    path: str
    media: str
    text: str
    suggestion: str
    action: str
    evidence: tuple[str, ...]
    score: float
    digest: str
    box: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)

    @property
    def proposal(self) -> str:
        """The audit's proposal as a decision, "" where it proposes to review; it relabels only with a text."""
        return self.action if self.action in PROPOSED and (self.action != "relabel" or self.suggestion) else ""


def below_root(path: str, root: str) -> str:
    """A path relative to a folder, with slashes.

    Raises:
        AuditError: it lies elsewhere.
    """
    path, root = posixpath.normpath(path), posixpath.normpath(root)
    relative = posixpath.relpath(path, root)
    if relative.split("/")[0] == "..":
        raise AuditError(f"{path!r} does not lie in {root!r}; name a folder that holds all media: --media-root")
    return relative


def common_root(paths: Sequence[str]) -> str:
    """The deepest folder that holds all files."""
    folders = {posixpath.dirname(posixpath.normpath(path)) for path in paths}
    return posixpath.commonpath(folders) if folders else "/"


def time_of(value: object) -> datetime:
    """A time in ISO format in UTC, in whole milliseconds; `NO_TIME` where there is none.

    Raises:
        AuditError: another text.
    """
    if value in (None, ""):
        return NO_TIME
    try:
        time = datetime.fromisoformat(str(value))
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise AuditError(f"time {shortened(value)} is not a time in ISO format; correct it") from error
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def seconds_of(value: object) -> float:
    """Seconds that a decision took; 0 where they are unknown, or longer than anybody decides."""
    seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    return seconds if math.isfinite(seconds) and 0 < seconds <= min(LONGEST_SECONDS, MOST_SECONDS) else 0.0


def kind_of(value: object, where: str) -> str:
    """A decision that a tool recorded.

    Raises:
        AuditError: none that this tool knows.
    """
    if value not in DECISIONS:
        raise AuditError(f"{where} has the decision {shortened(value)}; use one of {', '.join(DECISIONS)}")
    return str(value)


def text_at(record: Mapping[str, Any], name: str, where: str) -> str:
    """A text of a record, "" where it is missing.

    Raises:
        AuditError: it is something else.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise AuditError(f"{where}: {name} is {shortened(value)}, not a text; export the annotations again")
    return value or ""


def check_xml(data: bytes, name: str) -> None:
    """Raises `AuditError` for a file that is not XML, or that defines a document type, whose entities may grow."""

    def refuse(*_: object) -> None:
        raise AuditError(f"{name} defines a document type, which annotations do not need; remove it")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise AuditError(f"{name} is not XML ({error}); export the annotations again") from error
