"""What runs in a worker: decoding, encoding, and any function with as many threads as the driver.

Workers get and give bytes: Ray Data's tables hold neither pieces of several shapes nor "a vector or a reason".
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import MODALITIES, Floats
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.devices import pick_device
from audit_plugin.encoders.embed import BatchEncoder, encode_pieces, prepare_contents
from audit_plugin.encoders.precision import in_precision_of
from audit_plugin.encoders.prompts import prompted_encoders
from audit_plugin.encoders.registry import load_encoders, load_preparer

ITEM = "item"  # the only column
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class EncoderRecipe:
    """What another process must know to load the same encoders."""

    encoder: str  # as `resolve_name` returns it
    templates: tuple[str, ...]  # prompts that texts are read through; none for texts as they are

    def load(self, modalities: tuple[str, ...], device: str) -> dict[str, Encoder]:
        """The encoders, by modality."""
        return prompted_encoders(load_encoders(self.encoder, modalities, device), self.templates)


def packed(items: Iterable[Any]) -> Batch:
    """Items as a table of bytes."""
    data = [pickle.dumps(item, protocol=5) for item in items]
    column = np.empty(len(data), dtype=object)
    column[:] = data
    return {ITEM: column}


def unpacked(batch: Batch) -> list[Any]:
    """The items of a table of bytes, which a worker of this run wrote."""
    return [pickle.loads(data) for data in batch[ITEM]]


@functools.lru_cache(maxsize=4)
def _cutter(recipe: EncoderRecipe, modality: str) -> Encoder:
    """An encoder that can only make pieces of media: its weights are never loaded."""

    def encode(_batch: np.ndarray) -> Floats:
        raise RuntimeError("a decoder has no weights")

    return Encoder(EncoderIdentity(""), 1, load_preparer(recipe.encoder, modality), encode)


def decode(batch: Batch, recipe: EncoderRecipe, modality: str, view: int) -> Batch:
    """(digest, value) of media -> (digest, pieces or why there are none)."""
    contents = dict(unpacked(batch))
    cutter = replace(_cutter(recipe, modality), batch=len(contents))
    return packed(prepare_contents(modality, contents, cutter, view))


class Encoding:
    """(digest, pieces or why there are none; of texts the text) -> (digest, feature or why there is none, pieces).

    The encoder is loaded once, in the precision of `identity`, and computes with the driver's number of `threads`, on
    which the last digit of a feature may depend. Where a GPU's memory was too small for a batch, the smaller batches
    stay.
    """

    def __init__(
        self, recipe: EncoderRecipe, modality: str, identity: EncoderIdentity, device: str, threads: int, view: int = 0
    ) -> None:
        torch.set_num_threads(threads)
        encoder = in_precision_of(recipe.load((modality,), pick_device(device))[modality], identity)
        self.batch_encoder, self.modality, self.view = BatchEncoder(encoder), modality, view

    def __call__(self, batch: Batch) -> Batch:
        items = unpacked(batch)
        if MODALITIES[self.modality].is_text:
            items = list(prepare_contents(self.modality, dict(items), self.batch_encoder.encoder, self.view))
        return packed(encode_pieces(items, self.batch_encoder))


def call(function: Callable[[Any], Any], item: Any, threads: int) -> Any:
    """The function's value, computed with that many threads."""
    torch.set_num_threads(threads)
    return function(item)
