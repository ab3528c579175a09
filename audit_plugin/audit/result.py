"""From what was scored to what is handed back: the columns in the caller's order, and the summary of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats, Ints, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.embed import Embedded
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.calibration import Calibration
from audit_plugin.scoring.evidence import Gathered
from audit_plugin.scoring.leaks import find_leaks
from audit_plugin.scoring.outliers import count_user_groups
from audit_plugin.scoring.suggest.join_bugs import Repair
from audit_plugin.trials import multimem as memorization
from audit_plugin.trials.split_protocol import group_report

LEAST_RELIABILITY = 0.8
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
    sure: Calibration
    flags: Mapping[str, Bools]
    texts: Mapping[str, Any]
    probe_recall: Mapping[str, float]
    repairs: tuple[Repair, ...] = ()


def result_columns(scored: Scored, order: Order, embedded: Embedded, samples: Samples) -> dict[str, Any]:
    """The written table, in its order; see design: higher is more suspicious, NaN is not scored."""
    evidence, scores = scored.gathered.evidence, dict(scored.scores)
    pick: dict[str, Any] = {}

    def take(prefix: str) -> None:
        for name in [c for c in scores if c == prefix or c.startswith(prefix + "_")]:
            pick[name] = order.back(scores.pop(name), np.float32(np.nan))

    take("misalignment")
    pick["culprit"] = order.back(_culprit(scored), "")
    pick["driver"] = order.back(_driver(scored), "")
    pick["probability"] = order.back(scored.sure.probability, np.float32(np.nan))
    if evidence.trials is not None and evidence.trials.roles is not None:
        pick["role"] = order.back(np.array(evidence.trials.roles, dtype=object), "")
    for name in ("multimem", "alignment", "clip_score", "outlier", "duplicate"):
        take(name)
    pick["duplicate_group"] = order.back(_group_names(evidence, samples, order), "")
    for name in list(scores):  # scores added to the table by others
        take(name)
    if samples.splits:
        splits = [samples.splits[row] for row in order.rows]
        pick["leak"] = order.back(find_leaks(splits, rules.duplicate_groups(evidence)).other_splits, "")
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


def _driver(scored: Scored) -> Any:
    """Modality without which most of the MultiMem goes away; "" with two modalities, which share all of it."""
    names = scored.gathered.evidence.modalities
    out = np.full(len(scored.gathered.evidence), "", dtype=object)
    due = [scored.scores.get(f"multimem_due_{name}") for name in names]
    if all(values is not None for values in due):
        table = np.stack(due)  # type: ignore[arg-type]
        known = np.isfinite(table).all(0)
        out[known] = np.array(names, dtype=object)[table[:, known].argmax(0)]
    return out


def _group_names(evidence: Any, samples: Samples, order: Order) -> Any:
    """Id of the group's representative (its first sample in canonical order) for groups of two or more."""
    out = np.full(len(evidence), "", dtype=object)
    for group in rules.duplicate_groups(evidence).values():
        _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
        for i in np.flatnonzero((count_user_groups(group, evidence.owners) > 1) & (out == "")):
            out[i] = samples.ids[order.rows[first[inverse[i]]]]
    return out


def summarize(
    columns: Mapping[str, Any],
    scored: Scored,
    embedded: Embedded,
    samples: Samples,
    config: AuditConfig,
    encoder_identities: Mapping[str, EncoderIdentity],
) -> dict[str, Any]:
    """What is said of the whole: counts, reliability, recall on the plants, notes, settings, versions."""
    notes = list(scored.gathered.notes)
    memory = memory_summary(scored, config, notes)
    notes += _text_notes(samples, embedded, encoder_identities)
    return {
        "samples": len(samples),
        "failures": len(embedded.failures),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in rules.FLAGS},
        "actions": {a: int((columns["action"] == a).sum()) for a in ("keep", "relabel", "remove", "review")},
        **memory,
        "probe_recall": {kind: round(value, 4) for kind, value in scored.probe_recall.items()},
        "wrong_share_model": _rounded(scored.sure.share),
        "wrong_model": wrong_summary(scored),
        "weights": {f"{a}_{b}": dict(found) for (a, b), found in scored.gathered.evidence.weights.items()},
        "repairs": [repair.to_dict() for repair in scored.repairs],
        "trained": scored.gathered.trained,
        "neighbors": {space: dict(how) for space, how in scored.gathered.sought.items()},
        "encoder": {m: w.key for m, w in encoder_identities.items()},
        "encoded_now": dict(embedded.encoded),
        "notes": notes,
        "false_positive_rate": config.false_positive_rate,
        "config": config.to_dict(),
        "versions": versions(),
    }


def wrong_summary(scored: Scored) -> dict[str, Any]:
    """Model-based: how many pairs are wrong, of which kind, and how many of the flagged; 90 % intervals."""
    sure, n = scored.sure, int(np.isfinite(scored.scores["misalignment"]).sum())
    if not sure.shares:
        return {}
    said, low, high = sure.precision(scored.scores["misalignment"], scored.flags["misaligned"])
    return {
        "pairs": round(n * sure.share),
        "pairs_interval": [round(n * end) for end in sure.interval],
        "shares": {kind: round(share, 4) for kind, share in sure.shares.items()},
        "precision": _rounded(said),
        "precision_interval": [_rounded(low), _rounded(high)],
    }


def memory_summary(scored: Scored, config: AuditConfig, notes: list[str]) -> dict[str, Any]:
    """What is said of MultiMem as a whole; adds warnings to `notes`.

    Reliability; the bulk's median and the cut beyond which a sample is called memorized; the mean of the top
    per cent as chosen and on trials that had no part in the choice; who drives the scores; the groups of a split.
    """
    trials = scored.gathered.evidence.trials
    if trials is None:
        return {"reliability": None, "trials": 0}
    values = memorization.adjusted(trials)
    measured = memorization.reliability(values, trials.member, trials.folds)
    if np.isfinite(measured) and measured < LEAST_RELIABILITY:
        need = memorization.trials_needed(measured, len(trials.member), LEAST_RELIABILITY, trials.folds)
        notes.append(
            f"reliability of MultiMem is {measured:.2f}, below {LEAST_RELIABILITY}; about {need} trials would reach it"
        )
    known = scored.scores["multimem"][np.isfinite(scored.scores["multimem"])]
    top = max(len(known) // 100, min(10, len(known)))
    chosen, fresh = memorization.top_mean(values, trials.member, top, trials.folds)
    out: dict[str, Any] = {
        "reliability": _rounded(measured),
        "trials": len(trials.member),
        "memorized": {
            "median": _rounded(float(np.median(known))) if len(known) else None,
            "cut": _rounded(rules.tail_cut(known, config.false_positive_rate)),
            "top": top,
            "top_mean_as_chosen": _rounded(chosen),
            "top_mean_on_other_trials": _rounded(fresh),
        },
        "attribution": _attribution(scored),
    }
    if trials.roles is not None:
        f_minus_g = values[0::2] - values[1::2]
        out["protocol"] = group_report(f_minus_g, trials.roles)
        notes.append(
            f"split protocol: {(trials.roles == 'reference').sum()} samples are the reference H and are not scored; "
            "MultiMem is given for candidates (f) and, mirrored, for independent samples (g)"
        )
    return out


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _attribution(scored: Scored) -> dict[str, float]:
    """Label -> share of the set's MultiMem: what goes away without each modality, and what each pair holds."""
    total = float(np.nansum(scored.scores["multimem"]))
    parts = {
        name.removeprefix("multimem_"): float(np.nansum(values)) / total
        for name, values in scored.scores.items()
        if name.startswith("multimem_") and name not in ("multimem_stderr", "multimem_mean") and total
    }
    return {name: round(share, 4) for name, share in parts.items()}


def _text_notes(samples: Samples, embedded: Embedded, encoders: Mapping[str, EncoderIdentity]) -> list[str]:
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
