"""ONNX models in memory: a graph that is built node by node, and its bytes as onnxruntime loads them.

The format is a protocol buffer of a few messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); to write
them takes less than the packages that export models.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

IR_VERSION = 8
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
OPSETS = {"": 17, MICROSOFT: 1}  # domain -> version of its operators
TENSOR_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7}
FLOAT, INT, INTS = 1, 2, 7  # types of attributes
Attribute = float | int | Sequence[int]


class OnnxGraph:
    """A graph under construction; tensors are named by strings, "" is an optional input that is left out."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []  # parts of their messages

    def constant(self, values: np.ndarray) -> str:
        """The name of a tensor with these values."""
        name = f"constant{len(self._constants) // 2}"
        dims = b"".join(_integer(1, size) for size in values.shape)
        data = np.ascontiguousarray(values).tobytes()
        header = dims + _integer(2, TENSOR_TYPES[values.dtype.name]) + _text(8, name) + _key(9, 2) + _varint(len(data))
        self._constants += [_key(5, 2) + _varint(len(header) + len(data)) + header, data]
        return name

    def apply(self, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """The name of the output of one more node."""
        name = f"output{len(self._nodes)}"
        node = b"".join(_text(1, tensor) for tensor in inputs) + _text(2, name) + _text(4, operator)
        node += b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items()) + _text(7, domain)
        self._nodes.append(node)
        return name

    def model(self, inputs: Mapping[str, tuple[str, Sequence[int | str]]], output: str) -> bytes:
        """The model's bytes.

        Args:
            inputs: name -> (NumPy type, shape); a size that may differ from call to call is a name.
            output: the tensor, float32 and of any shape, that it computes.
        """
        graph = [_bytes(1, node) for node in self._nodes] + [_text(2, "graph"), *self._constants]
        graph += [_bytes(11, _value(name, *kind)) for name, kind in inputs.items()]
        graph.append(_bytes(12, _value(output, "float32", None)))
        opsets = [_bytes(8, _text(1, domain) + _integer(2, version)) for domain, version in OPSETS.items()]
        header = [_integer(1, IR_VERSION), *opsets, _key(7, 2), _varint(sum(map(len, graph)))]
        return b"".join(header + graph)  # once: weights of 90 MB are copied each time


def _attribute(name: str, value: Attribute) -> bytes:
    """An `AttributeProto`."""
    if isinstance(value, float):
        return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _integer(20, FLOAT)
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, INT)
    return _text(1, name) + b"".join(_integer(8, item) for item in value) + _integer(20, INTS)


def _value(name: str, dtype: str, shape: Sequence[int | str] | None) -> bytes:
    """A `ValueInfoProto`: the name, type and shape of an input or output."""
    tensor = _integer(1, TENSOR_TYPES[dtype])
    if shape is not None:
        dims = (_integer(1, size) if isinstance(size, int) else _text(2, size) for size in shape)
        tensor += _bytes(2, b"".join(_bytes(1, dim) for dim in dims))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


# --- fields of protocol buffers --------------------------------------------------------------------------------------


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    """7 bits a byte, the lowest first; the top bit says that more follow. Negative numbers in two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _integer(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())
