"""Whether the right caption of a wrong pair is suggested, for planted swaps, permutations, wrong labels and shifts.

Run as `python -m benchmarks.relabel [--sets twitter persons] [--seeds 3] [--trials 16] [--rows 800]`. Settings were
tuned on the sets of the role "development". Expected: a shift of 200 rows is detected, its bounds within 2 rows, and
at least 95% of its rows get their own captions; swapped captions rank far above chance and above the caption most
like the nearest image's; of the few rows flagged in a clean set, at most a fifth gets a caption.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import Floats, Ints, Samples
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.run import evidence_of, run_identity
from audit_plugin.audit.score import score
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.suggest.captions import Suggestions, rank_captions, suggest
from audit_plugin.scoring.suggest.pair_scores import weigh
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from benchmarks.data import permute_plan
from benchmarks.record import write_report
from benchmarks.sets import SETS, PairSet, load_set

PAIRS = ("none", "swaps", "permuted", "shift round", "shift dropped")
CLASSES = ("none", "labels")  # equal labels in row after row: a shift cannot be seen
RATE, SHIFTED = 0.1, 200
REPORTED = ("twitter", "persons", "glyphs", "google", "openmoji", "digits")


def main() -> None:
    """Runs all cells and writes one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=REPORTED, default=REPORTED)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rows", type=int, help="of each set; default: all")
    parser.add_argument("--plants", nargs="+", choices=(*PAIRS, *CLASSES[1:]), default=(*PAIRS, *CLASSES[1:]))
    parser.add_argument("--name", default="relabel", help="of the JSON")
    options = parser.parse_args()
    cells = []
    for name in options.sets:
        clean = load_set(name, options.rows)
        for plant in (p for p in (CLASSES if clean.labels else PAIRS) if p in options.plants):
            for seed in range(options.seeds if plant != "none" else 1):
                takes = planted(plant, clean.media["text"], seed)
                cell = {"set": name, "role": SETS[name].role, "plant": plant, "seed": seed}
                if plant.startswith("shift"):
                    cell["block"] = np.flatnonzero(takes != np.arange(len(takes)))[[0, -1]].tolist()
                cells.append(cell | run_cell(clean, takes, options.trials))
                print(json.dumps(cells[-1]), flush=True)
    question = "Is the right caption of a wrong pair suggested? Offline encoders"
    write_report(options.name, question, {"trials": options.trials, "rows": options.rows, "cells": cells})


def planted(plant: str, texts: Sequence[str], seed: int) -> Ints:
    """`[n]`: the row whose caption each row gets; where one was dropped, the block repeats the caption before it."""
    rng, n = np.random.default_rng((seed, 21)), len(texts)
    takes = np.arange(n)
    if plant == "permuted":
        for row, source in permute_plan(texts, [""] * n, round(RATE * n), rng).items():
            takes[row] = source
    elif plant == "labels":
        for row in rng.permutation(n)[: round(RATE * n)]:
            takes[row] = rng.choice([other for other in range(n) if texts[other] != texts[row]])
    elif plant == "swaps":
        left, right = rng.permutation(n)[: round(RATE * n) // 2 * 2].reshape(2, -1)
        takes[left], takes[right] = right, left
    elif plant.startswith("shift"):
        start = int(rng.integers(1, n - SHIFTED))
        block = np.arange(start, start + SHIFTED)
        takes[block] = np.roll(block, 1) if plant == "shift round" else block - 1
    return takes


def run_cell(clean: PairSet, takes: Ints, trials: int) -> dict[str, Any]:
    """One audit of the set with these captions: the suggestions, and how many are right."""
    texts = clean.media["text"]
    media = {"image": clean.media["image"], "text": tuple(texts[row] for row in takes)}
    samples = Samples(tuple(f"row{row}" for row in range(len(clean))), media)
    config, clock = AuditConfig(encoder="offline", trials=trials, device="cpu"), Clock(lambda *_: None)
    prepared = prepare(samples, config, clock)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder) / "run", run_identity(prepared, config)) as run,
    ):
        job = Job(config, prepared.device, run, clock.progress)
        with clock.stage("gather"):
            evidence, _ = evidence_of(prepared, job, clock)
        flagged = score(prepared, evidence, job).flags["misaligned"]
        order = prepared.order.rows
        now, true = (np.array([values[row] for row in order], object) for values in (media["text"], texts))
        wrong = np.flatnonzero(now != true)
        with clock.stage("suggest"):
            line = prepared.order.back(np.arange(len(order)), -1)
            suggestions = suggest(evidence, flagged, now.tolist(), 0, line, samples.ids)
        cell = {
            "rows": len(now),
            "wrong": len(wrong),
            "flagged_wrong": int(flagged[wrong].sum()),
            "flagged_good": int(flagged.sum() - flagged[wrong].sum()),
            "proposed": proposals(suggestions, now, true),
            "repairs": [repair_report(suggestions, kind, now[line], true[line]) for kind in ("swap", "cycle", "shift")],
            "seconds": dict(clock.seconds),
        }
        return cell | ({"recall": recalls(evidence, wrong, now, true)} if len(wrong) else {})


def proposals(suggestions: Suggestions, now: Any, true: Any) -> dict[str, int]:
    """Rows that were given a caption: wrong ones, how many of them the right one, and good ones."""
    proposed, wrong = np.array([bool(text) for text in suggestions.captions]), now != true
    return {
        "given_wrong": int((proposed & wrong).sum()),
        "right": int((wrong & (suggestions.captions == true)).sum()),
        "given_good": int((proposed & ~wrong).sum()),
    }


def repair_report(suggestions: Suggestions, kind: str, now: Any, true: Any) -> dict[str, Any]:
    """The repairs of a kind: count, how many entirely right; of the largest its first and last row, rows, right rows.

    A shift's bounds include the rows reported to have lost their captions. `now` and `true` are in the row order.
    """
    repairs = [repair for repair in suggestions.repairs if repair.kind == kind]
    right = [int((now[list(r.sources)] == true[list(r.rows)]).sum()) for r in repairs]
    report: dict[str, Any] = {"kind": kind, "count": len(repairs)}
    report["all_right"] = sum(a == len(r.rows) for a, r in zip(right, repairs, strict=True))
    if kind == "shift" and repairs:
        largest = max(range(len(repairs)), key=lambda k: len(repairs[k].rows))
        rows = (*repairs[largest].rows, *repairs[largest].lost)
        report |= {"first": min(rows), "last": max(rows), "rows": len(rows), "right": right[largest]}
    return report


def recalls(evidence: Evidence, wrong: Ints, now: Any, true: Any) -> dict[str, list[float]]:
    """Share of the wrong rows whose own caption comes first, and among the first three, flagged or not.

    Beside the ranking: the captions of other rows most like that of the nearest image, the captions of the nearest
    images, and chance among the distinct captions.
    """
    content = evidence.contents["text"]
    pool = np.unique(content, return_index=True)[1]  # in the order of contents
    blocks = rank_captions(weigh(evidence, ("image", "text")), wrong, pool, margin=-np.inf)
    ranked = np.concatenate([rank for _, rank, _ in blocks])
    similarity = evidence.vectors["image"][wrong] @ evidence.vectors["image"].T
    similarity[content[wrong][:, None] == content] = -np.inf
    nearest = similarity.argmax(1)
    alike = evidence.vectors["text"][nearest] @ evidence.vectors["text"][pool].T
    # the nearest image's own caption, where no other row has it, is right only if that one is wrong
    alike[(content[nearest][:, None] == content[pool]) & (np.bincount(content)[content[pool]] == 1)] = np.nan
    by_content = np.argsort(content, kind="stable")
    copies = np.maximum.reduceat(similarity[:, by_content], np.searchsorted(content[by_content], content[pool]), axis=1)
    tables = {"ranking": ranked, "like_nearest": alike, "nearest": copies}
    own = content[wrong][:, None] == content[pool]
    recall_of = {name: _recall(np.where(own, np.nan, table), now[pool], true[wrong]) for name, table in tables.items()}
    return recall_of | {"chance": [round(k / (len(pool) - 1), 4) for k in (1, 3)]}


def _recall(table: Floats, captions: Any, true: Any) -> list[float]:
    first = np.argsort(-table, axis=1, kind="stable")[:, :3]  # NaN last
    hits = captions[first] == true[:, None]
    return [round(float(hits[:, 0].mean()), 4), round(float(hits.any(1).mean()), 4)]


if __name__ == "__main__":
    main()
