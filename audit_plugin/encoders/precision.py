"""Which precision an encoder computes in: measured once per encoder and kind of machine, and remembered.

A copy of the weights in bf16 is used where it is clearly faster and its features are practically the same; its
features have a key, and so a cache, of their own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Samples
from audit_plugin.store import (
    Damaged,
    FeatureCache,
    cache_root,
    digest_of,
    private_folder,
    read_json,
    sealed_json,
    write_bytes,
)
from audit_plugin.store.inventory import PRECISION

from .base import Encoder, EncoderIdentity
from .devices import chip_name
from .embed import Contents, prepare_contents

Load = Callable[[], dict[str, Encoder]]
BF16_SUFFIX = ":bf16"  # of the key of an encoder with weights in bf16
LEAST_SPEEDUP = 1.3
LEAST_COSINE = 0.999  # of the worst feature to its fp32 form
TRIAL_PIECES, FEWEST_PIECES = 32, 4  # that a trial encodes
TRIAL_MEDIA = 400  # that are read for them at most
PASS_SECONDS = 1.0  # of a pass in fp32, unless the fewest pieces take longer
PASSES = 5
MATRIX_SIDE = 512  # of the matrices by which a chip is measured, within milliseconds


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of one encoder, fp32 or bf16."""

    precision: str
    reason: str = ""  # the end of a sentence that begins with the encoder; "" where nobody needs to know


@dataclass(frozen=True)
class ChosenEncoders:
    """Encoders in the precision that was chosen, with notes for people about each trial."""

    identities: Mapping[str, EncoderIdentity]  # their keys tell the precision
    load: Load
    notes: tuple[str, ...] = ()


def choose_precision(
    samples: Samples,
    contents: Contents,
    identities: Mapping[str, EncoderIdentity],
    load: Load,
    choice: str,
    device: str,
    former_keys: Mapping[str, str] | None = None,
) -> ChosenEncoders:
    """Chooses each encoder's precision, by a trial on the user's media where it is not known yet.

    `choice` is `AuditConfig.precision`; in a run that is continued, `auto` is the precision that its `former_keys`
    tell, by modality. `load` returns the encoders of `identities` in fp32, always the same dict: where bf16 is chosen
    its entry is replaced.
    """
    chosen = dict(identities)
    notes: list[str] = []
    for modality, identity in identities.items():
        former_key = (former_keys or {}).get(modality, "")
        known = known_precision(identity, choice, device, former_key)
        if known is None:
            values = dict(zip(contents.digests[modality], samples.media[modality], strict=True))
            missing = FeatureCache(identity.key).missing(sorted(values.keys() - {""}))
            if not missing:
                continue  # all features are known in fp32: a trial would cost more than it saves
            known = _run_trial(load()[modality], {digest: values[digest] for digest in missing}, modality, device)
        if known is None:
            continue
        if known.reason:
            notes.append(f"encoder {modality} {known.reason}")
        if known.precision == "bf16":
            chosen[modality] = bf16_identity(identity)

    def load_chosen() -> dict[str, Encoder]:
        encoders = load()
        for modality, identity in chosen.items():
            if identity != encoders[modality].identity:
                encoders[modality] = bf16_encoder(encoders[modality])
        return encoders

    return ChosenEncoders(chosen, load_chosen, tuple(notes))


def known_precision(
    identity: EncoderIdentity, choice: str, device: str, former_key: str = ""
) -> PrecisionChoice | None:
    """The precision as far as it is known without a trial; None if one is needed."""
    if not identity.bf16:
        return PrecisionChoice("fp32")
    if choice != "auto":
        return PrecisionChoice(choice)
    if former_key in (identity.key, identity.key + BF16_SUFFIX):
        return PrecisionChoice("bf16" if former_key.endswith(BF16_SUFFIX) else "fp32")
    path = _record_path(identity, device)
    try:
        record, is_sealed = read_json(path, PRECISION)
        known = PrecisionChoice(record["precision"], record["why"]) if is_sealed else None
    except (FileNotFoundError, Damaged, KeyError):
        return None
    with contextlib.suppress(OSError):  # removed meanwhile
        os.utime(path)  # the last use, for `cache prune`
    return known


def known_key(identity: EncoderIdentity, choice: str, device: str) -> str:
    """The key of an encoder's features as far as its precision is known without a trial, in fp32 until then."""
    known = known_precision(identity, choice, device)
    return identity.key + BF16_SUFFIX if known and known.precision == "bf16" else identity.key


def bf16_identity(identity: EncoderIdentity) -> EncoderIdentity:
    """The identity of an encoder with weights in bf16."""
    return replace(identity, key=identity.key + BF16_SUFFIX, bf16=False)


def bf16_encoder(encoder: Encoder) -> Encoder:
    """The encoder with weights in bf16."""
    assert encoder.to_bf16 is not None
    return replace(encoder, identity=bf16_identity(encoder.identity), encode=encoder.to_bf16(), to_bf16=None)


def in_precision_of(encoder: Encoder, identity: EncoderIdentity) -> Encoder:
    """The encoder in the precision that the identity's key tells."""
    return bf16_encoder(encoder) if identity.key.endswith(BF16_SUFFIX) else encoder


def _record_path(identity: EncoderIdentity, device: str) -> Path:
    return cache_root() / PRECISION / f"{digest_of(identity.key, chip_name(device))[:24]}.json"


def _run_trial(
    encoder: Encoder, values: Mapping[str, str | None], modality: str, device: str
) -> PrecisionChoice | None:
    """The outcome of a trial, stored for other runs; None if no medium could be read.

    It encodes pieces of one shape, from the first media that have enough of them; repeated where too few.
    """
    pieces_by_shape: dict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)
    first_values = dict(islice(values.items(), TRIAL_MEDIA))
    for _, pieces in prepare_contents(modality, first_values, encoder):
        for piece in pieces if not isinstance(pieces, str) else ():
            pieces_by_shape[piece.shape].append(piece)
        if any(len(same_shape) >= TRIAL_PIECES for same_shape in pieces_by_shape.values()):
            break
    if not pieces_by_shape:
        return None
    most = max(pieces_by_shape.values(), key=len)
    choice = try_bf16(encoder, np.stack([most[number % len(most)] for number in range(TRIAL_PIECES)]), device)
    path = _record_path(encoder.identity, device)
    private_folder(path.parent)
    facts = {"encoder": encoder.identity.key, "chip": chip_name(device)}  # for people who list or delete them
    record = {"precision": choice.precision, "why": choice.reason, **facts}
    write_bytes(path, sealed_json(record, PRECISION))
    return choice


def try_bf16(encoder: Encoder, pieces: np.ndarray, device: str) -> PrecisionChoice:
    """Compares bf16 with fp32 on pieces `[TRIAL_PIECES, ...]`, fewer for a slow model: time and the worst cosine."""
    chip_speedup = bf16_speedup(device)
    if chip_speedup < LEAST_SPEEDUP:
        return PrecisionChoice(
            "fp32", f"stays fp32: this machine multiplies bf16 only {chip_speedup:.1f} times as fast"
        )
    few = pieces[:FEWEST_PIECES]
    encoder.encode(few)  # warms up
    seconds_per_piece = _seconds(lambda: encoder.encode(few)) / FEWEST_PIECES
    pieces = pieces[: max(FEWEST_PIECES, int(PASS_SECONDS / seconds_per_piece))]
    in_bf16 = bf16_encoder(encoder)
    a, b = encoder.encode(pieces), in_bf16.encode(pieces)  # [TRIAL_PIECES, d]
    cosines = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    worst_cosine = float(cosines.min())
    if not worst_cosine >= LEAST_COSINE:  # NaN too
        return PrecisionChoice("fp32", f"stays fp32: features in bf16 have a cosine of only {worst_cosine:.4f} to it")
    speedup = _speedup(lambda: in_bf16.encode(pieces), lambda: encoder.encode(pieces))
    if speedup < LEAST_SPEEDUP:
        return PrecisionChoice("fp32", f"stays fp32: bf16 was {speedup:.1f} times as fast")
    return PrecisionChoice(
        "bf16", f"computes in bf16, {speedup:.1f} times as fast as fp32 (cosine to it at least {worst_cosine:.4f})"
    )


def _speedup(work: Callable[[], Any], baseline: Callable[[], Any]) -> float:
    """How many times as fast `work` is: the best of a few passes in turn, which others on the machine disturb alike."""
    best_work = best_baseline = float("inf")
    start = time.perf_counter()
    for _ in range(PASSES):
        best_work = min(best_work, _seconds(work))
        best_baseline = min(best_baseline, _seconds(baseline))
        if time.perf_counter() - start > 2 * PASS_SECONDS:
            break
    return best_baseline / best_work


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@functools.cache
def bf16_speedup(device: str) -> float:
    """How many times as fast the device multiplies matrices in bf16 as in fp32."""
    full = torch.ones(MATRIX_SIDE, MATRIX_SIDE, device=device)
    low = full.to(torch.bfloat16)

    def square(matrix: torch.Tensor) -> None:
        matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()

    square(full)  # warms up
    square(low)
    return _speedup(lambda: square(low), lambda: square(full))
