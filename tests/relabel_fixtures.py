"""Small sets whose captions were mixed up, with embeddings that are drawn instead of trained: fast, always the same."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from audit_plugin.arrays import Features, SampleFacts
from audit_plugin.audit.score import gather_evidence
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import fixed_learner
from audit_plugin.trials.run import Job
from tests.core_fixtures import unit

N, TRIALS = 240, 12
PAIR = ("image", "text")
LINE = np.arange(N)
IDS = [f"id{row}" for row in range(N)]
CAPTIONS = [f"caption {row}" for row in range(N)]


def mixed_up(takes: np.ndarray, hidden: np.ndarray | None = None, noise: float = 0.6) -> Evidence:
    """Row i shows what hidden row i is, and holds the caption of row takes[i]; equal takes are equal captions."""
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((len(takes), 8)) if hidden is None else hidden

    def seen(loud: float) -> dict[str, np.ndarray]:
        image, text = (hidden + loud * rng.standard_normal(hidden.shape) for _ in PAIR)
        return {"image": unit(image), "text": unit(text[takes])}

    features = Features(seen(0.3), np.ones((len(takes), 2), bool))
    models = [[seen(noise)] for _ in range(TRIALS)]
    contents = {"image": np.arange(len(takes)), "text": np.unique(takes, return_inverse=True)[1]}
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        job = Job(AuditConfig(trials=TRIALS), "cpu", run, lambda *_: None)
        rows = SampleFacts(contents, dict.fromkeys(PAIR, ""), {"text": np.full(len(takes), 5)})
        evidence, _ = gather_evidence(features, rows, lambda *_: fixed_learner("drawn", models, job), job)

    def embed(number: int, rows: torch.Tensor | None = None) -> list[torch.Tensor]:
        every = [torch.from_numpy(v) for v in models[number][0].values()]
        return every if rows is None else [v[rows] for v in every]

    return replace(evidence, trials=replace(evidence.required_trials, embed=embed))
