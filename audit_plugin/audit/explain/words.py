"""Which words of a caption fit its medium least: leave each one out and ask the trained heads again.

A word's gain is how much the caption's held-out lift (see `fits`) rises without it, over the trials in which the
sample was no member. Only heads can be asked: a text that is not in the set was embedded by no tower.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Features, Floats, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.precision import in_precision_of
from audit_plugin.encoders.registry import load_encoders
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.suggest.pair_scores import text_pairs
from audit_plugin.trials.learners import head_projections, trained_heads_learner
from audit_plugin.trials.run import Job, part_name

from .fits import lift, reference_rows
from .parts import Found, number

WORDS = 24
COMMON = 0.5  # a word that stands in more than this share of the captions is grammar, not what is wrong with one
CHARACTERS = 2000  # of a caption: what lies beyond is left out of all its variants
PART = "words"


@dataclass(frozen=True)
class Variant:
    """A caption, or a caption without the characters from `start` to `end`; `word` is "" for the whole."""

    row: int
    text: str
    start: int = 0
    end: int = 0
    word: str = ""


def misfit_words(evidence: Evidence, rows: Ints, ready: Prepared, job: Job) -> Found:
    """Row -> `words`: text, start, end (characters of the caption) and gain, the highest gain first.

    Empty where the caption is one word or all of its words are common, and where nothing but heads on plain captions
    was trained. The encoder is loaded only for variants that no earlier call of the run has encoded.
    """
    out: Found = {int(row): {"words": []} for row in rows}
    pairs = text_pairs(evidence)
    heads = job.config.train == "heads" and "head_0_0" in (job.run.load(part_name(0)) or {})
    if not pairs or not heads or job.config.template:
        return out
    texts = ready.samples.media[pairs[0][1]]
    captions = [texts[at] or "" for at in ready.order.rows]
    common = common_words(captions) if len(rows) else set()
    variants = [v for row in rows.tolist() for v in variants_of(row, captions[row], common)]
    vectors = _vectors([v.text for v in variants], ready, job)
    dim = evidence.vectors[pairs[0][1]].shape[1]
    # other dimensions: the cached features are not of this encoder as it is now
    known = [v for v in variants if v.text in vectors and len(vectors[v.text]) == dim]
    if not known:
        return out
    lifts = np.mean([_lifts(evidence, pair, known, vectors, ready, job) for pair in pairs], axis=0)
    whole = {v.row: value for v, value in zip(known, lifts, strict=True) if not v.word}
    for variant, value in zip(known, lifts, strict=True):
        gain = value - whole.get(variant.row, np.nan)
        if variant.word and np.isfinite(gain):
            place = {"text": variant.word, "start": variant.start, "end": variant.end}
            out[variant.row]["words"].append({**place, "gain": number(gain)})
    for record in out.values():
        record["words"].sort(key=lambda w: (-w["gain"], w["start"]))
    return out


def common_words(captions: Sequence[str]) -> set[str]:
    """Words, in lower case, of more than a share `COMMON` of the captions."""
    count = Counter(word for caption in captions for word in {_bare(w) for w in caption[:CHARACTERS].split()})
    return {word for word, times in count.items() if times > COMMON * len(captions)}


def _bare(word: str) -> str:
    return re.sub(r"^\W+|\W+$", "", word).lower()


def variants_of(row: int, caption: str, common: Set[str] = frozenset()) -> list[Variant]:
    """The caption and the caption without each of its words that is not common (at most `WORDS`, else phrases)."""
    text = caption[:CHARACTERS]
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    if len(spans) < 2:
        return []
    spans = [span for span in spans if _bare(text[slice(*span)]) not in common]
    if not spans:
        return []
    parts = np.array_split(np.arange(len(spans)), min(len(spans), WORDS))
    found = [Variant(row, " ".join(text.split()))]
    for part in parts:
        start, end = spans[part[0]][0], spans[part[-1]][1]
        rest = " ".join((text[:start] + " " + text[end:]).split())
        found.append(Variant(row, rest, start, end, text[start:end]))
    return found


def _vectors(texts: Sequence[str], ready: Prepared, job: Job) -> dict[str, Floats]:
    """Text -> unit feature `[d]`: those that the run has kept, and the others encoded now and kept."""
    digest = {text: MODALITIES["text"].digest(text) for text in dict.fromkeys(texts)}
    part = job.run.load(PART) or {"keys": np.zeros(0, "S64"), "vectors": np.zeros((0, 0), np.float32)}
    kept = dict(zip((key.decode() for key in part["keys"].tolist()), part["vectors"], strict=True))
    todo = sorted((text for text in digest if digest[text] not in kept), key=digest.__getitem__)
    if todo:
        encoder = load_encoders(ready.encoder_name, ("text",), ready.device)["text"]
        encoder = in_precision_of(encoder, ready.encoder_identities["text"])
        kept |= {digest[text]: vector for text, vector in encode_texts(todo, encoder).items()}
        keys = np.array(list(kept), dtype="S64")
        job.run.save(PART, keys=keys, vectors=np.stack(list(kept.values())) if kept else part["vectors"])
    return {text: kept[key] for text, key in digest.items() if key in kept}


def encode_texts(texts: Sequence[str], encoder: Encoder) -> dict[str, Floats]:
    """Text -> unit feature; texts that cannot be read are left out. Batches of one size, as for the samples."""
    queues: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = defaultdict(list)
    for text in texts:
        try:
            pieces = encoder.prepare(MODALITIES["text"].read(text))
        except MediaError:
            continue
        for piece in pieces:
            queues[piece.shape].append((text, piece))
    found: dict[str, list[Floats]] = defaultdict(list)
    for shape, queue in queues.items():
        for start in range(0, len(queue), encoder.batch):
            part = queue[start : start + encoder.batch]
            batch = np.zeros((encoder.batch, *shape), dtype=part[0][1].dtype)
            batch[: len(part)] = [piece for _, piece in part]
            for (text, _), vector in zip(part, encoder.encode(batch), strict=False):
                found[text].append(vector / max(float(np.linalg.norm(vector)), 1e-12))
    mean = {text: np.asarray(np.mean(vectors, axis=0, dtype=np.float32)) for text, vectors in found.items()}
    return {text: vector / max(float(np.linalg.norm(vector)), 1e-12) for text, vector in mean.items()}


def _lifts(
    evidence: Evidence,
    pair: tuple[str, str],
    variants: Sequence[Variant],
    vectors: dict[str, Floats],
    ready: Prepared,
    job: Job,
) -> Floats:
    """`[v]`: held-out lift of each variant for its row's medium; NaN where no trial left the row out."""
    table = np.stack([vectors[v.text] for v in variants]).astype(np.float32)
    plain, present = ready.features, np.ones((len(table), 1), dtype=bool)
    text_only = Features({pair[1]: plain.vectors[pair[1]]}, np.ones((len(plain.present), 1), dtype=bool))
    # the other modalities' projections take seconds to fit and are not looked at: they only keep their places
    places = dict.fromkeys(plain.modalities, head_projections(text_only)[pair[1]])
    learner = trained_heads_learner(Features({pair[1]: table}, present), places, job.run, job)
    rows = np.array([v.row for v in variants])
    references = reference_rows(evidence, job.config.seed)
    at = evidence.modalities.index(pair[0])
    own, other = np.zeros(len(rows)), np.zeros((len(references), len(rows)), np.float32)
    outside = ~evidence.trained.member
    chosen = torch.from_numpy(np.concatenate([rows, references])).to(job.device)
    for trial, out in enumerate(outside):
        if not out[rows].any():
            continue
        media = evidence.trained.embed(trial, chosen)[at].float().cpu()
        text = learner.embed({}, trial, 0, None)[0].float().cpu() * torch.from_numpy(out[rows])[:, None]
        mine, theirs = media[: len(rows)], media[len(rows) :] * torch.from_numpy(out[references])[:, None]
        own += (mine * text).sum(1).numpy()
        other += (theirs @ text.T).numpy()
    both = outside[:, references].astype(np.float32).T @ outside[:, rows].astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return lift(own / outside[:, rows].sum(0), np.where(both > 0, other / both, np.nan))
