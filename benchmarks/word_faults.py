"""Which word is wrong: captions with one planted fault, and whether the word that fits least is that fault.

Run as `python -m benchmarks.word_faults`. In a tenth of the captions one attribute is said otherwise than the picture
shows it. A mark is right where the first marked word is in what was changed; beside it, the share that a word drawn at
random would reach. Of persons, who are drawn, all attributes are known; of photographs of clothing the class is, and
their color is measured: that of most pixels in the middle of the picture, where one color is clear.

Expected: on persons the first mark is right in at least 60% of the captions that have one, and most right captions have
none. An audit examines misaligned captions only, of which most are wrong.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from audit_plugin.arrays import Samples
from audit_plugin.audit.explain.words import misfit_words, spans_of
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.run import evidence_of, run_identity
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.store import RunFolder
from audit_plugin.synthetic.persons import Person, draw_persons
from audit_plugin.synthetic.sentences import describe
from audit_plugin.trials.run import Job
from benchmarks.data import DATA
from benchmarks.record import markdown_table, write_report
from benchmarks.sets import load_set

SEEDS, PERSONS, PHOTOGRAPHS, RATE = 3, 800, 1500, 0.1
TRAITS = ("head", "head color", "clothes", "clothes color", "beard color", "glasses", "mood", "skin", "backdrop")
COLORS = {  # RGB, of clothing
    "black": (25, 25, 28),
    "white": (235, 235, 235),
    "gray": (128, 128, 130),
    "red": (190, 35, 40),
    "blue": (50, 80, 170),
    "green": (60, 130, 70),
    "yellow": (225, 200, 60),
    "pink": (230, 150, 170),
    "brown": (110, 75, 50),
}
CLEAR = 0.5  # share of the middle's pixels that must be nearest to one color
FORMS = (
    "a photo of a {color} {label}",
    "{label}, {color}, for sale",
    "this {label} is {color}",
    "one {color} {label} on its own",
)


@dataclass(frozen=True)
class Fault:
    """A caption with a planted fault: its kind, and the characters `[start, end)` that say something else."""

    text: str
    kind: str
    start: int
    end: int


class Marked(NamedTuple):
    """Of a caption: whether a word is marked, whether the first one is in the fault, and the share of words in it."""

    has_mark: bool
    is_right: bool
    by_chance: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both sets and writes results/word-faults.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.word_faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    report = {name: measure(make, options.seeds) for name, make in (("persons", persons), ("clothing", clothing))}
    write_report("word-faults", "Is the word that fits least the planted fault?", {"rate": RATE, "sets": report})


def measure(make: Any, seeds: int) -> dict[str, Any]:
    """Kind of fault -> its `summary` over all seeds; "none" -> captions without a fault, and those with a mark."""
    counts: dict[str, list[Marked]] = defaultdict(list)
    has_mark: list[bool] = []  # of captions without a fault
    for seed in range(seeds):
        samples, faults = make(seed)
        with tempfile.TemporaryDirectory() as folder:
            for row, words in marks(samples, seed, Path(folder) / "run").items():
                if row in faults:
                    counts[faults[row].kind].append(compare(words, faults[row]))
                else:
                    has_mark.append(bool(words))
    every = [hit for hits in counts.values() for hit in hits]
    kinds = {kind: summary(hits) for kind, hits in {"all": every, **dict(sorted(counts.items()))}.items()}
    return {**kinds, "none": {"captions": len(has_mark), "marked": round(float(np.mean(has_mark)), 3)}}


def summary(captions: Sequence[Marked]) -> dict[str, Any]:
    """Captions, share with a marked word, share of these whose first one is right (Wilson), that of a random word."""
    has_mark, is_right, by_chance = np.array(captions, dtype=float).T
    marked, right = int(has_mark.sum()), int(is_right.sum())
    found: dict[str, float | None] = {"right": None, "low": None, "high": None}  # of no mark, none is right
    if marked:
        low, high = binomtest(right, marked).proportion_ci(method="wilson")
        found = {"right": round(right / marked, 3), "low": round(low, 3), "high": round(high, 3)}
    shares = {"marked": round(marked / len(captions), 3), "by_chance": round(float(by_chance.mean()), 3)}
    return {"captions": len(captions), **shares, **found}


def marks(samples: Samples, seed: int, folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Row -> the words that are marked in its caption, of all rows."""
    config = AuditConfig(seed=seed, trials=8, epochs=10)  # words ask no trial
    ready = prepare(samples, config, Clock(silent))
    with RunFolder(folder, run_identity(ready, config)) as run:
        job = Job(config, ready.device, run, silent)
        evidence, _ = evidence_of(ready, job, Clock(silent))
        found = misfit_words(evidence, ready.media("text"), np.arange(len(samples)), seed)
    return {row: found[at]["words"] for at, row in enumerate(ready.order.rows.tolist())}


def compare(words: Sequence[Mapping[str, Any]], fault: Fault) -> Marked:
    """The marked words of a caption beside its fault."""
    overlaps = [start < fault.end and end > fault.start for start, end, _ in spans_of(fault.text)]
    is_right = bool(words) and words[0]["start"] < fault.end and words[0]["end"] > fault.start
    return Marked(bool(words), is_right, float(np.mean(overlaps)))


def persons(seed: int) -> tuple[Samples, dict[int, Fault]]:
    """Drawn persons, and captions of a tenth of them that describe one attribute otherwise."""
    rng = random.Random(f"words {seed}")
    people, folder = draw_persons(PERSONS, random.Random("persons")), DATA / "persons"
    images = [str(folder / f"images/{number:04d}.png") for number in range(PERSONS)]
    load_set("persons")  # draws the pictures of these persons on its first use
    texts, faults = [], {}
    chosen = set(rng.sample(range(PERSONS), round(RATE * PERSONS)))
    others = draw_persons(PERSONS, random.Random(f"others {seed}"))
    for row, person in enumerate(people):
        form = rng.randrange(2**32)
        text = describe(person, random.Random(form))[0]
        fault = one_fault(person, others, form, rng) if row in chosen else None
        if fault is not None:
            faults[row] = fault
        texts.append(text if fault is None else fault.text)
    return _samples(images, texts), faults


def one_fault(person: Person, others: Sequence[Person], form: int, rng: random.Random) -> Fault | None:
    """The sentence about a person with one attribute of another one, where that changes one stretch of words."""
    text = describe(person, random.Random(form))[0]
    kinds = list(TRAITS)
    rng.shuffle(kinds)
    for kind in kinds:
        field = kind.replace(" ", "_")
        for other in rng.sample(others, 20):
            value = getattr(other, field)
            if not value or not getattr(person, field) or value == getattr(person, field):
                continue
            said, named = describe(replace(person, **{field: value}), random.Random(form))
            span = changed_span(text, said)
            if span is not None and kind in named:
                return Fault(said, kind, *span)
    return None


def changed_span(before: str, after: str) -> tuple[int, int] | None:
    """Characters of `after` that are other words than in `before`, if they are one stretch of at most three words."""
    old, new = before.split(), after.split()
    blocks = [block for block in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if block[0] != "equal"]
    if len(blocks) != 1 or blocks[0][0] != "replace" or blocks[0][4] - blocks[0][3] > 3:
        return None
    _, _, _, first, last = blocks[0]
    starts = [0]
    for word in new:
        starts.append(starts[-1] + len(word) + 1)
    return starts[first], starts[last] - 1


def clothing(seed: int) -> tuple[Samples, dict[int, Fault]]:
    """Photographs of one clear color, with captions of class and color, of which a tenth have a wrong one."""
    clean, rng = load_set("clothing"), random.Random(f"words {seed}")
    colors = [(row, clear_color(path)) for row, path in enumerate(clean.media["image"])]
    rows = [(row, color) for row, color in colors if color]
    rows = sorted(rng.sample(rows, min(PHOTOGRAPHS, len(rows))))
    classes = sorted(set(clean.labels))
    chosen = set(rng.sample(range(len(rows)), round(RATE * len(rows))))
    texts, faults = [], {}
    for at, (row, color) in enumerate(rows):
        form, words = rng.choice(FORMS), {"color": color, "label": clean.labels[row]}
        if at in chosen:
            kind = rng.choice(("color", "label"))
            words[kind] = rng.choice([word for word in (COLORS if kind == "color" else classes) if word != words[kind]])
            start = form.format(**{**words, kind: "\0"}).index("\0")
            faults[at] = Fault(form.format(**words), kind, start, start + len(words[kind]))
        texts.append(form.format(**words))
    return _samples([clean.media["image"][row] for row, _ in rows], texts), faults


def clear_color(path: str) -> str:
    """The color that most pixels in the middle half of a photograph are nearest to; "" where none is clear."""
    from PIL import Image

    image = Image.open(path).convert("RGB").resize((32, 32))
    middle = np.asarray(image, dtype=float)[8:24, 8:24].reshape(-1, 1, 3)
    nearest = np.square(middle - np.array(list(COLORS.values()))).sum(2).argmin(1)
    count = np.bincount(nearest, minlength=len(COLORS))
    return list(COLORS)[int(count.argmax())] if count.max() > CLEAR * len(nearest) else ""


def _samples(images: Sequence[str], texts: Sequence[str]) -> Samples:
    ids = tuple(f"row-{row:05d}" for row in range(len(images)))
    return Samples(ids, {"image": tuple(images), "text": tuple(texts)})


def words_table(report: Mapping[str, Any]) -> list[str]:
    """The table of the docs."""
    rows = []
    for name, kinds in report["sets"].items():
        for kind, of_kind in kinds.items():
            row = [name, kind, f"{of_kind['captions']:,}", f"{of_kind['marked']:.0%}"]
            if kind != "none":
                interval = (
                    "" if of_kind["right"] is None else "{right:.0%} ({low:.0%} to {high:.0%})".format_map(of_kind)
                )
                row += [interval, f"{of_kind['by_chance']:.0%}"]
            rows.append([*row, *[""] * (6 - len(row))])
    return markdown_table(["set", "wrong word", "captions", "with a mark", "first mark right", "by chance"], rows)


if __name__ == "__main__":
    main()
