"""From evidence to a result: scores, flags, proposals, in the caller's order. What an audit ends with."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from audit_plugin.arrays import Bools, Features, Floats, Ints, Neighbors, Samples
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.devices import release_memory
from audit_plugin.encoders.embed import Contents, Embedded, Progress
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.images import read_image
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.neighbors.image_copies import copy_groups
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.calibration import calibrate
from audit_plugin.scoring.evidence import Gathered, Rows
from audit_plugin.scoring.probe_pairs import probe_scores
from audit_plugin.scoring.scores import Evidence, compute_scores, robust_z, scale_of
from audit_plugin.scoring.suggest.captions import Captioner, ask_captioner, propose, suggest
from audit_plugin.scoring.text_surprise import bits_per_letter
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job

from .result import Order, Scored

if TYPE_CHECKING:
    from PIL.Image import Image

# Kinds of plants that wrong pairs are taken to be like.
FITTED = ("random", "neighborhood")


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
        release_memory()


@dataclass(frozen=True)
class Prepared:
    """Samples with their features: everything before the first model is trained.

    Attributes:
        samples: modalities in the table's order.
        contents: digests and failures.
        embedded: features of all rows; `views`: the same under each augmentation.
        encoder_identities: of each modality; `encoder`: their resolved name.
        order: the complete rows in canonical order.
        device: where to compute.
    """

    samples: Samples
    contents: Contents
    embedded: Embedded
    views: tuple[Embedded, ...]
    encoder_identities: Mapping[str, EncoderIdentity]
    encoder: str
    order: Order
    device: str

    @functools.cached_property  # what is large is gathered once
    def features(self) -> Features:
        """Of the complete rows, in canonical order."""
        return self.embedded.features.rows(self.order.rows)


def canonical_order(samples: Samples, contents: Contents, present: Bools) -> Order:
    """Rows whose media are all there, sorted by content, then id, then caption number."""
    return Order(canonical_rows(samples, contents, np.flatnonzero(present.all(axis=1))), len(samples))


def canonical_rows(samples: Samples, contents: Contents, rows: Ints) -> Ints:
    """Those of the rows that could be read at all, sorted by content, then id, then caption number."""
    caption = samples.caption or (0,) * len(samples)
    keys = [
        ("".join(contents.digests[m][row] for m in samples.modalities), samples.ids[row], caption[row], row)
        for row in rows
        if row not in samples.problems
    ]
    return np.array([key[-1] for key in sorted(keys)], dtype=np.int64)


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
    space = {m: w.space for m, w in ready.encoder_identities.items()}
    spelling = {m: bits_per_letter([samples.media[m][row] or "" for row in order.rows]) for m in words}
    return Rows(numbers, space, words, user_groups(samples, order), roles, labels, spelling=spelling)


def score(ready: Prepared, gathered: Gathered, job: Job, captioner: Captioner | None = None) -> Scored:
    """Scores, flags and proposals for the complete rows, in canonical order; see `run_audit` for the captioner."""
    job.progress("score", 0, 1)
    evidence, order = _told_apart(ready, gathered.evidence), ready.order
    gathered = replace(gathered, evidence=evidence)
    scores = compute_scores(evidence)
    planted = planted_scores(gathered, scores)
    sure = calibrate(scores["misalignment"], {kind: planted[kind] for kind in FITTED if kind in planted})
    rated = {**scores, "probability": sure.probability, "false_positive_rate": sure.false_positive_rate}
    raised = rules.raise_flags(rated, evidence, job.config.false_positive_rate)
    texts = [m for m in ready.samples.modalities if MODALITIES[m].is_text]
    captions = [(ready.samples.media[texts[0]][row] or "") if texts else "" for row in order.rows]
    line = order.back(np.arange(len(order.rows)), -1)
    found = suggest(gathered, raised["misaligned"], captions, job.config.seed, line, ready.samples.ids)
    gathered = replace(gathered, notes=(*gathered.notes, *filter(None, [found.note])))
    media = next((m for m in ready.samples.modalities if not MODALITIES[m].is_text), None)
    if captioner is not None and texts and media is not None:
        paths = [ready.samples.media[media][row] or "" for row in order.rows]
        found = ask_captioner(found, raised["misaligned"], paths, captioner)
    action, reason = rules.propose_actions(raised, found.texts, *rules.exact_duplicates(evidence), scores)
    propose(action, reason, found)
    scores["suggestion_score"] = found.score
    job.progress("score", 1, 1)
    cut = _flag_cut(scores["misalignment"], raised["misaligned"])
    known = {kind: values[np.isfinite(values)] for kind, values in planted.items()}
    recall = {kind: float(np.mean(values >= cut)) for kind, values in known.items() if len(values)}
    words_out = {"action": action, "reason": reason, "suggestion": found.texts, "repair": found.repair}
    return Scored(gathered, scores, sure, raised, words_out, recall, found.repairs)


def _told_apart(ready: Prepared, evidence: Evidence) -> Evidence:
    """The evidence with copies of pictures told from look-alikes by their pixels."""
    if "image" not in evidence.groups:
        return evidence
    paths = [ready.samples.media["image"][row] for row in ready.order.rows]

    def read(row: int) -> Image | None:
        try:
            return read_image(paths[row] or "")
        except MediaError:  # gone since it was encoded: features alone decide
            return None

    near = Neighbors(evidence.neighbors["image"].indices, evidence.cosines["image"])
    found = copy_groups(near, evidence.contents["image"], evidence.groups["image"], read)
    return replace(evidence, copies={"image": found})


def planted_scores(gathered: Gathered, scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Kind -> misalignment of the virtual plants: the worst of their pairs, on the scale of the real samples."""
    evidence = gathered.evidence
    if evidence.trials is None:
        return {}
    real = np.fmax.reduce([scores[f"misalignment_{a}_{b}"] for a, b in evidence.pairs])
    planted = {}
    scale = scale_of(real, evidence)
    for kind, found in gathered.planted.items():
        parts = [
            probe_scores(evidence, pair, {name: values[p] for name, values in found.items()})
            for p, pair in enumerate(evidence.pairs)
        ]
        worst = np.fmax.reduce(parts)
        planted[kind] = worst if len(parts) == 1 else robust_z(worst, scale)
    return planted


def _flag_cut(scores: Floats, flagged: Bools) -> float:
    """The score from which samples were flagged; infinite where none was."""
    return float(scores[flagged].min()) if flagged.any() else float("inf")


def save_evidence(gathered: Gathered, ids: list[str], run: RunFolder) -> None:
    """Each pair's separate evidence beside the ids: for benchmarks, and for people who weigh it their own way."""
    evidence = gathered.evidence
    if evidence.trials is None:
        return
    parts = {f"{name}_{a}_{b}": values for a, b in evidence.pairs for name, values in evidence.parts[a, b].items()}
    cosine = {f"cosine_{a}_{b}": evidence.trials.held_out["cosine"][p] for p, (a, b) in enumerate(evidence.pairs)}
    run.save("evidence", ids=np.array(ids), **parts, **cosine)


def _numbers(values: list[str]) -> Ints:
    return np.unique(np.array(values, dtype=object), return_inverse=True)[1].reshape(-1).astype(np.int64)


def user_groups(samples: Samples, order: Order) -> Ints | None:
    """The caller's groups and captions of one sample; None where every row stands alone."""
    names = [
        (f"g:{samples.groups[row]}" if samples.groups and samples.groups[row] else f"s:{samples.ids[row]}")
        for row in order.rows
    ]
    return _numbers(names) if len(set(names)) < len(names) else None
