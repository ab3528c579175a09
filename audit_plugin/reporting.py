"""From what was scored to what is handed back: the columns in the caller's order, and the summary of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from . import flags as rules
from . import memorization
from .arrays import Bools, Floats, Ints, Samples
from .config import AuditConfig
from .embedding import Embedded
from .encoding import Identity
from .evidence import Gathered
from .modalities import MODALITIES

PACKAGES = ("audit-plugin", "torch", "numpy", "open-clip-torch", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True)
class Order:
    """Complete rows in canonical order: content digest, then id. What is random never sees the caller's order."""

    rows: Ints
    total: int

    def back(self, values: Any, missing: Any) -> Any:
        """Values `[len(rows)]` in canonical order -> `[total]` in the caller's, `missing` elsewhere."""
        values = np.asarray(values)
        out = np.full(self.total, missing, dtype=values.dtype)
        out[self.rows] = values
        return out


@dataclass(frozen=True)
class Scored:
    """Everything per complete row, canonical order, and what is said of the whole."""

    gathered: Gathered
    scores: Mapping[str, Floats]
    probability: Floats
    flags: Mapping[str, Bools]
    texts: Mapping[str, Any]
    recall: Mapping[str, float]
    wrong: float


def result_columns(scored: Scored, order: Order, embedded: Embedded, samples: Samples) -> dict[str, Any]:
    """The written table, in its order; see design: higher is more suspicious, NaN is not scored."""
    evidence, scores = scored.gathered.evidence, dict(scored.scores)
    pick: dict[str, Any] = {}

    def take(prefix: str) -> None:
        for name in [c for c in scores if c == prefix or c.startswith(prefix + "_")]:
            pick[name] = order.back(scores.pop(name), np.float32(np.nan))

    take("misalignment")
    pick["culprit"] = order.back(_culprit(scored), "")
    pick["probability"] = order.back(scored.probability, np.float32(np.nan))
    for name in ("multimem", "alignment", "clip_score", "outlier", "duplicate"):
        take(name)
    pick["duplicate_group"] = order.back(_group_names(evidence, samples, order), "")
    for name in list(scores):  # scores added to the table by others
        take(name)
    for kind, values in scored.flags.items():
        pick[f"is_{kind}"] = order.back(values, False)
    for name, values in scored.texts.items():
        pick[name] = order.back(values, "keep" if name == "action" else "")
    pick["failure"] = np.array([embedded.failures.get(row, "") for row in range(order.total)], dtype=object)
    failed = pick["failure"] != ""
    pick["reason"][failed] = "not scored: see failure"
    return pick


def _culprit(scored: Scored) -> Any:
    """Modality whose removal lowers the misalignment most; "" with two modalities, where either may be wrong."""
    evidence = scored.gathered.evidence
    n, names = len(evidence), evidence.modalities
    out = np.full(n, "", dtype=object)
    if len(names) < 3 or evidence.trials is None:
        return out
    parts = {pair: scored.scores[f"misalignment_{pair[0]}_{pair[1]}"] for pair in evidence.pairs}
    without = np.stack([np.fmax.reduce([v for pair, v in parts.items() if name not in pair]) for name in names])
    known = np.isfinite(without).all(0)
    out[known] = np.array(names, dtype=object)[without[:, known].argmin(0)]
    return out


def _group_names(evidence: Any, samples: Samples, order: Order) -> Any:
    """Id of the group's representative (its first sample in canonical order) for groups of two or more."""
    out = np.full(len(evidence), "", dtype=object)
    for group in evidence.groups.values():
        _, first, inverse, counts = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
        for i in np.flatnonzero((counts[inverse] > 1) & (out == "")):
            out[i] = samples.ids[order.rows[first[inverse[i]]]]
    return out


def summarize(
    columns: Mapping[str, Any],
    scored: Scored,
    embedded: Embedded,
    samples: Samples,
    config: AuditConfig,
    who: Mapping[str, Identity],
) -> dict[str, Any]:
    """What is said of the whole: counts, reliability, recall on the plants, notes, settings, versions."""
    trials = scored.gathered.evidence.trials
    notes = list(scored.gathered.notes)
    reliability = None
    if trials is not None:
        values = memorization.remove_offsets(trials.consistency, trials.member)
        measured = memorization.reliability(values, trials.member)
        reliability = round(measured, 4) if np.isfinite(measured) else None
        if reliability is not None and reliability < 0.8:
            need = memorization.trials_needed(reliability, config.trials)
            notes.append(f"reliability of MultiMem is {reliability:.2f}, below 0.8; about {need} trials would reach it")
    notes += _text_notes(samples, embedded, who)
    return {
        "samples": len(samples),
        "failures": len(embedded.failures),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in rules.FLAGS},
        "actions": {a: int((columns["action"] == a).sum()) for a in ("keep", "relabel", "remove", "review")},
        "reliability": reliability,
        "recall": {kind: round(value, 4) for kind, value in scored.recall.items()},
        "wrong_share_model": round(scored.wrong, 4) if np.isfinite(scored.wrong) else None,
        "trained": "heads on frozen features; the frozen encoders may have seen the data" if trials else "nothing",
        "encoder": {m: w.key for m, w in who.items()},
        "encoded_now": dict(embedded.encoded),
        "notes": notes,
        "false_alarms": config.false_alarms,
        "config": config.to_dict(),
        "versions": versions(),
    }


def _text_notes(samples: Samples, embedded: Embedded, encoders: Mapping[str, Identity]) -> list[str]:
    notes = []
    if embedded.split_texts > 0.05 * len(samples):
        notes.append(
            f"{embedded.split_texts} texts are longer than the encoder reads at once and were encoded in parts"
        )
    for name in samples.modalities:
        if MODALITIES[name].is_text and encoders[name].english:
            known = [text for text in samples.media[name] if text]
            foreign = sum(_not_latin(text) for text in known)
            if foreign > 0.05 * max(len(known), 1):
                notes.append(
                    f"{foreign} of {len(known)} texts are not in Latin script; the text encoder was trained "
                    "on English: use a multilingual open_clip model for them"
                )
    return notes


def _not_latin(text: str) -> bool:
    letters = [c for c in text[:200] if c.isalpha()]
    return sum(ord(c) > 0x24F for c in letters) > len(letters) / 2


def versions() -> dict[str, str]:
    """Versions of what the scores depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
