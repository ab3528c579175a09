"""Pictures that are no persons: drawn scenes and patterns, the placeholder card, altered copies of a picture."""

from __future__ import annotations

import colorsys
import io
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .persons import CANVAS, SIDE, framed

if TYPE_CHECKING:
    from PIL.Image import Image


def odd_svg(number: int, rng: random.Random) -> tuple[str, str]:
    """A picture that shows no person and its description; `number` chooses the subject, in turn."""
    caption, draw = SUBJECTS[number % len(SUBJECTS)]
    return framed(draw(rng)), caption


def _paint(rng: random.Random, value: float = 0.8) -> str:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.45, 0.95), value * rng.uniform(0.75, 1.2))
    return "#" + "".join(f"{min(255, round(255 * part)):02x}" for part in rgb)


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'


def _disc(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}"/>'


def _area(points: Sequence[tuple[float, float]], fill: str) -> str:
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="{fill}"/>'


def _line(points: Sequence[tuple[float, float]], color: str, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _on_circle(angle: float, radius: float, y: float = 140) -> tuple[float, float]:
    return 140 + radius * math.cos(angle), y + radius * math.sin(angle)


def _ground(fill: str) -> str:
    return _rect(0, 0, CANVAS, CANVAS, fill)


_AXES = _line([(30, 20), (30, 240), (270, 240)], "#333333", 3)  # of a chart


def _stripes(rng: random.Random) -> str:
    wide, colors = rng.uniform(12, 30), [_paint(rng) for _ in range(3)]
    bars = "".join(_rect(i * wide - 150, -150, wide, 600, colors[i % 3]) for i in range(50))
    return f'<g transform="rotate({rng.uniform(20, 70):.1f} 140 140)">{bars}</g>'


def _checks(rng: random.Random) -> str:
    size = CANVAS / rng.randint(5, 10)
    cells = [(i, j) for i in range(10) for j in range(10) if (i + j) % 2]
    return _ground(_paint(rng, 1.0)) + "".join(_rect(i * size, j * size, size, size, "#222222") for i, j in cells)


def _dots(rng: random.Random) -> str:
    spots = [_disc(rng.uniform(0, 280), rng.uniform(0, 280), rng.uniform(4, 26), _paint(rng)) for _ in range(70)]
    return _ground("#ffffff") + "".join(spots)


def _bar_chart(rng: random.Random) -> str:
    bars = [_rect(40 + 32 * i, 240 - h, 22, h, _paint(rng)) for i in range(7) for h in [rng.uniform(20, 200)]]
    return _ground("#ffffff") + "".join(bars) + _AXES


def _line_chart(rng: random.Random) -> str:
    curves = [[(30 + 24 * i, rng.uniform(30, 230)) for i in range(11)] for _ in range(2)]
    grid = "".join(_line([(30, y), (270, y)], "#dddddd", 1) for y in range(40, 240, 40))
    return _ground("#fbfbfb") + grid + "".join(_line(curve, _paint(rng), 4) for curve in curves) + _AXES


def _pie_chart(rng: random.Random) -> str:
    cuts = [0.0, *((i + rng.uniform(-0.35, 0.35)) / 5 for i in range(1, 5)), 1.0]
    wedges = ""
    for start, end in pairwise(cuts):
        turns = [start + (end - start) * i / 20 for i in range(21)]
        rim = [_on_circle(math.tau * t, 105) for t in turns]
        wedges += _area([(140, 140), *rim], _paint(rng))
    return _ground("#ffffff") + wedges


def _mountains(rng: random.Random) -> str:
    ridges = ""
    for base, color in ((150, "#8fa3b8"), (190, "#5d7a68"), (230, "#35553c")):
        peaks = [(x, base - rng.uniform(0, 80)) for x in range(-20, 320, 40)]
        ridges += _area([*peaks, (300, 300), (-20, 300)], color)
    return _ground("#bfe0f5") + _disc(rng.uniform(40, 240), 50, 22, "#ffe066") + ridges


def _sea(rng: random.Random) -> str:
    sun = _disc(rng.uniform(80, 200), 150, 45, "#ffd23f")
    waves = [_rect(rng.uniform(0, 230), rng.uniform(160, 275), rng.uniform(20, 60), 3, "#8fd0e8") for _ in range(30)]
    return _ground("#ff8c5a") + sun + _rect(0, 150, CANVAS, 130, "#1d5f8a") + "".join(waves)


def _house(rng: random.Random) -> str:
    panes = "".join(_rect(x, 165, 32, 32, "#fff3a3") for x in (85, 163))
    return (
        _ground("#a8dcf0")
        + _rect(0, 230, CANVAS, 50, "#6fb04d")
        + _rect(65, 140, 150, 100, _paint(rng))
        + _area([(50, 140), (140, 65), (230, 140)], _paint(rng, 0.6))
        + _rect(125, 190, 30, 50, "#5a3820")
        + panes
    )


def _forest(rng: random.Random) -> str:
    trees = ""
    for _ in range(12):
        x = rng.uniform(0, 280)
        y, tall = rng.uniform(200, 270), rng.uniform(90, 160)
        trees += _rect(x - 4, y - 20, 8, 30, "#5b3a1e") + _area(
            [(x - 28, y - 15), (x, y - tall), (x + 28, y - 15)], rng.choice(("#1f5f35", "#2f7d46", "#48945a"))
        )
    return _ground("#e3efe0") + trees


def _car(rng: random.Random) -> str:
    paint = _paint(rng)
    wheels = "".join(_disc(x, 205, 24, "#222222") + _disc(x, 205, 10, "#bbbbbb") for x in (85, 195))
    return (
        _ground("#dfe7ec")
        + _rect(0, 220, CANVAS, 60, "#666b70")
        + _rect(35, 150, 210, 55, paint)
        + _area([(75, 150), (100, 105), (185, 105), (215, 150)], paint)
        + _area([(88, 148), (107, 114), (178, 114), (200, 148)], "#cfeaf7")
        + wheels
    )


def _cup(rng: random.Random) -> str:
    paint = _paint(rng)
    handle = f'<circle cx="205" cy="165" r="32" fill="none" stroke="{paint}" stroke-width="14"/>'
    steam = "".join(_line([(x, 95), (x + 9, 75), (x - 9, 55), (x, 35)], "#b5b5b5", 5) for x in (110, 140, 170))
    return _ground("#f3e7d7") + _rect(0, 225, CANVAS, 55, "#9c6b3f") + handle + _rect(80, 110, 120, 115, paint) + steam


def _clock(rng: random.Random) -> str:
    marks = [_on_circle(math.tau * i / 12, 95) for i in range(12)]
    turn = rng.uniform(0, math.tau)
    hands = [_on_circle(turn, 50), _on_circle(turn + rng.uniform(1, 5), 80)]
    return (
        _ground(_paint(rng))
        + _disc(140, 140, 115, "#ffffff")
        + "".join(_disc(x, y, 6, "#222222") for x, y in marks)
        + "".join(_line([(140, 140), hand], "#222222", 7) for hand in hands)
    )


def _flower(rng: random.Random) -> str:
    paint, petals = _paint(rng, 1.0), rng.randint(6, 10)
    around = [_on_circle(math.tau * i / petals, 45, y=110) for i in range(petals)]
    return (
        _ground("#eaf6e3")
        + _line([(140, 120), (146, 190), (138, 280)], "#3c8a3c", 9)
        + "".join(_disc(x, y, 25, paint) for x, y in around)
        + _disc(140, 110, 27, "#ffcf33")
    )


def _code(rng: random.Random) -> str:
    cells = [(i, j) for i in range(20) for j in range(20) if rng.random() < 0.5]
    return _ground("#ffffff") + "".join(_rect(20 + 12 * i, 20 + 12 * j, 12, 12, "#000000") for i, j in cells)


def _night(rng: random.Random) -> str:
    stars = [_disc(rng.uniform(0, 280), rng.uniform(0, 280), rng.uniform(0.8, 3), "#ffffff") for _ in range(90)]
    x = rng.uniform(70, 210)
    return _ground("#0b1030") + "".join(stars) + _disc(x, 80, 36, "#f5f0c8") + _disc(x + 16, 72, 33, "#0b1030")


def _page(rng: random.Random) -> str:
    words = ""
    for y in range(30, 260, 14):
        x = 25.0
        while x < 240:
            long = rng.uniform(8, 34)
            words += _rect(x, y, min(long, 255 - x), 6, "#444444")
            x += long + 6
    return _ground("#fdfcf6") + words


def _map(rng: random.Random) -> str:
    parks = "".join(
        _rect(rng.uniform(0, 220), rng.uniform(0, 220), rng.uniform(30, 80), rng.uniform(30, 80), "#b7dfa5")
        for _ in range(5)
    )
    roads = "".join(
        _line([(rng.uniform(0, 280), 0), (rng.uniform(0, 280), 280)], "#ffffff", 9)
        + _line([(0, rng.uniform(0, 280)), (280, rng.uniform(0, 280))], "#f6c65b", 6)
        for _ in range(5)
    )
    return _ground("#ece7dc") + parks + roads


def _rocket(rng: random.Random) -> str:
    hull = '<ellipse cx="140" cy="130" rx="34" ry="90" fill="#e8e8ee"/>' + _disc(140, 105, 15, "#4fa3d9")
    fins = _area([(108, 150), (75, 215), (115, 200)], _paint(rng))
    fins += _area([(172, 150), (205, 215), (165, 200)], "#c0392b")
    return _ground("#2b2350") + fins + _area([(122, 212), (140, 270), (158, 212)], "#ff9f1c") + hull


def _fish(rng: random.Random) -> str:
    bubbles = "".join(
        f'<circle cx="{rng.uniform(200, 270):.1f}" cy="{rng.uniform(10, 110):.1f}" r="7" fill="none" '
        'stroke="#ffffff" stroke-width="2"/>'
        for _ in range(8)
    )
    paint = _paint(rng, 1.0)
    return (
        _ground("#2a9fc7")
        + _area([(85, 150), (30, 105), (30, 195)], paint)
        + bubbles
        + f'<ellipse cx="145" cy="150" rx="80" ry="45" fill="{paint}"/>'
        + _disc(190, 138, 8, "#111111")
    )


SUBJECTS: tuple[tuple[str, Callable[[random.Random], str]], ...] = (
    ("Diagonal stripes in three colours.", _stripes),
    ("A bar chart with seven bars.", _bar_chart),
    ("Snowless mountains below a small sun.", _mountains),
    ("A page full of printed text.", _page),
    ("A car on a grey road.", _car),
    ("A checkerboard pattern.", _checks),
    ("Sunset over the open sea.", _sea),
    ("A line chart with two curves.", _line_chart),
    ("A steaming cup of coffee on a table.", _cup),
    ("A black and white matrix code.", _code),
    ("A small house on a lawn.", _house),
    ("Scattered dots of many sizes.", _dots),
    ("A pie chart cut into five parts.", _pie_chart),
    ("A clock with two hands.", _clock),
    ("The moon and stars at night.", _night),
    ("A single flower.", _flower),
    ("A street map with parks.", _map),
    ("A forest of fir trees.", _forest),
    ("A rocket taking off.", _rocket),
    ("A fish under water.", _fish),
)


def placeholder_png() -> bytes:
    """The grey card that a web shop serves where a picture is gone."""
    from PIL import Image, ImageDraw, ImageFont

    card = Image.new("RGB", (SIDE, SIDE), "#e6e6e6")
    pen = ImageDraw.Draw(card)
    pen.rectangle((68, 58, 188, 148), outline="#a5a5a5", width=5)
    pen.ellipse((90, 76, 112, 98), fill="#a5a5a5")
    pen.polygon(((76, 140), (118, 100), (140, 120), (158, 106), (180, 140)), fill="#a5a5a5")
    # Pillow's own font: one that the machine happens to have would make the card differ from machine to machine.
    pen.text((SIDE / 2, 190), "image not available", fill="#8a8a8a", font=ImageFont.load_default(22), anchor="mm")
    return _encoded(card, "PNG")


COPY_WAYS = ("re-encoded", "resized", "brightened", "cropped")


def altered(png: bytes, way: str) -> bytes:
    """A copy of a picture that looks the same and has other bytes; `way` is one of `COPY_WAYS`."""
    from PIL import Image, ImageEnhance

    image = Image.open(io.BytesIO(png)).convert("RGB")
    if way == "re-encoded":
        image = Image.open(io.BytesIO(_encoded(image, "JPEG", quality=95, subsampling=0)))
    elif way == "resized":
        image = image.resize((SIDE * 15 // 16, SIDE * 15 // 16), Image.Resampling.BICUBIC)
    elif way == "brightened":
        image = ImageEnhance.Brightness(image).enhance(1.05)
    else:
        image = image.crop((1, 2, SIDE - 2, SIDE - 1))
    return _encoded(image, "PNG")


def _encoded(image: Image, form: str, **options: int) -> bytes:
    packed = io.BytesIO()
    image.save(packed, form, **options)
    return packed.getvalue()
