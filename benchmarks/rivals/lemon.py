"""LEMoN (Zhang et al., ICML 2025, arXiv 2407.18941): neighbors in both modalities, weighted by closeness and trust.

    s_n = 1/k * sum over the k nearest images j of d(y_i, y_j) exp(-tau1n d(x_i, x_j)) exp(-tau2n d_mm(j))
    s_m = 1/k * sum over the k nearest texts j  of d(x_i, x_j) exp(-tau1m d(y_i, y_j)) exp(-tau2m d_mm(j))
    score = d_mm(i) + beta s_n + gamma s_m,   d_mm(i) = 1 - s_ii,   d = 1 - cosine

This is the paper's form. The released code's weights under the cosine metric are e^(tau1) times these, which with its
fixed tau1 = 0.1 makes beta and gamma 5.53 where the paper says 5. The squared Euclidean distance of unit vectors is
2 (1 - cosine), so the metric is a factor 2 on every distance. With class labels the distance of two texts is 1 where
the labels differ, else 0. Then all rows of a class are equally near, and which k of them are taken is left to chance:
here the expectation over that choice is computed, the mean over all other rows of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Floats

from .material import Material, Nearest, cosines_to
from .tuning import auroc

SCALES = {"cosine": 1.0, "euclidean": 2.0}
NUMBERS = (1, 2, 5, 10, 15, 20, 30, 50)
TAUS = (0.0, 1.0, 5.0, 10.0)
COARSE = (0.0, 5.0, 15.0, 40.0, 100.0)
FINE = tuple(np.arange(0.0, 101.0, 5.0))
FIXED_TAUS = (0.1, 5.0)
POWELL_EVALUATIONS = 300


@dataclass(frozen=True)
class Term:
    """Neighbors of one side: `[n, k]`, `apart` in the other modality, `neighbor_distance` here, `distrust` d_mm(j)."""

    apart: Floats
    neighbor_distance: Floats
    distrust: Floats
    neighbors: Nearest

    def value(self, tau1: float, tau2: float, scale: float) -> Floats:
        """s_n or s_m `[n]`."""
        weights = np.exp(-scale * (tau1 * self.neighbor_distance + tau2 * self.distrust))
        return scale * self.neighbors.mean(self.apart * weights)


@dataclass(frozen=True)
class ClassTerm:
    """The text side of a classification set: `apart` `[n, n]`, image distances over the class's size, 0 outside."""

    apart: Floats
    distrust: Floats

    def value(self, tau1: float, tau2: float, scale: float) -> Floats:  # noqa: ARG002  (texts of a class are equal)
        """s_m `[n]`."""
        return scale * (self.apart @ np.exp(-scale * tau2 * self.distrust))


def lemon(
    material: Material,
    k: int = 30,
    metric: str = "cosine",
    beta: float = 5.0,
    gamma: float = 5.0,
    tau1_n: float = 0.1,
    tau2_n: float = 5.0,
    tau1_m: float = 0.1,
    tau2_m: float = 5.0,
) -> Floats:
    """Suspicion `[n]`; the defaults are the paper's fixed setting. O(n k) after the neighbor search."""
    scale = SCALES[metric]
    s_n = image_term(material, k).value(tau1_n, tau2_n, scale)
    s_m = text_term(material, k).value(tau1_m, tau2_m, scale)
    return scale * (1 - material.own) + beta * s_n + gamma * s_m


def image_term(material: Material, k: int) -> Term:
    """How far the captions of the nearest images are from the own one."""
    neighbors = material.image_neighbors.first(k)
    if material.labels is None:
        apart = 1 - cosines_to(material.text, neighbors.rows)
    else:
        apart = (material.labels[:, None] != material.labels[neighbors.rows]).astype(material.image.dtype)
    return Term(apart, 1 - neighbors.similarity, (1 - material.own)[neighbors.rows], neighbors)


def text_term(material: Material, k: int) -> Term | ClassTerm:
    """How far the images of the nearest captions are from the own one."""
    if material.labels is None:
        neighbors = material.text_neighbors.first(k)
        apart = 1 - cosines_to(material.image, neighbors.rows)
        return Term(apart, 1 - neighbors.similarity, (1 - material.own)[neighbors.rows], neighbors)
    same = material.labels[:, None] == material.labels[None, :]
    if material.copies is not None:
        same &= ~material.copies
    np.fill_diagonal(same, False)
    apart = np.where(same, 1 - material.image @ material.image.T, 0) / np.maximum(same.sum(1, keepdims=True), 1)
    return ClassTerm(apart, 1 - material.own)


def tune(cells: Sequence[tuple[Material, Bools]]) -> dict[str, Any]:
    """LEMoN's tuned form: the parameters with the best mean AUROC over labeled development cells.

    The paper maximizes F1 on a labeled split of the set itself; AUROC over other sets is what the tables here compare.
    Its grids (k, metric, beta, gamma, tau1, tau2; and the fixed taus) are walked over coarsely in beta and gamma with
    both sides' taus equal, then finely in beta and gamma; Powell's method moves all six continuous parameters from
    there. Never worse than the fixed setting on the development cells.

    Args:
        cells: (material, bool `[n]` the wrong pairs).
    """
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    for k in NUMBERS:
        terms = [(image_term(m, k), text_term(m, k), 1 - m.own, wrong) for m, wrong in cells]
        for metric, (tau1, tau2) in product(SCALES, (FIXED_TAUS, *product(TAUS, TAUS))):
            start = {"k": k, "metric": metric, **_taus(tau1, tau2, tau1, tau2)}
            best = max(best, _best_weights(terms, start, COARSE), key=lambda candidate: candidate[0])
    terms = [(image_term(m, best[1]["k"]), text_term(m, best[1]["k"]), 1 - m.own, wrong) for m, wrong in cells]
    best = max(best, _best_weights(terms, best[1], FINE), key=lambda candidate: candidate[0])
    return max(best, _refined(terms, best[1]), key=lambda candidate: candidate[0])[1]


def _taus(tau1_n: float, tau2_n: float, tau1_m: float, tau2_m: float) -> dict[str, float]:
    return {"tau1_n": tau1_n, "tau2_n": tau2_n, "tau1_m": tau1_m, "tau2_m": tau2_m}


def _parts(terms: tuple[Any, ...], at: dict[str, Any]) -> tuple[Floats, Floats, Floats]:
    """(d_mm, s_n, s_m) of one cell."""
    image, text, distance, _ = terms
    scale = SCALES[at["metric"]]
    return (
        scale * distance,
        image.value(at["tau1_n"], at["tau2_n"], scale),
        text.value(at["tau1_m"], at["tau2_m"], scale),
    )


def _best_weights(
    terms: Sequence[tuple[Any, ...]], at: dict[str, Any], values: tuple[float, ...]
) -> tuple[float, dict[str, Any]]:
    """The best beta and gamma of a grid: (mean AUROC, parameters)."""
    weights = np.array(list(product(values, values)))
    means = np.zeros(len(weights))
    for cell in terms:
        distance, s_n, s_m = _parts(cell, at)
        means += auroc(distance + weights[:, :1] * s_n + weights[:, 1:] * s_m, cell[3]) / len(terms)
    top = int(means.argmax())
    return float(means[top]), {**at, "beta": float(weights[top, 0]), "gamma": float(weights[top, 1])}


def _refined(terms: Sequence[tuple[Any, ...]], start: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Powell's method over the continuous parameters, none of them below 0: (mean AUROC, parameters)."""
    from scipy.optimize import minimize

    names = ("beta", "gamma", "tau1_n", "tau2_n", "tau1_m", "tau2_m")

    def loss(values: Floats) -> float:
        at = {**start, **dict(zip(names, np.maximum(values, 0), strict=True))}
        scores = (_parts(cell, at) for cell in terms)
        combined = (distance + at["beta"] * s_n + at["gamma"] * s_m for distance, s_n, s_m in scores)
        return -float(np.mean([auroc(score, cell[3]) for score, cell in zip(combined, terms, strict=True)]))

    minimum = minimize(
        loss, [start[name] for name in names], method="Powell", options={"maxfev": POWELL_EVALUATIONS, "ftol": 1e-5}
    )
    return -float(minimum.fun), {**start, **{n: float(max(v, 0)) for n, v in zip(names, minimum.x, strict=True)}}
