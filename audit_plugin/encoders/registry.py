"""Encoders by name: `offline` (weights inside installed packages, or none), `open_clip`, `clap`, joined by "+"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError

from . import clap, offline, open_clip
from .base import Encoder, EncoderIdentity, on_device

DEFAULT = "offline"  # encodes what no named encoder takes


@dataclass(frozen=True)
class EncoderFamily:
    """One kind of encoders."""

    modalities: tuple[str, ...]  # what it encodes
    # (name, modalities) -> by modality, without loading a model; empty where the weights are not on this machine yet
    identify: Callable[[str, tuple[str, ...]], dict[str, EncoderIdentity]]
    load: Callable[[str, tuple[str, ...], torch.device], dict[str, Encoder]]
    named: bool = True  # a name must follow the family's, as in `open_clip:MODEL`
    # texts -> the share of each one's tokens that the vocabulary lacks; None where tokens are bytes, of which none is
    # unknown
    unknown_token_shares: Callable[[Sequence[str]], list[float]] | None = None
    # (name, modality that is not text) -> `Encoder.prepare` without loading a model; None: a model is loaded for it
    preparer: Callable[[str, str], Callable[[Any], list[np.ndarray]]] | None = None


# A new family of encoders is one entry.
FAMILIES = {
    "offline": EncoderFamily(
        tuple(offline.IDENTITIES), offline.identify, offline.load, False, offline.unknown_token_shares, offline.preparer
    ),
    "open_clip": EncoderFamily(open_clip.ENCODES, open_clip.identify, open_clip.load, preparer=open_clip.preparer),
    "clap": EncoderFamily(clap.ENCODES, clap.identify, clap.load, preparer=clap.preparer),
}


def resolve_name(name: str, modalities: tuple[str, ...]) -> str:
    """The encoders that `AuditConfig.encoder` stands for, as recorded with the run.

    `auto` becomes open_clip's default where its weights are cached, else `offline`; `+offline` is added where the
    named encoders leave a modality without one.

    Raises:
        AuditError: unknown family.
    """
    if name == "auto":
        name = open_clip.cached_default() or DEFAULT
    assigned = assign(name, modalities, default=DEFAULT)
    if DEFAULT in assigned and DEFAULT not in name.split("+"):
        return f"{name}+{DEFAULT}"
    return name


def assign(name: str, modalities: Sequence[str], default: str = "") -> dict[str, tuple[str, ...]]:
    """Encoder -> the modalities that it encodes, for names joined by "+" such as `open_clip:ViT-B-32+clap:FOLDER`.

    Each modality goes to the first encoder that takes it, else to the `default`, if any.

    Raises:
        AuditError: unknown family, or a modality that no named encoder takes.
    """
    # only a plus sign before the name of a family parts two encoders: a path may hold one too
    parts = re.split(rf"\+(?=(?:{'|'.join(FAMILIES)})(?::|\+|$))", name)
    for part in parts:
        family, colon, model = part.partition(":")
        is_complete = family in FAMILIES and (bool(model) if FAMILIES[family].named else not colon)
        if not is_complete:
            raise AuditError(
                f"encoder {part!r} is not known; use auto, offline, open_clip:MODEL[:WEIGHTS], clap:FOLDER_OR_NAME, "
                "or several joined by +, for example open_clip:ViT-B-32:laion2b_s34b_b79k"
            )
    if default:
        parts.append(default)
    assigned: dict[str, tuple[str, ...]] = {}
    for modality in modalities:
        encoder = next((part for part in parts if modality in _family(part).modalities), None)
        if encoder is None:
            raise AuditError(f"encoder {name!r} takes no {modality}; add one that does, such as {name}+offline")
        assigned[encoder] = (*assigned.get(encoder, ()), modality)
    return assigned


def _family(part: str) -> EncoderFamily:
    return FAMILIES[part.partition(":")[0]]


def encoder_of(name: str, modality: str) -> str:
    """The one of the encoders joined in a resolved name that takes a modality."""
    return next(iter(assign(name, (modality,))))


def unknown_token_shares(name: str, texts: Sequence[str]) -> list[float]:
    """For each text the share of tokens that the text encoder of a resolved name does not know; [] where it knows all.

    Raises:
        ImportError: the package with the vocabulary is missing.
    """
    shares = _family(encoder_of(name, "text")).unknown_token_shares
    return shares(texts) if shares else []


def identify(name: str, modalities: tuple[str, ...], device: str = "cpu") -> dict[str, EncoderIdentity]:
    """Identities by modality for a resolved name, without loading a model; empty where weights need a download."""
    identities: dict[str, EncoderIdentity] = {}
    for part, assigned in assign(name, modalities).items():
        identities |= _family(part).identify(part, assigned)
    if len(identities) < len(modalities):
        return {}
    return {modality: on_device(identities[modality], device) for modality in modalities}


def load_encoders(name: str, modalities: tuple[str, ...], device: str) -> dict[str, Encoder]:
    """Encoders by modality for a resolved name (`resolve_name`).

    Raises:
        AuditError: unknown name, missing package or checkpoint, weights neither cached nor reachable.
    """
    encoders: dict[str, Encoder] = {}
    for part, assigned in assign(name, modalities).items():
        encoders |= _family(part).load(part, assigned, torch.device(device))
    return {m: replace(encoders[m], identity=on_device(encoders[m].identity, device)) for m in modalities}


def load_preparer(name: str, modality: str) -> Callable[[Any], list[np.ndarray]]:
    """What the encoder of a resolved name prepares media with (`Encoder.prepare`), if it can without its weights."""
    part = encoder_of(name, modality)
    preparer = _family(part).preparer
    return preparer(part, modality) if preparer else load_encoders(name, (modality,), "cpu")[modality].prepare
