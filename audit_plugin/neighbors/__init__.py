"""Nearest neighbours and near-duplicate groups; the only importer of faiss.

`search` is exact. `seek` is what an audit uses: exact for few rows, else as fast as the machine allows, with its recall
measured.
"""

from .exact import nearest, search, similarities_to, within
from .groups import join_groups, near_duplicate_groups, number_by_first, usual_distance
from .scan import pair_similarities
from .seeking import Sought, seek

__all__ = [
    "Sought",
    "join_groups",
    "near_duplicate_groups",
    "nearest",
    "number_by_first",
    "pair_similarities",
    "search",
    "seek",
    "similarities_to",
    "usual_distance",
    "within",
]
