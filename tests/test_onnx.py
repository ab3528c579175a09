"""The offline encoders through onnxruntime, against the same networks in PyTorch; and how their graphs are built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from audit_plugin.encoders import offline
from audit_plugin.encoders.base import Encoder
from audit_plugin.encoders.onnx_graph import OnnxGraph, interrupts_held
from audit_plugin.encoders.registry import load_encoders
from audit_plugin.store import plain_error

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
LEAST_COSINE = 0.99999


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return load_encoders("offline", ("image", "text"), "cpu")


@pytest.fixture(scope="module")
def photographs(encoders: dict[str, Encoder]) -> np.ndarray:
    """Crops of two photographs, large and small; noise, black and white. `[n, 224, 224, 3]`."""
    rng = np.random.default_rng(0)
    images = [Image.new("RGB", (9, 9), color) for color in ("black", "white")]
    images.append(Image.fromarray(rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)))
    for photograph in map(Image.fromarray, load_sample_images().images):
        for size in (40, 150, 400) * 3:
            left, top = (int(rng.integers(0, side - size + 1)) for side in photograph.size)
            images.append(photograph.crop((left, top, left + size, top + size)))
    return np.stack([encoders["image"].prepare(image)[0] for image in images])


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def texts(length: int, count: int) -> np.ndarray:
    """Random token ids `[count, size]` of that length, padded as the encoder pads them."""
    rng = np.random.default_rng(length)
    size = next(size for size in offline.TEXT_SIZES if size >= length)
    ids = np.zeros((count, size), dtype=np.int64)
    ids[:, :length] = rng.integers(1000, 30_000, (count, length))
    ids[:, 0], ids[:, length - 1] = 101, 102  # [CLS] and [SEP]
    return ids


# --- the same features as PyTorch ------------------------------------------------------------------------------------


def test_images_have_the_features_that_pytorch_gives_them(
    encoders: dict[str, Encoder], photographs: np.ndarray
) -> None:
    with torch.inference_mode():
        expected = offline.image_model(CPU)(torch.from_numpy(photographs)).numpy()
    features = encoders["image"].encode(photographs)
    assert features.shape == expected.shape == (21, 1280)
    assert features.dtype == np.float32
    assert worst_cosine(features, expected) > LEAST_COSINE
    np.testing.assert_allclose(features, expected, atol=1e-3)


def test_texts_of_all_lengths_have_the_features_that_pytorch_gives_them(encoders: dict[str, Encoder]) -> None:
    model = offline.text_model(CPU)
    for length in (2, 3, 7, 8, 9, 12, 13, 16, 17, 24, 25, 31, 32, 40, 48, 64, 90, 96, 128, 129, 192, 200, 255, 256):
        ids = texts(length, 3)
        with torch.inference_mode():
            expected = model(torch.from_numpy(ids)).numpy()
        features = encoders["text"].encode(ids)
        assert features.shape == expected.shape == (3, 384)
        assert worst_cosine(features, expected) > LEAST_COSINE, length


# --- the same bytes, whatever is encoded beside it -------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_has_the_same_bytes_in_any_batch_and_any_number_of_threads(
    encoders: dict[str, Encoder], photographs: np.ndarray, threads: int
) -> None:
    encode = encoders["image"].encode
    alone = np.concatenate([encode(photographs[row : row + 1]) for row in range(len(photographs))])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for size in (2, 5, len(photographs)):
            parts = [encode(photographs[start : start + size]) for start in range(0, len(photographs), size)]
            assert np.concatenate(parts).tobytes() == alone.tobytes()
    finally:
        torch.set_num_threads(before)
    order = np.random.default_rng(threads).permutation(len(photographs))
    assert encode(photographs[order]).tobytes() == alone[order].tobytes()


@pytest.mark.parametrize("size", offline.TEXT_SIZES)
def test_a_text_has_the_same_bytes_in_any_batch_and_any_place(encoders: dict[str, Encoder], size: int) -> None:
    encode = encoders["text"].encode
    at_once = max(1, offline.TOKENS_AT_ONCE // size)
    ids = np.concatenate([texts(length, 2 * at_once + 1) for length in {size, size - 1}])
    together = encode(ids)
    rng = np.random.default_rng(size)
    for rows in (range(1), range(len(ids) - 1, -1, -1), rng.permutation(len(ids)), rng.permutation(len(ids))[:3]):
        chosen = np.array(rows)
        assert encode(ids[chosen]).tobytes() == together[chosen].tobytes()


def test_threads_that_encode_at_once_do_not_disturb_each_other(
    encoders: dict[str, Encoder], photographs: np.ndarray
) -> None:
    expected = encoders["image"].encode(photographs).tobytes()
    with ThreadPoolExecutor(3) as pool:
        assert {result.tobytes() for result in pool.map(encoders["image"].encode, [photographs] * 3)} == {
            np.frombuffer(expected, np.float32).tobytes()
        }


# --- what the package does beside computing --------------------------------------------------------------------------


def test_nothing_is_reported_to_the_makers_of_the_package(tmp_path: Path) -> None:
    """Unless told not to, its releases send reports, and leave an identifier of the machine in the user's cache."""
    code = (
        "import numpy as np; from audit_plugin.encoders.registry import load_encoders\n"
        "encoder = load_encoders('offline', ('image',), 'cpu')['image']\n"
        "print(encoder.encode(np.zeros((1, 224, 224, 3), np.uint8)).shape)"
    )
    quiet_only_for_tests = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR"), str(tmp_path))
    environment = {name: value for name, value in os.environ.items() if name not in quiet_only_for_tests}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **places, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(1, 1280)\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "message",
    [
        "[ONNXRuntimeError] : 1 : FAIL : Exception during loading: std::bad_alloc",
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Status Message: "
        "bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 393216",
    ],
)
def test_a_lack_of_memory_is_told_in_a_sentence(message: str) -> None:
    assert "the memory is too small" in (plain_error(RuntimeError(message)) or "")


INTERRUPTED = """
import os, signal, sys

class Interrupts:  # as Ctrl-C does in the middle of an import
    def find_spec(self, name, path=None, target=None):
        if name == "onnx.onnx_cpp2py_export":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from audit_plugin.encoders.onnx_graph import OnnxGraph, interrupts_held
try:
    OnnxGraph()
except KeyboardInterrupt:
    from onnx import helper  # was imported whole
    print("interrupted after the import")
"""


def test_an_interrupt_while_onnx_is_imported_waits_for_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted after the import\n", "")


def test_interrupts_are_held_in_the_main_thread_alone() -> None:
    reached = []

    def interrupted() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == [True]

    def failing() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            raise ImportError

    with pytest.raises(KeyboardInterrupt):  # an interrupt is not lost beside an error
        failing()
    before = signal.getsignal(signal.SIGINT)

    def hold() -> bool:
        with interrupts_held():
            return signal.getsignal(signal.SIGINT) is before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result()
    assert signal.getsignal(signal.SIGINT) is before


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_small_graph_computes_what_is_written_in_it() -> None:
    """y = clip(x W + b, 0, 6), softmax over the first axis, each with attributes of another type."""
    graph = OnnxGraph()
    weight, bias = np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[-5, 0, 1]], np.float32)
    product = graph.apply("Gemm", "x", graph.constant(weight), graph.constant(bias), alpha=0.5)
    limits = [graph.constant(np.array(value, np.float32)) for value in (0, 6)]
    clipped = graph.apply("Clip", product, *limits)
    turned = graph.apply("Transpose", graph.apply("Softmax", clipped, axis=-1), perm=(1, 0))
    model = graph.model({"x": ("float32", ("n", 2))}, turned)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = np.array([[1, 1], [2, 0], [8, 8]], np.float32)
    values = np.exp(np.clip(x @ weight / 2 + bias, 0, 6))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], (values / values.sum(1, keepdims=True)).T, rtol=1e-5)
