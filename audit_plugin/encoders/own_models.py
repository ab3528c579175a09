"""The user's own f and g: embeddings from open_clip checkpoints, or from any function per modality. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError, Features, Samples
from audit_plugin.inputs.files import MediaError
from audit_plugin.inputs.modalities import MODALITIES

from . import open_clip as clip
from .embed import Contents, Embedded, Progress, embed, silent, workers
from .prompts import prompting

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

    Args:
        samples: rows, image and text.
        contents: their digests.
        name: `open_clip:MODEL:PATH`, as in `checkpoint_f` and `checkpoint_g`.
        device: where to encode.
        progress: told of the stages "encode MODALITY".
        templates: prompts of texts that are class names, averaged.

    Raises:
        AuditError: no name, an unknown model, a checkpoint that does not fit it, or other modalities.
    """
    if not name:
        raise AuditError(
            "--train checkpoints compares two models of yours; name both, --checkpoint-f and --checkpoint-g, "
            "as open_clip:MODEL:PATH"
        )
    encoders = prompting(clip.load(name, samples.modalities, torch.device(device)), templates)
    keys = {modality: encoder.identity.key for modality, encoder in encoders.items()}
    return embed(samples, contents, keys, lambda: encoders, progress)


def embed_with(
    media: Mapping[str, Sequence[str | None]],
    functions: Mapping[str, Embedder],
    batch: int = 64,
    progress: Progress = silent,
) -> Embedded:
    """Features of all rows under any functions: one model's image tower, text tower, and so on.

    Args:
        media: modality -> one value per row, as in `Samples.media`.
        functions: modality -> function of a list of at most `batch` media, read as `MODALITIES` reads them (an RGB
            `PIL.Image`, a text), that gives an array `[b, d]`; both models' functions must see the same modalities.
        batch: media per call.
        progress: told of the stages "embed MODALITY".

    Returns:
        Float32 unit rows, zero where a medium cannot be used; the reasons are in `failures`.

    Raises:
        AuditError: a modality without a function, or a function that does not give finite `[b, d]`.
    """
    if missing := [name for name in media if name not in functions]:
        raise AuditError(f"there is no function for {', '.join(missing)}; give one for each of {', '.join(media)}")
    vectors, present = {}, []
    failures: dict[int, str] = {}
    for modality, values in media.items():
        found = np.zeros(len(values), dtype=bool)
        table = np.zeros((len(values), 1), dtype=np.float32)
        for rows, ready, reasons in _read_batches(modality, values, batch):
            for row, reason in reasons.items():
                failures[row] = "; ".join(filter(None, (failures.get(row), f"{modality}: {reason}")))
            if ready:
                unit = _unit(functions[modality](list(ready.values())), modality, len(ready))
                table = table if table.shape[1] == unit.shape[1] else _widened(table, unit, modality, found.any())
                table[list(ready)] = unit
                found[list(ready)] = True
            progress(f"embed {modality}", rows.stop, len(values))
        vectors[modality] = table
        present.append(found)
    counts = {name: int(there.sum()) for name, there in zip(media, present, strict=True)}
    return Embedded(Features(vectors, np.stack(present, axis=1)), failures, 0, counts)


def _read_batches(
    modality: str, values: Sequence[str | None], batch: int
) -> Iterator[tuple[range, dict[int, Any], dict[int, str]]]:
    """(rows, row -> medium, row -> why it cannot be used), batch by batch, read by threads."""
    read = MODALITIES[modality].read

    def load(value: str | None) -> tuple[Any, str]:
        if value is None:
            return None, "no value"
        try:
            return read(value), ""
        except MediaError as error:
            return None, str(error)

    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(values), batch):
            rows = range(start, min(start + batch, len(values)))
            done = dict(zip(rows, pool.map(load, [values[row] for row in rows]), strict=True))
            ready = {row: medium for row, (medium, reason) in done.items() if not reason}
            yield rows, ready, {row: reason for row, (_, reason) in done.items() if reason}


def _unit(result: Any, modality: str, count: int) -> np.ndarray:
    """The function's result as float32 unit rows `[count, d]`; torch tensors on any device are taken too."""
    if isinstance(result, torch.Tensor):
        result = result.detach().float().cpu().numpy()
    array = np.asarray(result, dtype=np.float32)
    if array.ndim != 2 or len(array) != count:
        raise AuditError(
            f"the function for {modality} gave shape {array.shape} for {count} media; it must give [{count}, d]"
        )
    if not np.isfinite(array).all():
        raise AuditError(f"the function for {modality} gave values that are not finite; check the model")
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)


def _widened(table: np.ndarray, unit: np.ndarray, modality: str, begun: np.bool_) -> np.ndarray:
    if begun:
        raise AuditError(
            f"the function for {modality} gave {table.shape[1]} dimensions, then {unit.shape[1]}; it must keep to one"
        )
    return np.zeros((len(table), unit.shape[1]), dtype=np.float32)
