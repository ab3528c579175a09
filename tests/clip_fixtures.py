"""A CLIP too small to know anything, with its checkpoints on this disk: the real loading code without a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

MODEL = "tiny-for-tests"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_weights(folder: Path, count: int = 1) -> list[dict[str, Any]]:
    """Random weights of `count` models, whose name `MODEL` open_clip knows from here on."""
    open_clip = pytest.importorskip("open_clip")
    (folder / f"{MODEL}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(open_clip.create_model(MODEL).state_dict())
    return models


def tiny_checkpoints(folder: Path, *names: str) -> Path:
    """The folder, with a checkpoint NAME.pt of other weights for each name."""
    for name, weights in zip(names, tiny_weights(folder, len(names)), strict=True):
        torch.save(weights, folder / f"{name}.pt")
    return folder
