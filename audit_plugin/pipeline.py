"""The audit as one story: read, encode, look at neighbours, train trials, score, flag. No FiftyOne here."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import flags as rules
from .arrays import AuditError, AuditResult, Bools, Features, Floats, Ints, Samples
from .checkpoints import Embedder, embed_with
from .clip import resolve
from .config import AuditConfig, digest_of
from .embedding import Contents, Embedded, Progress, digest_contents, embed, silent
from .encoders import identify, load_encoders, pick_device
from .encoding import Identity
from .evidence import Gathered, Learn, Rows, gather
from .kept import keep_rows
from .learners import (
    checkpoint_vectors,
    checkpoints_learner,
    head_projections,
    heads_learner,
    learner_identity,
    towers_learner,
)
from .modalities import MODALITIES
from .plants import plant_scores, wrong_share
from .reporting import Order, Scored, result_columns, summarize, versions
from .scores import compute_scores, robust_z, scale_of
from .store import RunFolder, cache_root
from .suggestions import suggest
from .trials import Job

FORMAT = 2  # raised when the same run folder would be filled differently


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


@dataclass(frozen=True)
class Prepared:
    """Samples with their features: everything before the first model is trained.

    Attributes:
        samples: modalities in the table's order.
        contents: digests and failures.
        embedded: features of all rows; `views`: the same under each augmentation.
        who: modality -> encoder; `encoder`: their resolved name.
        order: the complete rows in canonical order.
        device: where to compute.
    """

    samples: Samples
    contents: Contents
    embedded: Embedded
    views: tuple[Embedded, ...]
    who: Mapping[str, Identity]
    encoder: str
    order: Order
    device: str

    @property
    def features(self) -> Features:
        """Of the complete rows, in canonical order."""
        return self.embedded.features.rows(self.order.rows)


def run_audit(
    samples: Samples,
    config: AuditConfig | None = None,
    progress: Progress | None = None,
    run_dir: str | Path | None = None,
    models: tuple[Mapping[str, Embedder], Mapping[str, Embedder]] | None = None,
) -> AuditResult:
    """Audits samples and returns one value per row and column, in the order of the samples.

    Args:
        samples: two or more modalities; see `Samples`.
        config: settings; defaults if None.
        progress: called with (stage, done, total); may raise to cancel, and the next run resumes.
        run_dir: folder of the run; default: one per data and settings in the user's cache.
        models: for train = checkpoints, your own f and g as functions: modality -> (list of media -> `[b, d]`), where
            they are no open_clip checkpoints named in the config.

    Raises:
        AuditError: what the user can mend, in one sentence. Unusable media are no error: they are recorded per row.
    """
    config = config or AuditConfig()
    clock = Clock(progress or silent)
    _check_training(samples, config, models is not None)
    ready = prepare(samples, config, clock)
    own = None if models is None else [embed_with(ready.samples.media, f, progress=clock.progress) for f in models]
    identity = run_identity(ready, config) | ({} if own is None else {"models": _features_digest(own)})
    folder = Path(run_dir) if run_dir else cache_root() / "runs" / digest_of(identity)[:16]
    with RunFolder(folder, identity) as run:
        job = Job(config, ready.device, run, clock.progress)
        with clock.stage("train"):
            gathered = gather(ready.features, describe_rows(ready), learning(ready, job, own), job)
        result = finish(ready, gathered, job, clock)
        keep_rows(ready.samples, ready.contents.digests, ready.order, ready.features, gathered, job)
        return result


def prepare(samples: Samples, config: AuditConfig, clock: Clock) -> Prepared:
    """Reads and encodes the samples, or finds their features in the cache."""
    check_samples(samples)
    # in the table's order: image before text, however the caller named them
    samples = replace(samples, media={m: samples.media[m] for m in MODALITIES if m in samples.media})
    device, name = pick_device(config.device), resolve(config.encoder, samples.modalities)
    load = functools.cache(lambda: load_encoders(name, samples.modalities, device))
    who = identify(name, samples.modalities) or {m: e.identity for m, e in load().items()}
    keys = {m: w.key for m, w in who.items()}
    with clock.stage("read"):
        contents = digest_contents(samples, clock.progress)
    with clock.stage("encode"):
        embedded, *views = (
            embed(samples, contents, keys, load, clock.progress, view) for view in range(config.views + 1)
        )
    present = np.logical_and.reduce([e.features.present for e in (embedded, *views)])
    order = canonical_order(samples, contents, present)
    return Prepared(samples, contents, embedded, tuple(views), who, name, order, device)


def run_identity(ready: Prepared, config: AuditConfig) -> dict[str, Any]:
    """What finished parts of a run depend on: another identity is another run."""
    return {
        "settings": {**config.training(), "encoder": ready.encoder},
        "encoders": {m: w.key for m, w in ready.who.items()},
        "trained_from": learner_identity(config),
        "data": _data_digest(ready.samples, ready.contents, ready.order),
        "device": ready.device,
        "versions": versions(),
        "format": FORMAT,
    }


def _features_digest(models: Sequence[Embedded]) -> str:
    sha = hashlib.sha256()
    for model in models:
        for vectors in model.features.vectors.values():
            sha.update(np.ascontiguousarray(vectors).tobytes())
    return sha.hexdigest()


def describe_rows(ready: Prepared) -> Rows:
    """What the evidence needs to know of the complete rows, in canonical order."""
    samples, order = ready.samples, ready.order
    numbers = {m: _numbers([ready.contents.digests[m][row] for row in order.rows]) for m in samples.modalities}
    words = {
        m: np.array([len((samples.media[m][row] or "").split()) for row in order.rows], dtype=np.int64)
        for m in samples.modalities
        if MODALITIES[m].is_text
    }
    roles, labels = (np.array(v, dtype=object)[order.rows] if v else None for v in (samples.roles, samples.labels))
    space = {m: w.space for m, w in ready.who.items()}
    return Rows(numbers, space, words, _user_groups(samples, order), roles, labels)


def learning(ready: Prepared, job: Job, own: Sequence[Embedded] | None = None) -> Learn:
    """How the trials of this run come about, by `config.train`; `own` holds what the caller's f and g gave."""
    if job.config.train == "towers":
        return lambda plan, _repeats: towers_learner(ready.samples, ready.order.rows, plan, job)
    if job.config.train == "checkpoints":
        found = own or checkpoint_vectors(ready.samples, ready.contents, job.config, job)
        return lambda _plan, _repeats: checkpoints_learner(found, ready.order.rows, job)
    projections = head_projections(ready.features)
    views = [e.features.rows(ready.order.rows) for e in ready.views]
    return lambda plan, repeats: heads_learner(ready.features, views, projections, repeats, plan, job)


def finish(ready: Prepared, gathered: Gathered, job: Job, clock: Clock) -> AuditResult:
    """Scores, flags and proposals from the evidence, in the caller's order, with the summary of the whole."""
    with clock.stage("score"):
        scored = _score(ready, gathered, job)
    save_evidence(gathered, [ready.samples.ids[row] for row in ready.order.rows], job.run)
    columns = result_columns(scored, ready.order, ready.embedded, ready.samples)
    summary = summarize(columns, scored, ready.embedded, ready.samples, job.config, ready.who)
    summary |= {"encoder_name": ready.encoder, "device": ready.device, "seconds": clock.seconds}
    return AuditResult(ready.samples.ids, columns, summary, str(job.run.path))


def check_samples(samples: Samples) -> None:
    """Raises AuditError for what is no set of two or more modalities."""
    if len(samples) == 0:
        raise AuditError("there are 0 samples to audit; give at least one row")
    if len(samples.modalities) < 2:
        raise AuditError(f"only {', '.join(samples.modalities) or 'nothing'} is named; name two or more modalities")
    if unknown := [m for m in samples.modalities if m not in MODALITIES]:
        raise AuditError(f"modality {unknown[0]!r} is not known; use {', '.join(MODALITIES)}")


def _check_training(samples: Samples, config: AuditConfig, models: bool) -> None:
    """What cannot be trained or compared is said before hours of encoding, not after."""
    learner_identity(config)
    if config.train == "checkpoints":
        if not samples.roles:
            raise AuditError("train is checkpoints; name the field or column that says what f and g saw: role")
        if not models and not (config.checkpoint_f and config.checkpoint_g):
            raise AuditError("train is checkpoints; name both models: checkpoint_f and checkpoint_g")
    if config.train != "heads" and not models and set(samples.modalities) != {"image", "text"}:
        raise AuditError(
            f"train is {config.train}, which takes image and text, not {', '.join(samples.modalities)}; use train heads"
        )


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
    marks = [[values[row] for row in order.rows] for values in (samples.roles, samples.labels) if values]
    return digest_of(rows, None if together is None else together.tolist(), *marks)


def _numbers(values: list[str]) -> Ints:
    return np.unique(np.array(values, dtype=object), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _user_groups(samples: Samples, order: Order) -> Ints | None:
    """The caller's groups and captions of one sample; None where every row stands alone."""
    names = [
        (f"g:{samples.groups[row]}" if samples.groups and samples.groups[row] else f"s:{samples.ids[row]}")
        for row in order.rows
    ]
    return _numbers(names) if len(set(names)) < len(names) else None


def _score(ready: Prepared, gathered: Gathered, job: Job) -> Scored:
    """Scores, flags and proposals for the complete rows, in canonical order."""
    job.progress("score", 0, 1)
    evidence, order = gathered.evidence, ready.order
    scores = compute_scores(evidence)
    planted = _planted(gathered, scores)
    wrong, probability, false_alarm = wrong_share(scores["misalignment"], planted.get("random", np.zeros(0)))
    rated = {**scores, "probability": probability, "false_alarm": false_alarm}
    raised = rules.raise_flags(rated, evidence, job.config.false_alarms)
    texts = [m for m in ready.samples.modalities if MODALITIES[m].is_text]
    captions = [(ready.samples.media[texts[0]][row] or "") if texts else "" for row in order.rows]
    suggestions = suggest(gathered, raised["misaligned"], captions, job.config.seed)
    action, reason = rules.decide(raised, suggestions, *_exact_repeats(evidence.contents), scores)
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
    scale = scale_of(real, evidence)
    for kind, rows in gathered.plants.items():
        parts = [
            plant_scores(evidence, pair, rows, contrast[kind][p], contrast[f"zero_shot:{kind}"][p])
            for p, pair in enumerate(evidence.pairs)
        ]
        worst = np.fmax.reduce(parts)
        planted[kind] = worst if len(parts) == 1 else robust_z(worst, scale)
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


def save_evidence(gathered: Gathered, ids: list[str], run: RunFolder) -> None:
    """Each pair's separate evidence beside the ids: for benchmarks, and for people who weigh it their own way."""
    evidence = gathered.evidence
    if evidence.trials is None:
        return
    parts = {f"{name}_{a}_{b}": values for a, b in evidence.pairs for name, values in evidence.parts[a, b].items()}
    cosine = {f"cosine_{a}_{b}": evidence.trials.held_out["cosine"][p] for p, (a, b) in enumerate(evidence.pairs)}
    run.save("evidence", ids=np.array(ids), **parts, **cosine)
