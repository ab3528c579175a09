"""What a finished run keeps so that samples that come later can be read by its heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Features, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.neighbors.projection import Projection
from audit_plugin.scoring.evidence import Gathered
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import head_projections
from audit_plugin.trials.run import Job

from .result import Order

PART = "rows"


@dataclass(frozen=True)
class KeptRun:
    """A finished run's samples (complete ones, canonical order), masks `[r, n]` and settings.

    Attributes:
        samples: ids, media and groups.
        digests: modality -> content digests.
        projections: modality -> what the heads see of the features.
    """

    samples: Samples
    digests: Mapping[str, tuple[str, ...]]
    member: Bools
    config: AuditConfig
    projections: Mapping[str, Projection]


def keep_rows(
    samples: Samples,
    digests: Mapping[str, tuple[str, ...]],
    order: Order,
    features: Features,
    gathered: Gathered,
    job: Job,
) -> None:
    """Writes the part, of an ensemble of heads without augmented views: these can read samples that come later."""
    if gathered.plan is None or gathered.plan.roles is not None or job.config.train != "heads" or job.config.views:
        return
    rows = order.rows
    part: dict[str, Any] = {
        "ids": np.array([samples.ids[row] for row in rows]),
        "groups": np.array([samples.groups[row] for row in rows] if samples.groups else []),
        "caption": np.array([samples.caption[row] for row in rows] if samples.caption else [], dtype=np.int64),
        "member": gathered.plan.member,
        "config": np.array(json.dumps(job.config.to_dict())),
        "modalities": np.array(samples.modalities),
    }
    for name, projection in head_projections(features).items():
        part |= {f"mean_{name}": projection.mean, f"basis_{name}": projection.basis}
        part[f"floor_{name}"] = np.float64(projection.floor)
        part[f"digest_{name}"] = np.array([digests[name][row] for row in rows], dtype="S64")
        part[f"media_{name}"] = np.array([samples.media[name][row] or "" for row in rows])
    job.run.save(PART, **part)


def load_rows(run: RunFolder) -> KeptRun:
    """The way back.

    Raises:
        AuditError: the run is not finished, or trained something else than heads on all samples.
    """
    part = run.load(PART)
    if part is None:
        raise AuditError(
            f"run {run.path} cannot be extended: it is not finished, or was not an ensemble of heads without augmented "
            "views; finish it with the command that began it, or audit anew"
        )
    names = part["modalities"].tolist()
    samples = Samples(
        tuple(part["ids"].tolist()),
        {name: tuple(part[f"media_{name}"].tolist()) for name in names},
        tuple(part["groups"].tolist()),
        tuple(part["caption"].tolist()),
    )
    digests = {name: tuple(key.decode() for key in part[f"digest_{name}"].tolist()) for name in names}
    projections = {
        name: Projection(part[f"mean_{name}"], part[f"basis_{name}"], float(part[f"floor_{name}"])) for name in names
    }
    return KeptRun(
        samples, digests, part["member"], AuditConfig.from_dict(json.loads(str(part["config"]))), projections
    )
