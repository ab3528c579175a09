"""Decisions of reviewers: the ledger is append-only, and the current decisions are computed from all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from audit_plugin.arrays import AuditError

from .checks import check_name, check_seconds, check_text, check_whole, shortened

# By precedence: a sample with decisions on several captions is marked with the first of these among them.
KINDS = ("remove", "relabel", "unsure", "keep", "skip")
UNDONE = "undone"
VERDICT_OF = {"remove": "wrong", "relabel": "wrong", "keep": "right", "unsure": "unsure"}
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
NAMED = ("sample", "label", "field", "digest", "reviewer", "run", "source", "id", "batch", "undoes")
DIGITS = 32  # hex digits of each sha256 in a content digest

Key = tuple[str, str, int]  # sample, label (object in it, "" for the sample as a whole), caption


@dataclass(frozen=True)
class Decision:
    """The decision of a reviewer on one caption of a sample, or on one object; an entry of the ledger.

    Attributes:
        sample: id of the sample; for a group, of its first sample with results.
        kind: one of `KINDS`, or "undone": the entry reverts the entry with the id `undoes`, a decision (undo) or an
            entry that reverted one (redo).
        caption: position in the sample's list of texts, 0 if it has a single text.
        label: id of the object in the sample, "" for the sample as a whole.
        text: the new text, for relabel.
        field: name of the field with the text, "" if there is none.
        digest: of the content that was reviewed (`content_digest`).
        time: with time zone, in whole milliseconds; for show, since clocks may be set back.
        run: key of the audit that was reviewed; source: person, batch, spot-check, repair or import.
        seconds: time that the decision took; 0 if not measured.
        id: unique; batch: shared by decisions made together, which are undone together.
        number: position in the ledger of its dataset, from 1; 0 before it is written, and in ledgers of former
            versions, whose entries come first, by their times.
    """

    sample: str
    kind: str
    caption: int = 0
    label: str = ""
    text: str = ""
    field: str = ""
    digest: str = ""
    reviewer: str = ""
    note: str = ""
    time: datetime = NO_TIME
    run: str = ""
    source: str = "person"
    seconds: float = 0.0
    id: str = ""
    batch: str = ""
    undoes: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, UNDONE):
            kinds = ", ".join(sorted(KINDS))
            raise AuditError(f"decision {shortened(self.kind)} on sample {self.sample} is unknown; use one of {kinds}")
        if self.kind == "relabel" and not check_text("text", self.text).strip():
            raise AuditError(f"the relabel decision on sample {self.sample} has no text; give one, or use remove")
        if check_whole("caption", self.caption, -(2**31)) < 0:
            raise AuditError(f"caption {self.caption} of sample {self.sample} is negative; positions start at 0")

    @property
    def key(self) -> Key:
        """What the decision is about."""
        return self.sample, self.label, self.caption

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key: the position in the ledger; of entries without one time, then id."""
        return self.number, self.time, self.id


def check_decision(decision: Decision) -> None:
    """Raise an `AuditError` that names the first value that a ledger cannot hold."""
    for name in NAMED:
        check_name(name, getattr(decision, name))
    check_text("text", decision.text)
    check_text("note", decision.note)
    check_numbers(decision)
    if not hasattr(decision.time, "astimezone") or decision.time.tzinfo is None:
        raise AuditError(f"time {shortened(decision.time)} is not a time with a time zone; give one, or leave it out")


def check_numbers(decision: Decision) -> None:
    """Raise an `AuditError` that names the first number that a ledger cannot hold."""
    check_whole("caption", decision.caption)
    check_whole("number", decision.number, high=2**62)
    check_seconds("seconds", decision.seconds)


@dataclass(frozen=True)
class Content:
    """The current content that a decision is about.

    Attributes:
        texts: all texts of the sample, None where one is missing; at most one if the field is not a list.
        media: sha256 (hex) of its other media, "" if they cannot be read.
        listed: the texts are a list, from which single ones can be removed.
        removed: it is marked as removed.
    """

    texts: tuple[str | None, ...] = ()
    media: str = ""
    listed: bool = False
    removed: bool = False

    def text(self, caption: int) -> str | None:
        """The text at a position, or None."""
        return self.texts[caption] if 0 <= caption < len(self.texts) else None

    def digest(self, caption: int) -> str:
        """Digest of one text and the media."""
        return content_digest(self.text(caption), self.media)


@dataclass(frozen=True)
class Resolution:
    """The state of a ledger.

    Attributes:
        current: key -> the current decision: the latest one among those of all reviewers.
        disagreements: key -> the latest decision of each reviewer, sorted by reviewer, where they differ.
    """

    current: Mapping[Key, Decision]
    disagreements: Mapping[Key, tuple[Decision, ...]]


def content_digest(text: str | None, media: str) -> str:
    """`MEDIA:TEXT`, the first `DIGITS` hex digits of each sha256; a part is empty without such content."""
    return f"{media[:DIGITS]}:{'' if text is None else _text_digest(text)}"


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def stale(decision: Decision, digest: str) -> bool:
    """Whether the content has changed since the decision, by its digest then and now.

    Media that could not be read, then or now, are not compared. The text that a relabel asks for is not a change.
    """
    if not decision.digest:
        return False
    media, _, text = decision.digest.partition(":")
    media_now, _, text_now = digest.partition(":")
    if media and media_now and media != media_now:
        return True
    expected = (text, _text_digest(decision.text)) if decision.kind == "relabel" else (text,)
    return text_now not in expected


def resolve(decisions: Iterable[Decision]) -> Resolution:
    """The state of a ledger, whatever the order in which its entries are read.

    The latest decision of each reviewer that was not undone counts. A skip means "not now": it replaces earlier
    decisions of the same reviewer, but none of other reviewers.
    """
    latest = {(decision.key, decision.reviewer): decision for decision in standing(decisions)}
    by_key: dict[Key, list[Decision]] = {}
    for decision in latest.values():
        by_key.setdefault(decision.key, []).append(decision)
    current, disagreements = {}, {}
    for key, entries in by_key.items():
        entries.sort(key=lambda d: d.order)
        verdicts = [d for d in entries if d.kind != "skip"]
        current[key] = (verdicts or entries)[-1]
        if len({(d.kind, d.text if d.kind == "relabel" else "") for d in verdicts}) > 1:
            disagreements[key] = tuple(sorted(verdicts, key=lambda d: d.reviewer))
    return Resolution(current, disagreements)


def unsettled(decisions: Iterable[Decision]) -> dict[Key, tuple[Decision, ...]]:
    """Key -> the latest decision of each reviewer, where they differ and nobody has decided since they did."""
    entries = list(decisions)
    resolution = resolve(entries)
    by_key: dict[Key, list[Decision]] = {key: [] for key in resolution.disagreements}
    for decision in standing(entries):
        if decision.key in by_key:
            by_key[decision.key].append(decision)

    def is_settled(key: Key) -> bool:
        last = resolution.current[key].order
        return bool(resolve(d for d in by_key[key] if d.order < last).disagreements)

    return {key: differing for key, differing in resolution.disagreements.items() if not is_settled(key)}


def standing(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions that were not undone, or were redone, oldest first."""
    entries = sorted(decisions, key=lambda d: d.order)
    reverted: set[str] = set()
    for entry in reversed(entries):  # whether an undo was itself reverted is known before it counts
        if entry.kind == UNDONE and entry.id not in reverted:
            reverted.add(entry.undoes)
    return [d for d in entries if d.kind != UNDONE and d.id not in reverted]


def to_undo(decisions: Iterable[Decision], reviewer: str) -> list[Decision]:
    """The last decision of a reviewer that was not undone, or all of its batch."""
    own = [d for d in standing(decisions) if d.reviewer == reviewer]
    return [d for d in own if d.id == own[-1].id or (d.batch and d.batch == own[-1].batch)]


def to_redo(decisions: Iterable[Decision], reviewer: str) -> list[Decision]:
    """The entries of a reviewer's last undo that was not redone; none after a new decision of the reviewer."""
    entries = sorted(decisions, key=lambda d: d.order)
    undoing = {d.id for d in entries if d.kind == UNDONE}
    undos: list[list[Decision]] = []
    for entry in (d for d in entries if d.reviewer == reviewer):
        if entry.kind != UNDONE:
            undos = []
        elif entry.undoes in undoing:
            undos = [left for undo in undos if (left := [d for d in undo if d.id != entry.undoes])]
        elif undos and entry.batch and undos[-1][0].batch == entry.batch:
            undos[-1].append(entry)
        else:
            undos.append([entry])
    return undos[-1] if undos else []


def strongest(kinds: Iterable[str]) -> str:
    """The decision that marks a sample, from those on its captions or objects: the first of `KINDS`, "" if none."""
    present = set(kinds)
    return next((kind for kind in KINDS if kind in present), "")


def verdict(kind: str) -> str:
    """The verdict of a decision in a spot check: wrong, right, unsure or ""."""
    return VERDICT_OF.get(kind, "")
