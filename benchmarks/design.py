"""The detection benchmark's design, written down before it was run: a fraction of sets x noises x rates x encoders.

All cells of all factors would be some thousand. These were drawn so that each noise, each rate, each way of planting
and each encoder meets several sets, and so that every cell with noise has 50 wrong rows or more. Development cells are
what settings, ours and the rivals', were chosen on; report cells were run with all of them frozen.
"""

from __future__ import annotations

from dataclasses import dataclass

TRIALS = 16  # a third of the default: all cells have to fit into two hours, with as many trainings of the others
SEEDS = 3
CLEAN_SEEDS = 2  # a clean set differs by the training's seed only
LEAST_WRONG = 50
SHARED = "shared"  # the small open_clip of `shared_space`; otherwise an encoder's own name


@dataclass(frozen=True)
class Cell:
    """One combination of factors; see `sets.load_set` and `noise.plant`. `rows`: a seeded part of the set, or all."""

    set: str
    noise: str
    rate: float = 0.0
    how: str = "permuted"
    encoder: str = "offline"
    rows: int | None = None

    @property
    def name(self) -> str:
        """For file names and tables."""
        rate = "" if self.noise == "none" else f"-{self.rate:.0%}-{self.how}"
        return f"{self.set}-{self.noise}{rate}-{self.encoder}" + (f"-{self.rows}" if self.rows else "")

    @property
    def seeds(self) -> range:
        """Seeds of the planting and of the training."""
        return range(CLEAN_SEEDS if self.noise == "none" else SEEDS)


ROWS = 1500  # of the larger sets, so that all cells fit into two hours on two cores

REPORT = (
    Cell("google", "none", rows=ROWS),
    Cell("google", "random", 0.05, rows=ROWS),
    Cell("google", "random", 0.1, "copied", rows=ROWS),
    Cell("google", "random", 0.4, rows=ROWS),
    Cell("google", "category", 0.1, rows=ROWS),
    Cell("google", "category", 0.2, "copied", rows=ROWS),
    Cell("google", "hard", 0.1, rows=ROWS),
    Cell("google", "vague", 0.05, rows=ROWS),
    Cell("google", "random", 0.2, "outside", rows=ROWS),
    Cell("google", "random", 0.1, encoder=SHARED, rows=ROWS),
    Cell("google", "hard", 0.2, encoder=SHARED, rows=ROWS),
    Cell("openmoji", "none", rows=ROWS),
    Cell("openmoji", "random", 0.2, rows=ROWS),
    Cell("openmoji", "category", 0.05, rows=ROWS),
    Cell("openmoji", "hard", 0.2, "copied", rows=ROWS),
    Cell("openmoji", "vague", 0.1, rows=ROWS),
    Cell("openmoji", "none", encoder=SHARED, rows=ROWS),
    Cell("openmoji", "category", 0.1, encoder=SHARED, rows=ROWS),
    Cell("four", "none"),
    Cell("four", "modality", 0.1),
    Cell("four", "modality", 0.2),
    Cell("digits", "none", rows=ROWS),
    Cell("digits", "random", 0.05, rows=ROWS),
    Cell("digits", "random", 0.4, rows=ROWS),
    Cell("digits", "category", 0.1, rows=ROWS),
    Cell("digits", "random", 0.2, encoder=SHARED, rows=ROWS),
    Cell("five", "none", rows=ROWS),
    Cell("five", "random", 0.02),
    Cell("five", "random", 0.1, rows=ROWS),
    Cell("five", "category", 0.1, rows=ROWS),
    Cell("five", "hard", 0.05, rows=ROWS),
    Cell("five", "random", 0.2, encoder=SHARED, rows=ROWS),
    Cell("five_one", "none"),
    Cell("five_one", "random", 0.1),
)

# Photographs of packages that were found after all settings were frozen. Their cells have 20 wrong rows or more, and
# were written down before any of them was run.
PHOTOGRAPHS = tuple(
    Cell(name, noise, rate)
    for name in ("foods", "stamps", "activities", "sky")
    for noise, rate in (("none", 0.0), ("random", 0.1), ("random", 0.2), ("category", 0.1))
    if (name, noise) != ("sky", "category")  # which has one category
)

DEVELOPMENT = (
    Cell("twitter", "random", 0.1),
    Cell("twitter", "category", 0.1),
    Cell("twitter", "hard", 0.2),
    Cell("persons", "random", 0.1),
    Cell("persons", "hard", 0.2),
    Cell("glyphs", "random", 0.1),
    Cell("glyphs", "category", 0.2),
    Cell("facebook", "random", 0.1, encoder=SHARED, rows=ROWS),
    Cell("facebook", "hard", 0.2, encoder=SHARED, rows=ROWS),
)

QUICK = (
    Cell("persons", "none", rows=200),
    Cell("persons", "random", 0.25, rows=200),
    Cell("glyphs", "random", 0.2, rows=300),
)
