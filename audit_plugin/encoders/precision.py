"""Which precision an encoder computes in: tried once per encoder and kind of machine, and remembered.

A copy of the weights in bf16 is taken where it is clearly faster and its features are practically the same; its
features have a key, and so a cache, of their own.
"""

from __future__ import annotations

import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Floats, Samples
from audit_plugin.config import digest_of
from audit_plugin.store import FeatureCache, cache_root, private_folder, write_atomically

from .base import Encoder, Identity
from .devices import chip_name, synchronize
from .embed import Contents, prepare_all

Load = Callable[[], dict[str, Encoder]]
SUFFIX = ":bf16"
FASTER, CLOSE = 1.3, 0.999  # times as fast at least; cosine of the worst feature to its fp32 form at least
PIECES, FEWEST = 32, 4  # that a trial encodes
MEDIA = 400  # that are read for them at most
SECONDS = 1.0  # that a pass of it may take in full precision, if the fewest pieces do not take longer
PASSES = 5
SIDE = 512  # of the matrices that tell, within milliseconds, whether a chip is worth a trial


@dataclass(frozen=True)
class Settled:
    """Encoders of the precision that was settled on.

    Attributes:
        who: modality -> identity; its key tells the precision.
        load: gives the encoders.
        notes: for people, about each trial.
    """

    who: Mapping[str, Identity]
    load: Load
    notes: tuple[str, ...] = ()


def settle(
    samples: Samples,
    contents: Contents,
    who: Mapping[str, Identity],
    load: Load,
    choice: str,
    device: str,
    kept: Mapping[str, str] | None = None,
) -> Settled:
    """Settles each encoder's precision, by a trial on real media where it is not known yet.

    Args:
        samples: rows.
        contents: their digests.
        who: modality -> identity at full precision.
        load: gives these encoders, always the same dict: where bf16 is taken its entry is replaced.
        choice: `AuditConfig.precision`.
        device: cpu or cuda.
        kept: modality -> key in a run that is continued: `auto` is its precision.
    """
    taken, notes = dict(who), []
    for modality, identity in who.items():
        known = decided(identity, choice, device, (kept or {}).get(modality, ""))
        if known is None:
            values = dict(zip(contents.digests[modality], samples.media[modality], strict=True))
            new = FeatureCache(identity.key).missing(sorted(values.keys() - {""}))
            known = _tried(load()[modality], {d: values[d] for d in new}, modality, device) if new else None
        if known is None:
            continue
        notes += [f"encoder {modality} {known.why}"] if known.why else []
        if known.precision == "bf16":
            taken[modality] = lowered_identity(identity)

    def settled() -> dict[str, Encoder]:
        encoders = load()
        for modality, identity in taken.items():
            if identity != encoders[modality].identity:
                encoders[modality] = lowered(encoders[modality])
        return encoders

    return Settled(taken, settled, tuple(notes))


@dataclass(frozen=True)
class Decision:
    """fp32 or bf16, and why, as the end of a sentence that begins with the encoder; "" where nobody need know."""

    precision: str
    why: str = ""


def decided(identity: Identity, choice: str, device: str, kept: str = "") -> Decision | None:
    """The precision as far as it is known without a trial; None if one is needed."""
    if not identity.bf16:
        return Decision("fp32")
    if choice != "auto":
        return Decision(choice)
    if kept in (identity.key, identity.key + SUFFIX):
        return Decision("bf16" if kept.endswith(SUFFIX) else "fp32")
    try:
        return Decision(**json.loads(_record(identity, device).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def settled_key(identity: Identity, choice: str, device: str) -> str:
    """The key of an encoder's features as far as it is known without a trial, full precision until then."""
    known = decided(identity, choice, device)
    return identity.key + SUFFIX if known and known.precision == "bf16" else identity.key


def lowered_identity(identity: Identity) -> Identity:
    """Who an encoder is with weights in bf16."""
    return replace(identity, key=identity.key + SUFFIX, bf16=False)


def lowered(encoder: Encoder) -> Encoder:
    """The encoder with weights in bf16."""
    assert encoder.to_bf16 is not None
    return replace(encoder, identity=lowered_identity(encoder.identity), encode=encoder.to_bf16(), to_bf16=None)


def like(encoder: Encoder, identity: Identity) -> Encoder:
    """The encoder in the precision of features that another, or itself, has made."""
    return lowered(encoder) if identity.key.endswith(SUFFIX) else encoder


def _record(identity: Identity, device: str) -> Path:
    return cache_root() / "precision" / f"{digest_of(identity.key, chip_name(device))[:24]}.json"


def _tried(encoder: Encoder, values: Mapping[str, str | None], modality: str, device: str) -> Decision | None:
    """The outcome of a trial, kept for other runs; None if no medium could be read."""
    pieces = _first_pieces(encoder, values, modality)
    if pieces is None:
        return None
    decision = try_bf16(encoder, pieces, device)
    path = _record(encoder.identity, device)
    private_folder(path.parent)
    record: dict[str, Any] = {"precision": decision.precision, "why": decision.why}
    write_atomically(path, lambda file: file.write(json.dumps(record).encode()))
    return decision


def _first_pieces(encoder: Encoder, values: Mapping[str, str | None], modality: str) -> np.ndarray | None:
    """`PIECES` of one shape, stacked, from the first media that have them; repeated where there are too few."""
    found: dict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)
    first = dict(islice(values.items(), MEDIA))
    for _, pieces in prepare_all(modality, first, encoder):
        for piece in pieces if isinstance(pieces, list) else ():
            found[piece.shape].append(piece)
        if any(len(alike) >= PIECES for alike in found.values()):
            break
    if not found:
        return None
    alike = max(found.values(), key=len)
    return np.stack([alike[i % len(alike)] for i in range(PIECES)])


def try_bf16(encoder: Encoder, pieces: np.ndarray, device: str) -> Decision:
    """Fp32 against bf16 on some pieces, fewer of them for a slow model: time, and the worst cosine of features."""
    chip = chip_gain(device)
    if chip < FASTER:
        return Decision("fp32", f"stays fp32: this machine multiplies bf16 only {chip:.1f} times as fast")
    encoder.encode(pieces[:FEWEST])  # warms up
    each = _seconds(lambda: encoder.encode(pieces[:FEWEST])) / FEWEST
    pieces = pieces[: max(FEWEST, int(SECONDS / each))]
    small = lowered(encoder)
    cosine = float(_cosines(encoder.encode(pieces), small.encode(pieces)).min())
    if not cosine >= CLOSE:  # not a number is not close
        return Decision("fp32", f"stays fp32: features in bf16 have a cosine of only {cosine:.4f} to it")
    gain = _times_faster(lambda: small.encode(pieces), lambda: encoder.encode(pieces))
    if gain < FASTER:
        return Decision("fp32", f"stays fp32: bf16 was {gain:.1f} times as fast")
    return Decision("bf16", f"computes in bf16, {gain:.1f} times as fast as fp32 (cosine to it at least {cosine:.4f})")


def _times_faster(work: Callable[[], Any], than: Callable[[], Any]) -> float:
    """By the best of a few passes in turn, which others on the machine disturb alike."""
    best, start = [float("inf")] * 2, time.perf_counter()
    for _ in range(PASSES):
        best = [min(known, _seconds(each)) for known, each in zip(best, (work, than), strict=True)]
        if time.perf_counter() - start > 2 * SECONDS:
            break
    return best[1] / best[0]


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cosines(a: Floats, b: Floats) -> Floats:
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


@functools.cache
def chip_gain(device: str) -> float:
    """How many times as fast the device multiplies matrices in bf16."""
    full = torch.ones(SIDE, SIDE, device=device)
    low = full.to(torch.bfloat16)

    def product(matrix: torch.Tensor) -> None:
        matrix @ matrix
        synchronize(device)

    product(full)
    product(low)
    return _times_faster(lambda: product(low), lambda: product(full))
