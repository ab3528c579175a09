"""Whole open_clip models as what is trained: image and text towers, from scratch or fine-tuned."""

from .data import TowerData, prepare_towers
from .spec import TowerSpec, describe, parse_tower
from .training import embed_tower, train_tower

__all__ = ["TowerData", "TowerSpec", "describe", "embed_tower", "parse_tower", "prepare_towers", "train_tower"]
