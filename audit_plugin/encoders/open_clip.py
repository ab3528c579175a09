"""Encoders from open_clip: any model, with cached weights, a download that was asked for, or a checkpoint file."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import socket
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from audit_plugin.arrays import AuditError
from audit_plugin.inputs.files import file_digest
from audit_plugin.inputs.images import READING
from audit_plugin.inputs.video import FRAMES

from .base import SUPPORTS, Encoder, Identity, assign, of_frames
from .open_clip_towers import image_encoder, text_encoder

DEFAULT_CLIP = ("ViT-B-32", "laion2b_s34b_b79k")
DEFAULT_SOURCE = {"hf_hub": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K/"}  # known here: importing open_clip takes seconds
NO_TOWER = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 32, "image_size": 32}  # as little as there can be
CONNECT_SECONDS = 4.0
_MULTILINGUAL = ("xlm", "nllb", "siglip2", "i18n", "multilingual", "worldwide")


def resolve(name: str, modalities: tuple[str, ...] = ("image", "text")) -> str:
    """The encoders that `name` stands for, recorded with the run.

    `auto` becomes open_clip's default where cached, else `offline`; `+offline` is added where the named encoders
    leave a modality without one.

    Raises:
        AuditError: unknown family.
    """
    if name == "auto":
        name = "open_clip:" + ":".join(DEFAULT_CLIP) if _cached(DEFAULT_SOURCE) else "offline"
    taken = assign(name, modalities, default="offline")
    return f"{name}+offline" if "offline" in taken and "offline" not in name.split("+") else name


def cached_weights(model: str, tag: str) -> str | None:
    """Path of open_clip weights that are already on this machine, else None; asks no network."""
    import open_clip

    return _cached(open_clip.get_pretrained_cfg(model, tag) or {})


def _cached(config: Mapping[str, Any]) -> str | None:
    if config.get("hf_hub"):
        from huggingface_hub import try_to_load_from_cache

        repo, filename = os.path.split(config["hf_hub"])
        names = [filename] if filename else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        hits = [try_to_load_from_cache(repo, name) for name in names]
        return next((hit for hit in hits if isinstance(hit, str)), None)
    path = Path("~/.cache/clip").expanduser() / os.path.basename(config.get("url", "") or "-")
    return str(path) if path.is_file() else None


def reachable(config: Mapping[str, Any]) -> bool:
    """Whether the server of these weights answers within 4 s."""
    from urllib.parse import urlparse

    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT if config.get("hf_hub") else config["url"]).hostname
    if constants.HF_HUB_OFFLINE and config.get("hf_hub"):
        return False
    answers: list[bool] = []

    def knock() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((host, 443), timeout=CONNECT_SECONDS).close()
            answers.append(True)

    # in a thread, because looking up a name has no time limit of its own
    caller = threading.Thread(target=knock, daemon=True)
    caller.start()
    caller.join(CONNECT_SECONDS)
    return bool(answers)


@dataclass(frozen=True)
class Located:
    """A model's weights: `path` is a file, or "" where `tag` has to be downloaded first."""

    model: str
    tag: str
    path: str

    def identity(self, modality: str) -> Identity:
        """The key holds the weights' own bytes, so that a checkpoint overwritten in place is another encoder."""
        space = f"open_clip:{self.model}:{file_digest(self.path)[:16]}"
        english = not any(word in f"{self.model} {self.tag}".lower() for word in _MULTILINGUAL)
        part = {"image": f"image:{READING}", "video": f"video:{FRAMES}"}.get(modality, modality)
        return Identity(f"{space}:{part}", space, english, bf16=True)


def locate(name: str) -> Located:
    """Where the weights of `open_clip:MODEL[:TAG or path]` are. Asks no network.

    Raises:
        AuditError: another family, unknown model or tag.
    """
    import open_clip

    family, _, rest = name.partition(":")
    if family != "open_clip" or not rest:
        raise AuditError(f"{name!r} names no open_clip model; use open_clip:MODEL[:WEIGHTS or checkpoint path]")
    model, _, tag = rest.partition(":")
    if model not in open_clip.list_models():
        near = difflib.get_close_matches(model, open_clip.list_models(), 3, 0.3) or [DEFAULT_CLIP[0]]
        raise AuditError(f"open_clip knows no model {model!r}; did you mean {', '.join(near)}?")
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = tag or (DEFAULT_CLIP[1] if DEFAULT_CLIP[1] in tags else next(iter(tags), ""))
    if os.path.isfile(os.path.expanduser(tag)):
        return Located(model, tag, os.path.expanduser(tag))
    if tag not in tags:
        raise AuditError(
            f"{tag!r} is neither a checkpoint file nor weights that open_clip knows for {model} "
            f"({', '.join(tags[:8]) or 'none'})"
        )
    return Located(model, tag, cached_weights(model, tag) or "")


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, Identity]:
    """Identities per modality, or nothing where the weights are not on this machine yet."""
    found = locate(name)
    return {m: found.identity(m) for m in modalities} if found.path else {}


def load(name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Image, video and text encoders of one model; downloads its weights if they are named but not cached."""
    import open_clip

    if unsupported := [m for m in modalities if m not in SUPPORTS["open_clip"]]:
        raise AuditError(f"open_clip encodes image, text and video, not {', '.join(unsupported)}; use another encoder")
    found = locate(name)
    if not found.path and not reachable(open_clip.get_pretrained_cfg(found.model, found.tag)):
        raise AuditError(
            f"the weights {found.tag!r} of {found.model} are not cached and their server is out of reach; "
            "connect to a network, name a local checkpoint, or use --encoder offline"
        )
    try:
        model, transform = _opened(found, device, only_text=modalities == ("text",))
        tokenizer = open_clip.get_tokenizer(found.model)
    except Exception as error:  # a foreign checkpoint fails in many ways; the user needs one sentence
        what = str(error).splitlines()[0][:120] if str(error) else ""
        raise AuditError(
            f"{found.path or found.tag!r} cannot be loaded as {found.model} ({type(error).__name__}: {what}); "
            "name a checkpoint of this model, or another model"
        ) from error
    who = found if found.path else locate(name)
    model.eval()
    encoders = {}
    if "image" in modalities or "video" in modalities:
        encoders["image"] = image_encoder(who.identity("image"), model, transform, device)
        encoders["video"] = of_frames(encoders["image"], who.identity("video"))
    if "text" in modalities:
        encoders["text"] = text_encoder(who.identity("text"), model, tokenizer, device)
    return {m: encoders[m] for m in modalities}


def _opened(found: Located, device: torch.device, only_text: bool) -> tuple[Any, Any]:
    """(model, transform of images), or where only texts are encoded (half a model, None)."""
    import open_clip

    if only_text and (found.path.endswith(".safetensors") or zipfile.is_zipfile(found.path)):
        with contextlib.suppress(AttributeError, KeyError, RuntimeError):  # a kind that wants all: it is loaded whole
            return _text_half(found, device), None
    model, _, transform = open_clip.create_model_and_transforms(
        found.model,
        pretrained=found.path or found.tag,
        device=device,
        weights_only=True,
        **_preprocessing(found.model, found.tag),
    )
    return model, transform


def _text_half(found: Located, device: torch.device) -> Any:
    """The model without its image tower, from a checkpoint that is mapped: what is not read takes no memory."""
    import open_clip
    from torch.utils.serialization import config

    with _unwarned():
        model = open_clip.create_model(
            found.model, device=device, pretrained_image=False, pretrained_text=False, vision_cfg=NO_TOWER
        )
    model.visual = torch.nn.Identity()
    with config.patch({"load.mmap": True}):
        keys = open_clip.load_checkpoint(model, found.path, strict=False, weights_only=True)
    if wrong := [*keys.missing_keys, *(key for key in keys.unexpected_keys if not key.startswith("visual."))]:
        raise RuntimeError(f"{wrong[0]} is missing or unknown")
    return model


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """open_clip warns of random weights, which are about to be replaced."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _preprocessing(name: str, tag: str) -> dict[str, Any]:
    """Mean and deviation that belong to a tag: lost when its cached file is loaded by path."""
    import open_clip

    config = open_clip.get_pretrained_cfg(name, tag) or {}
    names = {
        "mean": "image_mean",
        "std": "image_std",
        "interpolation": "image_interpolation",
        "resize_mode": "image_resize_mode",
    }
    return {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs)}
