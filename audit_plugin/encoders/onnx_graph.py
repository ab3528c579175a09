"""ONNX models in memory: a graph that is built node by node."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
OPSETS = {"": 17, MICROSOFT: 1}  # domain -> version of its operators
IR_VERSION = 8  # that of opset 17, which onnxruntime of 2022 reads as well


class OnnxGraph:
    """A graph under construction; tensors are named by strings, "" is an optional input that is left out."""

    def __init__(self) -> None:
        with interrupts_held():
            from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: np.ndarray) -> str:
        """The name of a tensor with these values."""
        name = f"constant{len(self._constants)}"
        self._constants.append(self._numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def apply(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """The name of the output of one more node."""
        name = f"output{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def model(self, inputs: Mapping[str, tuple[str, Sequence[int | str]]], output: str) -> bytes:
        """The model's bytes.

        Args:
            inputs: name -> (NumPy type, shape); a size that may differ from call to call is a name.
            output: the tensor, float32 and of any shape, that it computes.
        """
        helper = self._helper
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in inputs.items()
        ]
        computed = helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)), None)
        graph = helper.make_graph(self._nodes, "graph", given, [computed], self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
        return bytes(model.SerializeToString())


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Keeps an interrupt back until the end: onnx, whose nanobind is not ready for one, would abort the process.

    Only the main thread is interrupted; in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if former is None else former)
        if held:
            signal.raise_signal(signal.SIGINT)
