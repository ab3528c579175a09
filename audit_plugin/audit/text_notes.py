"""Warnings on captions that the text encoder reads badly: too long, unknown to it, or in another language."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.encoders.registry import encoder_of, unknown_token_shares
from audit_plugin.inputs.languages import UNNAMED, foreign_languages

from .prepare import Prepared

NOTED_SHARE = 0.05  # of texts, above which a problem of theirs is noted
UNKNOWN_SHARE = 0.2  # of a text's tokens, from which on it is counted
NAMED = 3  # languages
SAMPLED = 20_000  # distinct texts whose tokens are counted, evenly spaced


def text_notes(prepared: Prepared) -> list[str]:
    """A sentence for each problem of more than 5 % of the texts."""
    notes = []
    samples, split_texts = prepared.samples, prepared.embedded.split_texts
    if split_texts > NOTED_SHARE * len(samples):
        notes.append(
            f"{count_text(split_texts, 'text is', 'texts are')} longer than the encoder reads at once, and "
            "encoded in parts"
        )
    for modality in prepared.text_modalities:
        if prepared.is_own(modality):
            continue  # what encoded it is not known
        texts = [text for text in samples.media[modality] if text]
        encoder = _encoder_name(prepared.encoder_name, modality)
        if encoder:
            notes += _unknown_tokens(texts, prepared.encoder_name, encoder)
        if prepared.encoder_identities[modality].english:
            notes += _other_languages(texts, encoder)
    return notes


def _encoder_name(name: str, modality: str) -> str:
    """The encoder of a modality as people call it; "" for features that no named encoder made."""
    with contextlib.suppress(AuditError):
        return encoder_of(name, modality)
    return ""


def _unknown_tokens(texts: Sequence[str], name: str, encoder: str) -> list[str]:
    counts = list(Counter(texts).items())
    sampled = counts[:: -(-len(counts) // SAMPLED) or 1]
    try:
        shares = unknown_token_shares(name, [text for text, _ in sampled])
    except ImportError:  # features from the cache need no vocabulary
        return []
    looked_at = sum(count for _, count in sampled)
    unknown = [(share, count) for share, (_, count) in zip(shares, sampled, strict=False) if share >= UNKNOWN_SHARE]
    affected = sum(count for _, count in unknown)
    if affected <= NOTED_SHARE * looked_at:
        return []
    mean = sum(share * count for share, count in unknown) / affected
    return [
        f"{round(affected * len(texts) / looked_at)} of {len(texts)} captions hold tokens that the encoder {encoder!r} "
        f"does not know (emoji, rare letters), {mean:.0%} of theirs on average: scores of these are less reliable"
    ]


def _other_languages(texts: Sequence[str], encoder: str) -> list[str]:
    languages = foreign_languages(texts)
    total = sum(languages.values())
    if total <= NOTED_SHARE * len(texts):
        return []
    reader = f"the encoder {encoder!r}" if encoder else "the text encoder"
    return [
        f"{total} of {len(texts)} captions {_look(languages)}; {reader} reads English: scores of these are less "
        "reliable; use a multilingual open_clip model for them"
    ]


def _look(languages: dict[str, int]) -> str:
    """What texts look like: "look German", or "look German (80), French (40)"."""
    if list(languages) == [UNNAMED]:
        return "are not in Latin script"
    if len(languages) == 1:
        return f"look {next(iter(languages))}"
    named = [f"{language} ({count})" for language, count in list(languages.items())[:NAMED]]
    rest = sum(list(languages.values())[NAMED:])
    return f"look {', '.join(named)}" + (f", or others ({rest})" if rest else "")
