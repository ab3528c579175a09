"""Which captions of the set fit a medium better than its own, and which words of its own fit it least.

The *lift* of a text j for a medium i is `s_ij - tau log mean_k exp(s_kj / tau)` over a fixed draw of media k, by trials
that saw neither: how much better it fits this medium than it fits media at large. A bare similarity favors texts that
fit everything. A word's gain is how much the caption's lift rises without it, over the trials in which the sample was
no member. Only heads can embed a caption without a word: a text that is not in the set was embedded by no tower.
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
from audit_plugin.encoders.embed import encode_batch
from audit_plugin.encoders.precision import in_precision_of
from audit_plugin.encoders.registry import load_encoders
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.scoring.contrast import draw_pool
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.held_out import embed_held_out
from audit_plugin.scoring.suggest.pair_scores import text_pairs
from audit_plugin.trials.learners import head_projections, trained_heads_learner
from audit_plugin.trials.run import Job, part_name

from .records import Records, rounded, row_identity

TEMPERATURE = 1 / 20  # of the lift
REFERENCES = 512  # media that stand for media at large
RIVALS = 5  # captions named for a row and pair
WORDS = 24  # left out one by one; longer captions are divided into as many phrases
COMMON = 0.5  # a word that stands in more than this share of the captions is grammar, not what is wrong with one
CHARACTERS = 2000  # of a caption: what lies beyond is left out of all its variants
PART = "words"


def lift(similarity: Floats, references: Floats) -> Floats:
    """Lift `[..., p]` of texts from similarities `[..., p]` and those to the references `[f, p]`, NaN where unknown.

    NaN where a text has no known similarity to a reference.
    """
    with np.errstate(over="ignore"):
        weight = np.exp(references / TEMPERATURE)
    is_known = np.isfinite(references)
    count = is_known.sum(0)
    mean = np.where(is_known, weight, 0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, similarity - TEMPERATURE * np.log(np.maximum(mean, 1e-30)), np.nan)


def rival_captions(evidence: Evidence, rows: Ints, prepared: Prepared, seed: int) -> Records:
    """Row -> `rivals`: pair -> similarity and lift of the own caption, and of `RIVALS` captions with a higher lift."""
    records: Records = {int(row): {"rivals": {}} for row in rows}
    if not len(rows) or evidence.trials is None:
        return records
    trials, references = evidence.trials, draw_pool(evidence.known_rows, seed, REFERENCES)
    for pair in text_pairs(evidence):
        content = evidence.contents[pair[1]]
        pool = np.union1d(draw_pool(np.unique(content, return_index=True)[1], seed), rows)
        positions = (evidence.modalities.index(pair[0]), evidence.modalities.index(pair[1]))
        media, captions = (
            embed_held_out(trials.embed, trials.member, positions, rows_of_side)
            for rows_of_side in (np.concatenate([rows, references]), pool)
        )
        similarity = media.similarity(captions)
        lifts = lift(similarity[: len(rows)], similarity[len(rows) :])
        for i, row in enumerate(rows.tolist()):
            own = int(np.searchsorted(pool, row))
            better = np.where(lifts[i] > lifts[i, own], lifts[i], -np.inf)  # NaN is not above
            better[content[pool] == content[row]] = -np.inf
            best = [own, *_best_distinct(better, content[pool])]
            fits = [{"similarity": rounded(similarity[i, j]), "lift": rounded(lifts[i, j])} for j in best]
            rivals = [row_identity(int(pool[j]), prepared) | fit for j, fit in zip(best[1:], fits[1:], strict=True)]
            records[row]["rivals"]["_".join(pair)] = {"own": fits[0], "better": rivals}
    return records


def _best_distinct(values: Floats, content: Ints) -> list[int]:
    """Positions of the highest values, one per content, at most `RIVALS`."""
    best: dict[int, int] = {}  # content -> position
    for position in np.argsort(-values, kind="stable"):
        if len(best) == RIVALS or values[position] == -np.inf:
            break
        best.setdefault(int(content[position]), int(position))
    return list(best.values())


@dataclass(frozen=True)
class Variant:
    """A caption, or a caption without the characters from `start` to `end`; `word` is "" for the whole."""

    row: int
    text: str
    start: int = 0
    end: int = 0
    word: str = ""


def misfit_words(evidence: Evidence, rows: Ints, prepared: Prepared, job: Job) -> Records:
    """Row -> `words`: text, start, end (characters of the caption) and gain, the highest gain first.

    Empty where the caption is one word or all of its words are common, where nothing but heads on plain captions was
    trained, and where the features of the captions were given: nobody can encode another caption then. The encoder is
    loaded only for variants that no earlier call of the run has encoded.
    """
    records: Records = {int(row): {"words": []} for row in rows}
    pairs = text_pairs(evidence)
    heads = job.config.train == "heads" and "head_0_0" in (job.run.load(part_name(0)) or {})
    if not len(rows) or not pairs or not heads or job.config.template or prepared.is_own(pairs[0][1]):
        return records
    captions = prepared.media(pairs[0][1])
    common = common_words(captions)
    variants = [v for row in rows.tolist() for v in variants_of(row, captions[row], common)]
    vectors = _text_features([v.text for v in variants], prepared, job)
    dim = evidence.vectors[pairs[0][1]].shape[1]
    # other dimensions: the cached features are not of this encoder as it is now
    encoded = [v for v in variants if v.text in vectors and len(vectors[v.text]) == dim]
    if not encoded:
        return records
    table = np.stack([vectors[v.text] for v in encoded]).astype(np.float32)
    variant_rows = np.array([v.row for v in encoded])
    lifts = np.mean([_lifts(evidence, pair, variant_rows, table, prepared, job) for pair in pairs], axis=0)
    whole = {v.row: value for v, value in zip(encoded, lifts, strict=True) if not v.word}
    for variant, value in zip(encoded, lifts, strict=True):
        gain = value - whole.get(variant.row, np.nan)
        if variant.word and np.isfinite(gain):
            word = {"text": variant.word, "start": variant.start, "end": variant.end, "gain": rounded(gain)}
            records[variant.row]["words"].append(word)
    for record in records.values():
        record["words"].sort(key=lambda word: (-word["gain"], word["start"]))
    return records


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
    spans = [(start, end) for start, end in spans if _bare(text[start:end]) not in common]
    if not spans:
        return []
    variants = [Variant(row, " ".join(text.split()))]
    for phrase in np.array_split(np.array(spans), min(len(spans), WORDS)):
        start, end = int(phrase[0, 0]), int(phrase[-1, 1])
        rest = " ".join((text[:start] + " " + text[end:]).split())
        variants.append(Variant(row, rest, start, end, text[start:end]))
    return variants


def _text_features(texts: Sequence[str], prepared: Prepared, job: Job) -> dict[str, Floats]:
    """Text -> unit feature `[d]`: those stored in the run, and the others encoded and stored now."""
    digests = {text: MODALITIES["text"].digest(text) for text in dict.fromkeys(texts)}
    part = job.run.load(PART) or {"keys": np.zeros(0, "S64"), "vectors": np.zeros((0, 0), np.float32)}
    stored = dict(zip((key.decode() for key in part["keys"].tolist()), part["vectors"], strict=True))
    missing = sorted((text for text in digests if digests[text] not in stored), key=digests.__getitem__)
    if missing:
        encoder = load_encoders(prepared.encoder_name, ("text",), prepared.device)["text"]
        encoder = in_precision_of(encoder, prepared.encoder_identities["text"])
        stored |= {digests[text]: vector for text, vector in encode_texts(missing, encoder).items()}
        vectors = np.stack(list(stored.values())) if stored else part["vectors"]
        job.run.save(PART, keys=np.array(list(stored), dtype="S64"), vectors=vectors)
    return {text: stored[key] for text, key in digests.items() if key in stored}


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
    vectors: dict[str, list[Floats]] = defaultdict(list)
    for queue in queues.values():
        for start in range(0, len(queue), encoder.batch):
            part = queue[start : start + encoder.batch]
            for (text, _), vector in zip(part, encode_batch([piece for _, piece in part], encoder), strict=True):
                vectors[text].append(_unit(vector))
    return {text: _unit(np.mean(pieces, axis=0, dtype=np.float32)) for text, pieces in vectors.items()}


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _lifts(
    evidence: Evidence, pair: tuple[str, str], rows: Ints, texts: Floats, prepared: Prepared, job: Job
) -> Floats:
    """`[v]`: held-out lift of texts (features `[v, d]`) for the media of `rows` `[v]`; NaN where none held it out."""
    features = prepared.features
    text_only = Features({pair[1]: features.vectors[pair[1]]}, np.ones((len(features.present), 1), dtype=bool))
    # the other modalities' projections take seconds to fit and are not looked at: they only keep their places
    projections = dict.fromkeys(features.modalities, head_projections(text_only)[pair[1]])
    variants = Features({pair[1]: texts}, np.ones((len(texts), 1), dtype=bool))
    learner = trained_heads_learner(variants, projections, job.run, job)
    references = draw_pool(evidence.known_rows, job.config.seed, REFERENCES)
    medium = evidence.modalities.index(pair[0])
    own, to_references = np.zeros(len(rows)), np.zeros((len(references), len(rows)), np.float32)
    out = ~evidence.required_trials.member  # [r, n]
    media_rows = torch.from_numpy(np.concatenate([rows, references])).to(job.device)
    for trial, trial_out in enumerate(out):
        if not trial_out[rows].any():
            continue
        media = evidence.required_trials.embed(trial, media_rows)[medium].float().cpu()
        text = learner.embed({}, trial, 0, None)[0].float().cpu() * torch.from_numpy(trial_out[rows])[:, None]
        reference_media = media[len(rows) :] * torch.from_numpy(trial_out[references])[:, None]
        own += (media[: len(rows)] * text).sum(1).numpy()
        to_references += (reference_media @ text.T).numpy()
    count = out[:, references].astype(np.float32).T @ out[:, rows].astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return lift(own / out[:, rows].sum(0), np.where(count > 0, to_references / count, np.nan))
