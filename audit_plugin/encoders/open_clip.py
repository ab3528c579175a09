"""Encoders from open_clip: any model, with cached weights, weights that are downloaded, or a checkpoint file."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.inputs import images, video
from audit_plugin.inputs.files import file_digest, first_line

from .base import Encoder, EncoderIdentity, frames_encoder, frames_preparer
from .open_clip_towers import image_encoder, image_preparer, text_encoder

ENCODES = ("image", "text", "video")
DEFAULT_CLIP = ("ViT-B-32", "laion2b_s34b_b79k")
DEFAULT_SOURCE = {"hf_hub": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K/"}  # repeated: importing open_clip takes seconds
SMALLEST_TOWER = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 32, "image_size": 32}
CONNECT_SECONDS = 4.0
_MULTILINGUAL = ("xlm", "nllb", "siglip2", "i18n", "multilingual", "worldwide")


def cached_default() -> str:
    """The name of the default model where its weights are on this machine, else ""; uses no network."""
    return "open_clip:" + ":".join(DEFAULT_CLIP) if _cached(DEFAULT_SOURCE) else ""


def cached_weights(model: str, tag: str) -> str | None:
    """Path of open_clip weights that are already on this machine, else None; uses no network."""
    import open_clip

    return _cached(open_clip.get_pretrained_cfg(model, tag) or {})


def _cached(config: Mapping[str, Any]) -> str | None:
    if config.get("hf_hub"):
        from huggingface_hub import try_to_load_from_cache

        repo, filename = os.path.split(config["hf_hub"])
        names = [filename] if filename else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        cached = [try_to_load_from_cache(repo, name) for name in names]
        return next((path for path in cached if isinstance(path, str)), None)
    path = Path("~/.cache/clip").expanduser() / os.path.basename(config.get("url", "") or "-")
    return str(path) if path.is_file() else None


def reachable(config: Mapping[str, Any]) -> bool:
    """Whether the server of these weights answers within 4 s."""
    from urllib.parse import urlparse

    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT if config.get("hf_hub") else config["url"]).hostname
    if constants.HF_HUB_OFFLINE and config.get("hf_hub"):
        return False
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((host, 443), timeout=CONNECT_SECONDS).close()
            connected.set()

    # in a thread, because looking up a host name has no time limit of its own
    threading.Thread(target=connect, daemon=True).start()
    return connected.wait(CONNECT_SECONDS)


@dataclass(frozen=True)
class OpenClipCheckpoint:
    """A model and its weights."""

    model: str  # open_clip's name of it
    tag: str  # name of pretrained weights, or path of a checkpoint
    path: str  # file of the weights; "" where `tag` has to be downloaded first

    def identity(self, modality: str) -> EncoderIdentity:
        """The key holds the digest of the weights: a checkpoint that is overwritten in place is another encoder."""
        space = f"open_clip:{self.model}:{file_digest(self.path, None)[:16]}"
        english = not any(word in f"{self.model} {self.tag}".lower() for word in _MULTILINGUAL)
        part = {"image": f"image:{images.READING}", "video": f"video:{video.READING}"}.get(modality, modality)
        return EncoderIdentity(f"{space}:{part}", space, english, bf16=True)


def locate(name: str) -> OpenClipCheckpoint:
    """The checkpoint of `open_clip:MODEL[:TAG or path]`. Uses no network.

    Raises:
        AuditError: another family, unknown model or tag.
    """
    import open_clip

    family, _, rest = name.partition(":")
    if family != "open_clip" or not rest:
        raise AuditError(f"{name!r} is not an open_clip model; use open_clip:MODEL[:WEIGHTS or checkpoint path]")
    model, _, tag = rest.partition(":")
    if model not in open_clip.list_models():
        similar = difflib.get_close_matches(model, open_clip.list_models(), 3, 0.3) or [DEFAULT_CLIP[0]]
        raise AuditError(f"open_clip knows no model {model!r}; did you mean {', '.join(similar)}?")
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = tag or (DEFAULT_CLIP[1] if DEFAULT_CLIP[1] in tags else next(iter(tags), ""))
    if os.path.isfile(os.path.expanduser(tag)):
        return OpenClipCheckpoint(model, tag, os.path.expanduser(tag))
    if tag not in tags:
        raise AuditError(
            f"{tag!r} is neither a checkpoint file nor weights that open_clip knows for {model} "
            f"({', '.join(tags[:8]) or 'none'})"
        )
    return OpenClipCheckpoint(model, tag, cached_weights(model, tag) or "")


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, EncoderIdentity]:
    """Identities by modality; empty where the weights are not on this machine yet."""
    checkpoint = locate(name)
    return {modality: checkpoint.identity(modality) for modality in modalities} if checkpoint.path else {}


def load(name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Image, video and text encoders of one model; downloads its weights if they are not cached.

    Raises:
        AuditError: another modality, unknown model, or weights that cannot be downloaded or loaded.
    """
    import open_clip

    if unsupported := [modality for modality in modalities if modality not in ENCODES]:
        raise AuditError(f"open_clip encodes image, text and video, not {', '.join(unsupported)}; use another encoder")
    checkpoint = locate(name)
    if not checkpoint.path and not reachable(open_clip.get_pretrained_cfg(checkpoint.model, checkpoint.tag)):
        raise AuditError(
            f"the weights {checkpoint.tag!r} of {checkpoint.model} are not cached and their server is out of reach; "
            "connect to a network, name a local checkpoint, or use --encoder offline"
        )
    try:
        model, transform = _load_model(checkpoint, device, only_text=modalities == ("text",))
        tokenizer = open_clip.get_tokenizer(checkpoint.model)
    except Exception as error:  # a foreign checkpoint fails in many ways; the user needs one sentence
        raise AuditError(
            f"{checkpoint.path or checkpoint.tag!r} cannot be loaded as {checkpoint.model} "
            f"({type(error).__name__}: {first_line(error)}); name a checkpoint of this model, or another model"
        ) from error
    if not checkpoint.path:
        checkpoint = locate(name)  # now downloaded
    model.eval()
    encoders = {}
    if "image" in modalities or "video" in modalities:
        encoders["image"] = image_encoder(checkpoint.identity("image"), model, transform, device)
        encoders["video"] = frames_encoder(encoders["image"], checkpoint.identity("video"))
    if "text" in modalities:
        encoders["text"] = text_encoder(checkpoint.identity("text"), model, tokenizer, device)
    return {modality: encoders[modality] for modality in modalities}


def preparer(name: str, modality: str) -> Callable[[Any], list[np.ndarray]]:
    """What images, or the frames of videos, are prepared with: the model is made without memory for its weights."""
    with _warnings_withheld():
        prepare = image_preparer(_create(locate(name), None, torch.device("meta"))[1])
    return frames_preparer(prepare) if modality == "video" else prepare


def _load_model(checkpoint: OpenClipCheckpoint, device: torch.device, only_text: bool) -> tuple[Any, Any]:
    """(model, transform of images); where only texts are encoded (model without its image tower, None)."""
    if only_text and (checkpoint.path.endswith(".safetensors") or zipfile.is_zipfile(checkpoint.path)):
        # other kinds of models cannot be loaded in parts: they are loaded as below
        with contextlib.suppress(AttributeError, KeyError, RuntimeError):
            return _load_text_tower(checkpoint, device), None
    return _create(checkpoint, checkpoint.path or checkpoint.tag, device)


def _create(checkpoint: OpenClipCheckpoint, pretrained: str | None, device: torch.device) -> tuple[Any, Any]:
    """(model with the weights that `pretrained` names, or with random ones; transform of images)."""
    import open_clip

    # the preprocessing of a tag, which a file that is loaded by its path does not hold
    config = open_clip.get_pretrained_cfg(checkpoint.model, checkpoint.tag) or {}
    keys = [key for key in ("mean", "std", "interpolation", "resize_mode") if config.get(key)]
    options: dict[str, Any] = {f"image_{key}": config[key] for key in keys}
    if pretrained is None:
        options |= {"pretrained_image": False, "pretrained_text": False}
    model, _, transform = open_clip.create_model_and_transforms(
        checkpoint.model, pretrained=pretrained, device=device, weights_only=True, **options
    )
    return model, transform


@contextlib.contextmanager
def _warnings_withheld() -> Iterator[None]:
    """open_clip warns of random weights, which are about to be replaced or are not used."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def _load_text_tower(checkpoint: OpenClipCheckpoint, device: torch.device) -> Any:
    """The model without its image tower, from a checkpoint that is memory-mapped: other weights take no memory."""
    import open_clip
    from torch.utils.serialization import config

    with _warnings_withheld():
        model = open_clip.create_model(
            checkpoint.model, device=device, pretrained_image=False, pretrained_text=False, vision_cfg=SMALLEST_TOWER
        )
    model.visual = torch.nn.Identity()
    with config.patch({"load.mmap": True}):
        keys = open_clip.load_checkpoint(model, checkpoint.path, strict=False, weights_only=True)
    unknown = [key for key in keys.unexpected_keys if not key.startswith("visual.")]
    mismatched = [*keys.missing_keys, *unknown]
    if mismatched:
        raise RuntimeError(f"{mismatched[0]} is missing or unknown")
    return model
