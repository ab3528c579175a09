"""Finds nearest neighbors and near-duplicates; the only importer of faiss.

`exact_search` is exact. `nearest_neighbors` is what an audit uses: exact for few rows, else as fast as the machine
allows, with its recall measured.
"""

from .exact import exact_search, nearest, pair_similarities, similarities_to, within
from .near_duplicates import group_near_duplicates, join_groups, usual_distance
from .search import SearchResult, nearest_neighbors

__all__ = [
    "SearchResult",
    "exact_search",
    "group_near_duplicates",
    "join_groups",
    "nearest",
    "nearest_neighbors",
    "pair_similarities",
    "similarities_to",
    "usual_distance",
    "within",
]
