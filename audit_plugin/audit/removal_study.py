"""Measures on the user's own samples whether removing the most suspicious ones helps, by which score, and how many.

The training part is scored alone, by the trials of an audit; each score then has its curve (`removal_curve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, SampleFacts, Samples, dense_ids
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import Progress, silent
from audit_plugin.neighbors.neighborhood import find_neighborhood
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import compute_scores
from audit_plugin.store import RunFolder, cache_root, digest_of
from audit_plugin.trials import multimem
from audit_plugin.trials.engines import opened
from audit_plugin.trials.learners import head_inputs, head_projections, heads_learner
from audit_plugin.trials.mitigation import ranked
from audit_plugin.trials.run import Job, Learner, TrialPlan

from .prepare import Clock, Prepared, describe_samples, encoders_of, prepare
from .removal_curve import RANDOM, Trainable, default_amounts, removal_curve
from .result import versions
from .run import run_identity
from .score import gather_evidence, search_of

MIN_ROWS = 100
SPLIT = {"train": 0.70, "validation": 0.15, "test": 0.15}
NOTES = (
    "Removal alone is not a cure: among the most memorized samples are rare but valid ones. Look before you delete.",
    "Score again after a removal: when the most memorized samples are gone, others become the most memorized (the "
    "onion effect).",
    "The control removes nothing and gets the same extra training: the same number of steps of the same size.",
    "N was chosen on the validation rows by the one-standard-error rule; the gain given for it is that of the test "
    "rows. Intervals over seeds are of training on one split; `test_gain_over_rows` is over the test rows.",
    "The wrong pairs of the validation and test rows are still among them: they cap what can be reached, for every "
    "method alike.",
)


def removal_study(
    samples: Samples,
    config: AuditConfig,
    amounts: Sequence[int] | None = None,
    seeds: int = 5,
    progress: Progress = silent,
    run_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Scores 70% of the samples, removes the worst N of them, trains on, and measures on the rest.

    Args:
        samples: two or more modalities; `labels` add zero-shot accuracy.
        config: settings of the audit, with train = heads and protocol = ensemble.
        amounts: how many rows of the training part to remove; default: 1, 2, 4, 8 and 15% of it.
        seeds: trainings per amount and method, 2 or more.
        progress: called with (stage, done, total); may raise to cancel: finished seeds are kept.
        run_dir: folder of the run; default: one per data and settings in the user's cache.

    Returns:
        JSON-ready: see `removal_curve`, besides sets, notes, versions and settings; `removed` holds each method's
        recommended ids, worst first.

    Raises:
        AuditError: what the user can fix, in one sentence.
    """
    if (config.train, config.protocol) != ("heads", "ensemble"):
        raise AuditError(
            f"train is {config.train} and protocol {config.protocol}; a removal curve needs a score of every sample "
            "and many trainings: use train heads and protocol ensemble"
        )
    with opened(config) as engine:
        prepared = prepare(samples, config, Clock(progress), encoders_of(run_dir), engine)
        if len(prepared.order.rows) < MIN_ROWS:
            usable = len(prepared.order.rows)
            raise AuditError(f"{usable} usable samples are too few for a removal curve; give {MIN_ROWS}")
        amounts = None if amounts is None else sorted(set(amounts))
        identity = run_identity(prepared, config) | {"removal": {"amounts": amounts}}
        folder = Path(run_dir) if run_dir else cache_root() / "removal" / digest_of(identity)[:16]
        with RunFolder(folder, identity) as run:
            return _study(prepared, Job(config, prepared.device, run, progress, engine), amounts, seeds)


def _study(prepared: Prepared, job: Job, amounts: Sequence[int] | None, seeds: int) -> dict[str, Any]:
    facts = describe_samples(prepared)
    # near-duplicates must not be in both training and test
    together = find_neighborhood(prepared.features, facts, search_of(job), job.run, job.progress).leave_together
    sets = split_rows(together, job.config.seed)
    train = sets["train"]
    with RunFolder(job.run.path / "train", {"rows": digest_of(train.tolist())}) as run:
        evidence, evidence_notes = _score_training_rows(prepared, facts, train, replace(job, run=run))
        scores = removal_scores(evidence)
        part_notes = run.notes
    data = _trainable(prepared, facts, together, sets, job.device)
    amounts = default_amounts(len(train)) if amounts is None else amounts
    done = count()

    def once(name: str, make: Any) -> dict[str, np.ndarray]:
        job.progress("removal", next(done), seeds)
        return job.run.once(name, make)

    curve = removal_curve(data, scores, amounts, range(seeds), job.config.epochs, once)
    job.progress("removal", seeds, seeds)

    ids = np.array(prepared.samples.ids, dtype=object)[prepared.order.rows][train]
    notes = [*NOTES, *prepared.embedded.notes, *evidence_notes, *job.run.notes, *part_notes]
    removed = {}
    for name, method in curve["methods"].items():
        best = method["recommended"]
        best["share"] = round(best["amount"] / len(ids), 4)
        if name == RANDOM:
            continue
        removed[name] = ids[ranked(scores[name])[: best["amount"]]].tolist()
        if not best["beats_control"]:
            notes.append(f"{name}: on the validation rows no removal beat the control clearly; remove none")
        elif not best["confirmed"]:
            notes.append(f"{name}: the gain of removing {best['amount']} is within chance on the test rows")
    left_out = len(prepared.samples) - len(prepared.order.rows)
    return {
        "sets": {name: len(rows) for name, rows in sets.items()} | {"left_out": left_out},
        **curve,
        "removed": removed,
        "notes": notes,
        "encoder": {m: encoder.key for m, encoder in prepared.encoder_identities.items()},
        "versions": versions(),
        "trained": evidence.required_trials.trained,
        "seeds": seeds,
        "config": job.config.to_dict(),
    }


def split_rows(together: Ints, seed: int) -> dict[str, Ints]:
    """Name of the set ("train", "validation", "test": 70, 15, 15%) -> ascending rows; groups `[n]` stay whole."""
    group = dense_ids(together, by_first_row=True)  # canonical, whatever the groups are called
    sizes = np.bincount(group)
    drawn = np.random.default_rng((seed, 23)).permutation(len(sizes))
    # a group's part: the one in whose range of rows, in the order drawn, its middle lies
    middle = np.cumsum(sizes[drawn]) - sizes[drawn] / 2
    ends = np.cumsum(list(SPLIT.values()))[:-1] * len(together)
    part = np.empty(len(sizes), dtype=np.int64)
    part[drawn] = np.searchsorted(ends, middle, side="right")
    return {name: np.flatnonzero(part[group] == i) for i, name in enumerate(SPLIT)}


def _score_training_rows(prepared: Prepared, facts: SampleFacts, train: Ints, job: Job) -> tuple[Evidence, list[str]]:
    """The audit's evidence on the training rows alone, and notes: what is removed never saw a held-out row."""
    features = prepared.features.rows(train)
    augmented = [view.features.rows(prepared.order.rows[train]) for view in prepared.augmented]
    part = SampleFacts(
        contents={name: dense_ids(content[train]) for name, content in facts.contents.items()},
        space=facts.space,
        words={name: count[train] for name, count in facts.words.items()},
        user_groups=None if facts.user_groups is None else dense_ids(facts.user_groups[train]),
        word_vectors={name: vectors[train] for name, vectors in facts.word_vectors.items()},
    )
    projections = head_projections(features)

    def learn(plan: TrialPlan, shared_ids: Ints) -> Learner:
        return heads_learner(features, augmented, projections, shared_ids, plan, job)

    evidence, notes = gather_evidence(features, part, learn, job)
    if evidence.trials is None:
        raise AuditError(f"{'; '.join(notes)}: give more samples")
    return evidence, notes


def removal_scores(evidence: Evidence) -> dict[str, Floats]:
    """Method -> `[n]`, higher is removed first: MultiMem, CLIPMem, and what needs no multimem.

    `cosine` is that of the trained heads where they had not seen the sample; `zero_shot_cosine` is the frozen
    encoders', where they share a space or that of words.
    """
    scores = compute_scores(evidence)
    out = {
        "multimem": scores["multimem"],
        "clipmem": clip_memorization(evidence),
        "cosine": -evidence.held_out["cosine"].mean(0),
        "alignment": -scores["alignment"],
        "misalignment": scores["misalignment"],
    }
    if "clip_score" in scores and np.isfinite(scores["clip_score"]).any():
        out["zero_shot_cosine"] = -scores["clip_score"]
    return out


def clip_memorization(evidence: Evidence) -> Floats:
    """CLIPMem (Wang et al., ICLR 2025) from the trials of an audit: float32 `[n]`.

    `L(x) = s_xx - mean_H s(x, .) - mean_H s(., x)` for a pair of modalities, H the trial's non-members outside x's
    group; the trial's offset removed; mean over trials with x less mean over trials without; mean over the pairs.
    MultiMem of two modalities halves the two means and adds those within each modality.
    """
    trials, values = evidence.required_trials, []
    for number, member in enumerate(trials.member):
        embeddings = [e.cpu().numpy() for e in trials.embed(number)]
        values.append(alignment_terms(embeddings, ~member, evidence.leave_together))
    centered = multimem.remove_offsets(np.stack(values), trials.member, trials.offset_rows)
    return multimem.estimate_multimem(centered, trials.member, trials.folds)[0].astype(np.float32)


def alignment_terms(embeddings: Sequence[Floats], reference: Bools, groups: Ints) -> Floats:
    """`L(x)` of one trial, mean over pairs of modalities: float64 `[n]`; see `clip_memorization`."""
    terms = multimem.consistency_terms(embeddings, reference, groups)
    of_pairs = []
    for a, b in combinations(range(len(embeddings)), 2):
        own = np.einsum("nd,nd->n", embeddings[a], embeddings[b], dtype=np.float64)
        of_pairs.append(terms[a, b] + terms[b, a] - own)
    return np.mean(of_pairs, axis=0)


def _trainable(
    prepared: Prepared, facts: SampleFacts, together: Ints, sets: Mapping[str, Ints], device: str
) -> Trainable:
    """What the curve trains on; the projection of the features is fitted to the training facts."""
    features = prepared.features
    projections = head_projections(features.rows(sets["train"]))
    repeats = np.stack([*facts.contents.values(), together], axis=1).astype(np.int32)
    texts = [at for at, name in enumerate(features.modalities) if name in facts.words]
    classes = None
    if facts.labels is not None:
        classes = dense_ids(facts.labels) - int("" in facts.labels)  # "", which sorts first, is -1
    return Trainable(head_inputs(features, projections, device), repeats, sets, texts, classes)
