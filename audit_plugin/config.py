"""What a user can choose: one frozen dataclass. Forms, help texts, run records and digests are made from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .arrays import AuditError

FLAG_KINDS = ("misaligned", "memorized", "outlier", "duplicate", "conflict", "placeholder", "vague")


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
    scores: bool = True,
) -> Any:
    """A field of `AuditConfig`; `scores` is False for what cannot change a score (where to run, what to call it)."""
    meta = {"help": help, "low": low, "high": high, "choices": choices, "advanced": advanced, "scores": scores}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class AuditConfig:
    """Settings of one audit. Raises `AuditError` for a value that cannot work."""

    image: str = option("", "Field or column with the image (default: the sample's own file)", scores=False)
    text: str = option("", "Field or column with the caption (default: found by its name)", scores=False)
    group: str = option(
        "", "Field or column whose equal values belong together (product, video, image id)", advanced=True, scores=False
    )
    run: str = option("audit", "Run key: prefix of the fields and tags that the audit writes", scores=False)
    encoder: str = option("auto", "auto, offline, or open_clip:MODEL[:WEIGHTS or checkpoint path]")
    trials: int = option(48, "Heads trained on complementary halves; more give smaller error bars", low=2, high=1024)
    epochs: int = option(20, "Passes over its half for each trial", low=1, high=1000, advanced=True)
    neighbors: int = option(30, "Neighbours looked at per sample", low=1, high=200, advanced=True)
    false_alarms: float = option(0.02, "Share of clean samples that a flag may hit by chance", low=0.0001, high=0.2)
    seed: int = option(0, "Seed of everything random", low=0, high=2**31 - 1, advanced=True)
    device: str = option("auto", "Where to compute", choices=("auto", "cpu", "cuda"), advanced=True, scores=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f.name, getattr(self, f.name), type(f.default), f.metadata)
        if self.trials % 2:
            raise AuditError(
                f"trials is {self.trials}; it must be even, since trials come in complementary pairs: "
                f"use {self.trials + 1}"
            )
        if not self.run.isidentifier():
            raise AuditError(f"run key {self.run!r} is not a valid name: use letters, digits and underscores")

    def scoring(self) -> dict[str, Any]:
        """The settings that can change a score, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["scores"]}

    def training(self) -> dict[str, Any]:
        """Those of them on which finished parts of a run depend: a new threshold of the flags retrains nothing."""
        return {name: value for name, value in self.scoring().items() if name != "false_alarms"}

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-ready; `AuditConfig(**d)` is the way back."""
        return asdict(self)


def digest_of(*parts: Any) -> str:
    """sha256 (hex) of JSON-ready values: names and guards run folders."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(name: str, value: Any, kind: type, meta: Any) -> None:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise AuditError(f"{name} is {value!r}; it must be of type {kind.__name__}")
    if meta["choices"] and value not in meta["choices"]:
        raise AuditError(f"{name} is {value!r}; choose one of {', '.join(meta['choices'])}")
    low, high = meta["low"], meta["high"]
    if low is not None and not low <= value <= high:
        raise AuditError(f"{name} is {value}; it must lie between {low} and {high}")
