"""Whole open_clip models as what is trained: image and text towers, from scratch or fine-tuned.

`parse_tower` says which, `prepare_towers` decodes and tokenizes media once for all trials, `train_tower` trains one
trial's towers with the symmetric InfoNCE loss, and `embed_tower` embeds all samples with them.

The result of a training depends on the arguments alone (to the bit on a CPU). Trials 2q and 2q+1 start from equal
weights, and draw the order and the shifts of all samples from one generator: shared samples look the same to both, so
that the trials differ by what they do not share.

Under torch.distributed every rank makes the same calls. A batch is cut over the ranks, features are gathered in the
loss, and all ranks end with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn.functional import normalize

from audit_plugin.arrays import AuditError, Floats, Ints
from audit_plugin.encoders import open_clip as clip
from audit_plugin.encoders.devices import has_bf16_unit
from audit_plugin.encoders.embed import WINDOW, Progress, thread_count
from audit_plugin.inputs.files import MediaError, file_digest, first_line
from audit_plugin.inputs.modalities import MODALITIES, read_medium
from audit_plugin.inputs.threads import ReadingThreads

# Sized for CPUs: 850,000 weights with a thousand short captions, about 2 core-seconds per epoch of 1,340 pairs. On
# that many emoji, 20 epochs bring top-5 retrieval among 571 pairs to .98 trained and .18 held out.
SMALL = "small"
SMALL_EMBED_DIM = 128
SMALL_VISION = {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2, "head_width": 32, "mlp_ratio": 2.0}
SMALL_TEXT = {"context_length": 24, "width": 128, "layers": 2, "heads": 4, "mlp_ratio": 2.0}

TOKEN_CHUNK = 4096  # texts tokenized at once
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.98)
WARM_UP = 0.1  # of the steps
MAX_LOGIT_SCALE = math.log(100)  # CLIP's own
SHIFT = 1 / 16  # of the side. No flips: captions tell left from right
CHECKPOINTED = 200_000_000  # weights from which activations are computed twice instead of kept


@dataclass(frozen=True)
class TowerSpec:
    """Towers to train."""

    model: str  # `small`, or a model name of open_clip
    weights: str  # checkpoint file or open_clip tag to fine-tune; "" trains from scratch
    digest: str  # of the weights' bytes, "" where there are none or they have yet to be downloaded
    image_size: int  # pixels of a side
    context_length: int  # tokens of a text; what is longer is cut
    epochs: int
    batch: int  # pairs per step, at most
    learning_rate: float  # at its peak
    mean: tuple[float, ...]  # per channel, of pixels from 0 to 1
    std: tuple[float, ...]
    quick_gelu: bool = False  # the weights were trained with it


def parse_tower(name: str, epochs: int) -> TowerSpec:
    """`small`, `MODEL` (from scratch) or `MODEL:WEIGHTS` (fine-tuned) of open_clip.

    Weights that are neither a file nor cached are a request to download them, and their server is looked for here,
    before anything is computed.

    Raises:
        AuditError: unknown model or weights, weights out of reach, or a model without two plain towers.
    """
    import open_clip

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    if name == SMALL:
        size, length = int(SMALL_VISION["image_size"]), int(SMALL_TEXT["context_length"])
        return TowerSpec(SMALL, "", "", size, length, epochs, batch=64, learning_rate=1e-3, mean=mean, std=std)
    model, _, weights = name.partition(":")
    if weights or model not in open_clip.list_models():
        checkpoint = clip.locate(f"open_clip:{name}")
    config = open_clip.get_model_config(model)
    if "multimodal_cfg" in config:
        raise AuditError(f"{model} is trained to write captions too; choose a model of two towers, or small")
    sizes = np.unique(config["vision_cfg"].get("image_size", 224)).tolist()  # a side, or (height, width)
    if len(sizes) > 1:
        raise AuditError(f"{model} takes images of {sizes} pixels; towers are trained on square ones: choose another")
    size, length = sizes[0], int(config["text_cfg"].get("context_length", 77))
    if not weights:
        return TowerSpec(model, "", "", size, length, epochs, batch=256, learning_rate=5e-4, mean=mean, std=std)
    published = open_clip.get_pretrained_cfg(model, checkpoint.tag) or {}
    if not checkpoint.path and not clip.reachable(published):
        raise AuditError(
            f"the weights {checkpoint.tag!r} of {model} are not cached and their server is out of reach; "
            f"connect to a network, name a local checkpoint, or use --tower {SMALL}"
        )
    return TowerSpec(
        model,
        weights=checkpoint.path or checkpoint.tag,
        digest=file_digest(checkpoint.path, None)[:16] if checkpoint.path else "",
        image_size=size,
        context_length=length,
        epochs=epochs,
        batch=128,
        learning_rate=1e-5,
        mean=tuple(published.get("mean") or mean),
        std=tuple(published.get("std") or std),
        quick_gelu=bool(published.get("quick_gelu")),  # else lost, since cached weights are loaded as a file
    )


def describe(spec: TowerSpec) -> str:
    """What is trained, as a sentence for people."""
    if not spec.weights:
        return f"whole image and text towers ({spec.model}) from scratch: nothing saw the data before"
    return (
        f"whole image and text towers ({spec.model}), fine-tuned from {spec.weights}; "
        "the weights they start from may have seen the data"
    )


def tokenizer_of(spec: TowerSpec) -> Any:
    """Callable: texts -> int64 `[n, context_length]`."""
    import open_clip

    if spec.model == SMALL:
        return open_clip.SimpleTokenizer(context_length=spec.context_length)
    try:
        return open_clip.get_tokenizer(spec.model)
    except Exception as error:  # some models' tokenizers are downloaded, which fails in many ways
        raise AuditError(
            f"the tokenizer of {spec.model} cannot be loaded ({type(error).__name__}); connect to a network once, "
            f"or use --tower {SMALL}"
        ) from error


def new_model(spec: TowerSpec, vocabulary: int, length: int) -> Any:
    """An open_clip model on the CPU, random where nothing is fine-tuned (torch's global generator).

    `small` is made for `vocabulary` token numbers and texts of `length` tokens.
    """
    import open_clip

    if spec.model == SMALL:
        text = SMALL_TEXT | {"context_length": length, "vocab_size": vocabulary}
        return open_clip.CLIP(SMALL_EMBED_DIM, dict(SMALL_VISION), text, output_dict=True)
    try:
        return open_clip.create_model(
            spec.model,
            pretrained=spec.weights or None,
            force_quick_gelu=spec.quick_gelu,
            pretrained_text=False,
            weights_only=True,
            output_dict=True,
        )
    except Exception as error:  # a foreign checkpoint fails in many ways; the user needs one sentence
        raise AuditError(
            f"{spec.weights or 'the model'!r} cannot be loaded as {spec.model} ({type(error).__name__}: "
            f"{first_line(error)}); name a checkpoint of this model, or another model"
        ) from error


@dataclass(frozen=True)
class TowerData:
    """What towers are trained on."""

    images: np.ndarray  # uint8 [n, s, s, 3]
    tokens: Ints  # int32 [n, L]
    vocabulary: int  # token numbers are below it
    mean: tuple[float, ...]  # per channel, of pixels from 0 to 1
    std: tuple[float, ...]
    modalities: tuple[str, ...] = ("image", "text")  # in the order in which embeddings are to be given

    def __len__(self) -> int:
        return len(self.images)


def prepare_towers(media: Mapping[str, Sequence[str]], spec: TowerSpec, progress: Progress) -> TowerData:
    """Decodes, resizes (shorter side, then the middle, as open_clip does) and tokenizes all samples.

    Memory: 3 s^2 bytes per image, 3 kB at 32 pixels, 150 kB at 224 (15 GB for 100,000), and 4 L bytes per text.

    Args:
        media: `image` -> paths, `text` -> texts, `[n]` each.
        spec: of the towers.
        progress: called with ("decode for towers", images done, of how many).

    Raises:
        AuditError: other modalities, or a medium that cannot be read.
    """
    if sorted(media) != ["image", "text"]:
        raise AuditError(f"towers are trained on image and text, not {', '.join(media)}; use --train heads")
    tokens = _tokenize(media["text"], spec)
    vocabulary = int(tokens.max(initial=0)) + 1
    if spec.model == SMALL:
        tokens, vocabulary = _compact(tokens)
    images = _decode(media["image"], spec.image_size, progress)
    return TowerData(images, tokens, vocabulary, spec.mean, spec.std, tuple(media))


def _decode(paths: Sequence[str], size: int, progress: Progress) -> np.ndarray:
    from PIL import Image, ImageOps

    def decode(path: str) -> np.ndarray:
        try:
            image = read_medium("image", path)
        except MediaError as error:
            raise AuditError(
                f"{path} was read before and cannot be read now ({error}); restore it, or leave its row out, and run "
                "the same command again"
            ) from error
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))

    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    with ReadingThreads(thread_count()) as pool:
        for start in range(0, len(paths), WINDOW):
            stop = min(start + WINDOW, len(paths))
            for row, image in enumerate(pool.map(decode, paths[start:stop]), start):
                images[row] = image
            progress("decode for towers", stop, len(paths))
    return images


def _tokenize(texts: Sequence[str], spec: TowerSpec) -> Ints:
    """int32 `[n, context_length]`."""
    tokenize, read = tokenizer_of(spec), MODALITIES["text"].read
    parts = [np.zeros((0, spec.context_length), dtype=np.int32)]
    for start in range(0, len(texts), TOKEN_CHUNK):
        chunk = [read(text) for text in texts[start : start + TOKEN_CHUNK]]
        parts.append(tokenize(chunk).numpy().astype(np.int32))
    return np.concatenate(parts)


def _compact(tokens: Ints) -> tuple[Ints, int]:
    """Tokens renumbered by those that occur, in order, without columns that pad every text: 6 million weights less.

    The end of a text stays the highest number, by which the text tower finds it, and padding stays 0.
    """
    length = int((tokens != 0).sum(axis=1).max(initial=1))
    used = np.union1d(tokens, [0])
    return np.searchsorted(used, tokens[:, :length]).astype(np.int32), len(used)


def train_tower(
    data: TowerData, rows: Ints, spec: TowerSpec, size: int, seed: int, trial: int, device: str | torch.device
) -> Any:
    """An open_clip model trained on the given rows, in evaluation mode.

    Args:
        data: of all n samples, in canonical order.
        rows: members.
        spec: the towers.
        size: samples that make an epoch: the same for all trials of a run, so that f and g take equal steps.
        seed: of the run.
        trial: its number; 2q and 2q+1 are a pair.
        device: where to train; bf16 on GPUs that have it, else fp32 (bf16 gained nothing on a CPU: 24.9 s for 21.9 s).

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
        _optimize(model, batches, data, spec, spec.epochs * steps)
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


def _optimize(model: Any, batches: Iterator[tuple[Ints, Ints]], data: TowerData, spec: TowerSpec, total: int) -> None:
    """Trains the model in place, on `total` batches."""
    import open_clip

    device = next(model.parameters()).device
    rank, ranks = _rank()
    forward = model
    if ranks > 1:  # averages the gradients over the ranks
        ids = [device.index or 0] if device.type == "cuda" else None
        forward = torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)
    in_bf16 = device.type == "cuda" and has_bf16_unit("cuda")
    loss = open_clip.ClipLoss(gather_with_grad=ranks > 1, rank=rank, world_size=ranks)
    # matrices decay, but gains, biases and the logit scale do not
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, betas=BETAS, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    pixels, tokens = torch.from_numpy(data.images), torch.from_numpy(data.tokens)
    for rows, shifts in batches:
        chosen = torch.from_numpy(rows)
        images = _shift(pixels[chosen].to(device), torch.from_numpy(shifts).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            out = forward(_normalized(images, data), tokens[chosen].to(device))
        bias = {"logit_bias": out["logit_bias"]} if "logit_bias" in out else {}
        optimizer.zero_grad(set_to_none=True)
        loss(out["image_features"].float(), out["text_features"].float(), out["logit_scale"], **bias).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def _rate(step: int, total: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


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
            rows = np.minimum(np.arange(start, start + batch), len(values) - 1)
            with torch.inference_mode():
                vectors = encode(torch.from_numpy(values[rows]).to(device)).float()
                parts.append(normalize(vectors, dim=-1).cpu().numpy())
        embeddings.append(np.concatenate(parts)[: len(values)])
    if not all(np.isfinite(vectors).all() for vectors in embeddings):
        raise AuditError("training of the towers diverged; choose another --tower, or fewer epochs")
    return embeddings
