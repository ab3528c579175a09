"""Principal components of frozen features: inputs of the heads, views for neighbor search, positions on maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audit_plugin.arrays import Floats
from audit_plugin.encoders.devices import one_thread

MAX_DIM = 256  # of the components
FIT_ROWS = 20_000  # at most, drawn by position
BLOCK = 16_384  # rows projected at once


@dataclass(frozen=True)
class Projection:
    """Center `[d]`, basis `[d, q]`, and the length below which a row has no direction."""

    mean: Floats
    basis: Floats
    floor: float


def fit_projection(vectors: Floats, whitening: float) -> Projection:
    """The leading principal components of float32 `[n, d]`, each divided by its deviation^whitening.

    Frozen features of a narrow set lie in a thin cone; centering opens it, and partial whitening lifts the fine
    directions that tell near classes apart. q is at most 256 and at most a quarter of n, since components that a
    handful of rows decide are noise.

    Args:
        vectors: in canonical order (the fit draws up to 20,000 rows by position).
        whitening: 0 keeps all proportions, 1 makes all components equally wide.
    """
    n, d = vectors.shape
    if n == 0:
        return Projection(np.zeros(d, np.float32), np.eye(d, dtype=np.float32), 0.0)
    rows = np.random.default_rng(0).choice(n, FIT_ROWS, replace=False) if n > FIT_ROWS else np.arange(n)
    fit = vectors[np.sort(rows)]
    mean = fit.mean(0, dtype=np.float64).astype(np.float32)
    centered = fit - mean
    covariance = (centered.T @ centered).astype(np.float64) / max(len(fit), 1)
    with one_thread():
        variance, basis = np.linalg.eigh(covariance)  # the largest variance last
    q = min(MAX_DIM, d, max(8, n // 4))
    variance, basis = variance[::-1][:q], basis[:, ::-1][:, :q]
    # divided by deviation^whitening = variance^(whitening / 2); components without variance are not blown up
    scale = np.maximum(variance, variance[0] * 1e-6 + 1e-20) ** (-whitening / 2)
    scaled = (basis * scale).astype(np.float32)
    lengths = np.linalg.norm(centered @ scaled, axis=1)
    return Projection(mean, scaled, 1e-5 * max(float(np.median(lengths)), 1e-20))


def project(vectors: Floats, projection: Projection) -> Floats:
    """Unit rows float32 `[n, q]`; a row that equals the mean has no direction and stays zero."""
    rows = np.empty((len(vectors), projection.basis.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):  # no second copy of what is large
        part = np.matmul(vectors[start : start + BLOCK] - projection.mean, projection.basis)
        norm = np.linalg.norm(part, axis=1, keepdims=True)
        rows[start : start + BLOCK] = np.where(norm > projection.floor, part / np.maximum(norm, 1e-30), 0)
    return rows


def two_directions(vectors: Floats) -> Floats:
    """float64 `[n, 2]`: positions of vectors `[n, d]` along their first two principal components, for maps.

    The unit is the standard deviation along the first component. The sign of a direction is arbitrary: the largest of
    its entries is made positive, so that equal input gives equal maps.
    """
    centered = np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    values, basis = np.linalg.eigh(centered.T @ centered / max(len(centered), 1))
    basis = basis[:, ::-1][:, :2]
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), range(basis.shape[1])])
    deviation = float(np.sqrt(max(values[-1], 0.0)))
    positions: Floats = centered @ basis / max(deviation, 1e-12)
    return np.pad(positions, ((0, 0), (0, 2 - positions.shape[1])))
