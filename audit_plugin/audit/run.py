"""The audit as one story: read, encode, look at neighbors, train trials, score, flag. No FiftyOne here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import AuditConfig, digest_of
from audit_plugin.encoders.devices import matmul_precision, pick_device
from audit_plugin.encoders.embed import Contents, Embedded, Progress, digest_contents, embed, silent
from audit_plugin.encoders.own_models import Embedder, embed_with
from audit_plugin.encoders.precision import choose_precision
from audit_plugin.encoders.prompts import prompted_identities, split_templates, with_first_prompt
from audit_plugin.encoders.registry import identify, resolve_name
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.evidence import Gathered, Learn, gather
from audit_plugin.scoring.flags import duplicate_groups
from audit_plugin.scoring.leaks import find_leaks
from audit_plugin.scoring.suggest.captions import Captioner
from audit_plugin.store import RunFolder, cache_root
from audit_plugin.trials.engines import LOCAL, Engine, Recipe, opened
from audit_plugin.trials.learners import (
    checkpoint_vectors,
    checkpoints_learner,
    head_projections,
    heads_learner,
    learner_identity,
    towers_learner,
)
from audit_plugin.trials.run import Job

from .explain import explain
from .incomplete import add_incomplete
from .kept import keep_rows
from .result import Order, result_columns, summarize, versions
from .score import Clock, Prepared, canonical_order, describe_rows, save_evidence, score, user_groups

FORMAT = 5  # raised when the same run folder would be filled differently


def run_audit(
    samples: Samples,
    config: AuditConfig | None = None,
    progress: Progress | None = None,
    run_dir: str | Path | None = None,
    models: tuple[Mapping[str, Embedder], Mapping[str, Embedder]] | None = None,
    captioner: Captioner | None = None,
) -> AuditResult:
    """Audits samples and returns one value per row and column, in the order of the samples.

    Args:
        samples: two or more modalities; see `Samples`.
        config: settings; defaults if None.
        progress: called with (stage, done, total); may raise to cancel, and the next run resumes.
        run_dir: folder of the run; default: one per data and settings in the user's cache.
        models: for train = checkpoints, your own f and g as functions: modality -> (list of media -> `[b, d]`), where
            they are no open_clip checkpoints named in the config.
        captioner: any function (list of media paths) -> as many texts, asked for misaligned samples for which the set
            has no better caption.

    Raises:
        AuditError: what the user can mend, in one sentence. Unusable media are no error: they are recorded per row.
    """
    config = config or AuditConfig()
    clock = Clock(progress or silent)
    _check_training(samples, config, models is not None)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(opened(config))
        ready = prepare(samples, config, clock, encoders_of(run_dir), engine)
        media = with_first_prompt(ready.samples, split_templates(config.template)).media
        own = None if models is None else [embed_with(media, f, progress=clock.progress) for f in models]
        identity = run_identity(ready, config) | ({} if own is None else {"models": _features_digest(own)})
        folder = Path(run_dir) if run_dir else cache_root() / "runs" / digest_of(identity)[:16]
        run = stack.enter_context(RunFolder(folder, identity))
        job = Job(config, ready.device, run, clock.progress, engine)
        with clock.stage("train"):
            gathered = gather(ready.features, describe_rows(ready), learning(ready, job, own), job)
        result = finish(ready, gathered, job, clock, captioner)
        keep_rows(ready.samples, ready.contents.digests, ready.order, ready.features, gathered, job)
        return result


def encoders_of(run_dir: str | Path | None) -> dict[str, str]:
    """Modality -> encoder key of the run in a folder; empty where there is none."""
    try:
        return dict(json.loads((Path(run_dir) / "run.json").read_text())["encoders"]) if run_dir else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # what is wrong with the folder is said when it is opened


def prepare(
    samples: Samples,
    config: AuditConfig,
    clock: Clock,
    encoders: Mapping[str, str] | None = None,
    engine: Engine = LOCAL,
) -> Prepared:
    """Reads and encodes the samples, or finds their features in the cache.

    Args:
        samples: rows.
        config: settings.
        clock: told of the time.
        encoders: keys of a run that is continued: precision `auto` is what it settled on.
        engine: where contents are encoded.
    """
    check_samples(samples)
    # in the table's order: image before text, however the caller named them
    samples = replace(samples, media={m: samples.media[m] for m in MODALITIES if m in samples.media})
    device, name = pick_device(config.device), resolve_name(config.encoder, samples.modalities)
    templates = split_templates(config.template)
    recipe = Recipe(name, templates)
    load = functools.cache(lambda: recipe.load(samples.modalities, device))
    identities = prompted_identities(identify(name, samples.modalities), templates)
    if not identities:
        identities = {modality: encoder.identity for modality, encoder in load().items()}
    with clock.stage("read"):
        contents = digest_contents(samples, clock.progress)
    with clock.stage("encode"):
        chosen = choose_precision(samples, contents, identities, load, config.precision, device, encoders)
        keys = {m: w.key for m, w in chosen.identities.items()}
        encode = engine.encoding(recipe, chosen.identities)
        embedded, *views = (
            embed(samples, contents, keys, chosen.load, clock.progress, view, encode)
            for view in range(config.views + 1)
        )
    embedded = replace(embedded, notes=(*chosen.notes, *embedded.notes))
    if templates:  # the pieces of a label are its prompts: nothing was too long
        embedded = replace(embedded, split_texts=0)
    present = np.logical_and.reduce([e.features.present for e in (embedded, *views)])
    order = canonical_order(samples, contents, present)
    return Prepared(samples, contents, embedded, tuple(views), chosen.identities, name, order, device)


def run_identity(ready: Prepared, config: AuditConfig) -> dict[str, Any]:
    """What finished parts of a run depend on: another identity is another run."""
    return {
        "settings": {**config.training(), "encoder": ready.encoder},
        "encoders": {m: w.key for m, w in ready.encoder_identities.items()},
        "trained_from": learner_identity(config),
        "data": _data_digest(ready.samples, ready.contents, ready.order),
        "device": ready.device,
        "products": matmul_precision(config.precision, ready.device),
        "versions": versions(),
        "format": FORMAT,
    }


def _features_digest(models: Sequence[Embedded]) -> str:
    sha = hashlib.sha256()
    for model in models:
        for vectors in model.features.vectors.values():
            sha.update(np.ascontiguousarray(vectors).tobytes())
    return sha.hexdigest()


def learning(ready: Prepared, job: Job, own: Sequence[Embedded] | None = None) -> Learn:
    """How the trials of this run come about, by `config.train`; `own` holds what the caller's f and g gave."""
    if job.config.train == "towers":
        samples = with_first_prompt(ready.samples, split_templates(job.config.template))
        return lambda plan, _repeats: towers_learner(samples, ready.order.rows, plan, job)
    if job.config.train == "checkpoints":
        found = own or checkpoint_vectors(ready.samples, ready.contents, job.config, job)
        return lambda _plan, _repeats: checkpoints_learner(found, ready.order.rows, job)
    projections = head_projections(ready.features)
    views = [e.features.rows(ready.order.rows) for e in ready.views]
    return lambda plan, repeats: heads_learner(ready.features, views, projections, repeats, plan, job)


def finish(
    ready: Prepared, gathered: Gathered, job: Job, clock: Clock, captioner: Captioner | None = None
) -> AuditResult:
    """Scores, flags and proposals from the evidence, in the caller's order, with the summary of the whole."""
    with clock.stage("score"):
        scored = score(ready, gathered, job, captioner)
    save_evidence(gathered, [ready.samples.ids[row] for row in ready.order.rows], job.run)
    columns = result_columns(scored, ready.order, ready.embedded, ready.samples)
    with clock.stage("score"):
        notes = add_incomplete(columns, ready, gathered, job)
    if ready.samples.splits:
        splits = [ready.samples.splits[row] for row in ready.order.rows]
        notes += filter(None, [find_leaks(splits, duplicate_groups(scored.gathered.evidence)).sentence()])
    with clock.stage("explain"):
        notes += explain(ready, scored.gathered, scored, job)["notes"]
    summary = summarize(columns, scored, ready.embedded, ready.samples, job.config, ready.encoder_identities)
    summary["notes"] = [*summary["notes"], *ready.embedded.notes, *notes]
    summary |= {"encoder_name": ready.encoder, "device": ready.device, "seconds": clock.seconds}
    summary["products"] = matmul_precision(job.config.precision, ready.device)
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


def _data_digest(samples: Samples, contents: Contents, order: Order) -> str:
    """sha256 of what the rows hold and which belong together: independent of row order and of where files lie."""
    together = user_groups(samples, order)
    rows = [[contents.digests[m][row] for m in samples.modalities] for row in order.rows]
    marks = [[values[row] for row in order.rows] for values in (samples.roles, samples.labels) if values]
    return digest_of(rows, None if together is None else together.tolist(), *marks)
