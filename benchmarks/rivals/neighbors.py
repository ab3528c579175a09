"""Rivals that compare with the neighbors within a modality: Deep k-NN, Discrepancy and Diversity, neighbor captions."""

from __future__ import annotations

import functools

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .material import Material, canonical, cosines_to, sum_of

VARIANTS = ("discrepancy_image", "discrepancy_text", "diversity_image", "diversity_text")


def deep_knn(material: Material, k: int = 10, clusters: int = 100) -> Floats:
    """Deep k-NN (Bahri et al., ICML 2020): share of the k nearest images with another label.

    Free captions have no labels: the number of their k-means cluster stands for one, as in LEMoN's comparison
    (100 clusters, k = 10). O(n k) after the neighbor search and the clustering.
    """
    labels = material.labels if material.labels is not None else _clusters_of(material, clusters)
    neighbors = material.image_neighbors.first(k)
    return neighbors.mean((labels[:, None] != labels[neighbors.rows]).astype(float))


@functools.lru_cache(maxsize=3)  # the clusterings of one set, while k is chosen
def _clusters_of(material: Material, clusters: int) -> Ints:
    return cluster(material.text, clusters)


def cluster(features: Floats, clusters: int) -> Ints:
    """k-means clusters `[n]`, the same for any order of the rows; at most half as many as rows."""
    from sklearn.cluster import KMeans

    order = canonical(features)
    count = max(1, min(clusters, len(features) // 2))
    labels = np.empty(len(features), dtype=int)
    labels[order] = KMeans(count, n_init=1, random_state=0).fit_predict(features[order])
    return labels


def discrepancy(material: Material, variant: str = "discrepancy_image", k: int = 5) -> Floats:
    """Discrepancy and Diversity (Thomas and Kovashka, CVPR workshops 2022), the four forms of LEMoN's comparison.

    Diversity: mean cosine distance over all k^2 ordered pairs of the k nearest captions' images (or texts).
    Discrepancy: mean cosine distance of the own image (or text) to the images (texts) of the k nearest captions' k
    nearest captions, counted as often as they occur, the row itself left out. k = 5. O(n^2 d).
    """
    features = material.image if variant.endswith("image") else material.text
    neighbors = material.text_neighbors.first(k)
    if variant.startswith("diversity"):
        center = sum_of(features, neighbors) / np.maximum(neighbors.use.sum(1), 1)[:, None]
        return 1 - (center**2).sum(1)
    second = neighbors.rows[neighbors.rows].reshape(len(features), -1)
    use = (neighbors.use[:, :, None] & neighbors.use[neighbors.rows]).reshape(second.shape)
    use &= second != np.arange(len(features))[:, None]
    distance = 1 - cosines_to(features, second)
    return np.where(use, distance, 0).sum(1) / np.maximum(use.sum(1), 1)


def neighbor_captions(material: Material, k: int = 10) -> Floats:
    """1 - cosine of the own caption and the mean caption of the k nearest images. O(n k e)."""
    neighbors = material.image_neighbors.first(k)
    center = sum_of(material.text, neighbors)
    length = np.linalg.norm(center, axis=1)
    return 1 - (center * material.text).sum(1) / np.where(length > 0, length, 1)
