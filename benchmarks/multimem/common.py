"""Shared by the experiments: sets, training of heads, measures, intervals, figures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints, Samples, mean_interval, modality_pairs
from audit_plugin.audit.prepare import Clock, Prepared, describe_samples, prepare
from audit_plugin.audit.run import evidence_of
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.inputs.samples import read_samples
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.store import RunFolder
from audit_plugin.trials import multimem
from audit_plugin.trials.heads import Heads
from audit_plugin.trials.learners import head_inputs, head_projections
from audit_plugin.trials.run import Job
from benchmarks.data import manifest as image_text_manifest
from benchmarks.multimem.data import four_modalities
from benchmarks.multimem.treatments import Treatment, train_treated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENCODER = "offline"
TOP = 5
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


@dataclass(frozen=True)
class Loaded:
    """A benchmark set, complete rows in canonical order.

    Attributes:
        prepared: samples with features.
        inputs: per modality `[n, d]`, what heads are trained on.
        shared_ids: int32 `[n, c]`, content ids; the last column holds the leave-together groups.
    """

    prepared: Prepared
    inputs: list[torch.Tensor]
    shared_ids: Ints

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.prepared.samples.modalities

    @property
    def together(self) -> Ints:
        return self.shared_ids[:, -1].astype(np.int64)

    def __len__(self) -> int:
        return len(self.shared_ids)

    def column(self, values: Sequence[str]) -> Any:
        """Values given per row of the manifest, in canonical order."""
        return np.array(values, dtype=object)[self.prepared.order.rows]


def emoji(vendor: str, folder: Path, noise: str = "none", seed: int = 0) -> Samples:
    """Image-text emoji of one vendor."""
    path = image_text_manifest(vendor, noise=noise, seed=seed, out=folder / f"{vendor}-{noise}-{seed}")
    return read_samples(path, {"image": "image", "text": "caption"})


def emoji4(
    folder: Path, faults: float = 0.0, seed: int = 0, names: Sequence[str] = ("image", "text", "audio", "video")
) -> tuple[Samples, Path]:
    """Four-modality emoji (or some of the modalities), and the folder with `truth.csv`."""
    out = folder / f"four-{faults}-{seed}"
    rates = dict.fromkeys(("image", "text", "audio", "video"), faults) if faults else {}
    path = four_modalities(out, rates, seed)
    return read_samples(path, {name: name for name in names}), out


def load(samples: Samples, config: AuditConfig | None = None) -> Loaded:
    """Features (from the cache where known), inputs of the heads, groups."""
    config = config or AuditConfig(encoder=ENCODER)
    prepared = prepare(samples, config, Clock(silent))
    leave_together = evidence(prepared, AuditConfig(encoder=ENCODER, trials=2, epochs=1)).leave_together
    inputs = head_inputs(prepared.features, head_projections(prepared.features), prepared.device)
    return Loaded(prepared, inputs, describe_samples(prepared).shared_ids(leave_together))


def evidence(prepared: Prepared, config: AuditConfig, read: Callable[[Evidence], Any] | None = None) -> Any:
    """The audit's trials on prepared samples; `read` is called while the trials can still be embedded again."""
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        job = Job(config, prepared.device, run, silent)
        result, _ = evidence_of(prepared, job, Clock(silent))
        return result if read is None else read(result)


def train(data: Loaded, member: Bools, treatment: Treatment, group: int = 8) -> list[Heads]:
    """Heads for every row of `member` `[r, n]`, in groups; trials 2q and 2q+1 share their random stream."""
    heads = []
    for start in range(0, len(member), group):
        numbers = list(range(start, min(start + group, len(member))))
        part = treatment if treatment.hot is None else replace(treatment, hot=treatment.hot[numbers])
        rows = [np.flatnonzero(member[number]) for number in numbers]
        heads.append(train_treated(data.inputs, rows, [number // 2 for number in numbers], data.shared_ids, part))
    return heads


def embeddings(
    heads: Sequence[Heads], data: Loaded, trial: int, inputs: list[torch.Tensor] | None = None
) -> list[Floats]:
    """Unit embeddings per modality under one of the trials."""
    group = len(heads[0].layers[0][0])
    vectors = heads[trial // group].embed(data.inputs if inputs is None else inputs, trial % group)
    return [e.cpu().numpy() for e in vectors]


def memory_terms(heads: Sequence[Heads], data: Loaded, member: Bools) -> Floats:
    """Mean MultiMem terms `[m, m, n]` over trials `[r, n]` of complementary halves, offsets removed."""
    weights = multimem.trial_weights(member, 2)
    total = np.zeros((len(data.inputs), len(data.inputs), len(data)))
    for trial, inside in enumerate(member):
        terms = multimem.consistency_terms(embeddings(heads, data, trial), ~inside, data.together)
        total += weights[trial] * (terms - terms[:, :, ~inside].mean(2, keepdims=True))
    return (total * 2 / len(member)).astype(np.float32)


def top5(parts: Sequence[Floats], rows: Ints, shared_ids: Ints) -> dict[tuple[int, int], float]:
    """Pair -> share of the rows whose partner is among the first 5 of the rows, mean of both directions.

    Rows that share a medium, text or group are no rivals.
    """
    same = (shared_ids[rows][:, None, :] == shared_ids[rows][None, :, :]).any(-1)
    out = {}
    for a, b in modality_pairs(tuple(map(str, range(len(parts))))):
        similar = parts[a][rows] @ parts[b][rows].T
        own = similar.diagonal().copy()
        rivals = np.where(same, -np.inf, similar)
        ways = (rivals > own[:, None]).sum(1), (rivals > own[None, :]).sum(0)
        out[a, b] = float(np.mean([(w < TOP).mean() for w in ways]))
    return out


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean of independent repeats with its 95% t-interval."""
    bounds = dict(zip(("mean", "low", "high"), mean_interval(np.asarray(values)), strict=True))
    rounded = {name: round(value, 4) if np.isfinite(value) else None for name, value in bounds.items()}
    return rounded | {"values": [round(float(value), 4) for value in values]}


def picture(path: Path, draw: Callable[[Sequence[Axes]], None], panels: int = 1, height: float = 3.2) -> None:
    """A PNG of panels, two in a row from four on; the same bytes for the same numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        columns = panels if panels < 4 else 2
        rows = -(-panels // columns)
        size = (4.6 * columns, height * rows)
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        draw(list(axes.flat))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


def bars(ax: Axes, groups: Mapping[str, Mapping[str, Any]], label: str) -> None:
    """Horizontal bars with their intervals, the first on top."""
    names = list(groups)[::-1]
    means = np.array([groups[n]["mean"] for n in names])
    low, high = (
        np.array([groups[n][k] if groups[n][k] is not None else groups[n]["mean"] for n in names])
        for k in ("low", "high")
    )
    ax.barh(names, means, color=COLORS[0], xerr=np.stack([means - low, high - means]), error_kw={"lw": 1, "capsize": 2})
    ax.set_xlabel(label)
