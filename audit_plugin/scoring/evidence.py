"""The evidence on n samples, from which every score is made: built in one place, complete when it exists."""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Bools, Features, Floats, Ints, Neighbors, SampleFacts, Trials, dense_ids, modality_pairs
from audit_plugin.encoders.devices import release_memory
from audit_plugin.encoders.pixels import not_measured
from audit_plugin.neighbors.altered_copies import AlteredCopies
from audit_plugin.neighbors.exact import pair_similarities
from audit_plugin.neighbors.neighborhood import Neighborhood
from audit_plugin.trials.run import Job

from .box_checks import BoxProblems, check_boxes
from .contrast import Negatives, embedding_contrast, make_negatives
from .evidence_weights import UNTRAINED_WEIGHTS, weigh_evidence
from .held_out import Question, read_trials
from .image_checks import ImageProblems, check_images
from .leaks import Leaks, find_leaks
from .linear import ClassPredictions, CrossFit, are_classes, class_margin, cross_fit, linear_contrasts, predict_classes
from .neighbor_votes import vote_contrast, votes_of_pair
from .probe_pairs import draw_probe_pairs
from .scores import pair_evidence
from .text_checks import TextProblems, check_texts
from .text_surprise import bits_per_letter

HARD_NEGATIVES = 10  # neighbors per modality that a sample is always compared with, where not all samples are
MIN_FROZEN = 10  # samples from which the frozen encoders score those that are too few to train on
NEAR_MISS = "neighborhood"  # the kind of probe pairs that weights are chosen on

Pair = tuple[str, str]
ProbeEvidence = Mapping[str, Mapping[str, Floats]]  # kind of probe pairs -> kind of evidence -> `[p, q]`


@dataclass(frozen=True)
class Evidence:
    """Everything that scores are made from, for n complete samples of m modalities (p pairs) in canonical order.

    Attributes:
        vectors: modality -> unit features `[n, d_a]`.
        projections: modality -> their partly whitened principal components `[n, q_a]`, in which neighbors were found.
        neighbors: modality -> neighbors over distinct contents, `[n, k]`, cosines in the projections.
        search: modality -> how its neighbors were found: `{"method", "recall"}`.
        contents: modality -> content id `[n]`: equal ids are the same medium.
        near_duplicates: modality that is not text -> near-duplicate group `[n]`.
        copies: modality -> altered copies of one medium `[n]`, by their pixels; where it lacks a modality,
            `near_duplicates` stands in.
        altered_copies: cropped, mirrored, bordered and gray copies of other images.
        splits: `[n]`, the data split of a sample, "" for none; empty where none is named.
        leave_together: `[n]`: samples that share a side of every trial.
        user_groups: `[n]`: the sample, or group of the user's, that a row is a caption of.
        space: modality -> name of the space its encoder embeds into, "" for its own.
        words: modality that is text -> number of words `[n]`.
        text_surprise: modality that is text -> how unusual its spelling is `[n]`.
        text_problems: modality that is text -> what checks of the texts themselves found; nothing where they are class
            labels, which are no captions.
        image_problems: what checks of the images' pixels found.
        box_problems: what checks of the boxes of objects found.
        word_vectors: modality -> vectors in the space of words `[n, s]`, see `SampleFacts`.
        known: bool `[n]`, the samples that set the scale, see `SampleFacts`, or None: all.
        trials: None where there were too few samples to train.
        held_out: kind of evidence -> float32 `[p, n]`: what is said of pairs by trials that left them out (`cosine`,
            `contrast`, `generality`), by the frozen encoders (`zero_shot`), by the neighbors of either side
            (`neighbors_a`, `neighbors_b`) and by regressions on either side (`linear_a`, `linear_b`); NaN where it is
            not defined. Without trials only `zero_shot` and the votes, where encoders share a space.
        weights: pair of modalities -> weight of each kind of evidence; empty without evidence: `scores.WEIGHTS`.
        probe_pairs: kind -> samples (i, j) `[q, 2]`: mismatched pairs that are scored to calibrate.
        probe_evidence: kind of probe pairs -> kind of evidence -> its values `[p, q]`; empty without evidence.
        linear_fits: pair of modalities -> "linear_a" and "linear_b": the regressions.
        class_predictions: modality that is text -> what its linear classifier says, where its texts are classes; with
            several media, that of the first.
        device: where distances are computed, "cpu" or "cuda".
    """

    vectors: Mapping[str, Floats]
    projections: Mapping[str, Floats]
    neighbors: Mapping[str, Neighbors]
    search: Mapping[str, Mapping[str, Any]]
    contents: Mapping[str, Ints]
    near_duplicates: Mapping[str, Ints]
    copies: Mapping[str, Ints]
    altered_copies: AlteredCopies
    splits: Sequence[str]
    leave_together: Ints
    user_groups: Ints
    space: Mapping[str, str]
    words: Mapping[str, Ints]
    text_surprise: Mapping[str, Floats]
    text_problems: Mapping[str, TextProblems]
    image_problems: ImageProblems
    box_problems: BoxProblems
    word_vectors: Mapping[str, Floats]
    known: Bools | None
    trials: Trials | None
    held_out: Mapping[str, Floats] = field(default_factory=dict)
    weights: Mapping[Pair, Mapping[str, float]] = field(default_factory=dict)
    probe_pairs: Mapping[str, Ints] = field(default_factory=dict)
    probe_evidence: ProbeEvidence = field(default_factory=dict)
    linear_fits: Mapping[Pair, Mapping[str, CrossFit]] = field(default_factory=dict)
    class_predictions: Mapping[str, ClassPredictions] = field(default_factory=dict)
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.leave_together)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    @property
    def text_modalities(self) -> tuple[str, ...]:
        return tuple(self.words)

    @property
    def pairs(self) -> list[Pair]:
        return [(self.modalities[a], self.modalities[b]) for a, b in modality_pairs(self.modalities)]

    @property
    def known_rows(self) -> Ints:
        """The samples that set the scale, ascending."""
        return np.arange(len(self)) if self.known is None else np.flatnonzero(self.known)

    @functools.cached_property  # scores, probe pairs and the run folder all ask for it, and it is the costly part
    def parts(self) -> dict[Pair, dict[str, Floats]]:
        """`pair_evidence` of every pair."""
        return {pair: pair_evidence(self.held_out, position) for position, pair in enumerate(self.pairs)}

    def in_one_space(self, pair: Pair) -> tuple[Floats, Floats] | None:
        """Both sides of a pair in a space that their encoders share, `[n, s]` each, or None."""
        return vectors_in_one_space(pair, self.vectors, self.space, self.word_vectors)

    def cosines(self, name: str) -> Floats:
        """float32 `[n, k]`: cosines of a modality's neighbors in the plain features; too large to keep."""
        return pair_similarities(self.vectors[name], self.neighbors[name].indices)

    @property
    def required_trials(self) -> Trials:
        """The trials; RuntimeError without any."""
        if self.trials is None:
            raise RuntimeError("no trials: there were too few samples to train on")
        return self.trials

    @property
    def copy_groups(self) -> dict[str, Ints]:
        """Modality that is not text -> copies of one medium `[n]`: by pixels where these were looked at."""
        return {**self.near_duplicates, **self.copies}

    @functools.cached_property
    def leaks(self) -> Leaks:
        """What the splits share, exactly or altered."""
        return find_leaks(self.splits, self.copy_groups) if self.splits else Leaks.none(len(self))

    @functools.cached_property
    def exact_leaks(self) -> Leaks:
        """The same media in several splits, all of a sample's: one alone, such as a melody, may be shared by nature."""
        if not self.splits or not self.copy_groups:
            return Leaks.none(len(self))
        together = dense_ids(*(self.contents[name] for name in self.copy_groups))
        return find_leaks(self.splits, {"media": together})


def build_evidence(
    features: Features,
    facts: SampleFacts,
    neighborhood: Neighborhood,
    trials: Trials | None,
    job: Job,
    copies: Mapping[str, Ints] | None = None,
    altered: AlteredCopies | None = None,
) -> Evidence:
    """All evidence on n samples in canonical order; without `trials`, only what needs no training.

    `copies`: modality -> altered copies of one medium `[n]`, where pixels were compared; `altered`: those beyond them.
    """
    if trials is None:
        on_pairs = _read_untrained(features, facts, neighborhood, job)
    else:
        on_pairs = _read_pairs(features, facts, neighborhood, trials, job)
    return Evidence(
        vectors=features.vectors,
        projections=neighborhood.projections,
        neighbors=neighborhood.neighbors,
        search=neighborhood.search,
        contents=facts.contents,
        near_duplicates=neighborhood.near_duplicates,
        copies=copies or {},
        altered_copies=AlteredCopies.none(len(facts)) if altered is None else altered,
        splits=facts.splits,
        leave_together=neighborhood.leave_together,
        user_groups=np.arange(len(facts)) if facts.user_groups is None else facts.user_groups,
        space=facts.space,
        words=facts.words,
        text_surprise={name: bits_per_letter(texts) for name, texts in facts.texts.items()},
        text_problems={
            name: TextProblems.none(len(texts)) if are_classes(facts.contents[name]) else check_texts(texts)
            for name, texts in facts.texts.items()
        },
        image_problems=check_images(facts.pixels if facts.pixels is not None else not_measured(len(facts))),
        box_problems=_check_boxes(facts),
        word_vectors=facts.word_vectors,
        known=facts.known,
        trials=trials,
        device=job.device,
        **on_pairs,
    )


def _check_boxes(facts: SampleFacts) -> BoxProblems:
    """By the labels that the user named, else by the texts, where these are few."""
    if facts.boxes is None:
        return BoxProblems.none(len(facts))
    if facts.labels is not None:
        return check_boxes(facts.boxes, facts.labels.tolist(), True, len(facts))
    name, texts = next(iter(facts.texts.items()), ("", [""] * len(facts)))
    has_classes = bool(name) and (are_classes(facts.contents[name]) or not facts.contents[name].any())  # or one class
    return check_boxes(facts.boxes, texts, has_classes, len(facts))


def _read_pairs(
    features: Features, facts: SampleFacts, neighborhood: Neighborhood, trials: Trials, job: Job
) -> dict[str, Any]:
    """What `Evidence` holds on pairs: from `held_out` to `class_predictions`."""
    names = features.modalities
    pairs = modality_pairs(names)
    probe_pairs, negatives = _draw_comparisons(facts, neighborhood, trials.known, job)
    all_probes = np.concatenate(list(probe_pairs.values()))

    question = Question(trials.member, pairs, text_sides(names, facts.words), negatives, all_probes)
    held_out = dict(job.run.once("held_out", lambda: read_trials(trials.embed, question)))
    on_probes = {"contrast": held_out.pop("planted")}
    release_memory()  # of the trials' embeddings

    contrasts: list[dict[str, Contrasts]] = []
    fits: dict[Pair, dict[str, CrossFit]] = {}
    classes: dict[str, ClassPredictions] = {}
    for position, pair in enumerate(pairs):
        asked = _PairQuestion(pair, all_probes, negatives, features, facts, neighborhood)
        fits[asked.names] = _fit_both_sides(asked, job.config.seed)
        of_linear, predictions = _linear_contrasts(asked, fits[asked.names])
        classes = predictions | classes
        of_votes = _vote_contrasts(asked, held_out["contrast"][position])
        contrasts.append({"zero_shot": _frozen_contrasts(asked), **of_votes, **of_linear})
    for kind in contrasts[0]:
        held_out[kind] = np.stack([of_pair[kind][0] for of_pair in contrasts])
        on_probes[kind] = np.stack([of_pair[kind][1] for of_pair in contrasts])

    probe_evidence = _by_probe_kind(on_probes, probe_pairs)
    weights = {}
    for position, (a, b) in enumerate(pairs):
        own = pair_evidence(held_out, position)
        on_near_misses = {kind: values[position] for kind, values in probe_evidence[NEAR_MISS].items()}
        class_side = next((side for side, at in enumerate((a, b)) if names[at] in classes), None)
        weights[names[a], names[b]] = weigh_evidence(own, on_near_misses, facts.known, class_side)
    return {
        "held_out": held_out,
        "weights": weights,
        "probe_pairs": probe_pairs,
        "probe_evidence": probe_evidence,
        "linear_fits": fits,
        "class_predictions": classes,
    }


def _read_untrained(features: Features, facts: SampleFacts, neighborhood: Neighborhood, job: Job) -> dict[str, Any]:
    """What `Evidence` holds on pairs of samples that are too few to train on; {} without encoders that share a space.

    It is what frozen encoders that share a space say of a pair, and the votes of neighbors that those trust.
    """
    shared_pairs = _pairs_in_one_space(features, facts)
    if len(facts) < MIN_FROZEN or not shared_pairs:
        return {}
    known = np.ones(len(facts), dtype=bool) if facts.known is None else facts.known
    probe_pairs, negatives = _draw_comparisons(facts, neighborhood, known, job)
    all_probes = np.concatenate(list(probe_pairs.values()))
    undefined = np.full(len(facts), np.nan, np.float32), np.full(len(all_probes), np.nan, np.float32)
    contrasts = []
    for pair in modality_pairs(features.modalities):
        asked = _PairQuestion(pair, all_probes, negatives, features, facts, neighborhood)
        of_pair = dict.fromkeys(UNTRAINED_WEIGHTS, undefined)
        if asked.names in shared_pairs:
            frozen = _frozen_contrasts(asked)
            of_pair = {"zero_shot": frozen, **_vote_contrasts(asked, frozen[0])}
        contrasts.append(of_pair)
    on_probes = {kind: np.stack([of_pair[kind][1] for of_pair in contrasts]) for kind in UNTRAINED_WEIGHTS}
    return {
        "held_out": {kind: np.stack([of_pair[kind][0] for of_pair in contrasts]) for kind in UNTRAINED_WEIGHTS},
        "weights": dict.fromkeys(shared_pairs, UNTRAINED_WEIGHTS),
        "probe_pairs": probe_pairs,
        "probe_evidence": _by_probe_kind(on_probes, probe_pairs),
    }


def _pairs_in_one_space(features: Features, facts: SampleFacts) -> list[Pair]:
    """The pairs of modalities whose frozen encoders share a space."""
    names, vectors = features.modalities, features.vectors
    pairs = [(names[a], names[b]) for a, b in modality_pairs(names)]
    return [p for p in pairs if vectors_in_one_space(p, vectors, facts.space, facts.word_vectors) is not None]


def _draw_comparisons(
    facts: SampleFacts, neighborhood: Neighborhood, known: Bools, job: Job
) -> tuple[dict[str, Ints], Negatives]:
    """(probe pairs, see `draw_probe_pairs`; the samples that each sample is compared with)."""
    shared_ids = facts.shared_ids(neighborhood.leave_together)
    neighbor_indices = [neighbors.indices for neighbors in neighborhood.neighbors.values()]
    probe_pairs = draw_probe_pairs(neighbor_indices, neighborhood.leave_together, shared_ids[:, :-1], job.config.seed)
    hard = np.concatenate([indices[:, :HARD_NEGATIVES] for indices in neighbor_indices], axis=1)
    return probe_pairs, make_negatives(shared_ids, hard, known, job.config.seed, job.device)


def _by_probe_kind(on_probes: Mapping[str, Floats], probe_pairs: Mapping[str, Ints]) -> dict[str, dict[str, Floats]]:
    """`Evidence.probe_evidence` from kind of evidence -> its values on the probe pairs of all kinds, `[p, q]`."""
    ends = np.cumsum([len(rows) for rows in probe_pairs.values()])[:-1]
    probe_evidence: dict[str, dict[str, Floats]] = {kind: {} for kind in probe_pairs}
    for kind, values in on_probes.items():
        for probe_kind, part in zip(probe_pairs, np.split(values, ends, axis=-1), strict=True):
            probe_evidence[probe_kind][kind] = part
    return probe_evidence


def vectors_in_one_space(
    pair: Pair, vectors: Mapping[str, Floats], space: Mapping[str, str], word_vectors: Mapping[str, Floats]
) -> tuple[Floats, Floats] | None:
    """Both sides of a pair in the space that their encoders were trained to share, else in that of words, or None."""
    a, b = pair
    if space[a] and space[a] == space[b]:
        return vectors[a], vectors[b]
    return (word_vectors[a], word_vectors[b]) if a in word_vectors and b in word_vectors else None


def text_sides(modalities: tuple[str, ...], texts: Container[str]) -> dict[int, int]:
    """Position of the pair -> which of its sides is text, for the pairs of a medium and a text."""
    sides = {}
    for position, (a, b) in enumerate(modality_pairs(modalities)):
        text_a, text_b = modalities[a] in texts, modalities[b] in texts
        if text_a != text_b:
            sides[position] = int(text_b)
    return sides


@dataclass(frozen=True)
class _PairQuestion:
    """What is asked of one pair of modalities (positions a, b), besides the trials: its `probes` are rows (i, j)."""

    pair: tuple[int, int]
    probes: Ints
    negatives: Negatives
    features: Features
    facts: SampleFacts
    neighborhood: Neighborhood

    @property
    def names(self) -> Pair:
        """The modalities a and b."""
        a, b = (self.features.modalities[side] for side in self.pair)
        return a, b


Contrasts = tuple[Floats, Floats]  # of the samples `[n]`, of the probe pairs `[q]`


def _frozen_contrasts(asked: _PairQuestion) -> Contrasts:
    """Under the frozen encoders; NaN where they share no space."""
    facts = asked.facts
    sides = vectors_in_one_space(asked.names, asked.features.vectors, facts.space, facts.word_vectors)
    if sides is None:
        return np.full(len(facts), np.nan, np.float32), np.full(len(asked.probes), np.nan, np.float32)
    left, right = (torch.from_numpy(side).to(asked.negatives.pool.device) for side in sides)
    return embedding_contrast(left, right, asked.negatives, asked.probes, asked.pair)


def _vote_contrasts(asked: _PairQuestion, contrast: Floats) -> dict[str, Contrasts]:
    """Under the votes of the neighbors of either side, which are distrusted by their own `contrast` `[n]`."""
    facts, neighborhood, contrasts = asked.facts, asked.neighborhood, {}
    for kind, _, target, votes in votes_of_pair(
        asked.names, neighborhood.neighbors, facts.contents, neighborhood.projections, contrast, facts.known
    ):
        from_a = kind == "neighbors_a"
        oriented, columns = (asked.probes, asked.pair) if from_a else (asked.probes[:, ::-1], asked.pair[::-1])
        contrasts[kind] = vote_contrast(votes, neighborhood.projections[target], asked.negatives, oriented, columns)
        del votes  # before the next ones are collected
    return contrasts


def _class_target(asked: _PairQuestion, source: str, target: str) -> bool:
    """Whether the target modality is text that names classes of the source's media."""
    words = asked.facts.words
    return target in words and source not in words and are_classes(asked.facts.contents[target])


def _fit_both_sides(asked: _PairQuestion, seed: int) -> dict[str, CrossFit]:
    """Regressions of side b on side a (`linear_a`) and of a on b (`linear_b`)."""
    facts, neighborhood, fits = asked.facts, asked.neighborhood, {}
    for kind, (source, target) in (("linear_a", asked.names), ("linear_b", asked.names[::-1])):
        has_classes = _class_target(asked, source, target)
        targets = facts.contents[target] if has_classes else neighborhood.projections[target]
        fits[kind] = cross_fit(asked.features.vectors[source], targets, neighborhood.leave_together, facts.known, seed)
    return fits


def _linear_contrasts(
    asked: _PairQuestion, fits: Mapping[str, CrossFit]
) -> tuple[dict[str, Contrasts], dict[str, ClassPredictions]]:
    """(under the regressions on either side; modality whose texts are classes -> what its classifier says)."""
    contrasts, classes = {}, {}
    for kind, (source, target) in (("linear_a", asked.names), ("linear_b", asked.names[::-1])):
        fit, from_a = fits[kind], kind == "linear_a"
        if _class_target(asked, source, target):
            given = asked.facts.contents[target]
            classes[target] = predict_classes(fit, given, asked.facts.known)
            rows, others = asked.probes.T if from_a else asked.probes.T[::-1]
            contrasts[kind] = classes[target].margin, class_margin(fit.predict(rows), given[others])
        else:
            targets = asked.neighborhood.projections[target]
            contrasts[kind] = linear_contrasts(fit, targets, from_a, asked.negatives, asked.probes, asked.pair)
    return contrasts, classes
