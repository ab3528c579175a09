"""A modality that a newcomer adds: one entry in the table, and an encoder that takes it. Import it first."""

from __future__ import annotations

import numpy as np
import torch

from audit_plugin.arrays import Modality
from audit_plugin.encoders.base import Encoder, EncoderIdentity
from audit_plugin.encoders.registry import FAMILIES, EncoderFamily
from audit_plugin.inputs.files import MediaError, file_digest, open_medium
from audit_plugin.inputs.modalities import register

IDENTITY = EncoderIdentity("tiny:depth")


def read_depth(value: str) -> np.ndarray:
    try:
        with open_medium(value) as file:
            return np.load(file, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise MediaError("depth map cannot be read") from error


def augment_depth(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return depth * np.float32(rng.uniform(0.9, 1.1))


def draw_depth(depth: np.ndarray):
    from PIL import Image

    return Image.fromarray((255 * depth / depth.max()).astype(np.uint8))


def load_tiny(_name: str, _modalities: tuple[str, ...], _device: torch.device) -> dict[str, Encoder]:
    return {"depth": Encoder(IDENTITY, 8, lambda depth: [depth], lambda batch: batch.reshape(len(batch), -1))}


register(
    Modality(
        "depth",
        content="the path of a depth map",
        digest=file_digest,
        read=read_depth,
        augment=augment_depth,
        suffixes=("npy",),
        picture=draw_depth,
    )
)
FAMILIES["tiny"] = EncoderFamily(("depth",), lambda _name, _modalities: {"depth": IDENTITY}, load_tiny)
