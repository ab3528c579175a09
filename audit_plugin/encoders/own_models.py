"""Features of the user's own models: from open_clip checkpoints, or from any function per modality. Trains nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Features, Samples
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import read_medium
from audit_plugin.inputs.threads import ReadingThreads

from . import open_clip
from .base import on_device
from .embed import Contents, Embedded, Progress, embed, join_reasons, silent, thread_count
from .prompts import prompted_encoders

Embedder = Callable[[list[Any]], np.ndarray]


def checkpoint_features(
    samples: Samples,
    contents: Contents,
    name: str,
    device: str | torch.device,
    progress: Progress,
    templates: Sequence[str] = (),
) -> Embedded:
    """Features of all rows under one open_clip checkpoint, cached by content and by the checkpoint's bytes.

    The checkpoint is named as in `checkpoint_f` and `checkpoint_g`, `open_clip:MODEL:PATH`. Texts that are class names
    are read through the `templates`, whose features are averaged.

    Raises:
        AuditError: no name, an unknown model, a checkpoint that does not fit it, or other modalities.
    """
    if not name:
        raise AuditError(
            "--train checkpoints compares two models of your own; name both, --checkpoint-f and --checkpoint-g, "
            "as open_clip:MODEL:PATH"
        )
    encoders = prompted_encoders(open_clip.load(name, samples.modalities, torch.device(device)), templates)
    kind = torch.device(device).type
    keys = {modality: on_device(encoder.identity, kind).key for modality, encoder in encoders.items()}
    return embed(samples, contents, keys, lambda: encoders, progress)


def embed_with(
    media: Mapping[str, Sequence[str | None]],
    functions: Mapping[str, Embedder],
    batch: int = 64,
    progress: Progress = silent,
) -> Embedded:
    """Features of all rows from any functions: one model's image tower, text tower, and so on.

    Args:
        media: modality -> one value per row, as in `Samples.media`.
        functions: modality -> function of a list of at most `batch` media, read as `MODALITIES` reads them (an RGB
            `PIL.Image`, a text), that returns an array `[b, d]`; both models' functions must see the same modalities.
        batch: media per call.
        progress: called with the stages "embed MODALITY".

    Returns:
        Float32 unit rows, zero where a medium cannot be used; the reasons are in `failures`.

    Raises:
        AuditError: a modality without a function, or a function that does not return finite `[b, d]`.
    """
    if missing := [modality for modality in media if modality not in functions]:
        raise AuditError(f"there is no function for {', '.join(missing)}; give one for each of {', '.join(media)}")
    vectors: dict[str, np.ndarray] = {}
    present: list[np.ndarray] = []
    encoded: dict[str, int] = {}
    failures: dict[int, str] = {}
    for modality, values in media.items():
        features = np.zeros((len(values), 1), dtype=np.float32)
        has_feature = np.zeros(len(values), dtype=bool)
        for start in range(0, len(values), batch):
            with ReadingThreads(thread_count()) as pool:
                read = list(pool.map(_read, itertools.repeat(modality), values[start : start + batch]))
            loaded = {}
            for row, medium in enumerate(read, start):
                if isinstance(medium, MediaError):
                    failures[row] = join_reasons(failures.get(row), f"{modality}: {medium}")
                else:
                    loaded[row] = medium
            if loaded:
                unit = _unit_rows(functions[modality](list(loaded.values())), modality, len(loaded))
                if not has_feature.any():
                    features = np.zeros((len(values), unit.shape[1]), dtype=np.float32)
                if unit.shape[1] != features.shape[1]:
                    raise AuditError(
                        f"the function for {modality} returned {features.shape[1]} dimensions, then {unit.shape[1]}; "
                        "it must always return the same number"
                    )
                features[list(loaded)] = unit
                has_feature[list(loaded)] = True
            progress(f"embed {modality}", start + len(read), len(values))
        vectors[modality] = features
        present.append(has_feature)
        encoded[modality] = int(has_feature.sum())
    return Embedded(Features(vectors, np.stack(present, axis=1)), failures, 0, encoded)


def _read(modality: str, value: str | None) -> Any:
    """The medium, or the `MediaError` that says why it cannot be used."""
    try:
        return MediaError("no value") if value is None else read_medium(modality, value)
    except MediaError as error:
        return error


def _unit_rows(result: Any, modality: str, count: int) -> np.ndarray:
    """The function's result as float32 unit rows `[count, d]`; torch tensors on any device are accepted too."""
    if isinstance(result, torch.Tensor):
        result = result.detach().float().cpu().numpy()
    array = np.asarray(result, dtype=np.float32)
    if array.ndim != 2 or len(array) != count:
        raise AuditError(
            f"the function for {modality} returned shape {array.shape} for {count} media; it must return [{count}, d]"
        )
    if not np.isfinite(array).all():
        raise AuditError(f"the function for {modality} returned values that are not finite; check the model")
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
