"""Plants wrong pairs in a clean set: the kind of wrong text (noise), and where it is taken from (how)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, Samples, dense_ids
from benchmarks.data import DATA
from benchmarks.sets import PairSet, outside_captions

NOISES = ("none", "random", "category", "hard", "vague", "modality")
WAYS = ("permuted", "copied", "outside")
NEAREST = 10
HIGHEST_RATE = 0.5
FORMS = (
    "{}",
    "a picture of {}",
    "an image of {}",
    "an image showing {}",
    "this is {}",
    "here is {}",
    "{} in a picture",
    "a view of {}",
    "there is {} in this image",
    "you can see {}",
)
THINGS = (
    "something",
    "something or other",
    "a thing",
    "an object of some kind",
    "a subject",
    "a motif",
    "some content",
    "an item",
    "a single element",
    "one of several things",
    "a part of a collection",
    "what was drawn",
)
TAILS = ("", ", nothing more", ", shown by itself", ", one example")


@dataclass(frozen=True)
class Planted:
    """A set with wrong pairs at known rows.

    Attributes:
        samples: what is audited. A class set's `labels` are the given ones: wrong where the text is wrong, "" where
            it names no class of the set.
        wrong: bool `[n]`, rows whose media do not belong together.
        source: int64 `[n]`, the row whose medium was taken; -1 where the row is right or the text is from outside.
        culprit: per row the modality that was replaced, "" where none was.
    """

    samples: Samples
    wrong: Bools
    source: Ints
    culprit: tuple[str, ...]


def plant(clean: PairSet, noise: str, rate: float, how: str = "permuted", seed: int = 0, data: Path = DATA) -> Planted:
    """Replaces media of a share `rate` of the rows by media that do not belong to them.

    Args:
        clean: the set.
        noise: `none`; `random`, the text of any other picture; `category`, of one in the same category (for class
            sets: a class that this one is taken for); `hard`, one of the 10 wrong texts nearest to the row's own by
            the offline text encoder; `vague`, a sentence that fits everything; `modality`, for three or more
            modalities: one of them, each equally often.
        rate: share of wrong rows, 0 to 0.5; trading may need one row more, per replaced modality.
        how: `permuted`, wrong rows trade among themselves, so that no medium is seen more often than before;
            `copied`, from rows that stay right, each at most once except in class sets; `outside`, texts that belong
            to no picture of the set (noise `random` only). Vague texts are always from outside.
        seed: of all choices.
        data: where sets are kept, for texts from outside.

    Raises:
        AuditError: values that do not go together, or too few rows that can trade.
    """
    _check(clean, noise, rate, how)
    count = 0 if noise == "none" else round(rate * len(clean))
    rng = np.random.default_rng([seed, NOISES.index(noise)])
    if count and (noise == "vague" or how == "outside"):
        texts = vague_captions() if noise == "vague" else outside_captions(clean.name, data)
        return _from_outside(clean, texts, count, rng)
    if not count:
        return _planted(clean, {}, {})
    return _planted(clean, _trades(clean, noise, count, how, rng), {})


def _trades(clean: PairSet, noise: str, count: int, how: str, rng: np.random.Generator) -> dict[str, dict[int, int]]:
    """Modality -> wrong row -> the row whose medium it takes; the rows of two modalities never meet."""
    allowed = _allowed(clean, noise)
    modalities = tuple(clean.media) if noise == "modality" else ("text",)
    plan: dict[str, dict[int, int]] = {}
    for number, modality in enumerate(modalities):
        # Shares that differ by at most one and sum to the whole.
        share = (count + number) // len(modalities)
        taken = permuted(allowed, share, rng) if how == "permuted" else copied(allowed, share, rng, bool(clean.labels))
        used = [row for pair in taken.items() for row in pair]
        allowed[used], allowed[:, used] = False, False
        plan[modality] = taken
    return plan


def _check(clean: PairSet, noise: str, rate: float, how: str) -> None:
    for name, value, known in (("noise", noise, NOISES), ("how", how, WAYS)):
        if value not in known:
            raise AuditError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    if not 0 <= rate <= HIGHEST_RATE:
        raise AuditError(f"rate is {rate}; it must lie between 0 and {HIGHEST_RATE}")
    if how == "outside" and noise not in ("random", "vague", "none"):
        raise AuditError(f"noise is {noise!r} with texts from outside, which have no owner: use random")
    if noise == "modality" and len(clean.media) < 3:
        raise AuditError(f"{clean.name} has {len(clean.media)} modalities; noise 'modality' needs three: use random")
    if noise == "hard" and clean.labels:
        raise AuditError(f"{clean.name} has classes; near misses among them are noise 'category'")


def _allowed(clean: PairSet, noise: str) -> Bools:
    """bool `[n, n]`: whether row i may take row j's medium."""
    allowed = contradicts(clean)
    if noise == "category":
        category = dense_ids(clean.category)
        allowed &= category[:, None] == category
    elif noise == "hard":
        allowed = nearest(text_features(clean.media["text"]), allowed, NEAREST)
    return allowed


def contradicts(clean: PairSet) -> Bools:
    """bool `[n, n]`: whether row j's text is wrong for row i's picture.

    It is where both picture and text differ and, where the attributes shown and named are known, one contradicts.
    """
    text, picture = dense_ids(clean.media["text"]), dense_ids(clean.ids)
    wrong = (text[:, None] != text) & (picture[:, None] != picture)
    if clean.named:
        against = np.zeros_like(wrong)
        for trait in clean.shown[0]:
            shown = np.array([traits[trait] for traits in clean.shown])
            named = np.array([traits.get(trait, "") for traits in clean.named])
            against |= (named != "") & (shown[:, None] != named)
        wrong &= against
    return wrong


def nearest(features: Floats, candidates: Bools, k: int) -> Bools:
    """bool `[n, n]`: the `k` candidates of each row whose features `[n, d]` (unit rows) are the most similar."""
    similar = np.where(candidates, features @ features.T, -np.inf)
    first = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    mask = np.zeros_like(candidates)
    np.put_along_axis(mask, first, True, axis=1)
    return mask & candidates


def text_features(texts: Sequence[str]) -> Floats:
    """float32 `[n, d]` unit features of the offline text encoder, from the cache where known."""
    from audit_plugin.encoders.embed import digest_contents, embed, silent
    from audit_plugin.encoders.registry import identify, load_encoders

    samples = Samples(tuple(str(i) for i in range(len(texts))), {"text": tuple(texts)})
    keys = {m: identity.key for m, identity in identify("offline", ("text",)).items()}
    contents = digest_contents(samples, silent)
    embedded = embed(samples, contents, keys, lambda: load_encoders("offline", ("text",), "cpu"), silent)
    return embedded.features.vectors["text"]


def permuted(allowed: Bools, count: int, rng: np.random.Generator) -> dict[int, int]:
    """Wrong row -> the wrong row whose medium it takes; `count` rows, or one more.

    Rows are paired up at random and then trade their sources as long as everything stays allowed, so that cycles of
    all lengths arise.

    Args:
        allowed: bool `[n, n]`, see `_allowed`.
        count: how many rows become wrong.
        rng: where the choice comes from.

    Raises:
        AuditError: too few rows can trade.
    """
    both = allowed & allowed.T
    unpaired = np.ones(len(allowed), dtype=bool)
    source: dict[int, int] = {}
    for row in rng.permutation(len(allowed)).tolist():
        if len(source) >= count:
            break
        partners = np.flatnonzero(both[row] & unpaired)
        if unpaired[row] and len(partners):
            other = int(partners[rng.integers(len(partners))])
            source |= {row: other, other: row}
            unpaired[[row, other]] = False
    if len(source) < count:
        raise AuditError(f"only {len(source)} of {count} rows can trade among themselves: lower the rate")
    rows = list(source)
    for _ in range(4 * len(rows)):
        a, b = (rows[i] for i in rng.integers(len(rows), size=2))
        if allowed[a, source[b]] and allowed[b, source[a]]:
            source[a], source[b] = source[b], source[a]
    return source


def copied(allowed: Bools, count: int, rng: np.random.Generator, repeat: bool = False) -> dict[int, int]:
    """Wrong row -> the right row whose medium it copies.

    Args:
        allowed: bool `[n, n]`, see `_allowed`.
        count: how many rows become wrong.
        rng: where the choice comes from.
        repeat: whether one medium may be copied more than once.

    Raises:
        AuditError: too few rows have a right one to copy from.
    """
    right, fresh = np.ones(len(allowed), dtype=bool), np.ones(len(allowed), dtype=bool)
    owner = np.zeros(len(allowed), dtype=bool)
    source: dict[int, int] = {}
    for row in rng.permutation(len(allowed)).tolist():
        if len(source) == count:
            break
        partners = np.flatnonzero(allowed[row] & right & fresh)
        if not owner[row] and len(partners):
            source[row] = int(partners[rng.integers(len(partners))])
            right[row], owner[source[row]], fresh[source[row]] = False, True, repeat
    if len(source) < count:
        raise AuditError(f"only {len(source)} of {count} texts can be copied from a right row: lower the rate")
    return source


def vague_captions() -> list[str]:
    """480 sentences that fit everything, all different."""
    return [form.format(thing) + tail for tail, form, thing in product(TAILS, FORMS, THINGS)]


def _from_outside(clean: PairSet, texts: Sequence[str], count: int, rng: np.random.Generator) -> Planted:
    rows = rng.permutation(len(clean))[:count].tolist()
    order = rng.permutation(len(texts)).tolist()
    # Where there are too few for each row to have its own they come round again.
    return _planted(clean, {}, {row: texts[order[i % len(order)]] for i, row in enumerate(rows)})


def _planted(clean: PairSet, plan: dict[str, dict[int, int]], texts: dict[int, str]) -> Planted:
    """The set after rows took the media of others (modality -> row -> source) and texts from outside."""
    media = {m: list(values) for m, values in clean.media.items()}
    source, culprit, labels = np.full(len(clean), -1), [""] * len(clean), list(clean.labels)
    for modality, taken in plan.items():
        for row, other in taken.items():
            media[modality][row] = clean.media[modality][other]
            source[row], culprit[row] = other, modality
            if labels and modality == "text":
                labels[row] = clean.labels[other]
    for row, text in texts.items():
        media["text"][row], culprit[row] = text, "text"
        if labels:
            labels[row] = ""
    rows = {m: tuple(values) for m, values in media.items()}
    samples = Samples(clean.ids, rows, caption=clean.caption, labels=tuple(labels))
    return Planted(samples, np.array([bool(c) for c in culprit]), source, tuple(culprit))
