"""Notes on captions that are templates, or that the encoder reads badly: too long, unknown to it, another language."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence

from audit_plugin.arrays import AuditError, count_text
from audit_plugin.encoders.registry import encoder_of, unknown_token_shares
from audit_plugin.inputs.languages import UNNAMED, foreign_languages
from audit_plugin.inputs.rows import brief
from audit_plugin.scoring.personal_data import hide_personal_data, without_long_numbers

from .prepare import Prepared

NOTED_SHARE = 0.05  # of texts, above which a problem of theirs is noted
UNKNOWN_SHARE = 0.2  # of a text's tokens, from which on it is counted
NAMED = 3  # languages
SAMPLED = 20_000  # distinct texts that are looked at, evenly spaced
LEAST_TEXTS = 100  # distinct ones, from which on templates are looked for
WORD_SHARE = 0.05  # of the distinct texts that have a word, from which on it may belong to a template
TEMPLATE_WORDS = 4  # that a template has at least


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
        texts = [text for text in samples.media[modality] if text]
        notes += template_notes(texts)
        if prepared.is_own(modality):
            continue  # what encoded it is not known
        encoder = _encoder_name(prepared.encoder_name, modality)
        if encoder:
            notes += _unknown_tokens(texts, prepared.encoder_name, encoder)
        if prepared.encoder_identities[modality].english:
            notes += _other_languages(texts, encoder)
    return notes


def template_notes(texts: Sequence[str]) -> list[str]:
    """A sentence where more than 5% of the distinct texts are one template: the same but for their rare words.

    A template is a text with "…" in place of each stretch of words that few texts have.
    """
    distinct = list(dict.fromkeys(texts))
    split = [text.split() for text in distinct[:: _stride(len(distinct))]]
    if len(split) < LEAST_TEXTS:
        return []
    count = Counter(word.lower() for words in split for word in set(words))
    templates = Counter(_template(words, count, WORD_SHARE * len(split)) for words in split)
    found = [
        (template, times / len(split))
        for template, times in templates.most_common(NAMED)
        if times > NOTED_SHARE * len(split) and len(template.replace("…", " ").split()) >= TEMPLATE_WORDS
    ]
    if not found:
        return []
    quoted = [f"{brief(without_long_numbers(hide_personal_data(text)[1]))} ({share:.0%})" for text, share in found]
    return [
        f"captions follow templates: {', '.join(quoted)} of the distinct texts; what stands for … alone can "
        "tell samples apart"
    ]


def _template(words: Sequence[str], count: Mapping[str, int], least: float) -> str:
    parts: list[str] = []
    for word in words:
        if count[word.lower()] >= least:
            parts.append(word)
        elif parts[-1:] != ["…"]:
            parts.append("…")
    return " ".join(parts)


def _stride(count: int) -> int:
    """At which evenly spaced values at most `SAMPLED` of a number are taken."""
    return -(-count // SAMPLED) or 1


def _encoder_name(name: str, modality: str) -> str:
    """The encoder of a modality as people call it; "" for features that no named encoder made."""
    with contextlib.suppress(AuditError):
        return encoder_of(name, modality)
    return ""


def _unknown_tokens(texts: Sequence[str], name: str, encoder: str) -> list[str]:
    counts = list(Counter(texts).items())
    sampled = counts[:: _stride(len(counts))]
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
        f"does not know (emoji, rare letters), {mean:.0%} of their tokens on average: scores of these are less reliable"
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
    """What texts look like: "seem to be in German", or "seem to be in German (80), French (40)"."""
    if list(languages) == [UNNAMED]:
        return "are not in Latin script"
    if len(languages) == 1:
        return f"seem to be in {next(iter(languages))}"
    named = [f"{language} ({count})" for language, count in list(languages.items())[:NAMED]]
    rest = sum(list(languages.values())[NAMED:])
    return f"seem to be in {', '.join(named)}" + (f", other languages ({rest})" if rest else "")
