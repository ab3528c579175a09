"""Encoders by name: `offline` (weights inside installed packages, or none), `open_clip`, `clap`, joined by "+"."""

from __future__ import annotations

from types import ModuleType

import torch

from audit_plugin.arrays import AuditError

from . import offline
from .base import Encoder, Identity, assign
from .offline import OFFLINE

__all__ = ["OFFLINE", "identify", "load_encoders", "pick_device"]


def load_encoders(name: str, modalities: tuple[str, ...], device: str) -> dict[str, Encoder]:
    """Encoders per modality for a resolved name (`clip.resolve`).

    Raises:
        AuditError: unknown name, missing package or checkpoint, weights neither cached nor reachable.
    """
    found: dict[str, Encoder] = {}
    for part, taken in assign(name, modalities).items():
        found |= _family(part).load(part, taken, torch.device(device))
    return {m: found[m] for m in modalities}


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, Identity]:
    """Who the encoders of a resolved name are, without loading a model; empty where weights need a download."""
    found: dict[str, Identity] = {}
    for part, taken in assign(name, modalities).items():
        found |= _family(part).identify(part, taken)
    return {m: found[m] for m in modalities} if len(found) == len(modalities) else {}


def _family(name: str) -> ModuleType:
    """The module of an encoder's family: each has `identify` and `load`."""
    if name == "offline":
        return offline
    from . import clap
    from . import open_clip as clip

    return clip if name.startswith("open_clip:") else clap


def pick_device(choice: str) -> str:
    """`cpu` or `cuda` for the config's `device`."""
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise AuditError("device is 'cuda' but torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    return choice
