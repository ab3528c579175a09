"""The audit as one story: read, encode, look at neighbours, train trials, score, flag. No FiftyOne here."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import flags as rules
from .arrays import AuditError, AuditResult, Bools, Features, Floats, Ints, Samples
from .clip import resolve
from .config import AuditConfig, digest_of
from .embedding import Contents, Progress, digest_contents, embed, silent
from .encoders import identify, load_encoders, pick_device
from .encoding import Identity
from .evidence import Gathered, gather
from .modalities import MODALITIES
from .plants import plant_scores, wrong_share
from .reporting import Order, Scored, result_columns, summarize, versions
from .scores import compute_scores, robust_z
from .store import FeatureCache, RunFolder, cache_root
from .suggestions import suggest
from .trials import Job

FORMAT = 1  # raised when the same run folder would be filled differently


@dataclass
class Clock:
    """Seconds per stage, and the caller's progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - start, 3)


def run_audit(
    samples: Samples,
    config: AuditConfig | None = None,
    progress: Progress | None = None,
    run_dir: str | Path | None = None,
) -> AuditResult:
    """Audits samples and returns one value per row and column, in the order of the samples.

    Args:
        samples: two or more modalities; see `Samples`.
        config: settings; defaults if None.
        progress: called with (stage, done, total); may raise to cancel, and the next run resumes.
        run_dir: folder of the run; default: one per data and settings in the user's cache.

    Raises:
        AuditError: what the user can mend, in one sentence. Unusable media are no error: they are recorded per row.
    """
    config = config or AuditConfig()
    clock = Clock(progress or silent)
    _check(samples)
    # in the table's order: image before text, however the caller named them
    samples = replace(samples, media={m: samples.media[m] for m in MODALITIES if m in samples.media})
    device, name = pick_device(config.device), resolve(config.encoder)
    load = functools.cache(lambda: load_encoders(name, samples.modalities, device))
    who = identify(name, samples.modalities) or {m: e.identity for m, e in load().items()}
    with clock.stage("read"):
        contents = digest_contents(samples, clock.progress)
    with clock.stage("encode"):
        embedded = embed(samples, contents, {m: w.key for m, w in who.items()}, load, clock.progress)
    order = canonical_order(samples, contents, embedded.features.present)
    identity = {
        "settings": {**config.training(), "encoder": name},
        "encoders": {m: w.key for m, w in who.items()},
        "data": _data_digest(samples, contents, order),
        "device": device,
        "versions": versions(),
        "format": FORMAT,
    }
    folder = Path(run_dir) if run_dir else cache_root() / "runs" / digest_of(identity)[:16]
    with RunFolder(folder, identity) as run:
        job = Job(config, device, run, clock.progress)
        scored = _score(samples, contents, embedded.features, who, order, job, clock)
        _save_evidence(scored.gathered, [samples.ids[row] for row in order.rows], run)
    columns = result_columns(scored, order, embedded, samples)
    summary = summarize(columns, scored, embedded, samples, config, who)
    summary |= {"encoder_name": name, "device": device, "seconds": clock.seconds}
    return AuditResult(samples.ids, columns, summary, str(folder))


def _check(samples: Samples) -> None:
    if len(samples) == 0:
        raise AuditError("there are 0 samples to audit; give at least one row")
    if len(samples.modalities) < 2:
        raise AuditError(f"only {', '.join(samples.modalities) or 'nothing'} is named; name two or more modalities")
    if unknown := [m for m in samples.modalities if m not in MODALITIES]:
        raise AuditError(f"modality {unknown[0]!r} is not known; use {', '.join(MODALITIES)}")


def canonical_order(samples: Samples, contents: Contents, present: Bools) -> Order:
    """Rows whose media are all there, sorted by content, then id, then caption number."""
    caption = samples.caption or (0,) * len(samples)
    keys = [
        ("".join(contents.digests[m][row] for m in samples.modalities), samples.ids[row], caption[row], row)
        for row in np.flatnonzero(present.all(axis=1))
        if row not in samples.problems
    ]
    return Order(np.array([key[-1] for key in sorted(keys)], dtype=np.int64), len(samples))


def _data_digest(samples: Samples, contents: Contents, order: Order) -> str:
    """sha256 of what the rows hold and which belong together: independent of row order and of where files lie."""
    together = _user_groups(samples, order)
    rows = [[contents.digests[m][row] for m in samples.modalities] for row in order.rows]
    return digest_of(rows, None if together is None else together.tolist())


def _numbers(values: list[str]) -> Ints:
    return np.unique(np.array(values, dtype=object), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _user_groups(samples: Samples, order: Order) -> Ints | None:
    """The caller's groups and captions of one sample; None where every row stands alone."""
    names = [
        (f"g:{samples.groups[row]}" if samples.groups and samples.groups[row] else f"s:{samples.ids[row]}")
        for row in order.rows
    ]
    return _numbers(names) if len(set(names)) < len(names) else None


def _score(
    samples: Samples,
    contents: Contents,
    features: Features,
    who: Mapping[str, Identity],
    order: Order,
    job: Job,
    clock: Clock,
) -> Scored:
    """Evidence, scores, flags and proposals for the complete rows, in canonical order."""
    numbers = {m: _numbers([contents.digests[m][row] for row in order.rows]) for m in samples.modalities}
    texts = {
        m: [samples.media[m][row] or "" for row in order.rows] for m in samples.modalities if MODALITIES[m].is_text
    }
    words = {m: np.array([len(text.split()) for text in values], dtype=np.int64) for m, values in texts.items()}
    space = {m: w.space for m, w in who.items()}
    with clock.stage("train"):
        gathered = gather(features.rows(order.rows), numbers, _user_groups(samples, order), space, words, job)
    with clock.stage("score"):
        job.progress("score", 0, 1)
        scores = compute_scores(gathered.evidence)
        planted = _planted(gathered, scores)
        wrong, probability, false_alarm = wrong_share(scores["misalignment"], planted.get("random", np.zeros(0)))
        rated = {**scores, "probability": probability, "false_alarm": false_alarm}
        raised = rules.raise_flags(rated, gathered.evidence, job.config.false_alarms)
        captions = next(iter(texts.values()), [""] * len(order.rows))
        suggestions = suggest(gathered, raised["misaligned"], captions, job)
        action, reason = rules.decide(raised, suggestions, *_exact_repeats(numbers), scores)
        job.progress("score", 1, 1)
    cut = _flag_cut(scores["misalignment"], raised["misaligned"])
    known = {kind: values[np.isfinite(values)] for kind, values in planted.items()}
    recall = {kind: float(np.mean(values >= cut)) for kind, values in known.items() if len(values)}
    words_out = {"action": action, "reason": reason, "suggestion": suggestions}
    return Scored(gathered, scores, probability, raised, words_out, recall, wrong)


def _planted(gathered: Gathered, scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Kind -> misalignment of the virtual plants: the worst of their pairs, on the scale of the real samples."""
    evidence, contrast = gathered.evidence, gathered.plant_contrast
    if evidence.trials is None:
        return {}
    real = np.fmax.reduce([scores[f"misalignment_{a}_{b}"] for a, b in evidence.pairs])
    planted = {}
    for kind, rows in gathered.plants.items():
        parts = [
            plant_scores(evidence, pair, rows, contrast[kind][p], contrast[f"zero_shot:{kind}"][p])
            for p, pair in enumerate(evidence.pairs)
        ]
        worst = np.fmax.reduce(parts)
        planted[kind] = worst if len(parts) == 1 else robust_z(worst, real)
    return planted


def _flag_cut(scores: Floats, flagged: Bools) -> float:
    """The score from which samples were flagged; infinite where none was."""
    return float(scores[flagged].min()) if flagged.any() else float("inf")


def _exact_repeats(numbers: Mapping[str, Ints]) -> tuple[Bools, Bools]:
    """(first of its exact repeats, has exact repeats), `[n]`, over all modalities together."""
    table = np.stack(list(numbers.values()), axis=1)
    if not len(table):
        return np.zeros(0, bool), np.zeros(0, bool)
    _, first, inverse, counts = np.unique(table, axis=0, return_index=True, return_inverse=True, return_counts=True)
    is_first = np.zeros(len(table), dtype=bool)
    is_first[first] = True
    return is_first, counts[inverse.reshape(-1)] > 1


def _save_evidence(gathered: Gathered, ids: list[str], run: RunFolder) -> None:
    """Each pair's separate evidence beside the ids: for benchmarks, and for people who weigh it their own way."""
    evidence = gathered.evidence
    if evidence.trials is None:
        return
    parts = {f"{name}_{a}_{b}": values for a, b in evidence.pairs for name, values in evidence.parts[a, b].items()}
    cosine = {f"cosine_{a}_{b}": evidence.trials.held_out["cosine"][p] for p, (a, b) in enumerate(evidence.pairs)}
    run.save("evidence", ids=np.array(ids), **parts, **cosine)


def plan_audit(samples: Samples, config: AuditConfig | None = None) -> dict[str, Any]:
    """What `run_audit` would cost: rows, contents to encode, minutes, disk, downloads. Encodes and trains nothing."""
    config = config or AuditConfig()
    _check(samples)
    device, name = pick_device(config.device), resolve(config.encoder)
    who = identify(name, samples.modalities)
    if not who:
        encodes = {m: len({v for v in samples.media[m] if v}) for m in samples.modalities}
        return _estimate(samples, config, device, name, encodes)
    contents = digest_contents(samples, silent)
    encodes = {
        m: len({d for d in contents.digests[m] if d} - FeatureCache(who[m].key).known()) for m in samples.modalities
    }
    return _estimate(samples, config, device, name, encodes) | {"downloads": []}


def _estimate(
    samples: Samples, config: AuditConfig, device: str, name: str, encodes: Mapping[str, int]
) -> dict[str, Any]:
    """By rough rates of two cores, or of one GPU, rounded up: an estimate to decide by, not a promise."""
    rates = {"image": 20.0, "text": 100.0} if device == "cpu" else {"image": 800.0, "text": 4000.0}
    training = 2e-5 if device == "cpu" else 4e-7
    seconds = sum(count / rates.get(m, 10.0) for m, count in encodes.items())
    seconds += 10 + training * len(samples) * config.trials * config.epochs
    disk = sum(count * 4 * 1280 for count in encodes.values()) + config.trials * 850_000
    return {
        "rows": len(samples),
        "encodes": dict(encodes),
        "minutes": round(seconds / 60 + 0.05, 1),
        "disk_mb": round(disk / 1e6, 1),
        "encoder": name,
        "device": device,
        "downloads": [f"weights of {name} from their model hub; its model card tells size and licence"],
    }
