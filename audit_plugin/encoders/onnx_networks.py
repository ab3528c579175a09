"""The networks of the offline encoders as ONNX models, from the tensors of their packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .onnx_graph import MICROSOFT, OnnxGraph

SIDE = 224  # pixels of the image encoder's input
# EfficientNet-Lite0: (convolutions of a block, stride, number of blocks) per stage. Kernels and widths are in the
# tensors' shapes; the first block of a stage has its stride.
STAGES = ((2, 1, 1), (3, 2, 2), (3, 2, 2), (3, 2, 3), (3, 1, 3), (3, 2, 4), (3, 1, 1))
NORM_EPSILON = 1e-3  # of its batch normalization
LAYERS, HEADS, LAYER_EPSILON = 6, 12, 1e-12  # of all-MiniLM-L6-v2
FLOAT, INT32 = 1, 6  # numbers of the types in ONNX
MASKED = -1e9  # added to the logits of padding: its weight is exp(-1e9) = 0


def image_network(tensors: Sequence[np.ndarray]) -> bytes:
    """EfficientNet-Lite0: `pixels` uint8 `[n, 224, 224, 3]` -> features float32 `[n, 1280]`.

    Args:
        tensors: the weights in the network's order, for each convolution its kernel, and its batch normalization's
            scale, shift, mean, variance and count; those of the class head are not read.
    """
    graph = OnnxGraph()
    weights = iter(tensors)

    def convolve(x: str, stride: int = 1, clip: bool = True) -> str:
        kernel, shift = _folded(weights)
        channels = kernel.shape[1]
        out = graph.apply(
            "Conv",
            x,
            graph.constant(kernel),
            graph.constant(shift),
            strides=(stride, stride),
            pads=_same_padding(kernel.shape[-1], stride),
            group=len(kernel) if channels == 1 else 1,
        )
        return graph.apply("Clip", out, zero, six) if clip else out

    zero, six = (graph.constant(np.array(value, np.float32)) for value in (0, 6))
    # x / 127.5 - 1
    x = graph.apply("Cast", graph.apply("Transpose", "pixels", perm=(0, 3, 1, 2)), to=FLOAT)
    x = graph.apply("Div", x, graph.constant(np.array(127.5, np.float32)))
    x = graph.apply("Sub", x, graph.constant(np.array(1, np.float32)))
    x = convolve(x, stride=2)
    for convolutions, stride, blocks in STAGES:
        for block in range(blocks):
            before = x
            if convolutions == 3:
                x = convolve(x)
            x = convolve(x, stride=stride if block == 0 else 1)
            x = convolve(x, clip=False)
            if block:
                x = graph.apply("Add", x, before)
    x = graph.apply("GlobalAveragePool", convolve(x))
    return graph.model({"pixels": ("uint8", ("n", SIDE, SIDE, 3))}, graph.apply("Flatten", x, axis=1))


def _same_padding(kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right zeros with which n pixels, a multiple of the stride, become n / stride."""
    total = kernel - stride
    return total // 2, total // 2, total - total // 2, total - total // 2


def _folded(weights: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(kernel, shift) of a convolution that also does its batch normalization."""
    kernel, scale, shift, mean, variance, _count = (np.asarray(next(weights), np.float64) for _ in range(6))
    factor = scale / np.sqrt(variance + NORM_EPSILON)
    return (kernel * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32)


def text_network(tensors: Mapping[str, np.ndarray]) -> bytes:
    """all-MiniLM-L6-v2: token `ids` int64 `[n, t]`, 0 where a text has ended -> mean token float32 `[n, 384]`."""
    graph = OnnxGraph()

    def constant(name: str) -> str:
        return graph.constant(tensors[name])

    def linear(x: str, name: str) -> str:
        product = graph.apply("MatMul", x, graph.constant(tensors[f"{name}.weight"].T))
        return graph.apply("Add", product, constant(f"{name}.bias"))

    def norm(x: str, name: str) -> str:
        weight, bias = constant(f"{name}.weight"), constant(f"{name}.bias")
        return graph.apply("LayerNormalization", x, weight, bias, axis=-1, epsilon=LAYER_EPSILON)

    number = {value: graph.constant(np.array([value], np.int64)) for value in (0, 1, 2)}
    is_token = graph.apply("Not", graph.apply("Equal", "ids", number[0]))
    length = graph.apply("Slice", graph.apply("Shape", "ids"), number[1], number[2])
    places = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    x = graph.apply("Gather", constant("embeddings.word_embeddings.weight"), "ids")
    x = graph.apply("Add", x, graph.apply("Slice", graph.constant(places), number[0], length, number[0]))
    x = norm(x, "embeddings.LayerNorm")
    mask = graph.apply("Cast", is_token, to=INT32)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([tensors[f"{part}.weight"] for part in parts]).T
        bias = np.concatenate([tensors[f"{part}.bias"] for part in parts])
        attended = graph.apply(
            "Attention",
            x,
            graph.constant(weight),
            graph.constant(bias),
            mask,
            domain=MICROSOFT,
            num_heads=HEADS,
            mask_filter_value=MASKED,
        )
        attended = linear(attended, f"{name}.attention.output.dense")
        x = norm(graph.apply("Add", attended, x), f"{name}.attention.output.LayerNorm")
        wide = graph.apply("Gelu", linear(x, f"{name}.intermediate.dense"), domain=MICROSOFT)
        x = norm(graph.apply("Add", linear(wide, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")
    weights = graph.apply("Cast", is_token, to=FLOAT)
    total = graph.apply("MatMul", graph.apply("Unsqueeze", weights, number[1]), x)  # [n, 1, 384]
    count = graph.apply("ReduceSum", weights, number[1], keepdims=1)
    mean = graph.apply("Div", graph.apply("Squeeze", total, number[1]), count)
    return graph.model({"ids": ("int64", ("n", "t"))}, mean)
