"""Measures on the user's own samples whether removing the most suspicious ones helps, by which score, and how many.

Per score the N worst training samples are removed, the model is trained on, and held-out retrieval is measured. The
control removes nothing and gets the same extra training: as many steps of the same size, the same shuffles. N is chosen
on the validation rows alone; the test rows say what it is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, SampleFacts, Samples, dense_ids, mean_interval
from audit_plugin.config import AuditConfig, digest_of
from audit_plugin.encoders.embed import Progress, silent
from audit_plugin.neighbors.neighborhood import find_neighborhood
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import compute_scores
from audit_plugin.store import RunFolder, cache_root
from audit_plugin.trials import multimem
from audit_plugin.trials.continued_training import TrainingSchedule, train_heads
from audit_plugin.trials.engines import opened
from audit_plugin.trials.heads import Heads
from audit_plugin.trials.learners import head_inputs, head_projections, heads_learner
from audit_plugin.trials.mitigation import ranked
from audit_plugin.trials.run import Job

from .prepare import Clock, Prepared, describe_samples, encoders_of, prepare
from .result import versions
from .run import run_identity
from .score import gather_evidence, search_of

MIN_ROWS = 100
SPLIT = {"train": 0.70, "validation": 0.15, "test": 0.15}
TOP = 5
FINE_RATE = 2e-3  # below the training's rate: from the same rate again, seeds differ more than amounts do
GROUP = 8  # trainings batched together; more gains nothing on a CPU
REMOVED_SHARES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15)
RANDOM = "random"
SIDES = ("validation", "test")
METRICS = ("retrieval_at_5", "consistency", "zero_shot")

Once = Callable[[str, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
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
    """Scores 70 % of the samples, removes the worst N of them, trains on, and measures on the rest.

    Args:
        samples: two or more modalities; `labels` add zero-shot accuracy.
        config: settings of the audit, with train = heads and protocol = ensemble.
        amounts: how many rows of the training part to remove; default: 1, 2, 4, 8 and 15 % of it.
        seeds: trainings per amount and method, 2 or more.
        progress: called with (stage, done, total); may raise to cancel: finished seeds are kept.
        run_dir: folder of the run; default: one per data and settings in the user's cache.

    Returns:
        JSON-prepared: see `removal_curve`, besides sets, notes, versions and settings; `removed` holds each method's
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
    data = _trainable(prepared, facts, together, sets, job.device)
    amounts = default_amounts(len(train)) if amounts is None else amounts
    done = count()

    def once(name: str, make: Any) -> dict[str, np.ndarray]:
        job.progress("removal", next(done), seeds)
        return job.run.once(name, make)

    curve = removal_curve(data, scores, amounts, range(seeds), job.config.epochs, once)
    job.progress("removal", seeds, seeds)

    ids = np.array(prepared.samples.ids, dtype=object)[prepared.order.rows][train]
    notes = [*NOTES, *prepared.embedded.notes, *evidence_notes]
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
        "trained": evidence.trained.trained,
        "seeds": seeds,
        "config": job.config.to_dict(),
    }


def extra_epochs(epochs: int) -> int:
    """Epochs after the removal, for a training of so many before it."""
    return max(1, epochs // 2)


def split_rows(together: Ints, seed: int) -> dict[str, Ints]:
    """Name of the set ("train", "validation", "test": 70, 15, 15 %) -> ascending rows; groups `[n]` stay whole."""
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
    views = [view.features.rows(prepared.order.rows[train]) for view in prepared.views]
    part = SampleFacts(
        contents={name: dense_ids(content[train]) for name, content in facts.contents.items()},
        space=facts.space,
        words={name: count[train] for name, count in facts.words.items()},
        user_groups=None if facts.user_groups is None else dense_ids(facts.user_groups[train]),
    )
    projections = head_projections(features)
    evidence, notes = gather_evidence(
        features, part, lambda plan, shared_ids: heads_learner(features, views, projections, shared_ids, plan, job), job
    )
    if evidence.trials is None:
        raise AuditError(f"{'; '.join(notes)}: give more samples")
    return evidence, notes


def removal_scores(evidence: Evidence) -> dict[str, Floats]:
    """Method -> `[n]`, higher is removed first: MultiMem, CLIPMem, and what needs no multimem.

    `cosine` is that of the trained heads where they had not seen the sample; `zero_shot_cosine` is the frozen
    encoders', where they share a space.
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
    trials, values = evidence.trained, []
    for number, member in enumerate(trials.member):
        embeddings = [e.cpu().numpy() for e in trials.embed(number)]
        values.append(alignment_terms(embeddings, ~member, evidence.leave_together))
    centered = multimem.remove_offsets(np.stack(values), trials.member, trials.offset)
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


@dataclass(frozen=True)
class Trainable:
    """Rows to train on and to hold out.

    Attributes:
        inputs: per modality `[n, d]`, what heads are trained on.
        shared_ids: int32 `[n, c]`: equal in any column (same medium, text, group) is no rival; the last holds groups.
        rows: "train", "validation" and "test" -> rows, apart from each other.
        texts: positions of the modalities that are text.
        classes: int `[n]`, -1 for none, or None: zero-shot accuracy is then NaN.
    """

    inputs: Sequence[torch.Tensor]
    shared_ids: Ints
    rows: Mapping[str, Ints]
    texts: Sequence[int] = ()
    classes: Ints | None = None


def default_amounts(train: int) -> list[int]:
    """0, 1, 2, 4, 8 and 15 % of the training rows: the paper's gain turns into a loss between 5 and 8 %."""
    return sorted({round(share * train) for share in REMOVED_SHARES})


def removal_curve(
    data: Trainable,
    scores: Mapping[str, Floats],
    amounts: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    once: Once = lambda _name, make: make(),
) -> dict[str, Any]:
    """Trains on all training rows; then, per method and amount, on without the rows of the highest scores.

    Args:
        data: what to train and measure on.
        scores: method -> `[t]` over the training rows, higher is removed first, NaN never. "random" is added.
        amounts: how many rows to remove; 0, the control, is added.
        seeds: of start, order, and random removal.
        epochs: of the training before the removal; `extra_epochs` of it follow, for the control too.
        once: keeps one seed's finished part, see `RunFolder.once`.

    Returns:
        "amounts", and "methods" -> method -> "amounts" (N as str -> side -> metric -> values per seed, mean, 95 %
        interval over the seeds, and the same for the gain over the control, paired) and "recommended".

    Raises:
        AuditError: an amount that leaves too little to train on, or less than two seeds.
    """
    train = len(data.rows["train"])
    amounts = sorted({0, *amounts})
    for amount in amounts:
        if not 0 <= amount <= train // 2:
            raise AuditError(f"{amount} of {train} training rows cannot be removed; choose 0 to {train // 2}")
    if len(seeds) < 2:
        raise AuditError(f"{len(seeds)} seed gives no interval; use 2 or more")
    train_seed = partial(_one_seed, data, scores, amounts, epochs)
    parts = [once(f"seed_{seed:04d}", partial(train_seed, seed)) for seed in seeds]
    measured = np.stack([part["measured"] for part in parts])
    hits = np.mean([part["hits"] for part in parts], axis=0)
    methods = {}
    for number, name in enumerate((*scores, RANDOM)):
        first = 1 + number * (len(amounts) - 1)  # variant 0 is the control, which all methods share
        methods[name] = _method(measured, hits, [0, *range(first, first + len(amounts) - 1)], amounts)
    return {"amounts": amounts, "methods": methods}


def _one_seed(
    data: Trainable, scores: Mapping[str, Floats], amounts: Sequence[int], epochs: int, seed: int
) -> dict[str, np.ndarray]:
    """measured `[1 + methods * (amounts - 1), sides, metrics]`, and hits `[.., test rows]`: share of hits per row."""
    train = data.rows["train"]
    drawn = np.random.default_rng((seed, 19)).random(len(train))
    orders = [ranked(values) for values in (*scores.values(), drawn)]
    remaining = [train] + [np.delete(train, order[:amount]) for order in orders for amount in amounts[1:]]
    base = train_heads(data.inputs, [train], [seed], data.shared_ids, TrainingSchedule(epochs))
    schedule = TrainingSchedule(extra_epochs(epochs), len(train), FINE_RATE)
    measured, hits = [], []
    for first in range(0, len(remaining), GROUP):
        rows = remaining[first : first + GROUP]
        start = Heads(tuple(tuple(w.repeat(len(rows), 1, 1) for w in layers) for layers in base.layers))
        heads = train_heads(data.inputs, rows, [seed] * len(rows), data.shared_ids, schedule, start)
        for at in range(len(rows)):
            embeddings = heads.embed(data.inputs, at)
            measured.append([measure(embeddings, data, data.rows[side]) for side in SIDES])
            hits.append(_hits(embeddings, data, data.rows["test"]))
    return {"measured": np.array(measured), "hits": np.array(hits, dtype=np.float32)}


def measure(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> list[float]:
    """The `METRICS` of unit embeddings `[n, o]` per modality, on the rows."""
    own = [e[torch.from_numpy(rows).to(e.device)].cpu().numpy() for e in embeddings]
    values = multimem.consistency(own, np.ones(len(rows), dtype=bool), data.shared_ids[rows, -1])
    known = np.isfinite(values)
    return [
        float(_hits(embeddings, data, rows).mean()),
        float(values[known].mean()) if known.any() else float("nan"),
        _zero_shot(embeddings, data, rows),
    ]


def _hits(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> Floats:
    """`[q]`: in how many directions (a to b and back, over the pairs) a row's own partner is among the first 5.

    Rows that share a medium, text or group are no rivals; a tie counts against, lest a collapsed model win.
    """
    chosen = torch.from_numpy(rows).to(embeddings[0].device)
    ids = torch.from_numpy(data.shared_ids[rows]).to(chosen.device)
    repeated = (ids[:, None, :] == ids[None, :, :]).any(-1)  # [q, q], with each row itself
    hits = []
    for a, b in combinations(range(len(embeddings)), 2):
        similarities = embeddings[a][chosen] @ embeddings[b][chosen].T
        own = similarities.diagonal().clone()
        rivals = similarities.masked_fill(repeated, -torch.inf)
        hits.append((rivals >= own[:, None]).sum(1) < TOP)
        hits.append((rivals >= own[None, :]).sum(0) < TOP)
    return torch.stack(hits).float().mean(0).cpu().numpy()


def _zero_shot(embeddings: Sequence[torch.Tensor], data: Trainable, rows: Ints) -> float:
    """Share of the rows whose medium is nearest to the mean text of its class in training; NaN without classes.

    The class vectors are made from all training rows, whatever was removed: they are to judge the model alone.
    """
    if data.classes is None or not data.texts:
        return float("nan")
    labeled = data.rows["train"][data.classes[data.rows["train"]] >= 0]
    names = np.unique(data.classes[labeled])
    judged = rows[np.isin(data.classes[rows], names)]
    if len(names) < 2 or not len(judged):
        return float("nan")
    text = embeddings[data.texts[0]]
    device = text.device
    # unit class vectors [c, o]: the sum of a class's texts, as its mean has the same direction
    belongs = torch.from_numpy(data.classes[labeled] == names[:, None]).to(device)
    vectors = normalize(belongs.float() @ text[torch.from_numpy(labeled).to(device)], dim=-1)
    truth = torch.from_numpy(np.searchsorted(names, data.classes[judged])).to(device)
    chosen = torch.from_numpy(judged).to(device)
    media = [e for a, e in enumerate(embeddings) if a not in data.texts]
    accuracies = [((e[chosen] @ vectors.T).argmax(1) == truth).float().mean() for e in media]
    return float(torch.stack(accuracies).mean()) if accuracies else float("nan")


def _method(measured: Floats, hits: Floats, variants: Sequence[int], amounts: Sequence[int]) -> dict[str, Any]:
    """One method's curve and recommendation, from its `variants`, one per amount, the first of which is the control.

    `measured` `[seeds, variants, sides, metrics]` and `hits` `[variants, test rows]` (seeds' mean) hold all methods.
    """
    known: Bools = np.asarray(np.isfinite(measured).any((0, 1)))  # [sides, metrics]
    curve: dict[str, Any] = {}
    for amount, variant in zip(amounts, variants, strict=True):
        values, gains = measured[:, variant], measured[:, variant] - measured[:, 0]
        curve[str(amount)] = {
            side: {
                metric: interval(values[:, s, m]) | {"gain": interval(gains[:, s, m])}
                for m, metric in enumerate(METRICS)
                if known[s, m]
            }
            for s, side in enumerate(SIDES)
        }
    validation, test = measured[:, variants, 0, 0], measured[:, variants, 1, 0]
    chosen = recommend(validation)
    test_gain = interval(test[:, chosen] - test[:, 0])
    row_gain = interval(hits[variants[chosen]] - hits[0])
    row_gain.pop("values")
    recommended = {
        "amount": int(amounts[chosen]),
        "beats_control": chosen > 0,
        "validation_gain": interval(validation[:, chosen] - validation[:, 0]),
        "test_gain": test_gain,
        "test_gain_over_rows": row_gain,
        # seeds vary by chance in training, rows by which are tested: either interval alone is too narrow
        "confirmed": min(test_gain["low"], row_gain["low"]) > 0,
    }
    return {"amounts": curve, "recommended": recommended}


def recommend(validation: Floats) -> int:
    """Position of the amount to take, by the one-standard-error rule; 0, the control, where none is better.

    Of `validation` `[seeds, amounts]` (the first amount being 0) the smallest amount whose gain over the control,
    paired by seed, lies within one standard error of the best's.
    """
    gain = validation - validation[:, :1]
    mean = gain.mean(0)
    best = int(mean.argmax())
    error = gain[:, best].std(ddof=1) / np.sqrt(len(gain))
    within_error: Bools = mean >= mean[best] - error
    return int(within_error.argmax()) if mean[best] > 0 else 0


def interval(values: Floats) -> dict[str, Any]:
    """JSON-ready mean of `[q]` with its 95 % t-interval, and the values."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": np.asarray(values, dtype=np.float64).tolist()}
