"""Images and texts of the offline encoders in one space, without training: the names of ImageNet's classes.

The offline image encoder was trained to tell 1,000 classes apart. With p(c | image) its softmax over them and t(c) the
text encoder's vector of the names of class c, an image lies at the mean of the names of what it shows,

    v = sum_c p(c | image) t(c),        p(. | image) = softmax(SCALE W x + b / 2)

beside the text encoder's vectors of the captions. Both are centered, since neither mean says anything. x is the unit
feature: the logits are softened by SCALE, since a picture shows more than its one class.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Samples
from audit_plugin.store import OWN, raise_shortage

from .base import EncoderIdentity
from .embed import digest_contents, embed, silent
from .offline import IDENTITIES, class_head, class_names, load

SCALE = 8.0  # of unit features; chosen on the development sets, see docs/detection.md
SOFTNESS = 5.0  # how much flatter the cosines are than those of encoders trained to share a space
BATCH_ROWS = 8192  # bounds the memory, changes no result
IMAGE_WIDTH, TEXT_WIDTH = 1280, 384


def word_vectors(
    identities: Mapping[str, EncoderIdentity], vectors: Mapping[str, Floats], known: Bools | None = None
) -> dict[str, Floats]:
    """Modality -> float32 `[n, 384]` in the space of words, of length `SOFTNESS ** -0.5`; {} without a pair or a row.

    Of images, videos and texts by the offline encoders. Given embeddings of their widths may be theirs: what they say
    has a weight only where it tells the set's pairs from probe pairs.

    Args:
        identities: modality -> what encoded it.
        vectors: modality -> unit features `[n, d]`.
        known: bool `[n]`, the samples whose mean is taken off, or None: all.
    """
    widths = {name: values.shape[1] for name, values in vectors.items()}
    images = [name for name in vectors if widths[name] == IMAGE_WIDTH and _may_be_offline(identities[name], "image")]
    texts = [name for name in vectors if widths[name] == TEXT_WIDTH and _may_be_offline(identities[name], "text")]
    if not images or not texts or not len(vectors[texts[0]]):
        return {}
    try:
        placed = {name: among_words(vectors[name]) for name in images} | {name: vectors[name] for name in texts}
    except ImportError as error:  # the packages of the offline encoders, which given embeddings do not need
        raise_shortage(error)
        return {}
    return {name: _centered(values, known) for name, values in placed.items()}


def _may_be_offline(identity: EncoderIdentity, modality: str) -> bool:
    return identity.key.startswith((_network(modality), OWN))


def _network(modality: str) -> str:
    """How the keys of the offline encoder of a modality begin; that of images also encodes the frames of videos."""
    return ":".join(IDENTITIES[modality].key.split(":")[:2])  # without how it computes: `offline:NETWORK`


def offline_media(keys: Mapping[str, str]) -> list[str]:
    """The images and videos among modalities (-> encoder key) that the offline encoder encoded, if it did texts too."""
    network = _network("image")
    encoded_texts = any(key.startswith(_network("text")) for key in keys.values())
    return [name for name, key in keys.items() if key.startswith(network)] if encoded_texts else []


def among_words(features: Floats) -> Floats:
    """float32 `[n, 384]`: v of each unit feature `[n, 1280]`, not centered; O(n 1000 (1280 + 384)).

    Raises:
        ImportError: the packages of the offline encoders are not installed.
    """
    weight, bias = class_head()
    names = _name_vectors()
    out = np.empty((len(features), names.shape[1]), np.float32)
    for start in range(0, len(features), BATCH_ROWS):
        logits = SCALE * features[start : start + BATCH_ROWS] @ weight.T + bias / 2
        probability = np.exp(logits - logits.max(1, keepdims=True))
        out[start : start + BATCH_ROWS] = probability @ names / probability.sum(1, keepdims=True)
    return out


@functools.lru_cache(maxsize=1)
def _name_vectors() -> Floats:
    """float32 `[1000, 384]`: t(c), from the cache of features where they are known."""
    samples = Samples(tuple(str(number) for number in range(1000)), {"text": class_names()})
    keys = {"text": IDENTITIES["text"].key}
    contents = digest_contents(samples, silent)
    embedded = embed(samples, contents, keys, lambda: load("offline", ("text",), torch.device("cpu")), silent)
    return embedded.features.vectors["text"]


def _centered(values: Floats, known: Bools | None) -> Floats:
    """The rows less the mean of the known ones, each of length `SOFTNESS ** -0.5`."""
    mean = (values if known is None else values[known]).mean(0, dtype=np.float64).astype(np.float32)
    centered = values - mean
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(centered / np.maximum(length * np.float32(SOFTNESS**0.5), 1e-9))
