"""Class names as prompts: "golden_retriever" is encoded as "a photo of a golden retriever", in several wordings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Samples
from audit_plugin.config import digest_of
from audit_plugin.inputs.files import read_text
from audit_plugin.inputs.modalities import MODALITIES

from .base import Encoder, Identity

PLACE, SEPARATOR = "{}", "|"
LABEL_TEMPLATES = SEPARATOR.join(
    (
        "a photo of a {}",
        "a photo of the {}",
        "a close-up photo of a {}",
        "a picture that shows a {}",
        "an image of one {}",
    )
)
# before a capital that follows a small letter or a digit, and before the last capital of "HTTPServer"
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def split_templates(template: str) -> tuple[str, ...]:
    """The templates of `AuditConfig.template`; none for ""."""
    return tuple(part.strip() for part in template.split(SEPARATOR)) if template else ()


def readable(label: str) -> str:
    """A class name as words: `golden_retriever` and `GoldenRetriever` are "golden retriever"."""
    spaced = re.sub(r"[_\s]+", " ", label).strip()
    humps = _HUMP.sub(" ", spaced)
    if humps == spaced:
        return spaced
    # of the words that a hump parts, acronyms keep their capitals
    return " ".join(word if word.isupper() else word.lower() for word in humps.split())


def prompts_of(label: str, templates: Sequence[str]) -> list[str]:
    """The label in every template; a brace in the label itself means nothing."""
    words = readable(label)
    return [template.replace(PLACE, words) for template in templates]


def prompted(identity: Identity, templates: Sequence[str]) -> Identity:
    """Who a text encoder is when it reads class names through templates: its features are others."""
    return replace(identity, key=f"{identity.key} prompts {digest_of(list(templates))[:16]}")


def prompting(encoders: Mapping[str, Encoder], templates: Sequence[str]) -> dict[str, Encoder]:
    """The encoders, those of texts with every template as a piece.

    A label's feature is then the mean of its prompts' unit features, renormalized like any other.
    """
    return {m: _reading_prompts(e, templates) if _asked(m, templates) else e for m, e in encoders.items()}


def identified(who: Mapping[str, Identity], templates: Sequence[str]) -> dict[str, Identity]:
    """As `prompting`, of the identities alone."""
    return {m: prompted(w, templates) if _asked(m, templates) else w for m, w in who.items()}


def worded(samples: Samples, templates: Sequence[str]) -> Samples:
    """The samples with each text in the first template: for models that read one text per sample."""
    if not templates:
        return samples
    media = {
        name: tuple(prompts_of(v, templates[:1])[0] if v and v.strip() else v for v in values)
        if MODALITIES[name].is_text
        else values
        for name, values in samples.media.items()
    }
    return replace(samples, media=media)


def _asked(modality: str, templates: Sequence[str]) -> bool:
    return bool(templates) and MODALITIES[modality].is_text


def _reading_prompts(encoder: Encoder, templates: Sequence[str]) -> Encoder:
    inner = encoder.prepare  # alone, so that weights in full precision can be let go

    def prepare(label: Any) -> list[np.ndarray]:
        return [piece for prompt in prompts_of(label, templates) for piece in inner(read_text(prompt))]

    return replace(encoder, identity=prompted(encoder.identity, templates), prepare=prepare)
