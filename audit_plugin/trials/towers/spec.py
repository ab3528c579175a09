"""Which towers are trained, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit_plugin.arrays import AuditError
from audit_plugin.encoders import open_clip as clip
from audit_plugin.inputs.files import file_digest

# Sized for CPUs: 850,000 weights with a thousand short captions, about 2 core-seconds per epoch of 1,340 pairs. On
# that many emoji, 20 epochs bring top-5 retrieval among 571 pairs to .98 trained and .18 held out.
SMALL = "small"
SMALL_EMBED_DIM = 128
SMALL_VISION = {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2, "head_width": 32, "mlp_ratio": 2.0}
SMALL_TEXT = {"context_length": 24, "width": 128, "layers": 2, "heads": 4, "mlp_ratio": 2.0}


@dataclass(frozen=True)
class TowerSpec:
    """Towers to train.

    Attributes:
        model: `small`, or a model name of open_clip.
        weights: checkpoint file or open_clip tag to fine-tune; "" trains from scratch.
        digest: of the weights' bytes, "" where there are none or they have yet to be downloaded.
        image_size: pixels of a side.
        context_length: tokens of a text; what is longer is cut.
        epochs: passes over the members.
        batch: pairs per step, at most.
        learning_rate: at its peak.
        mean: per channel, of pixels from 0 to 1.
        std: likewise.
        quick_gelu: the weights were trained with it.
    """

    model: str
    weights: str
    digest: str
    image_size: int
    context_length: int
    epochs: int
    batch: int
    learning_rate: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quick_gelu: bool = False


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
    size, length = _image_size(model, config), int(config["text_cfg"].get("context_length", 77))
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
        digest=file_digest(checkpoint.path)[:16] if checkpoint.path else "",
        image_size=size,
        context_length=length,
        epochs=epochs,
        batch=128,
        learning_rate=1e-5,
        mean=tuple(published.get("mean") or mean),
        std=tuple(published.get("std") or std),
        quick_gelu=bool(published.get("quick_gelu")),  # else lost, since cached weights are loaded as a file
    )


def _image_size(model: str, config: Mapping[str, Any]) -> int:
    size = config["vision_cfg"].get("image_size", 224)
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) > 1:
        raise AuditError(f"{model} takes images of {size} pixels; towers are trained on square ones: choose another")
    return int(sides.pop())


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

    Args:
        spec: which.
        vocabulary: token numbers that occur, for `small`.
        length: tokens of the longest text, for `small`.
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
        what = str(error).splitlines()[0][:120] if str(error) else ""
        raise AuditError(
            f"{spec.weights or 'the model'!r} cannot be loaded as {spec.model} ({type(error).__name__}: {what}); "
            "name a checkpoint of this model, or another model"
        ) from error
