"""The demo set: drawn persons with captions, and faults at known rows.

What is on which picture and which rows get a fault is planned first (`plan_rows`), then drawn (`draw_demo`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.audit.result import AuditResult

from .folders import check_packages, filling, read_marker, read_rows, write_marker, write_rows
from .oddities import COPY_WAYS, SUBJECTS, altered, odd_svg, placeholder_png
from .persons import SIDE, Person, draw_persons, person_svg
from .render import draw_all
from .sentences import contradictions, describe, vague_captions

if TYPE_CHECKING:
    from audit_plugin.encoders.embed import Progress

VERSION = 1  # raised when the same seed begins to give another set
MARKER = "demo.json"
FLAG_OF = {
    "swapped": "is_misaligned",
    "vague": "is_vague",
    "non-persona": "is_outlier",
    "conflict": "is_conflict",
    "placeholder": "is_placeholder",
}
FAULTS = tuple(FLAG_OF)
MIN_SAMPLES = 20
MIN_CONTRADICTIONS = 3


@dataclass
class DemoRow:
    """One sample.

    Attributes:
        person: on the picture, unless a fault replaces it by a copy of another row's, the placeholder or a `subject`.
        named: attribute -> value for each attribute that the caption names.
        fault: one of `FAULTS`, or "none".
        detail: what was there before the fault, or what the fault shows.
        id: given when all rows are in their final order.
        source: the row whose caption (swapped) or picture (conflict) it got.
        way: how a copied picture was altered, one of `COPY_WAYS`.
        subject: number of what a non-persona picture shows; -1 for none.
    """

    person: Person
    caption: str
    named: dict[str, str]
    fault: str = "none"
    detail: str = ""
    id: str = ""
    source: DemoRow | None = None
    way: str = ""
    subject: int = -1

    def truth(self) -> tuple[str, str, str]:
        """The row of `truth.csv`: id, fault, and what was done to the sample."""
        detail = self.detail
        if self.source:
            copied = "caption of" if self.fault == "swapped" else f"{self.way} picture of"
            detail = f"{copied} {self.source.id}"
        return self.id, self.fault, detail


# --- the plan --------------------------------------------------------------------------------------------------------


def fault_counts(samples: int) -> dict[str, int]:
    """Fault -> number of samples that get it.

    The share of placeholders grows below 480 samples: an audit calls a picture a placeholder from 11 rows on, so that
    fewer would never be flagged.
    """
    few = max(1, round(samples / 30))
    return {
        "swapped": max(2, round(samples / 10)),
        "vague": few,
        "non-persona": few,
        "conflict": few,
        "placeholder": max(1, round(samples / 40), min(12, samples // 10)),
    }


def plan_rows(samples: int, seed: int) -> list[DemoRow]:
    """The rows of the set in their final order, with ids.

    Raises:
        AuditError: too few samples to hold every fault.
    """
    if samples < MIN_SAMPLES:
        raise AuditError(f"samples is {samples}; the demo needs at least {MIN_SAMPLES} to hold every kind of fault")
    rng = random.Random(seed)
    rows, counts = _clean_rows(samples, rng), fault_counts(samples)
    while (ring := _contradicting_ring(rows[: counts["swapped"]], rng)) is None:
        rng.shuffle(rows)  # these few look too much alike
    remaining = iter(rows)
    rows_of = {fault: list(islice(remaining, count)) for fault, count in counts.items()}
    clean = list(remaining)
    for fault, faulty_rows in rows_of.items():
        for row in faulty_rows:
            row.fault = fault
    # captions go round the ring, so that each is used once and none stays with its picture
    captions = [(row.caption, row.named) for row in ring]
    for i, row in enumerate(ring):
        row.detail, row.source = row.caption, ring[i - 1]
        row.caption, row.named = captions[i - 1]
    vague = vague_captions(rng)
    for i, row in enumerate(rows_of["vague"]):
        row.detail, row.caption = row.caption, vague[i % len(vague)]
    _make_odd(rows_of["non-persona"])
    _make_conflicts(rows_of["conflict"], clean, rng)
    for row in rows_of["placeholder"]:
        row.detail = "card that says: image not available"
    rng.shuffle(rows)
    for number, row in enumerate(rows):
        row.id = f"demo-{number:05d}"
    return rows


def _clean_rows(samples: int, rng: random.Random) -> list[DemoRow]:
    rows: list[DemoRow] = []
    captions: set[str] = set()
    for person in draw_persons(samples, rng):
        caption, named = describe(person, rng)
        while caption in captions:
            caption, named = describe(person, rng)
        captions.add(caption)
        rows.append(DemoRow(person, caption, named))
    return rows


def _contradicts(caption_row: DemoRow, picture_row: DemoRow) -> bool:
    return contradictions(caption_row.named, picture_row.person) >= MIN_CONTRADICTIONS


def _contradicting_ring(rows: list[DemoRow], rng: random.Random) -> list[DemoRow] | None:
    """The rows in an order in which each caption contradicts the next picture; None if 10,000 exchanges find none."""
    ring = list(rows)
    rng.shuffle(ring)
    for _ in range(10_000):
        fitting = [i for i in range(len(ring)) if not _contradicts(ring[i - 1], ring[i])]
        if not fitting:
            return ring
        i, j = fitting[0], rng.randrange(len(ring))
        ring[i], ring[j] = ring[j], ring[i]
    return None


def _make_odd(rows: list[DemoRow]) -> None:
    """Every other row keeps a person's caption, as a wrong download would; the rest say what the picture shows."""
    for i, row in enumerate(rows):
        row.subject = i
        row.detail = SUBJECTS[i % len(SUBJECTS)][0]
        if i % 2:
            row.caption = row.detail


def _make_conflicts(rows: list[DemoRow], clean: list[DemoRow], rng: random.Random) -> None:
    """Each row gets an altered copy of a clean row's picture that its caption contradicts."""
    unused = list(clean)
    rng.shuffle(unused)
    for i, row in enumerate(rows):
        row.source = next(other for other in unused if _contradicts(row, other))
        row.way = COPY_WAYS[i % len(COPY_WAYS)]
        unused.remove(row.source)


# --- the files -------------------------------------------------------------------------------------------------------


def draw_demo(out: str | Path, samples: int = 600, seed: int = 0, progress: Progress | None = None) -> Path:
    """Draws the demo set into the folder `out`: `images/*.png`, `manifest.csv` and `truth.csv`; returns the manifest.

    `manifest.csv` has id, image (relative to it) and caption; `truth.csv` has id, fault (`none` or one of `FAULTS`)
    and detail. Equal numbers and seeds give equal bytes; a complete set with the same two is left as it is.
    `progress` is called as progress("draw", done, total).

    Raises:
        AuditError: packages missing, too few samples, or a folder that holds something else.
    """
    out = Path(out)
    marker: dict[str, object] = {"form": VERSION, "samples": samples, "seed": seed, "complete": True}
    is_drawn = read_marker(out, MARKER, "demo set") == marker
    has_tables = is_drawn and (out / "manifest.csv").is_file() and (out / "truth.csv").is_file()
    if has_tables and len(list((out / "images").glob("*.png"))) == samples:
        return out / "manifest.csv"
    check_packages()
    rows = plan_rows(samples, seed)
    with filling(out):
        write_marker(out, MARKER, marker | {"complete": False})
        _draw_images(rows, out / "images", seed, progress)
        manifest = [(row.id, f"images/{row.id}.png", row.caption) for row in rows]
        write_rows(out / "manifest.csv", ("id", "image", "caption"), manifest)
        write_rows(out / "truth.csv", ("id", "fault", "detail"), [row.truth() for row in rows])
        write_marker(out, MARKER, marker)
    return out / "manifest.csv"


def _draw_images(rows: list[DemoRow], folder: Path, seed: int, progress: Progress | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("demo-*.png"):
        old.unlink()
    jobs = []
    for row in rows:
        if row.fault not in ("conflict", "placeholder"):
            odd_rng = random.Random(f"{seed} {row.subject}")
            svg = odd_svg(row.subject, odd_rng)[0] if row.subject >= 0 else person_svg(row.person)
            jobs.append((str(folder / f"{row.id}.png"), svg))
    draw_all(jobs, SIDE, lambda done: progress("draw", done, len(rows)) if progress else None)
    card = placeholder_png()
    for row in rows:
        if row.fault == "placeholder":
            (folder / f"{row.id}.png").write_bytes(card)
        elif row.fault == "conflict" and row.source:
            picture = (folder / f"{row.source.id}.png").read_bytes()
            (folder / f"{row.id}.png").write_bytes(altered(picture, row.way))
    if progress:
        progress("draw", len(rows), len(rows))


# --- how well an audit finds them ------------------------------------------------------------------------------------


def count_flagged_faults(truth: str | Path, result: AuditResult) -> list[tuple[str, int, int]]:
    """(fault, samples flagged for it, samples that have it) for each kind, in the order of `FAULTS`.

    A fault counts as flagged when the row has that kind's own flag; a row that the result does not have is missed.
    `truth` is the `truth.csv` of a demo set, `result` an audit of that set, its rows in any order.
    """
    faults = {row["id"]: row["fault"] for row in read_rows(truth)}
    counts = []
    for kind in FAULTS:
        flags = result.columns[FLAG_OF[kind]]
        flagged_ids = {sample_id for sample_id, flag in zip(result.ids, flags, strict=True) if flag}
        faulty_ids = [sample_id for sample_id, fault in faults.items() if fault == kind]
        counts.append((kind, sum(sample_id in flagged_ids for sample_id in faulty_ids), len(faulty_ids)))
    return counts


def swap_auroc(truth: str | Path, result: AuditResult) -> float:
    """AUROC of `misalignment` for swapped captions against rows without a fault; NaN where undefined.

    Rows without a score are left out.
    """
    faults = {row["id"]: row["fault"] for row in read_rows(truth)}
    kinds = np.array([faults.get(row, "") for row in result.ids])
    scores = np.asarray(result.columns["misalignment"], dtype=np.float32)
    known = np.isfinite(scores)
    return auroc(scores[known & (kinds == "swapped")], scores[known & (kinds == "none")])


def auroc(positive: Floats, negative: Floats) -> float:
    """P(score of `positive` `[p]` > score of `negative` `[q]`), ties counted half; NaN if one is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranked = np.sort(negative)
    # ranks from both sides: their mean counts a tie half
    ranks = np.searchsorted(ranked, positive, side="left") + np.searchsorted(ranked, positive, side="right")
    return float(ranks.mean() / (2 * len(negative)))
