"""What a user can choose: one frozen dataclass. Forms, help texts, run records and digests are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any

from .arrays import MODALITIES, AuditError, Modality

NO_TEXT = "none"  # as the text of a FiftyOne dataset: one medium without texts, for outliers and duplicates
MOST_RUN_KEY = 100  # characters; names of fields, tags and saved views begin with it, and a database limits these


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


def _modality_setting(modality: Modality) -> Any:
    default = f" (default: {modality.default})" if modality.default else ""
    return option("", f"Field or column with {modality.content}{default}", scores=False)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class _ModalitySettings:
        """What type checkers know of the settings that are made from the table."""

        image: str = ""
        text: str = ""
        audio: str = ""
        video: str = ""
else:
    _ModalitySettings = make_dataclass(
        "_ModalitySettings",
        [(name, str, _modality_setting(modality)) for name, modality in MODALITIES.items()],
        frozen=True,
    )


@dataclass(frozen=True)
class AuditConfig(_ModalitySettings):
    """Settings of one audit; the first ones name the field or column of each of `MODALITIES`.

    Raises:
        AuditError: an invalid value or combination.
    """

    template: str = option(
        "",
        "Prompt templates for class names, {} for the name, separated by | (default for labels of a FiftyOne "
        "dataset: 'a photo of a {}' and similar)",
        advanced=True,
    )
    group: str = option(
        "",
        "Field or column that groups samples which belong together (product, video, image id)",
        advanced=True,
        scores=False,
    )
    label: str = option(
        "",
        "Field or column with the class label, used to balance the held-out reference samples",
        advanced=True,
        scores=False,
    )
    role: str = option(
        "",
        "Field or column naming the models that saw a sample: both, f, g, none or reference; needed with the protocol "
        "split or with checkpoints",
        advanced=True,
        scores=False,
    )
    split: str = option(
        "",
        "Field or column with the data split (train, test, ...); near-duplicates across splits are reported",
        advanced=True,
        scores=False,
    )
    run: str = option("audit", "Run key, the prefix of the fields and tags that the audit writes", scores=False)
    encoder: str = option(
        "auto",
        "Encoder: auto, offline, open_clip:MODEL[:WEIGHTS or checkpoint path], clap:PATH, or several joined by +",
    )
    embeddings: str = option(
        "",
        "Your own embeddings in place of an encoder's: image=FILE,text=FILE (npy, npz, Parquet, Arrow, safetensors, "
        "Lance; FILE#COLUMN); of a dataset also image=field:NAME or image=brain:KEY",
        advanced=True,
        scores=False,
    )
    same_space: bool = option(
        False, "Your own embeddings of several modalities share one space, as those of CLIP do", advanced=True
    )
    train: str = option(
        "heads",
        "What each trial trains: heads on frozen features, open_clip towers, or nothing (your own checkpoints)",
        choices=("heads", "towers", "checkpoints"),
        advanced=True,
    )
    tower: str = option(
        "small", "For towers: small (from scratch), or an open_clip MODEL[:WEIGHTS to fine-tune]", advanced=True
    )
    checkpoint_f: str = option(
        "", "For checkpoints: the model trained on the f samples, as open_clip:MODEL:PATH", advanced=True
    )
    checkpoint_g: str = option(
        "", "For checkpoints: the model trained on the g samples, as open_clip:MODEL:PATH", advanced=True
    )
    protocol: str = option(
        "ensemble",
        "ensemble scores every sample; split (the paper) compares candidates with an independent set of equal size",
        choices=("ensemble", "split"),
        advanced=True,
    )
    trials: int = option(
        48,
        "Number of models to train, each without part of the samples; 0: as many as a reliable MultiMem needs",
        low=0,
        high=1024,
    )
    folds: int = option(
        2, "Number of folds; each trial leaves one out (2: complementary halves)", low=2, high=20, advanced=True
    )
    views: int = option(
        0,
        "Number of augmented views to average consistency over (0: the original sample only)",
        low=0,
        high=32,
        advanced=True,
    )
    epochs: int = option(20, "Epochs per trial", low=1, high=1000, advanced=True)
    neighbors: int = option(30, "Neighbors per sample", low=1, high=200, advanced=True)
    false_positive_rate: float = option(
        0.01, "Expected false-positive rate: share of clean samples that are flagged", low=0.0001, high=0.2
    )
    seed: int = option(0, "Random seed", low=0, high=2**31 - 1, advanced=True)
    precision: str = option(
        "auto",
        "Precision of encoders and heads; auto: bf16 where it is faster without a measurable effect on the scores",
        choices=("auto", "fp32", "bf16"),
        advanced=True,
    )
    device: str = option("auto", "Device to compute on", choices=("auto", "cpu", "cuda"), advanced=True, scores=False)
    engine: str = option(
        "local",
        "Execution backend: this process, or Ray workers, local or in the cluster that RAY_ADDRESS names",
        choices=("local", "ray"),
        advanced=True,
        scores=False,
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f.name, getattr(self, f.name), type(f.default), f.metadata)
        if self.trials % self.folds:
            raise AuditError(
                f"trials is {self.trials}; it must be a multiple of {self.folds} (folds) to hold out every sample "
                f"equally often: use {-(-self.trials // self.folds) * self.folds}"
            )
        if not self.trials and (self.folds != 2 or self.protocol == "split" or self.train == "checkpoints"):
            raise AuditError(
                "trials is 0 (automatic), which needs protocol=ensemble, folds=2 and a model to train; give a number"
            )
        if self.folds != 2 and (self.protocol == "split" or self.train == "checkpoints"):
            raise AuditError(f"folds is {self.folds}; split and checkpoints compare two models: leave it at 2")
        if self.views and self.train != "heads":
            raise AuditError(f"views is {self.views}; augmented views need train=heads: use 0")
        if lacking := [part for part in self.template.split("|") if self.template and "{}" not in part]:
            raise AuditError(
                f"template {lacking[0]!r} has no {{}} for the class name; write it as in: a photo of a {{}}"
            )
        if not self.run.isidentifier():
            raise AuditError(f"run key {self.run!r} is not a valid name: use letters, digits and underscores")
        if len(self.run) > MOST_RUN_KEY:
            short = f"{self.run[:20]}..."
            raise AuditError(f"run key {short!r} has {len(self.run):,} characters; use at most {MOST_RUN_KEY}")

    def scoring(self) -> dict[str, Any]:
        """The settings that can change a score, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["scores"]}

    def training(self) -> dict[str, Any]:
        """Those of them on which finished parts of a run depend: a new threshold of the flags retrains nothing.

        The precision that was settled on stands in a run's identity, not the one that was asked for.
        """
        return {
            name: value for name, value in self.scoring().items() if name not in ("false_positive_rate", "precision")
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-ready; `from_dict` is the way back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> AuditConfig:
        """The settings that were stored by this version or a former one; those that this version lacks are ignored."""
        return cls(**{name: v for name, v in current_names(settings).items() if name in cls.__dataclass_fields__})


# Keys of stored settings and summaries that were renamed: former name -> the name of today.
FORMER_NAMES = {
    "false_alarms": "false_positive_rate",
    "neighbours": "neighbors",
    "recall": "probe_recall",
    "wrong_model": "estimated",
    "wrong_share_model": "estimated_wrong_share",
    "products": "matrix_precision",
}
FORMER_KINDS = {"neighbourhood": "neighborhood"}  # of probe pairs, in nested records too


def current_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings or a stored summary under the names of today."""
    current = {FORMER_NAMES.get(name, name): _current_kinds(value) for name, value in record.items()}
    if isinstance(current.get("config"), Mapping):
        current["config"] = current_names(current["config"])
    return current


def _current_kinds(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {FORMER_KINDS.get(name, name): _current_kinds(inner) for name, inner in value.items()}


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
