"""Trains one trial's towers with the symmetric InfoNCE loss, and embeds all samples with them.

The result depends on the arguments alone (to the bit on a CPU). Trials 2q and 2q+1 start from equal weights, and draw
the order and the shifts of all samples from one generator: shared samples look the same to both, so that the trials
differ by what they do not share.

Under torch.distributed every rank calls the same functions with the same arguments. A batch is cut over the ranks,
features are gathered in the loss, and all ranks end with the same weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn.functional import normalize

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.encoders.embed import Progress

from .data import TowerData
from .spec import TowerSpec, new_model

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.98)
WARM_UP = 0.1  # of the steps
MAX_LOGIT_SCALE = math.log(100)
SHIFT = 1 / 16  # of the side. No flips: captions tell left from right
CHECKPOINTED = 200_000_000  # weights from which activations are computed twice instead of kept


def train_tower(
    data: TowerData,
    rows: Ints,
    spec: TowerSpec,
    size: int,
    seed: int,
    trial: int,
    device: str | torch.device,
    progress: Progress | None = None,
) -> Any:
    """An open_clip model trained on the given rows, in evaluation mode.

    Args:
        data: of all n samples, in canonical order.
        rows: members.
        spec: the towers.
        size: samples that make an epoch: the same for all trials of a run, so that f and g take equal steps.
        seed: the run's seed.
        trial: its number; 2q and 2q+1 are a pair.
        device: where to train; bf16 on GPUs that have it, else fp32 (bf16 gained nothing on a CPU: 24.9 s for 21.9 s).
        progress: called with ("train towers", steps done, of how many).

    Raises:
        AuditError: fewer than two members, or a checkpoint that does not fit the model.
    """
    device = torch.device(device)
    if min(size, len(rows)) < 2:
        raise AuditError(f"trial {trial} has {len(rows)} samples to train towers on; audit more samples")
    _, ranks = _rank()
    steps_at_most = -(-size // spec.batch)
    batch = max(size // steps_at_most // ranks, 1) * ranks  # a multiple of the ranks, as even as it gets
    steps = max(size // batch, 1)
    rng = np.random.default_rng((seed, 41, trial // 2))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(rng.integers(2**62)))
        model = new_model(spec, data.vocabulary, data.tokens.shape[1]).to(device).train()
        if sum(p.numel() for p in model.parameters()) > CHECKPOINTED:
            model.set_grad_checkpointing(True)
        batches = _batches(rng, np.asarray(rows), data, spec.epochs, steps, batch)
        _optimize(model, batches, data, spec, spec.epochs * steps, progress)
    return model.eval()


def _rank() -> tuple[int, int]:
    """(rank of this process, number of ranks); (0, 1) without torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _batches(
    rng: np.random.Generator, rows: Ints, data: TowerData, epochs: int, steps: int, batch: int
) -> Iterator[tuple[Ints, Ints]]:
    """(rows `[b]`, shifts in pixels `[b, 2]`), this rank's share of each batch."""
    rank, ranks = _rank()
    reach = round(SHIFT * data.images.shape[1])
    for _ in range(epochs):
        # drawn for all samples, members or not: the pair's other trial draws the same
        position = rng.permutation(len(data))
        shifts = rng.integers(-reach, reach + 1, (len(data), 2))
        order = np.resize(rows[np.argsort(position[rows])], steps * batch)
        for step in order.reshape(steps, batch):
            share = step[rank::ranks]
            yield share, shifts[share]


def _optimize(
    model: Any,
    batches: Iterator[tuple[Ints, Ints]],
    data: TowerData,
    spec: TowerSpec,
    total: int,
    progress: Progress | None,
) -> None:
    """Trains the model in place, on `total` batches."""
    import open_clip

    device = next(model.parameters()).device
    rank, ranks = _rank()
    forward = _parallel(model, device)
    loss = open_clip.ClipLoss(gather_with_grad=ranks > 1, rank=rank, world_size=ranks)
    optimizer = _optimizer(model, spec.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    pixels, tokens = torch.from_numpy(data.images), torch.from_numpy(data.tokens)
    for done, (rows, shifts) in enumerate(batches, 1):
        chosen = torch.from_numpy(rows)
        images = _shift(pixels[chosen].to(device), torch.from_numpy(shifts).to(device))
        with _precision(device):
            out = forward(_normalized(images, data), tokens[chosen].to(device))
        bias = {"logit_bias": out["logit_bias"]} if "logit_bias" in out else {}
        optimizer.zero_grad(set_to_none=True)
        loss(out["image_features"].float(), out["text_features"].float(), out["logit_scale"], **bias).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        if progress:
            progress("train towers", done, total)


def _parallel(model: Any, device: torch.device) -> Callable[..., Any]:
    """The model's forward pass, with gradients averaged over the ranks where torch.distributed runs."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return model
    ids = [device.index or 0] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)


def _optimizer(model: Any, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices, not gains, biases and the logit scale."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def _rate(step: int, total: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 on GPUs that have a unit for it, else fp32."""
    has_unit = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast("cuda", torch.bfloat16) if has_unit else contextlib.nullcontext()


def _shift(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """uint8 `[b, s, s, 3]` moved by `[b, 2]` pixels; the border is continued."""
    count, side = images.shape[:2]
    pixels = torch.arange(side, device=images.device)
    y = (pixels + shifts[:, 0, None]).clamp(0, side - 1)  # source row of each row, [b, s]
    x = (pixels + shifts[:, 1, None]).clamp(0, side - 1)
    image = torch.arange(count, device=images.device)
    return images[image[:, None, None], y[:, :, None], x[:, None, :]]


def _normalized(images: torch.Tensor, data: TowerData) -> torch.Tensor:
    """uint8 `[b, s, s, 3]` -> float32 `[b, 3, s, s]`, (x / 255 - mean) / std per channel."""
    mean = torch.tensor(data.mean, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(data.std, device=images.device).view(1, 3, 1, 1) * 255
    return (images.permute(0, 3, 1, 2).float() - mean) / std


def embed_tower(model: Any, data: TowerData, device: str | torch.device, batch: int = 256) -> list[Floats]:
    """Float32 unit embeddings `[n, d]` in the order of `data.modalities`, in fp32 whatever the training was in.

    Every batch has the same shape (the last one padded), so that a sample's embedding does not depend on n.

    Raises:
        AuditError: training has diverged.
    """
    model = model.to(device).eval()
    towers: dict[str, tuple[np.ndarray, Callable[[torch.Tensor], torch.Tensor]]] = {
        "image": (data.images, lambda x: model.encode_image(_normalized(x, data))),
        "text": (data.tokens, model.encode_text),
    }
    embeddings = []
    for name in data.modalities:
        values, encode = towers[name]
        parts = []
        for start in range(0, len(values), batch):
            piece = values[start : start + batch]
            padded = np.zeros((batch, *piece.shape[1:]), dtype=piece.dtype)
            padded[: len(piece)] = piece
            with torch.inference_mode():
                vectors = normalize(encode(torch.from_numpy(padded).to(device)).float(), dim=-1)
            parts.append(vectors[: len(piece)].cpu().numpy())
        embeddings.append(np.concatenate(parts))
    if not all(np.isfinite(vectors).all() for vectors in embeddings):
        raise AuditError("training of the towers diverged; choose another --tower, or fewer epochs")
    return embeddings
