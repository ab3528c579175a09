"""Cross-modal recall of drawn people: the controlled protocol, and frozen features on the same people and on emoji.

Run as `python -m benchmarks.crossmodal [--identities 100] [--background 1500] [--seeds 5]` (under 45 minutes on two
cores; finished seeds are kept and not repeated). Seeds are 0 to 4, fixed beforehand. Findings are reported as they
come; the controls must hold: source recall and both-arm ceiling of .95 and more, the none arm and the unaligned arms
at chance, and a model retrained without some identities that does not recall them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Samples
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.crossmodal.cross_modal_recall import measure_cross_modal_recall, memorization_link
from audit_plugin.inputs.samples import read_samples
from audit_plugin.store import RunFolder, digest_of
from audit_plugin.synthetic.personas import VERSION, PersonaSet, draw_personas
from benchmarks.data import DATA, SOURCES, fetch
from benchmarks.record import write_report

from .controlled import run_seed, summarize
from .stages import Schedule
from .world import SIDE, make_world

VENDORS = ("google", "twitter", "facebook", "openmoji")
TRIALS = 32
PROTOCOL = 3  # raised when the same seed would give another result


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not done yet and writes one JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crossmodal", description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--background", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"design_a": measure_controlled(options, Schedule()), "drawing": drawing()}
    for name, samples in (("persons", persons(options)), ("emoji", emoji(options.data))):
        report[f"design_b_{name}"] = measure_frozen(samples)
    if not options.dry_run:
        print(write_report("crossmodal", "learned in one modality, recalled in the other: drawn persons", report))
    print(json.dumps(report["design_a"]["controls"], indent=1))


def measure_controlled(options: argparse.Namespace, schedule: Schedule) -> dict[str, Any]:
    """The controlled protocol for all seeds; each is stored when it is finished."""
    persona_set = PersonaSet(options.identities, options.background, side=SIDE)
    start = time.perf_counter()
    world = make_world(options.data / f"personas-{SIDE}-{options.identities}-{options.background}", persona_set)
    identity = {"set": asdict(persona_set), "schedule": asdict(schedule), "form": VERSION, "protocol": PROTOCOL}
    identity = json.loads(json.dumps(identity))  # as it will be read again: tuples are lists
    tables, seconds, seeds_kept = [], [], []
    with RunFolder(options.data / f"crossmodal-{digest_of(identity)[:12]}", identity) as run:
        for seed in range(options.seeds):
            table = run.load(f"seed{seed}")
            if table is None:
                began = time.perf_counter()
                table = run_seed(world, schedule, seed, lambda what: print(what, flush=True))
                run.save(f"seed{seed}", **table, seconds=np.array(time.perf_counter() - began))
                table = run.load(f"seed{seed}") or {}
            else:
                seeds_kept.append(seed)
            seconds.append(round(float(table.pop("seconds")), 1))
            tables.append(table)
    settings = {
        "seeds": options.seeds,
        "seeds_kept": seeds_kept,
        "set": asdict(persona_set),
        "schedule": asdict(schedule),
        "seconds_per_seed": seconds,
    }
    return {"settings": settings, "seconds": round(time.perf_counter() - start, 1), **summarize(tables, world)}


def drawing() -> dict[str, Any]:
    """Seconds for a thousand pictures of the usual size, into an empty folder."""
    persona_set = PersonaSet(identities=100)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        draw_personas(Path(folder) / "people", persona_set)
        seconds = time.perf_counter() - start
    return {
        "pictures": persona_set.identities * (persona_set.train + persona_set.test),
        "side": persona_set.side,
        "seconds": seconds,
    }


def measure_frozen(samples: Samples) -> dict[str, Any]:
    """Cross-modal recall on frozen offline features, and its link to MultiMem; seconds include the encoding."""
    config, start = AuditConfig(encoder="offline", device="cpu", trials=TRIALS), time.perf_counter()
    result = measure_cross_modal_recall(samples, config)
    seconds = time.perf_counter() - start
    audit = run_audit(replace(samples, splits=()), config)
    memorized = dict(zip(audit.ids, audit.columns["multimem"].tolist(), strict=True))
    link = memorization_link(result, memorized, samples.labels)
    return {**result.summary, "whole_seconds": round(seconds, 1), "memorization": link, "trials": TRIALS}


def persons(options: argparse.Namespace) -> Samples:
    """The people of the controlled protocol in larger pictures; those of one identity stay together in trials."""
    persona_set = PersonaSet(options.identities, options.background)
    manifest = draw_personas(
        options.data / f"personas-{persona_set.side}-{options.identities}-{options.background}", persona_set
    )
    columns = {"image": "image", "text": "description"}
    return read_samples(manifest, columns, group="identity", label="identity", split="split")


def emoji(data: Path) -> Samples:
    """Emoji as identities: four vendors' pictures; name, two halves of the tags, and the kind as descriptions."""
    folders = {name: fetch(name, data).resolve() for name in VENDORS}
    pairs = {name: SOURCES[name].read(folder) for name, folder in folders.items()}
    pictures = {name: {pair.id.upper(): pair for pair in vendor_pairs} for name, vendor_pairs in pairs.items()}
    known = json.loads((folders["openmoji"] / "data/openmoji.json").read_text(encoding="utf-8"))
    ids, images, texts, labels = [], [], [], []
    for entry in known:
        code, tags = entry["hexcode"], [tag.strip() for tag in entry["tags"].split(",") if tag.strip()]
        if len(tags) < 4 or entry["skintone"] or not all(code in pictures[name] for name in VENDORS):
            continue
        descriptions = (
            entry["annotation"],
            ", ".join(tags[::2]),
            ", ".join(tags[1::2]),
            entry["subgroups"].replace("-", " "),
        )
        for name, text in zip(VENDORS, descriptions, strict=True):
            ids.append(f"{code}-{name}")
            images.append(str(folders[name] / pictures[name][code].image))
            texts.append(text)
            labels.append(code)
    return Samples(tuple(ids), {"image": tuple(images), "text": tuple(texts)}, tuple(labels), labels=tuple(labels))


if __name__ == "__main__":
    main()
