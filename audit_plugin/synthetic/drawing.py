"""A persona set on the disk: pictures, descriptions, names and facts, with the variants that are kept for tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit_plugin.arrays import AuditError

from .folders import check_packages, claimed, mark, write_csv
from .personas import FACTS, TRAITS, Identity, description_of, draw_identities, picture_of
from .render import draw_all

FORM = 1  # raised when the same seed begins to give another set
MARKER = "personas.json"
TRAIN, TEST, BACKGROUND = "train", "test", "background"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PersonaSet:
    """What is drawn.

    Attributes:
        identities: people whose facts are learned in one modality and asked in the other.
        background: other people, on whose pairs the modalities are aligned.
        train: variants of an audited identity to learn from; `test`: others to ask with.
        pairs: variants of a background identity.
        side: pixels of a picture, width and height.
        seed: of everything.
    """

    identities: int = 100
    background: int = 0
    train: int = 6
    test: int = 4
    pairs: int = 2
    side: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.identities < 2:
            raise AuditError(f"identities is {self.identities}; at least 2 are needed to tell them apart")
        if min(self.train, self.test, self.pairs) < 1 or self.background < 0:
            raise AuditError("every identity needs one variant or more to learn from and one or more to ask with")


@dataclass(frozen=True)
class Row:
    """One variant of an identity."""

    id: str
    identity: Identity
    split: str


def draw_personas(out: str | Path, wanted: PersonaSet, progress: Progress | None = None) -> Path:
    """Draws the set into `out`: `images/*.png`, `manifest.csv` and `facts.csv`; returns the manifest.

    `manifest.csv` has id, image (relative), description, identity and split (train, test, background); `facts.csv` one
    row per identity with its traits and facts. Equal settings give equal bytes; a complete set of the same settings is
    left as it is.

    Args:
        out: folder, made if missing; one with other things in it is refused.
        wanted: what to draw.
        progress: told ("draw", done, total).

    Raises:
        AuditError: packages missing, or a folder that holds something else.
    """
    out = Path(out)
    marker: dict[str, object] = {"form": FORM, **vars(wanted), "complete": True}
    rows = plan(wanted)
    if claimed(out, MARKER, "persona set") == marker and all((out / f"images/{row.id}.png").is_file() for row in rows):
        return out / "manifest.csv"
    check_packages()
    mark(out, MARKER, marker | {"complete": False})
    (out / "images").mkdir(parents=True, exist_ok=True)
    jobs = [(str(out / f"images/{row.id}.png"), picture_of(row.identity, _rng(wanted, row, "picture"))) for row in rows]
    draw_all(jobs, wanted.side, lambda done: progress("draw", done, len(jobs)) if progress else None)
    head = ("id", "image", "description", "identity", "split")
    write_csv(out / "manifest.csv", head, [_line(row, wanted) for row in rows])
    people = {row.identity.name: row.identity for row in rows}
    facts = [(name, *who.traits().values(), *(who.facts[fact] for fact in FACTS)) for name, who in people.items()]
    write_csv(out / "facts.csv", ("identity", *TRAITS, *FACTS), facts)
    mark(out, MARKER, marker)
    return out / "manifest.csv"


def plan(wanted: PersonaSet) -> list[Row]:
    """The rows of the set: audited identities first, their training variants before the others."""
    rng = random.Random(f"{wanted.seed} identities")
    audited = draw_identities(wanted.identities, rng)
    background = draw_identities(wanted.background, rng, audited, apart=1)
    rows = []
    for number, identity in enumerate(audited):
        for at in range(wanted.train + wanted.test):
            rows.append(Row(f"person-{number:05d}-{at:02d}", identity, TRAIN if at < wanted.train else TEST))
    for number, identity in enumerate(background):
        for at in range(wanted.pairs):
            rows.append(Row(f"other-{number:05d}-{at:02d}", identity, BACKGROUND))
    return rows


def _rng(wanted: PersonaSet, row: Row, what: str) -> random.Random:
    return random.Random(f"{wanted.seed} {row.id} {what}")


def description_text(row: Row, wanted: PersonaSet) -> str:
    """The description that stands beside a row's picture."""
    return description_of(row.identity, _rng(wanted, row, "description"))[0]


def _line(row: Row, wanted: PersonaSet) -> tuple[str, ...]:
    return row.id, f"images/{row.id}.png", description_text(row, wanted), row.identity.name, row.split
