"""Sets that are drawn here: persons with true descriptions, letters and digits, enlarged handwritten digits.

Each function fills a folder with pictures and `rows.json`: per row id, image (a path inside the folder), text,
category, and where the set has them caption, label, shown and said. Equal package versions give equal sets.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.synthetic.persons import SIDE, Person, draw_persons, person_svg
from audit_plugin.synthetic.render import draw_all
from audit_plugin.synthetic.sentences import describe

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]

CAPTIONS = 5
TRIES = 2000
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Who is taken for whom: each class stands in one group, and label noise of kind "category" stays within it.
DIGIT_GROUPS = ("38", "49", "17", "56", "02")
# Without 0 and 1, which many fonts draw like O and I: a right label must be told from a wrong one.
GLYPH_GROUPS = ("CG", "DOQ", "EF", "PR", "B8", "S5", "Z2", "UVY", "MNW", "KX", "AH", "IJLT", "39", "467")
GLYPHS, GLYPH_SIDE, DIGIT_SIDE = 1500, 96, 96
MIN_CONTRAST = 110.0  # distance of two RGB colors
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "Mono", "Mono-Bold", "Mono-Oblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic")),
    "cmr10",
    "cmss10",
    "cmtt10",
)


def once(target: Path, draw: Callable[[Path], None]) -> Path:
    """The folder `target`, filled by `draw` unless it is there; it appears whole or not at all."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temp:
        folder = Path(temp) / "set"
        folder.mkdir()
        draw(folder)
        try:
            folder.replace(target)
        except OSError:
            # Another process drew the same set in the meantime.
            if not target.is_dir():
                raise
    return target


def persons(folder: Path, count: int, seed: str, captions: int = 1) -> None:
    """`count` persons, `captions` true sentences each that name different attributes; category: the look of the head.

    Args:
        folder: where to draw.
        count: number of pictures, 256 px.
        seed: of persons and sentences; another seed gives other persons.
        captions: sentences per person, all different in the whole set.
    """
    (folder / "images").mkdir()
    rng = random.Random(seed)
    rows: list[Row] = []
    seen: set[str] = set()
    people = draw_persons(count, rng)
    for i, person in enumerate(people):
        for number, (text, named) in enumerate(_sentences(person, captions, seen, rng)):
            shown = person.traits()
            row = {"id": f"person-{i:04d}", "image": f"images/{i:04d}.png", "text": text, "category": shown["head"]}
            rows.append(row | {"caption": number, "shown": shown, "said": named})
    draw_all([(str(folder / f"images/{i:04d}.png"), person_svg(p)) for i, p in enumerate(people)], SIDE, lambda _: None)
    _write(folder, rows)


def _sentences(person: Person, count: int, seen: set[str], rng: random.Random) -> list[tuple[str, dict[str, str]]]:
    """True sentences with what each one names, no two of which name the same attributes; noted in `seen`."""
    sentences: list[tuple[str, dict[str, str]]] = []
    for _ in range(TRIES):
        text, named = describe(person, rng)
        if text not in seen and all(set(named) != set(other) for _, other in sentences):
            seen.add(text)
            sentences.append((text, named))
        if len(sentences) == count:
            return sentences
    raise RuntimeError(f"{TRIES} sentences about one person gave only {len(sentences)} of {count} that differ")


def person_captions(count: int, seed: str) -> list[str]:
    """Sentences about persons that are in no set, all different."""
    rng = random.Random(seed)
    return list(dict.fromkeys(describe(person, rng)[0] for person in draw_persons(count, rng)))


def glyphs(folder: Path) -> None:
    """1,500 capital letters and digits in 15 fonts, turned, moved, colored and noisy; classes of nearly equal size."""
    (folder / "images").mkdir()
    rng = np.random.default_rng([0, 1])
    classes = sorted("".join(GLYPH_GROUPS))
    groups = {sign: group for group in GLYPH_GROUPS for sign in group}
    rows: list[Row] = []
    for i in range(GLYPHS):
        sign = classes[i % len(classes)]
        name = f"images/{i:04d}.png"
        _glyph(sign, rng).save(folder / name)
        rows.append({"id": f"glyph-{i:04d}", "image": name, "text": glyph_text(sign), "category": groups[sign]})
        rows[-1]["label"] = sign
    _write(folder, rows)


def glyph_text(sign: str) -> str:
    """The caption of a class: "the letter A", "the digit seven"."""
    return f"the digit {DIGIT_WORDS[int(sign)]}" if sign.isdigit() else f"the letter {sign}"


def _glyph(sign: str, rng: np.random.Generator) -> Image:
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    back, ink = _colors(rng)
    image = Image.new("RGB", (GLYPH_SIDE, GLYPH_SIDE), back)
    path = Path(mpl.get_data_path()) / "fonts/ttf" / f"{FONTS[rng.integers(len(FONTS))]}.ttf"
    place = tuple((GLYPH_SIDE / 2 + rng.uniform(-12, 12, 2)).tolist())
    pen = ImageDraw.Draw(image)
    pen.text(place, sign, fill=ink, font=ImageFont.truetype(str(path), int(rng.integers(38, 72))), anchor="mm")
    image = image.rotate(float(rng.uniform(-18, 18)), Image.Resampling.BICUBIC, fillcolor=back)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, rng.uniform(2, 24), (GLYPH_SIDE, GLYPH_SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _colors(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    while True:
        back, ink = rng.integers(0, 256, (2, 3))
        if np.linalg.norm(back - ink) > MIN_CONTRAST:
            return tuple(back.tolist()), tuple(ink.tolist())


def digits(folder: Path) -> None:
    """scikit-learn's 1,797 handwritten digits, enlarged from 8 to 96 px, with the caption "a handwritten three"."""
    from PIL import Image
    from sklearn.datasets import load_digits

    (folder / "images").mkdir()
    pictures, classes = load_digits(return_X_y=True)
    groups = {int(sign): group for group in DIGIT_GROUPS for sign in group}
    rows: list[Row] = []
    for i, (picture, label) in enumerate(zip(pictures.reshape(-1, 8, 8), classes.tolist(), strict=True)):
        grey = Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8))
        name = f"images/{i:04d}.png"
        grey.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC).save(folder / name)
        rows.append({"id": f"digit-{i:04d}", "image": name, "text": f"a handwritten {DIGIT_WORDS[label]}"})
        rows[-1] |= {"category": groups[label], "label": str(label)}
    _write(folder, rows)


def _write(folder: Path, rows: Sequence[Row]) -> None:
    (folder / "rows.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
