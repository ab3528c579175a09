"""Checks of texts, images and copies: planted faults that are flagged, and clean ones that are, beside other tools.

Run as `python -m benchmarks.checks [--anchors PYTHON]`: about ten minutes. PYTHON is the interpreter of an environment
with `py-data-juicer`, `ray`, `aiohttp` and `cleanvision`, whose own code is run on the same texts and files, at its
defaults; without it those columns are left out. Texts: names of emoji, sentences on drawn people, names of classes;
images: photographs of clothing. Each kind of fault is planted into 2% of a set that is clean else. AUROC is that of a
tool's own measure for that kind of fault.

Copies: altered ones of photographs are added to 1,000 of them, and an audit names them.

Expected: at most 1% of each clean set is flagged by all checks together, and each fault that people see at least as
often as by the other tools; of each kind of copies at least 95% with a precision of at least 98%.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from audit_plugin.arrays import Samples
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.encoders.pixels import MEASURES, measure_pixels
from audit_plugin.inputs.images import read_image_or_crop
from audit_plugin.neighbors.neighborhood import WHITENING
from audit_plugin.neighbors.projection import fit_projection, project
from audit_plugin.scoring.flags import mean_likeness
from audit_plugin.scoring.image_checks import CHECKS, ODD_SIZE, check_images
from audit_plugin.scoring.text_checks import check_texts
from benchmarks.record import markdown_table, write_report
from benchmarks.rivals.tuning import auroc
from benchmarks.sets import load_set

SHARE = 0.02  # of a set, that is given a fault
IMAGES = 1000
CLEAN_SETS = ("twitter", "openmoji", "google", "persons", "clothing", "digits", "glyphs")
TEXT_SETS = ("openmoji", "persons", "class names")

QUICK_AUDIT = AuditConfig(encoder="offline", device="cpu", trials=8, epochs=1)  # copies depend on no training

JUICER = """
import json, sys
out, sys.stdout = sys.stdout, sys.stderr
from data_juicer.ops.filter.alphanumeric_filter import AlphanumericFilter
from data_juicer.ops.filter.character_repetition_filter import CharacterRepetitionFilter
from data_juicer.ops.filter.special_characters_filter import SpecialCharactersFilter
from data_juicer.ops.filter.word_repetition_filter import WordRepetitionFilter
from data_juicer.ops.mapper.clean_copyright_mapper import CleanCopyrightMapper
from data_juicer.ops.mapper.clean_email_mapper import CleanEmailMapper
from data_juicer.ops.mapper.clean_html_mapper import CleanHtmlMapper
from data_juicer.ops.mapper.clean_links_mapper import CleanLinksMapper
from data_juicer.ops.mapper.fix_unicode_mapper import FixUnicodeMapper
from data_juicer.utils.constant import Fields
filters = [AlphanumericFilter(), CharacterRepetitionFilter(), SpecialCharactersFilter(), WordRepetitionFilter()]
mappers = [CleanCopyrightMapper(), CleanEmailMapper(), CleanHtmlMapper(), CleanLinksMapper(), FixUnicodeMapper()]
answers = []
for texts in json.load(sys.stdin):
    flagged = [False] * len(texts)
    for op in filters:
        samples = op.compute_stats_batched({"text": list(texts), Fields.stats: [{} for _ in texts]})
        flagged = [was or not stays for was, stays in zip(flagged, op.process_batched(samples))]
    for op in mappers:
        changed = op.process_batched({"text": list(texts)})["text"]
        flagged = [was or new.strip() != old.strip() for was, old, new in zip(flagged, texts, changed)]
    answers.append(flagged)
json.dump(answers, out)
"""

VISION = """
import json, sys
out, sys.stdout = sys.stdout, sys.stderr
from cleanvision import Imagelab
KINDS = ("dark", "light", "odd_aspect_ratio", "low_information", "blurry", "grayscale", "odd_size")
answers = []
for paths in json.load(sys.stdin):
    lab = Imagelab(filepaths=paths)
    lab.find_issues({kind: {} for kind in KINDS}, n_jobs=1, verbose=False)
    issues = lab.issues.loc[paths]
    answers.append({column: issues[column].astype(float).tolist() for column in issues})
json.dump(answers, out)
"""
VISION_KINDS = {
    "blurred": "blurry",
    "dark": "dark",
    "bright": "light",
    "little information": "low_information",
    "odd shape": "odd_aspect_ratio",
    "no color": "grayscale",
    ODD_SIZE: "odd_size",
}

TextFault = Callable[[str, random.Random], str]
WORDS_WITH_ACCENTS = (
    "café",
    "Zürich",
    "naïve",
    "façade",
    "jalapeño",
    "l’été",
    "“open”",
    "Škoda",
    "smörgåsbord",
    "20 €",
)
OTHER_BOILERPLATE = (  # phrases that are not in the list of the check
    "limited time offer", "visit our website", "photo by John Smith", "image credit: NASA", "posted by admin",
    "best seller", "new arrival", "powered by WordPress", "page 1 of 3", "see description below", "ad", "sponsored",
)  # fmt: skip
SENTENCES = {
    "German": ("eine Frau mit rotem Hut steht vor dem alten Haus", "zwei Hunde laufen am Strand entlang",
               "der Mann liest eine Zeitung im Park"),
    "French": ("une femme avec un chapeau rouge devant la vieille maison", "deux chiens courent le long de la plage",
               "l'homme lit un journal dans le parc"),
    "Russian": ("женщина в красной шляпе", "две собаки бегут по пляжу", "мужчина читает газету"),
    "Japanese": ("赤い帽子をかぶった女性", "二匹の犬が海辺を走る", "公園で新聞を読む男"),
}  # fmt: skip


def _damaged(text: str, rng: random.Random, times: int, codec: str) -> str:
    whole = f"{text} {rng.choice(WORDS_WITH_ACCENTS)}"
    for _ in range(times):
        whole = whole.encode().decode(codec, "replace")
    return whole


def _name(rng: random.Random) -> str:
    return rng.choice(("IMG_{}", "DSC0{}", "P100{}", "PXL_2023{}")).format(rng.randrange(1000, 9999))


def _one_of(texts: Sequence[str]) -> TextFault:
    return lambda _, rng: rng.choice(texts)


TEXT_FAULTS: dict[str, TextFault] = {
    "encoding damage, latin-1": lambda text, rng: _damaged(text, rng, 1, "latin-1"),
    "encoding damage, cp1252": lambda text, rng: _damaged(text, rng, 1, "cp1252"),
    "encoding damage, twice": lambda text, rng: _damaged(text, rng, 2, "latin-1"),
    "encoding damage, letters lost": lambda text, rng: _damaged(text, rng, 1, "ascii"),
    "markup, tags": lambda text, _: f"<p>{text}</p>",
    "markup, an entity": lambda text, _: f"{text} &amp; more",
    "web address": lambda text, rng: f"{text} https://example.com/{rng.randrange(999)}",
    "web address, domain alone": lambda text, _: f"{text} - shopping.com",
    "file name, of a camera": lambda _, rng: _name(rng),
    "file name, of words": lambda text, _: f"{text.replace(' ', '-')}.jpg",
    "price": lambda text, rng: f"{text} ${rng.randrange(1, 99)}.99",
    "advertising, phrases of the list": lambda text, rng: (
        f"{text} | {rng.choice(('buy now', 'stock photo', 'free shipping'))}"
    ),
    "advertising, other phrases": lambda text, rng: f"{text} | {rng.choice(OTHER_BOILERPLATE)}",
    "repetition, a word": lambda text, _: f"{text} {' '.join([text.split()[-1]] * 4)}",
    "repetition, the text": lambda text, _: " ".join([text] * 4),
    "repetition, signs": lambda text, _: f"{text}!!!!!!!!!!",
    "no words": lambda _, rng: str(rng.randrange(10**6)),
    **{f"another language, {name}": _one_of(texts) for name, texts in SENTENCES.items()},
}

ImageFault = Callable[[Image.Image], Image.Image]


def _blurred(radius: float) -> ImageFault:
    """`radius` for images of 256 pixels."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius * max(image.size) / 256))


IMAGE_FAULTS: dict[str, tuple[str, ImageFault]] = {  # fault with its strength -> (kind, what it makes of an image)
    "blurred, radius 1": ("blurred", _blurred(1)),
    "blurred, radius 2": ("blurred", _blurred(2)),
    "blurred, radius 4": ("blurred", _blurred(4)),
    "dark, 30%": ("dark", lambda image: image.point(lambda value: value * 0.3)),
    "dark, 15%": ("dark", lambda image: image.point(lambda value: value * 0.15)),
    "bright, 10% from white": ("bright", lambda image: image.point(lambda value: 255 - (255 - value) * 0.1)),
    "bright, 3% from white": ("bright", lambda image: image.point(lambda value: 255 - (255 - value) * 0.03)),
    "little information, one color": ("little information", lambda image: image.resize((1, 1)).resize(image.size)),
    "little information, 5% contrast": ("little information", lambda image: image.point(lambda v: 122 + v * 0.05)),
    "odd shape, 3 : 1": ("odd shape", lambda image: image.resize((3 * image.height, image.height))),
    "odd shape, 5 : 1": ("odd shape", lambda image: image.resize((5 * image.height, image.height))),
    "odd size, a fifth": (ODD_SIZE, lambda image: image.resize((image.width // 5, image.height // 5))),
    "odd size, five times": (ODD_SIZE, lambda image: image.resize((image.width * 5, image.height * 5))),
    "no color": ("no color", lambda image: image.convert("L").convert("RGB")),
    "plain border, 5%": ("plain border", lambda image: ImageOps.expand(image, round(0.05 * max(image.size)), "black")),
    "plain border, 15%": ("plain border", lambda image: ImageOps.expand(image, round(0.15 * max(image.size)), "white")),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both parts and writes results/checks.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checks", description=__doc__.splitlines()[0])
    parser.add_argument("--anchors", default="", help="Python of an environment with the other tools")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--dry-run", action="store_true", help="write no report")
    options = parser.parse_args(arguments)
    report = {
        "texts": text_faults(options.anchors),
        "images": image_faults(options.images, options.anchors),
        "copies": copies_of_photographs(options.images),
        "clean": clean_sets(options.images),
        "likeness": media_likeness(),
    }
    if options.dry_run:
        print(json.dumps(report, indent=1))
    else:
        settings = {"share": SHARE, "images": options.images}
        write_report(
            "checks",
            "Which planted faults of single texts and images are flagged, and which clean ones?",
            settings | report,
        )


def _texts(name: str) -> list[str]:
    if name != "class names":
        return list(dict.fromkeys(load_set(name).media["text"]))
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(dict.fromkeys(_IMAGENET_CATEGORIES))


def text_faults(anchors: str) -> dict[str, Any]:
    """Fault -> share of the texts that hold it that is flagged, mean over the sets: by us, and by Data-Juicer."""
    cases: list[tuple[str, list[str], np.ndarray]] = []
    for fault, plant in TEXT_FAULTS.items():
        for name in TEXT_SETS:
            texts, rng = _texts(name), random.Random(f"{fault} {name}")
            chosen = np.zeros(len(texts), dtype=bool)
            chosen[rng.sample(range(len(texts)), max(10, round(SHARE * len(texts))))] = True
            cases.append((fault, [plant(t, rng) if c else t for t, c in zip(texts, chosen, strict=True)], chosen))
    ours = [check_texts(texts).problems != "" for _, texts, _ in cases]
    theirs = _ask(anchors, JUICER, [[t for t, c in zip(texts, chosen, strict=True) if c] for _, texts, chosen in cases])
    rows: dict[str, Any] = {}
    for at, (fault, _, chosen) in enumerate(cases):
        row = rows.setdefault(fault, {"ours": [], "others flagged": []} | ({"Data-Juicer": []} if theirs else {}))
        row["ours"].append(float(ours[at][chosen].mean()))
        row["others flagged"].append(float(ours[at][~chosen].mean()))
        if theirs:
            row["Data-Juicer"].append(float(np.mean(theirs[at])))
    return {
        fault: {name: round(float(np.mean(shares)), 4) for name, shares in row.items()} for fault, row in rows.items()
    }


def image_faults(count: int, anchors: str) -> dict[str, Any]:
    """Fault -> share flagged and AUROC, by us and by CleanVision, and the share of the other images that is flagged."""
    paths = random.Random(0).sample(sorted(load_set("clothing").media["image"]), count)
    chosen = np.arange(count) < round(SHARE * count)
    clean = [measure_pixels(read_image_or_crop(path)) for path in paths]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for number, (kind, change) in enumerate(IMAGE_FAULTS.values()):
            files = [str(Path(folder) / f"{number}-{at}.png") for at in range(int(chosen.sum()))]
            for path, file in zip(paths, files, strict=False):
                change(read_image_or_crop(path)).save(file)
            cases.append((kind, files))
        theirs = _ask(anchors, VISION, [[*files, *paths[len(files) :]] for _, files in cases])
        for at, (fault, (kind, files)) in enumerate(zip(IMAGE_FAULTS, cases, strict=True)):
            measures = np.stack([*(measure_pixels(read_image_or_crop(file)) for file in files), *clean[len(files) :]])
            problems = check_images(measures).problems
            has_kind = np.array([kind in problem for problem in problems], dtype=bool)
            rows[fault] = _judged(chosen, has_kind, problems != "", _badness(kind, measures))
            if theirs:
                rows[fault]["CleanVision"] = _judged_vision(chosen, kind, theirs[at])
    return rows


def _badness(kind: str, measures: np.ndarray) -> np.ndarray:
    of = {name: measures[:, at].astype(np.float64) for at, name in enumerate(MEASURES)}
    if kind == ODD_SIZE:
        area = of["log_width"] + of["log_height"]
        return np.abs(area - np.median(area))
    return next(check.badness(of) for check in CHECKS if check.name == kind)


def _judged(chosen: np.ndarray, has_kind: np.ndarray, flagged: np.ndarray, badness: np.ndarray) -> dict[str, Any]:
    return {
        "named": round(float(has_kind[chosen].mean()), 4),
        "auroc": round(float(auroc(badness, chosen)), 4),
        "others flagged": round(float(flagged[~chosen].mean()), 4),
    }


def _judged_vision(chosen: np.ndarray, kind: str, answer: Mapping[str, list[float]]) -> dict[str, Any] | None:
    if kind not in VISION_KINDS:
        return None
    issue, score = (np.array(answer[name.format(VISION_KINDS[kind])]) for name in ("is_{}_issue", "{}_score"))
    any_issue = np.logical_or.reduce(
        [np.array(values, bool) for name, values in answer.items() if name.startswith("is_")]
    )
    return _judged(chosen, issue > 0, any_issue, -score)


def _cropped(share: float, left: float, top: float) -> ImageFault:
    """Without so much of each side; 0 keeps the left or upper part."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = (round(side * (1 - share)) for side in image.size)
        x, y = round((image.width - width) * left), round((image.height - height) * top)
        return image.crop((x, y, x + width, y + height))

    return crop


def _recompressed(quality: int) -> ImageFault:
    def compress(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out).convert("RGB")

    return compress


COPIES: dict[str, ImageFault] = {
    "mirrored": ImageOps.mirror,
    "cropped by 2%, a corner": _cropped(0.02, 0, 0),
    "cropped by 5%, a corner": _cropped(0.05, 1, 0),
    "cropped by 10%, the middle": _cropped(0.1, 0.5, 0.5),
    "cropped by 10%, a corner": _cropped(0.1, 0, 1),
    "mirrored and cropped by 5%": lambda image: ImageOps.mirror(_cropped(0.05, 0, 0)(image)),
    "recompressed, quality 30": _recompressed(30),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "black border of 5%": lambda image: ImageOps.expand(image, round(0.05 * max(image.size)), "black"),
    "white border of 10%": lambda image: ImageOps.expand(image, round(0.1 * max(image.size)), "white"),
}
COPIES_EACH = 30
LEAST_GROUP = 50  # images of a class or category


def copies_of_photographs(count: int) -> dict[str, Any]:
    """Kind of copies -> share that an audit names with their source; `precision` of all pairs that it names."""
    paths = random.Random(2).sample(sorted(load_set("clothing").media["image"]), count)
    sources, kinds = list(range(count)), [""] * count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = list(paths)
        for kind, change in COPIES.items():
            for source in random.Random(kind).sample(range(count), min(COPIES_EACH, count)):
                files.append(str(folder / f"{len(files)}.png"))
                change(read_image_or_crop(paths[source])).save(files[-1])
                sources.append(source)
                kinds.append(kind)
        named = _named_copies(files, [f"photograph {source}" for source in sources], folder / "run")
    found = {row for pair in named if sources[pair[0]] == sources[pair[1]] for row in pair}
    right = [sources[one] == sources[other] for one, other in named]
    recall = {
        kind: round(float(np.mean([row in found for row in range(len(kinds)) if kinds[row] == kind])), 4)
        for kind in COPIES
    }
    return {"recall": recall, "pairs": len(named), "precision": round(float(np.mean(right)), 4) if right else None}


def _named_copies(files: Sequence[str], texts: Sequence[str], run: Path) -> list[tuple[int, int]]:
    """Pairs of rows that an audit calls copies: of one duplicate group, or an altered copy and its source."""
    samples = Samples(tuple(map(str, range(len(files)))), {"image": tuple(files), "text": tuple(texts)})
    columns = run_audit(samples, QUICK_AUDIT, run_dir=run).columns
    groups = [(row, int(source)) for row, source in enumerate(columns["duplicate_group"]) if source]
    copies = columns.get("copy_of", [""] * len(files))
    altered = [(row, int(how.split()[-1])) for row, how in enumerate(copies) if how]
    return [pair for pair in (*groups, *altered) if pair[0] != pair[1]]


def clean_sets(count: int) -> dict[str, Any]:
    """Set -> share of its distinct texts and of its images that is flagged without any planted fault."""
    rows = {}
    for name in CLEAN_SETS:
        media = load_set(name).media
        texts, images = list(dict.fromkeys(media["text"])), sorted(set(media["image"]))
        images = random.Random(0).sample(images, min(count, len(images)))
        measures = np.stack([measure_pixels(read_image_or_crop(path)) for path in images])
        rows[name] = {
            "texts": len(texts),
            "texts flagged": round(float((check_texts(texts).problems != "").mean()), 4),
            "images": len(images),
            "images flagged": round(float((check_images(measures).problems != "").mean()), 4),
            "likely copies": _likely_copies(name, count),
        }
    return rows


def media_likeness() -> dict[str, Any]:
    """Mean likeness of the images of one class or category, and of as many drawn at random (the flag `boilerplate`).

    Least, median and most over the groups of at least `LEAST_GROUP` images of two sets; in the projections.
    """
    rows = {}
    for name in ("clothing", "twitter"):
        clean = load_set(name)
        samples = Samples(clean.ids, {m: clean.media[m] for m in ("image", "text")}, caption=clean.caption)
        prepared = prepare(samples, QUICK_AUDIT, Clock(silent))
        vectors = prepared.features.vectors["image"]
        projected = project(vectors, fit_projection(vectors, WHITENING))
        projected /= np.linalg.norm(projected, axis=1, keepdims=True)
        groups = np.array(clean.labels or clean.category, dtype=object)[prepared.order.rows]
        rng, alike, apart = np.random.default_rng(0), [], []
        for group, count in zip(*np.unique(groups.astype(str), return_counts=True), strict=True):
            if count >= LEAST_GROUP:
                alike.append(mean_likeness(projected[groups == group]))
                apart += [mean_likeness(projected[rng.permutation(len(projected))[:count]]) for _ in range(3)]
        rows[name] = {
            kind: [round(float(np.quantile(values, share)), 4) for share in (0, 0.5, 1)]
            for kind, values in (("one class", alike), ("at random", apart))
        }
    return rows


def _likely_copies(name: str, count: int) -> float:
    """Share of about so many samples of a set that an audit calls likely copies."""
    clean = load_set(name, rows=count)
    samples = Samples(clean.ids, {m: clean.media[m] for m in ("image", "text")}, caption=clean.caption)
    with tempfile.TemporaryDirectory() as folder:
        return round(float(run_audit(samples, QUICK_AUDIT, run_dir=folder).flagged("likely_copy").mean()), 4)


def _ask(python: str, script: str, request: list[Any]) -> list[Any] | None:
    """What another environment's Python answers, or None without one."""
    if not python:
        return None
    done = subprocess.run(
        [python, "-c", script], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: list[Any] = json.loads(done.stdout)
    return answer


def checks_tables(report: Mapping[str, Any]) -> dict[str, str]:
    """Marked part of docs/detection.md -> its Markdown table."""

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.0%}"

    texts = [(fault, share(row["ours"]), share(row.get("Data-Juicer"))) for fault, row in report["texts"].items()]
    images = []
    for fault, row in report["images"].items():
        vision = row.get("CleanVision") or {}
        theirs = f"{vision['auroc']:.3f}" if vision else "–"
        images.append((fault, share(row["named"]), f"{row['auroc']:.3f}", share(vision.get("named")), theirs))
    clean = [
        (
            name,
            f"{row['texts']:,}",
            f"{row['texts flagged']:.2%}",
            f"{row['images']:,}",
            f"{row['images flagged']:.2%}",
            f"{row['likely copies']:.2%}",
        )
        for name, row in report["clean"].items()
    ]
    tables = {
        "checks-texts": markdown_table(("planted in 2% of the texts", "flagged", "Data-Juicer"), texts),
        "checks-images": markdown_table(
            ("planted in 2% of the images", "named", "AUROC", "CleanVision names", "its AUROC"), images
        ),
        "checks-copies": markdown_table(
            ("copies", "named"), [(kind, f"{found:.0%}") for kind, found in report["copies"]["recall"].items()]
        ),
        "checks-clean": markdown_table(("set", "texts", "flagged", "images", "flagged", "likely copies"), clean),
    }
    copies = report["copies"]
    tables["checks-copies"] += [
        "",
        f"{copies['pairs']} pairs were named, of which {copies['precision']:.1%} are copies of one photograph.",
    ]
    return {name: "\n".join(lines) for name, lines in tables.items()}


if __name__ == "__main__":
    main()
