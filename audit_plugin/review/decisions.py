"""Decisions and what they come to: the ledger is append-only, and what holds now is computed from all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from audit_plugin.arrays import AuditError

# Of several captions of a sample the sample bears the first of these that was decided for one of them.
KINDS = ("remove", "relabel", "unsure", "keep", "skip")
UNDONE = "undone"
VERDICT_OF = {"remove": "wrong", "relabel": "wrong", "keep": "right", "unsure": "unsure"}
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
HALF = 32  # hex digits of each digest that are kept

Key = tuple[str, str, int]  # sample, label ("" where samples are decided, not objects), caption


@dataclass(frozen=True)
class Decision:
    """What a person chose for one caption of a sample (or for one object), as it stands in the ledger.

    Attributes:
        sample: id of the sample; of a group, of the sample that bears its results first.
        kind: one of `KINDS`, or "undone": an entry that takes back the decision `undoes`.
        caption: position in the sample's list of texts, 0 where there is one text.
        label: id of the object in the sample, "" where the sample as a whole is meant.
        text: for relabel: the new text.
        field: where the text is, as the ledger names it ("" if there is no text).
        digest: of what was seen (`content_digest`).
        time: aware, in whole milliseconds.
        run: key of the audit that was reviewed; source: how it came about (person, batch, spot-check, repair, import).
        seconds: time that it took; 0 where it was not measured.
        id: unique; batch: common to the decisions made at one stroke, which are taken back together.
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

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, UNDONE):
            raise AuditError(f"decision {self.kind!r} of sample {self.sample} is not known; use one of {_names()}")
        if self.kind == "relabel" and not self.text.strip():
            raise AuditError(f"the relabel decision of sample {self.sample} has no text; give one, or decide remove")
        if self.caption < 0:
            raise AuditError(f"caption {self.caption} of sample {self.sample} is no position; count from 0")

    @property
    def key(self) -> Key:
        """What the decision is about."""
        return self.sample, self.label, self.caption

    @property
    def order(self) -> tuple[datetime, str]:
        """Sorts decisions by time; within a millisecond by id, which grows within a process."""
        return self.time, self.id


@dataclass(frozen=True)
class Content:
    """What a decision is about, as it is now.

    Attributes:
        texts: all texts of the sample, None where one is missing; one or none where texts are no lists.
        media: sha256 (hex) of its other media, "" where they cannot be read.
        listed: the texts are a list, of which single ones can be taken out.
        removed: it is marked as removed.
    """

    texts: tuple[str | None, ...] = ()
    media: str = ""
    listed: bool = False
    removed: bool = False

    def text(self, caption: int) -> str | None:
        """The text at a position, None where there is none."""
        return self.texts[caption] if 0 <= caption < len(self.texts) else None

    def digest(self, caption: int) -> str:
        """Of one text and the media."""
        return content_digest(self.text(caption), self.media)


@dataclass(frozen=True)
class Resolution:
    """What a ledger comes to.

    Attributes:
        current: key -> the decision that holds: the latest of all reviewers' latest ones.
        disagreements: key -> the reviewers' latest decisions, by reviewer, where these are not the same.
    """

    current: Mapping[Key, Decision]
    disagreements: Mapping[Key, tuple[Decision, ...]]


def content_digest(text: str | None, media: str) -> str:
    """`MEDIA:TEXT`, the first `HALF` hex digits of each sha256; a half is empty where there is nothing to digest."""
    return f"{media[:HALF]}:{'' if text is None else _text_digest(text)}"


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HALF]


def stale(decision: Decision, digest: str) -> bool:
    """Whether the content is another one than was decided on.

    Media that could not be read, then or now, tell nothing. A text that is what the decision asked for is no change.
    """
    (media, text), (now_media, now_text) = (d.partition(":")[::2] for d in (decision.digest, digest))
    if not decision.digest:
        return False
    if media and now_media and media != now_media:
        return True
    wanted = _text_digest(decision.text) if decision.kind == "relabel" else text
    return now_text not in (text, wanted)


def resolve(decisions: Iterable[Decision]) -> Resolution:
    """What the ledger comes to, in whatever order its entries are read.

    Of each reviewer the latest decision counts that was not taken back. A skip says "not now": it replaces the
    reviewer's own earlier decision, but none of another reviewer.
    """
    latest: dict[tuple[Key, str], Decision] = {}
    for decision in standing(decisions):
        latest[decision.key, decision.reviewer] = decision
    by_key: dict[Key, list[Decision]] = {}
    for decision in latest.values():
        by_key.setdefault(decision.key, []).append(decision)
    current, disagreements = {}, {}
    for key, found in by_key.items():
        found.sort(key=lambda d: d.order)
        said = [d for d in found if d.kind != "skip"]
        current[key] = (said or found)[-1]
        if len({(d.kind, d.text if d.kind == "relabel" else "") for d in said}) > 1:
            disagreements[key] = tuple(sorted(said, key=lambda d: d.reviewer))
    return Resolution(current, disagreements)


def standing(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions that were not taken back, oldest first."""
    found = list(decisions)
    gone = {d.undoes for d in found if d.kind == UNDONE}
    return sorted((d for d in found if d.kind != UNDONE and d.id not in gone), key=lambda d: d.order)


def to_undo(decisions: Iterable[Decision], reviewer: str) -> list[Decision]:
    """The last thing that a reviewer did and did not take back: one decision, or all of a batch."""
    mine = [d for d in standing(decisions) if d.reviewer == reviewer]
    return [d for d in mine if d.id == mine[-1].id or (d.batch and d.batch == mine[-1].batch)]


def strongest(kinds: Iterable[str]) -> str:
    """What a sample bears of the decisions on its captions or objects: the first of `KINDS` among them, "" if none."""
    there = set(kinds)
    return next((kind for kind in KINDS if kind in there), "")


def verdict(kind: str) -> str:
    """What a decision says in a spot check: wrong, right, unsure, or nothing."""
    return VERDICT_OF.get(kind, "")


def _names() -> str:
    return ", ".join(sorted(KINDS))
