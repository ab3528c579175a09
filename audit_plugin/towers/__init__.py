"""Whole open_clip models as the thing that is trained: image and text towers, from scratch or fine-tuned."""

from __future__ import annotations

from .data import TowerData as TowerData
from .data import prepare_towers as prepare_towers
from .spec import TowerSpec as TowerSpec
from .spec import describe as describe
from .spec import parse_tower as parse_tower
from .training import embed_tower as embed_tower
from .training import train_tower as train_tower
