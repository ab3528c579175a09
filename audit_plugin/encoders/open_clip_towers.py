"""Encoders from an open_clip model: its towers apart, pixels as bytes, texts no longer than necessary."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .base import TEXT_BUCKETS, Encode, Encoder, EncoderIdentity, split_text
from .devices import batch_size, encode_on

BATCH = 32
MAX_ASPECT = 50  # longer images are cut to it
TOLERANCE = 1e-5  # relative difference of features that count as equal
TOLERANCE_BF16 = 2e-2  # in bf16, whose own error is one in a hundred
_PROBE_TEXTS = ("a cat", "two dogs and a bird near the old harbour at noon")


def image_encoder(identity: EncoderIdentity, model: Any, transform: Any, device: torch.device) -> Encoder:
    """The encoder of images. Where the transform ends as open_clip's do, pieces are bytes `[h, w, 3]`, scaled later."""
    tower = _with_first_token_block(_with_parts(model, lambda name: name == "visual"), device)
    steps, ends_as_usual = _steps_of(transform)

    def normalize(batch: torch.Tensor) -> torch.Tensor:
        """uint8 `[b, h, w, 3]` -> float32 `[b, 3, h, w]`: the last steps of `transform`, in the same arithmetic."""
        values = batch.permute(0, 3, 1, 2).float().div_(255)
        mean = torch.tensor(steps[-1].mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(steps[-1].std, device=device).view(1, 3, 1, 1)
        return values.sub_(mean).div_(std).contiguous()

    def encode_with(tower: Any, dtype: torch.dtype) -> Encode:
        def forward(batch: torch.Tensor) -> torch.Tensor:
            pixels = normalize(batch) if ends_as_usual else batch
            return tower.encode_image(pixels.to(dtype))

        return encode_on(device, forward)

    return Encoder(
        identity,
        batch_size(device, BATCH),
        image_preparer(transform),
        encode_with(_with_packed_layers(tower, device), torch.float32),
        to_bf16=lambda: encode_with(
            _with_packed_layers(copy.deepcopy(tower).to(torch.bfloat16), device), torch.bfloat16
        ),
        overlap=device.type == "cuda",
    )


def image_preparer(transform: Any) -> Callable[[Any], list[np.ndarray]]:
    """Image -> its piece, of an open_clip model with this transform."""
    from torchvision.transforms import Resize

    steps, ends_as_usual = _steps_of(transform)
    squeezes = bool(steps) and isinstance(steps[0], Resize) and not isinstance(steps[0].size, int)

    def prepare(image: Any) -> list[np.ndarray]:
        if not squeezes:
            image = _without_far_ends(image)
        if not ends_as_usual:
            return [transform(image).numpy()]
        for step in steps[:-2]:
            image = step(image)
        return [np.asarray(image)]

    return prepare


def _steps_of(transform: Any) -> tuple[list[Any], bool]:
    """The steps of a transform of images, and whether the last ones scale bytes as open_clip's do."""
    from torchvision.transforms import Normalize, ToTensor

    steps = list(getattr(transform, "transforms", ()))
    return steps, len(steps) > 1 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)


def _without_far_ends(image: Any) -> Any:
    """The middle of an image that is very long and thin.

    Resizing its short side to what the model takes would make gigabytes of it, of which the middle square is used.
    """
    width, height = image.size
    most = MAX_ASPECT * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, min(width, left + most), min(height, top + most)))


def text_encoder(identity: EncoderIdentity, model: Any, tokenizer: Any, device: torch.device) -> Encoder:
    """The encoder of texts: where padding cannot change a feature, a text takes the smallest bucket that holds it."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # Hugging Face tokenizers sit one level down
    context = tokenizer.context_length
    tower = _with_parts(model, lambda name: name != "visual")

    def encode_with(tower: Any) -> Encode:
        by_length: dict[int, Any] = {context: tower}

        def forward(tokens: torch.Tensor) -> torch.Tensor:
            length = tokens.shape[1]
            if length not in by_length:
                by_length[length] = _with_context(tower, length)
            return by_length[length].encode_text(tokens)

        return encode_on(device, forward)

    encode = encode_with(tower)
    buckets = [size for size in TEXT_BUCKETS if size < context] if _padding_is_free(encode, tokenizer) else []

    def prepare(text: str) -> list[np.ndarray]:
        parts = split_text(text, lambda part: len(inner.encode(part)) <= context - 2)
        return [_without_padding(row.numpy(), buckets) for row in tokenizer(parts)]

    return Encoder(
        identity,
        batch_size(device, BATCH),
        prepare,
        encode,
        to_bf16=lambda: encode_with(copy.deepcopy(tower).to(torch.bfloat16)),
        overlap=device.type == "cuda",
    )


def _with_parts(model: Any, is_part: Callable[[str], bool]) -> Any:
    """The model with some of its parts only, which are shared: each tower can be cast, and freed, by itself."""
    copied = copy.copy(model)
    copied._modules = {name: module for name, module in model._modules.items() if is_part(name)}
    return copied


class FirstToken(torch.nn.Module):
    """A transformer's last block, computed for the first token only, where no other token's output is read.

    The other tokens need no query and no MLP. A single query needs no keys and values either:
    <q, W_k x> = <W_k^T q, x> (the key's bias adds the same to all tokens and cancels in the softmax), and the mean of
    the values W_v x is W_v times the mean of x. This saves nearly the full block, a twelfth of ViT-B/32.
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
        # [b, heads, d]: the query taken back through the keys' weights
        token_query = torch.einsum("bhe,hed->bhd", query, weight[1]) / math.sqrt(query.shape[-1])
        mean_token = (token_query @ tokens.mT).softmax(-1) @ tokens
        value = torch.einsum("bhd,hed->bhe", mean_token, weight[2]) + bias[2]
        return attn.out_proj(value.flatten(1))[:, None]


def _with_first_token_block(tower: Any, device: torch.device) -> Any:
    """The image tower with `FirstToken` as its last block where that computes the same; else unchanged.

    It differs in other architectures, and in those that read more than the first token.
    """

    def replace_last_block(visual: Any) -> Any:
        resblocks = _with_children(visual.transformer.resblocks)
        resblocks[-1] = FirstToken(resblocks[-1])
        return _with_children(visual, transformer=_with_children(visual.transformer, resblocks=resblocks))

    return _with_equal_visual(tower, replace_last_block, device)


def _with_equal_visual(tower: Any, change: Callable[[Any], Any], device: torch.device) -> Any:
    """The image tower with its changed `visual` where that computes the same for an image; else unchanged."""
    visual = tower.visual
    try:
        with torch.inference_mode():
            changed = change(visual)
            dtype = next(visual.parameters()).dtype
            size = visual.image_size
            image = torch.linspace(-1, 1, 3 * math.prod(size), device=device).view(1, 3, *size).to(dtype)
            expected, actual = visual(image).float(), changed(image).float()  # [1, d]
            tolerance = TOLERANCE if dtype == torch.float32 else TOLERANCE_BF16
            equal = expected.shape == actual.shape and (expected - actual).norm() <= tolerance * expected.norm()
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError, AssertionError):
        return tower
    return _with_children(tower, visual=changed) if equal else tower


class Packed(torch.nn.Module):
    """A linear layer whose weights are stored in oneDNN's layout: converted once, not with every batch."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., i]` -> `[..., o]`."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def _with_packed_layers(tower: Any, device: torch.device) -> Any:
    """The image tower with `Packed` layers, on a CPU and where they compute the same; else unchanged.

    Some builds of torch lack the call, and some towers read their layers' weights themselves. This is never decided by
    timing: equal runs must give equal features.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return tower
    return _with_equal_visual(tower, _pack_layers, device)


def _pack_layers(module: Any) -> Any:
    if type(module) is torch.nn.Linear:  # no subclass: another layer may read its weights
        return Packed(module)
    children = {name: child and _pack_layers(child) for name, child in module._modules.items()}
    return _with_children(module, **children) if children else module


def _with_children(module: Any, **children: Any) -> Any:
    """The module with these children in place of its own; everything else is shared."""
    copied = copy.copy(module)
    copied._modules = {**module._modules, **children}
    return copied


def _with_context(tower: Any, length: int) -> Any:
    """The text tower for texts of `length` tokens: open_clip's own take only texts of their full context."""
    if "text" in tower._modules:  # a newer kind of model
        return _with_children(tower, text=_with_context(tower.text, length))
    if "positional_embedding" not in tower._parameters:
        return tower  # another library's, which may accept any length
    copied = copy.copy(tower)
    copied._parameters, copied._buffers = dict(tower._parameters), dict(tower._buffers)
    positions = tower.positional_embedding[:length].detach()
    copied._parameters["positional_embedding"] = torch.nn.Parameter(positions, requires_grad=False)
    if tower.attn_mask is not None:
        copied._buffers["attn_mask"] = tower.attn_mask[:length, :length]
    return copied


def _without_padding(row: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """Token ids `[context]` cut to the smallest bucket that holds the text; the length depends on no other text."""
    used = int(np.flatnonzero(row)[-1]) + 1 if row.any() else len(row)
    return row[: next((size for size in buckets if used <= size), len(row))]


def _padding_is_free(encode: Encode, tokenizer: Any) -> bool:
    """Whether two short texts have the same features without their padding, as with causal towers.

    Others fail here, by different numbers or by an error, and keep their full context.
    """
    try:
        padded_ids = tokenizer(list(_PROBE_TEXTS)).numpy()
        size = next(size for size in TEXT_BUCKETS if not padded_ids[:, size:].any())
        padded = encode(padded_ids)
        short = encode(padded_ids[:, :size])
    except (RuntimeError, ValueError, IndexError, AssertionError, StopIteration):
        return False
    scale = np.linalg.norm(padded, axis=1, keepdims=True)
    return bool((np.abs(padded - short) <= TOLERANCE * scale).all())
