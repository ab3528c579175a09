"""From an open_clip model to its encoders: towers apart, pixels as bytes, texts no longer than they need to be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import Floats

from .base import TEXT_BUCKETS, Encoder, Identity, split_text
from .devices import batch_size, to_device

BATCH = 32
SAME = 1e-5  # difference between unit features that is none
SAME_LOW = 2e-2  # the same in low precision, which is itself off by one in a hundred
_PROBES = ("a cat", "two dogs and a bird near the old harbour at noon")

Encode = Callable[[np.ndarray], Floats]


def image_encoder(identity: Identity, model: Any, transform: Any, device: torch.device) -> Encoder:
    """Its pieces are bytes `[h, w, 3]` where the transform ends as open_clip's do: scaling waits for the batch."""
    from torchvision.transforms import Normalize, ToTensor

    tower = _shortened(_only(model, lambda name: name == "visual"), device)
    steps = list(getattr(transform, "transforms", ()))
    known = len(steps) > 1 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)

    def prepare(image: Any) -> list[np.ndarray]:
        if not known:
            return [transform(image).numpy()]
        for step in steps[:-2]:
            image = step(image)
        return [np.asarray(image)]

    def scaled(batch: torch.Tensor) -> torch.Tensor:
        """What `transform` does last, in the same arithmetic."""
        values = batch.permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (steps[-1].mean, steps[-1].std))
        return values.sub_(mean).div_(std).contiguous()

    def encoding(tower: Any, dtype: torch.dtype) -> Encode:
        def encode(batch: np.ndarray) -> Floats:
            with torch.inference_mode():
                values = to_device(batch, device)
                pixels = (scaled(values) if known else values).to(dtype)
                return tower.encode_image(pixels).float().cpu().numpy()

        return encode

    lower = lambda: encoding(_packed(_cast(tower), device), torch.bfloat16)  # noqa: E731
    encode, overlap = encoding(_packed(tower, device), torch.float32), device.type == "cuda"
    return Encoder(identity, batch_size(device, BATCH), prepare, encode, lower, overlap)


def text_encoder(identity: Identity, model: Any, tokenizer: Any, device: torch.device) -> Encoder:
    """Where padding cannot change a feature, a text is encoded at the smallest bucket that holds it."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # Hugging Face tokenizers sit one level down
    context = tokenizer.context_length
    tower = _only(model, lambda name: name != "visual")

    def encoding(tower: Any) -> Encode:
        shorter: dict[int, Any] = {context: tower}

        def encode(batch: np.ndarray) -> Floats:
            length = batch.shape[1]
            if length not in shorter:
                shorter[length] = _cut(tower, length)
            with torch.inference_mode():
                return shorter[length].encode_text(to_device(batch, device)).float().cpu().numpy()

        return encode

    encode = encoding(tower)
    buckets = [size for size in TEXT_BUCKETS if size < context] if _padding_is_free(encode, tokenizer) else []

    def prepare(text: str) -> list[np.ndarray]:
        parts = split_text(text, lambda part: len(inner.encode(part)) <= context - 2)
        return [_trimmed(row.numpy(), buckets) for row in tokenizer(parts)]

    overlap = device.type == "cuda"
    return Encoder(identity, batch_size(device, BATCH), prepare, encode, lambda: encoding(_cast(tower)), overlap)


def _only(model: Any, wanted: Callable[[str], bool]) -> Any:
    """The model with some of its parts, which it shares: so each tower can be cast, and let go, by itself."""
    part = copy.copy(model)
    part._modules = {name: module for name, module in model._modules.items() if wanted(name)}
    return part


class FirstToken(torch.nn.Module):
    """A transformer's last block for the first token, where no other is read.

    The others ask nothing and need no MLP. One query needs no keys and values of its own either: a product with a key
    is the product of the query, taken back through the keys' weights, with the token itself (the bias adds the same to
    all and falls out of the softmax), and a mean of values is the value of a mean. Nearly the whole block is saved, a
    twelfth of ViT-B/32.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: torch.Tensor, **_: None) -> torch.Tensor:
        """`[b, t, d]` -> `[b, 1, d]`."""
        block = self.block
        first = tokens[:, :1] + block.ls_1(self._attention(block.ln_1(tokens)))
        return first + block.ls_2(block.mlp(block.ln_2(first)))

    def _attention(self, tokens: torch.Tensor) -> torch.Tensor:
        attn, size = self.block.attn, tokens.shape[-1]
        weight = attn.in_proj_weight.view(3, attn.num_heads, -1, size)
        bias = attn.in_proj_bias.view(3, attn.num_heads, -1)
        query = torch.einsum("bd,hed->bhe", tokens[:, 0], weight[0]) + bias[0]
        asked = torch.einsum("bhe,hed->bhd", query, weight[1]) / math.sqrt(query.shape[-1])
        seen = (asked @ tokens.mT).softmax(-1) @ tokens
        value = torch.einsum("bhd,hed->bhe", seen, weight[2]) + bias[2]
        return attn.out_proj(value.flatten(1))[:, None]


def _shortened(tower: Any, device: torch.device) -> Any:
    """The image tower with its last block as `FirstToken`, where it is open_clip's plain one; else as it is."""
    visual = tower.visual
    try:
        blocks = visual.transformer.resblocks
        short = _with(visual, transformer=_with(visual.transformer, resblocks=_with(blocks)))
        short.transformer.resblocks[-1] = FirstToken(blocks[-1])
        probe = _probe(visual, device)
        with torch.inference_mode():
            whole, found = visual(probe), short(probe)
        same = whole.shape == found.shape and bool(((whole - found).norm() <= SAME * whole.norm()).all())
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError, AssertionError):
        return tower  # another architecture, or one that reads more than the first token
    return _with(tower, visual=short) if same else tower


class Packed(torch.nn.Module):
    """A linear layer whose weights lie as oneDNN multiplies them: laid out once, not with every batch."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., i]` -> `[..., o]`."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def _packed(tower: Any, device: torch.device) -> Any:
    """The image tower with `Packed` layers, on a CPU and where they compute the same; else as it is.

    Packed is decided by what is there, never by a clock: equal runs are to give equal features.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return tower
    visual = tower.visual
    try:
        with torch.inference_mode():
            layers = _layers_packed(visual)
            probe = _probe(visual, device).to(next(visual.parameters()).dtype)
            whole, found = visual(probe).float(), layers(probe).float()
            most = SAME if probe.dtype == torch.float32 else SAME_LOW
            same = whole.shape == found.shape and bool((whole - found).norm() <= most * whole.norm())
    except (AttributeError, TypeError, RuntimeError, ValueError, NotImplementedError):
        return tower  # this build of torch lacks the call, or the tower reads its layers' weights itself
    return _with(tower, visual=layers) if same else tower


def _layers_packed(module: Any) -> Any:
    if type(module) is torch.nn.Linear:  # not those whose weights another layer reads
        return Packed(module)
    children = {name: child and _layers_packed(child) for name, child in module._modules.items()}
    return _with(module, **children) if children else module


def _probe(visual: Any, device: torch.device) -> torch.Tensor:
    """`[1, 3, h, w]`: a picture of what size the tower takes."""
    return torch.linspace(-1, 1, 3 * math.prod(visual.image_size), device=device).view(1, 3, *visual.image_size)


def _with(module: Any, **children: Any) -> Any:
    """The module with other children; all else is shared."""
    part = copy.copy(module)
    part._modules = {**module._modules, **children}
    return part


def _cast(tower: Any) -> Any:
    return copy.deepcopy(tower).to(torch.bfloat16)


def _cut(tower: Any, length: int) -> Any:
    """The text tower for texts of `length` tokens: open_clip's own take only their whole context."""
    if "text" in tower._modules:  # of the newer kind of model
        part = _only(tower, lambda _: True)
        part._modules["text"] = _cut(tower.text, length)
        return part
    if "positional_embedding" not in tower._parameters:
        return tower  # another library's, which may know what to do
    part = copy.copy(tower)
    part._parameters, part._buffers = dict(tower._parameters), dict(tower._buffers)
    positions = tower.positional_embedding[:length].detach()
    part._parameters["positional_embedding"] = torch.nn.Parameter(positions, requires_grad=False)
    if tower.attn_mask is not None:
        part._buffers["attn_mask"] = tower.attn_mask[:length, :length]
    return part


def _trimmed(row: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """Token ids `[context]` without the zeros behind them that no bucket needs: decided by this text alone."""
    used = int(np.flatnonzero(row)[-1]) + 1 if row.any() else len(row)
    return row[: next((size for size in buckets if used <= size), len(row))]


def _padding_is_free(encode: Encode, tokenizer: Any) -> bool:
    """Whether two short texts have the same features without their padding: causal towers that read the end's place.

    Others fail here, by other numbers or by an error, and keep the whole context.
    """
    try:
        rows = tokenizer(list(_PROBES)).numpy()
        size = next(size for size in TEXT_BUCKETS if not rows[:, size:].any())
        whole, short = (encode(ids) for ids in (rows, rows[:, :size]))
    except (RuntimeError, ValueError, IndexError, AssertionError, StopIteration):
        return False
    scale = np.linalg.norm(whole, axis=1, keepdims=True)
    return bool((np.abs(whole - short) <= SAME * scale).all())
