"""The stages of long work: their usual shares of the time, and how far a run is as text."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from audit_plugin.arrays import AuditError, count_text

from . import checks

if TYPE_CHECKING:
    from audit_plugin.fiftyone_io.jobs import Job

ENCODING = {"image": 0.45, "text": 0.08, "audio": 0.3, "video": 0.9}  # modality -> as in `STAGE_WEIGHTS`
# Usual duration of each stage relative to the others, in their order: one progress bar is made of many counters. All
# stages that the work of an operator reports are here (`tests/test_stages.py`).
STAGE_WEIGHTS = {
    "read": 0.02,
    **{f"read {modality} vectors": 0.02 for modality in ENCODING},
    **{f"encode {modality}": weight for modality, weight in ENCODING.items()},
    **{f"embed {modality}": weight for modality, weight in ENCODING.items()},
    "measure images": 0.02,
    "neighbors": 0.03,
    "compare images": 0.02,
    "decode for towers": 0.1,
    "train": 0.35,
    "score": 0.02,
    "explain": 0.02,
    "cross-modal recall": 0.3,
    "write": 0.05,
    "removal": 1.0,
    "exporting": 0.8,
    "packing": 0.2,
}
TRAINING_OF_TOWERS = 2.0  # of "train", where the encoders themselves are trained


def audit_stages(view: Any, params: Mapping[str, Any], last: str = "write") -> dict[str, float]:
    """The stages of an audit of the view, with `last` as the last one; their shares of the time sum to 1."""
    from audit_plugin import fiftyone_io
    from audit_plugin.inputs.embeddings import parse_embeddings

    try:
        config = checks.settings(params)
        modalities = fiftyone_io.modality_sources(view, config)
        own = parse_embeddings(config.embeddings)
    except AuditError:
        return {}  # the audit raises it again, and then it is shown
    weights = STAGE_WEIGHTS
    if config.train == "towers":
        weights = {**weights, "train": TRAINING_OF_TOWERS}
    names = {"read", "neighbors", "train", "score", "explain", last}
    names |= {f"read {name} vectors" if name in own else f"encode {name}" for name in modalities}
    names |= {"measure images", "compare images"} if "image" in modalities else set()
    names |= {"decode for towers"} if config.train == "towers" else set()
    return stages_named(names, weights)


def encoding_stages(modalities: Iterable[str]) -> set[str]:
    """The stages in which an audit's media are encoded, or a person's own embeddings of them are read."""
    return {stage for name in modalities for stage in (f"encode {name}", f"read {name} vectors")}


def stages_named(names: Container[str], weights: Mapping[str, float] = STAGE_WEIGHTS) -> dict[str, float]:
    """The stages with these names in their order; their shares of the time sum to 1."""
    return shares_of_time({name: weight for name, weight in weights.items() if name in names})


def shares_of_time(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights divided by their sum."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def progress_text(job: Job) -> str:
    """`Encode image: 40 of 120, about 2 minutes left`."""
    if job.is_stopping:
        return f"{job.text}; stopping after this step"
    left = job.seconds_left()
    return job.text if left is None else f"{job.text}, about {time_text(left)} left"


def time_text(seconds: float) -> str:
    """`40 seconds`, `2 minutes`, `1.5 hours`."""
    if seconds < 90:
        return count_text(max(1, round(seconds)), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
