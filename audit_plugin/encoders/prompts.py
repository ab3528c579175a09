"""Class names as prompts: "golden_retriever" is encoded as "a photo of a golden retriever", and in more wordings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Samples
from audit_plugin.inputs.files import read_text
from audit_plugin.inputs.modalities import MODALITIES
from audit_plugin.store import digest_of

from .base import Encoder, EncoderIdentity

PLACE, SEPARATOR = "{}", "|"
LABEL_TEMPLATES = (
    "a photo of a {}|a photo of the {}|a close-up photo of a {}|a picture that shows a {}|an image of one {}"
)
# the place before a capital that follows a small letter or a digit, and before the last capital of "HTTPServer"
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def split_templates(template: str) -> tuple[str, ...]:
    """The templates of `AuditConfig.template`; none for ""."""
    return tuple(part.strip() for part in template.split(SEPARATOR)) if template else ()


def readable_label(label: str) -> str:
    """A class name as words: `golden_retriever` and `GoldenRetriever` are "golden retriever"."""
    spaced = re.sub(r"[_\s]+", " ", label).strip()
    words = _CAMEL_CASE.sub(" ", spaced)
    if words == spaced:
        return spaced
    return " ".join(word if word.isupper() else word.lower() for word in words.split())  # acronyms keep their capitals


def prompts_of(label: str, templates: Sequence[str]) -> list[str]:
    """The label in each of the templates; braces in the label have no meaning."""
    words = readable_label(label)
    return [template.replace(PLACE, words) for template in templates]


def prompted_identity(identity: EncoderIdentity, templates: Sequence[str]) -> EncoderIdentity:
    """The identity of a text encoder that reads class names through templates: its features are different."""
    return replace(identity, key=f"{identity.key} prompts {digest_of(list(templates))[:16]}")


def prompted_encoders(encoders: Mapping[str, Encoder], templates: Sequence[str]) -> dict[str, Encoder]:
    """The encoders by modality, those of texts with one piece per template.

    A label's feature is then the mean of its prompts' unit features, normalized like any other.
    """
    return {
        modality: _prompted_encoder(encoder, templates) if _takes_prompts(modality, templates) else encoder
        for modality, encoder in encoders.items()
    }


def prompted_identities(
    identities: Mapping[str, EncoderIdentity], templates: Sequence[str]
) -> dict[str, EncoderIdentity]:
    """As `prompted_encoders`, of the identities alone."""
    return {
        modality: prompted_identity(identity, templates) if _takes_prompts(modality, templates) else identity
        for modality, identity in identities.items()
    }


def with_first_prompt(samples: Samples, templates: Sequence[str]) -> Samples:
    """The samples with each text in the first template: for models that read one text per sample."""
    if not templates:
        return samples

    def prompt(text: str | None) -> str | None:
        return prompts_of(text, templates[:1])[0] if text and text.strip() else text

    prompted = {name: tuple(map(prompt, v)) for name, v in samples.media.items() if _takes_prompts(name, templates)}
    return replace(samples, media={**samples.media, **prompted})


def _takes_prompts(modality: str, templates: Sequence[str]) -> bool:
    return bool(templates) and MODALITIES[modality].is_text


def _prompted_encoder(encoder: Encoder, templates: Sequence[str]) -> Encoder:
    # only `prepare` is captured: a closure over `encoder` would keep weights that `to_bf16` has replaced
    prepare = encoder.prepare

    def prepare_prompts(label: Any) -> list[np.ndarray]:
        return [piece for prompt in prompts_of(label, templates) for piece in prepare(read_text(prompt))]

    return replace(encoder, identity=prompted_identity(encoder.identity, templates), prepare=prepare_prompts)
