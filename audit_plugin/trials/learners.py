"""What is trained for each trial: heads on frozen features, whole towers, or nothing for two models of your own."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from audit_plugin.arrays import Bools, Features, Floats, Ints, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.devices import matmul_precision, use_matmul_precision
from audit_plugin.encoders.embed import Contents, Embedded
from audit_plugin.encoders.prompts import split_templates
from audit_plugin.neighbors.projection import Projection, fit_projection, project
from audit_plugin.store import RunFolder

from .heads import TRIAL_GROUP, Heads, train_group
from .run import Job, Learner, SampleRows, TrialArrays, TrialPlan, load_part

TOWERS_IN_MEMORY = 8  # trials, each of which stores the embeddings of all samples
FEATURE_NOISE = 0.1  # standard deviation, of inputs of mean square 1
HEADS = "heads on frozen features; the frozen encoders may have seen the data"


def head_projections(features: Features) -> dict[str, Projection]:
    """What the heads of a run see of each modality: its leading principal components, not whitened."""
    return {name: fit_projection(v, whitening=0.0) for name, v in features.vectors.items()}


def head_inputs(features: Features, projections: Mapping[str, Projection], device: str) -> list[torch.Tensor]:
    """Per modality `[n, q]`, of mean square 1."""
    inputs = []
    for name, vectors in features.vectors.items():
        view = project(vectors, projections[name])
        view *= np.float32(np.sqrt(view.shape[1]))
        inputs.append(torch.from_numpy(view).to(device))
    return inputs


def _rows_of(tensors: Sequence[torch.Tensor], rows: SampleRows) -> list[torch.Tensor]:
    """The rows of each tensor `[n, d]`, or the tensors."""
    return list(tensors) if rows is None else [tensor[rows] for tensor in tensors]


def _rows_on_device(arrays: Iterable[Floats], rows: SampleRows, device: str) -> list[torch.Tensor]:
    """The rows of each array `[n, d]`, or the arrays, on a device, where nothing else of them goes."""
    places = None if rows is None else rows.cpu()
    return [part.to(device) for part in _rows_of([torch.from_numpy(array) for array in arrays], places)]


def _train_nothing(_numbers: list[int], _member: Bools) -> dict[str, np.ndarray]:
    return {}


def heads_learner(
    features: Features,
    augmented: Sequence[Features],
    projections: Mapping[str, Projection],
    shared_ids: Ints,
    plan: TrialPlan,
    job: Job,
) -> Learner:
    """Small heads on cached features, trained for every trial: head-level MultiMem.

    Args:
        features: of n samples in canonical order.
        augmented: the same samples' augmented views; each gets a little Gaussian noise as well, so that texts and other
            media that no augmentation changes have different views too.
        projections: of `features`.
        shared_ids: `[n, c]`, see `train_group`.
        plan: of all trials, whose mean size sets the number of steps.
        job: of the run.
    """
    inputs = [head_inputs(features, projections, job.device)]
    for number, view in enumerate(augmented, 1):
        rng = np.random.default_rng((job.config.seed, 17, number))
        noisy = []
        for x in head_inputs(view, projections, job.device):
            noise = rng.standard_normal(tuple(x.shape), dtype=np.float32) * np.float32(FEATURE_NOISE)
            noisy.append(x + torch.from_numpy(noise).to(job.device))
        inputs.append(noisy)
    # only these values: the functions below may be sent to other processes
    size, epochs, seed, device = plan.usual_members, job.config.epochs, job.config.seed, job.device
    precision = matmul_precision(job.config.precision, device)  # the driver's, whatever the chip of a worker

    def make(numbers: list[int], member: Bools) -> dict[str, np.ndarray]:
        with use_matmul_precision(precision, device):
            return train_group(inputs[0], member, numbers, shared_ids, epochs, seed, size).arrays()

    def load(arrays: TrialArrays) -> Heads:
        return Heads.from_arrays(arrays, len(inputs[0]), device)

    def embed(heads: Heads, number: int, view: int, rows: SampleRows = None) -> list[torch.Tensor]:
        return heads.embed(_rows_of(inputs[view], rows), number % TRIAL_GROUP)

    return Learner(HEADS, TRIAL_GROUP, make, embed, len(augmented), load, travels=device == "cpu")


def trained_heads_learner(
    features: Features, projections: Mapping[str, Projection], run: RunFolder, job: Job
) -> Learner:
    """The heads of the finished `run`, for samples that were not trained on: nothing is trained.

    `features` are of all modalities of the run or of some, `projections` of all, in their order.
    """
    inputs = head_inputs(features, projections, job.device)
    names = list(projections)
    positions = [names.index(name) for name in features.modalities]

    @functools.cache
    def load(start: int) -> Heads:
        arrays = load_part(run, start)
        layers = Heads.from_arrays(arrays, len(names), job.device).layers
        return Heads(tuple(layers[at] for at in positions))

    def embed(_arrays: TrialArrays, number: int, _view: int, rows: SampleRows = None) -> list[torch.Tensor]:
        place = number % TRIAL_GROUP
        return load(number - place).embed(_rows_of(inputs, rows), place)

    return Learner(HEADS, TRIAL_GROUP, _train_nothing, embed)


def fixed_learner(trained: str, models: Sequence[Sequence[Mapping[str, Floats]]], job: Job) -> Learner:
    """Models that exist already: `models[trial][view]` holds unit embeddings `[n, d]` per modality."""

    def embed(_arrays: TrialArrays, number: int, view: int, rows: SampleRows = None) -> list[torch.Tensor]:
        return _rows_on_device(models[number][view].values(), rows, job.device)

    return Learner(trained, len(models), _train_nothing, embed, len(models[0]) - 1)


def towers_learner(samples: Samples, rows: Ints, plan: TrialPlan, job: Job) -> Learner:
    """Whole open_clip towers, trained for each trial, of which the embeddings of all samples are stored."""
    from . import towers

    spec = towers.parse_tower(job.config.tower, job.config.epochs)

    @functools.cache
    def data() -> towers.TowerData:
        media = {name: [values[row] or "" for row in rows] for name, values in samples.media.items()}
        return towers.prepare_towers(media, spec, job.progress)

    def make(numbers: list[int], member: Bools) -> dict[str, np.ndarray]:
        members = np.flatnonzero(member[0])
        model = towers.train_tower(data(), members, spec, plan.usual_members, job.config.seed, numbers[0], job.device)
        return {f"tower_{a}": v for a, v in enumerate(towers.embed_tower(model, data(), job.device))}

    def embed(arrays: TrialArrays, _number: int, _view: int, rows: SampleRows = None) -> list[torch.Tensor]:
        return _rows_on_device([arrays[f"tower_{a}"] for a in range(len(samples.modalities))], rows, job.device)

    return Learner(towers.describe(spec), 1, make, embed, parts_in_memory=TOWERS_IN_MEMORY)


def checkpoint_vectors(samples: Samples, contents: Contents, job: Job) -> list[Embedded]:
    """Features of all rows by the user's f and g, open_clip checkpoints by name."""
    from audit_plugin.encoders.own_models import checkpoint_features

    names, templates = (job.config.checkpoint_f, job.config.checkpoint_g), split_templates(job.config.template)
    return [checkpoint_features(samples, contents, name, job.device, job.progress, templates) for name in names]


def checkpoints_learner(models: Sequence[Embedded], rows: Ints, job: Job) -> Learner:
    """The user's own f and g, which saw the samples that `role` names: nothing is trained."""
    names = f"{job.config.checkpoint_f or 'f'} and {job.config.checkpoint_g or 'g'}"
    vectors = [[model.features.rows(rows).vectors] for model in models]
    return fixed_learner(f"nothing: your own {names}, which may share what they saw before", vectors, job)


def learner_identity(config: AuditConfig) -> str:
    """Digest of the weights that training starts from: a checkpoint that is overwritten in place makes another run.

    Raises:
        AuditError: the towers or checkpoints do not exist; raised before anything is encoded.
    """
    if config.train == "towers":
        from .towers import parse_tower

        weights, spec = config.tower.partition(":")[2], parse_tower(config.tower, config.epochs)
        # the weights of a tag never change, and are not on this machine before they are downloaded
        return spec.digest if os.path.isfile(os.path.expanduser(weights)) else ""
    if config.train == "checkpoints" and config.checkpoint_f and config.checkpoint_g:
        from audit_plugin.encoders.open_clip import locate

        return " ".join(locate(name).identity("image").key for name in (config.checkpoint_f, config.checkpoint_g))
    return ""
