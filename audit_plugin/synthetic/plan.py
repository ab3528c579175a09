"""Decides what is in a demo set before anything is drawn: who is on which picture, and which faults are planted."""

from __future__ import annotations

import random
from dataclasses import dataclass

from audit_plugin.arrays import AuditError

from .oddities import COPY_WAYS, SUBJECTS
from .persons import Person, draw_persons
from .sentences import contradictions, describe, vague_captions

FAULTS = ("swapped", "vague", "non-persona", "conflict", "placeholder")
MIN_SAMPLES = 20
MIN_CONTRADICTIONS = 3


@dataclass
class Row:
    """One sample. `image` is what is drawn: a person, a subject's number, a copy of a row, the placeholder."""

    person: Person
    caption: str
    named: dict[str, str]
    fault: str = "none"
    detail: str = ""
    id: str = ""
    source: Row | None = None  # whose caption (swapped) or picture (conflict) it got
    way: str = ""  # how a copied picture was altered
    subject: int = -1  # what a non-persona picture shows

    def told(self) -> str:
        """What was done to the row, in words."""
        if self.source:
            what = "caption of" if self.fault == "swapped" else f"{self.way} picture of"
            return f"{what} {self.source.id}"
        return self.detail


def fault_counts(samples: int) -> dict[str, int]:
    """How many samples get which fault.

    The share of placeholders grows below 480 samples: an audit calls a picture a placeholder from 11 rows on, so
    fewer of them would teach nothing.
    """
    few = max(1, round(samples / 30))
    return {
        "swapped": max(2, round(samples / 10)),
        "vague": few,
        "non-persona": few,
        "conflict": few,
        "placeholder": max(1, round(samples / 40), min(12, samples // 10)),
    }


def plan_rows(samples: int, seed: int) -> list[Row]:
    """The rows of the set in their final order, with ids.

    Raises:
        AuditError: too few samples to plant every fault.
    """
    if samples < MIN_SAMPLES:
        raise AuditError(f"samples is {samples}; the demo needs at least {MIN_SAMPLES} to plant every kind of fault")
    rng = random.Random(seed)
    rows, counts = _clean_rows(samples, rng), fault_counts(samples)
    while (ring := _ring(rows[: counts["swapped"]], rng)) is None:
        rng.shuffle(rows)  # these few look too much alike
    at, parts = 0, {}
    for fault, count in counts.items():
        parts[fault] = rows[at : at + count]
        at += count
    clean = rows[at:]
    for fault, part in parts.items():
        for row in part:
            row.fault = fault
    _swap(ring)
    _make_vague(parts["vague"], rng)
    _make_odd(parts["non-persona"])
    _make_conflicts(parts["conflict"], clean, rng)
    for row in parts["placeholder"]:
        row.detail = "card that says: image not available"
    rng.shuffle(rows)
    for i, row in enumerate(rows):
        row.id = f"demo-{i:05d}"
    return rows


def _clean_rows(samples: int, rng: random.Random) -> list[Row]:
    rows: list[Row] = []
    seen: set[str] = set()
    for person in draw_persons(samples, rng):
        caption, named = describe(person, rng)
        while caption in seen:
            caption, named = describe(person, rng)
        seen.add(caption)
        rows.append(Row(person, caption, named))
    return rows


def _wrong(caption_of: Row, picture_of: Row) -> bool:
    return contradictions(caption_of.named, picture_of.person) >= MIN_CONTRADICTIONS


def _ring(rows: list[Row], rng: random.Random) -> list[Row] | None:
    """The rows in an order in which each caption contradicts the next picture; None where none was found."""
    ring = list(rows)
    rng.shuffle(ring)
    for _ in range(10_000):
        bad = [i for i in range(len(ring)) if not _wrong(ring[i - 1], ring[i])]
        if not bad:
            return ring
        i, j = bad[0], rng.randrange(len(ring))
        ring[i], ring[j] = ring[j], ring[i]
    return None


def _swap(ring: list[Row]) -> None:
    """Hands the captions round a ring, so that each is used once and none stays with its picture."""
    before = [(row.caption, row.named) for row in ring]
    for i, row in enumerate(ring):
        row.detail, row.source = row.caption, ring[i - 1]
        row.caption, row.named = before[i - 1]


def _make_vague(rows: list[Row], rng: random.Random) -> None:
    captions = vague_captions(rng)
    for i, row in enumerate(rows):
        row.detail, row.caption = row.caption, captions[i % len(captions)]


def _make_odd(rows: list[Row]) -> None:
    """Every other one keeps a person's caption, as a wrong download would; the rest say what they show."""
    for i, row in enumerate(rows):
        row.subject = i
        row.detail = SUBJECTS[i % len(SUBJECTS)][0]
        if i % 2:
            row.caption = row.detail


def _make_conflicts(rows: list[Row], clean: list[Row], rng: random.Random) -> None:
    free = list(clean)
    rng.shuffle(free)
    for i, row in enumerate(rows):
        row.source = next(other for other in free if _wrong(row, other))
        row.way = COPY_WAYS[i % len(COPY_WAYS)]
        free.remove(row.source)
