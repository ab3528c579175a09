"""Linear evidence: what ridge regressions on the other samples say of a pair.

The *target* y of each sample is predicted from its *source* x, out of fold: groups of samples are divided into folds,
and a fold f is predicted by the regression on the others,

    W_f = (X^T X + lambda I)^-1 X^T Y          over the samples outside f, less their means x_f and y_f
    prediction_i = (x_i - x_f) W_f + y_f       for i in f

The mean over `REPEATS` divisions counts; one is enough for `MANY_SAMPLES`. lambda is the one that predicts best out of
fold.

For media and free texts, y is the unit vector of the other side, and the evidence on a pair is the contrast
(`contrast`) of M_ik = cos(prediction_i, y_k). Texts of which there are few, such as names of classes, are *classes*: y
is the indicator of the class, and the evidence is the margin of the linear classifier,

    max_{c != c_i} prediction_ic - prediction_i,c_i        c_i: the class that the sample is given
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats, Ints, check_lengths
from audit_plugin.encoders.devices import in_single_threads, use_matmul_precision
from audit_plugin.inputs.threads import check_stopped

from .contrast import Negatives, embedding_contrast

# Chosen on the development sets, see docs/detection.md.
TEMPERATURE = 1 / 50  # of the contrast
FOLDS, REPEATS = 5, 3
MANY_SAMPLES = 20_000
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of lambda, in mean eigenvalues of X^T X
SAMPLES_PER_CLASS = 5  # on average, from which texts are classes
MAX_CLASSES = 1000
TEMPERATURE_ROWS = 20_000  # at most, on which the temperature of the classes' probabilities is fitted
BATCH_ROWS = 8192  # bounds the memory, changes no result

Fit = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # x_f [d], y_f [q] and W_f [d, q], float64


@dataclass(frozen=True)
class CrossFit:
    """Regressions of a target on a source, each fitted without the folds that it predicts.

    Attributes:
        source: float32 `[n, d]`.
        folds: int `[h, n]`, of h divisions.
        source_means, target_means: float32 `[h, FOLDS, d]`, x_f, and `[h, FOLDS, q]`, y_f.
        weights: float32 `[h, FOLDS, d, q]`, W_f.
    """

    source: Floats
    folds: Ints
    source_means: Floats
    target_means: Floats
    weights: Floats

    def predict(self, rows: Ints | None = None, from_mean: bool = False) -> Floats:
        """float32 `[n, q]` predictions of the samples, or of some rows; `from_mean`: less y_f, (x_i - x_f) W_f."""
        rows = np.arange(len(self.source)) if rows is None else rows
        out = np.empty((len(rows), self.weights.shape[3]), np.float32)
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            total = np.zeros((len(batch), out.shape[1]), np.float32)
            for division, of_sample in enumerate(self.folds):
                for fold in range(FOLDS):
                    inside = of_sample[batch] == fold
                    centered = self.source[batch[inside]] - self.source_means[division, fold]
                    total[inside] += centered @ self.weights[division, fold]
                    if not from_mean:
                        total[inside] += self.target_means[division, fold]
            out[start : start + BATCH_ROWS] = total / len(self.folds)
        return out


def cross_fit(source: Floats, target: Floats | Ints, groups: Ints, known: Bools | None, seed: int) -> CrossFit:
    """Fits all regressions; O(n d (d + q)) and some 30 systems of d equations.

    Args:
        source: float32 `[n, d]`.
        target: float32 `[n, q]`, or int `[n]`: numbers of classes, whose indicators are the target.
        groups: `[n]`, numbered from 0; the samples of a group are in one fold.
        known: bool `[n]`, the samples that are fitted to, or None: all.
        seed: of the folds.
    """
    check_lengths(source=source, target=target, groups=groups)
    fitted = np.arange(len(source)) if known is None else np.flatnonzero(known)
    source = _principal_coordinates(source) if len(source) < source.shape[1] else source
    classes = int(target.max()) + 1 if target.ndim == 1 else 0

    def source_of(rows: Ints) -> Floats:
        return source[rows]

    def target_of(rows: Ints) -> Floats:
        return np.eye(classes, dtype=np.float32)[target[rows]] if classes else np.asarray(target[rows], np.float32)

    source_mean, target_mean = _mean(source_of, fitted), _mean(target_of, fitted)
    rng = np.random.default_rng((seed, 13))
    repeats = REPEATS if len(source) < MANY_SAMPLES else 1
    divisions = [rng.permutation(int(groups.max()) + 1) % FOLDS for _ in range(repeats)]
    folds = np.stack([division[groups] for division in divisions])

    def moments_of(rows: Ints) -> torch.Tensor:
        return _moments(source, target_of, rows, source_mean, target_mean)

    fits: list[list[Fit]] = []
    strength, d = 0.0, source.shape[1]
    for of_sample in folds:
        with use_matmul_precision("fp32", "cpu"):
            parts = in_single_threads(moments_of, [fitted[of_sample[fitted] == fold] for fold in range(FOLDS)])
        total = torch.stack(parts).sum(0)
        unit = float(total[:d, :d].trace()) / max(min(len(fitted), d), 1) + 1e-12
        strength = strength or _best_strength(parts, total, unit)
        fits.append(_fit_each([total - part for part in parts], strength * unit))
    x_means, y_means, weights = (
        np.stack([[fit[at].float().numpy() for fit in of_division] for of_division in fits]) for at in range(3)
    )
    return CrossFit(source, folds, source_mean + x_means, target_mean + y_means, weights)


def _mean(values_of: Callable[[Ints], Floats], rows: Ints) -> Floats:
    """float32 `[d]`: the mean of `values_of(rows)`, which are never there all at once."""
    starts = range(0, len(rows), BATCH_ROWS)
    total = sum(values_of(rows[start : start + BATCH_ROWS]).sum(0, dtype=np.float64) for start in starts)
    return np.asarray(total / len(rows), dtype=np.float32)


def _best_strength(parts: list[torch.Tensor], total: torch.Tensor, unit: float) -> float:
    """That of `STRENGTHS` with the smallest squared error, each fold predicted by the others."""

    def errors(part: torch.Tensor) -> list[float]:
        return [_lost(part, *_fit(total - part, strength * unit)) for strength in STRENGTHS]

    return STRENGTHS[int(np.sum(in_single_threads(errors, parts), axis=0).argmin())]


def _principal_coordinates(source: Floats) -> Floats:
    """float32 `[n, n]`: the rows `[n, d]`, d > n, in coordinates of their own span; inner products are the same."""

    def coordinates(rows: Floats) -> Floats:
        x = torch.from_numpy(rows)
        values, vectors = torch.linalg.eigh((x @ x.T).double())
        return np.asarray((vectors * values.clamp(min=0).sqrt()).float())

    return in_single_threads(coordinates, [source])[0]


def _moments(
    source: Floats, target_of: Callable[[Ints], Floats], rows: Ints, source_mean: Floats, target_mean: Floats
) -> torch.Tensor:
    """float64 `[d + 1, d + 1 + q]`: [X 1]^T [X 1 Y] of the rows, less the means of all for accuracy."""
    d = source.shape[1]
    total = torch.zeros(d + 1, d + 1 + len(target_mean), dtype=torch.float64)
    for start in range(0, len(rows), BATCH_ROWS):
        check_stopped()
        batch = rows[start : start + BATCH_ROWS]
        x, y = source[batch] - source_mean, target_of(batch) - target_mean
        row = torch.from_numpy(np.hstack([x, np.ones((len(batch), 1), np.float32), y]))
        total += row[:, : d + 1].T @ row
    return total


def _fit_each(moments: list[torch.Tensor], ridge: float) -> list[Fit]:
    return in_single_threads(lambda of_fold: _fit(of_fold, ridge), moments)


def _fit(moments: torch.Tensor, ridge: float) -> Fit:
    """(mean of x `[d]`, mean of y `[q]`, W `[d, q]`) of the samples with these moments; all 0 without a sample.

    W = (X^T X + ridge I)^-1 X^T Y of the centered samples: X^T Y - s_x^T s_y / n, with the sums s of n samples.
    """
    d = len(moments) - 1
    means = moments[d] / max(float(moments[d, d]), 1)
    check_stopped()
    centered = torch.addr(moments[:d], moments[:d, d], means, alpha=-1)
    gram, cross = centered[:, :d], centered[:, d + 1 :]
    gram.diagonal().add_(ridge)
    return means[:d], means[d + 1 :], torch.cholesky_solve(cross, torch.linalg.cholesky(gram))


def _lost(moments: torch.Tensor, x_mean: torch.Tensor, y_mean: torch.Tensor, weights: torch.Tensor) -> float:
    """Squared error of a fit on the samples with these moments, up to the constant |Y|^2.

    |Y - Z V|^2 - |Y|^2 = tr(V^T Z^T Z V) - 2 tr(V^T Z^T Y)        Z = [X 1], V = W above the intercept y_f - x_f W
    """
    with_intercept = torch.vstack([weights, y_mean - x_mean @ weights])
    gram, cross = moments[:, : len(moments)], moments[:, len(moments) :]
    return float((with_intercept * (gram @ with_intercept)).sum() - 2 * (with_intercept * cross).sum())


@dataclass(frozen=True)
class ClassPredictions:
    """What the linear classifier says of n samples whose texts are classes.

    Attributes:
        margin: float32 `[n]`, best other class' score less that of the given class; above 0 they disagree.
        best: int `[n]`, the class with the highest score.
        probability: float32 `[n]`, that a sample with these scores is given the best class.
    """

    margin: Floats
    best: Ints
    probability: Floats


def are_classes(content: Ints) -> bool:
    """Whether texts with the content ids `[n]`, numbered from 0, are so few that they are classes."""
    count = int(content.max(initial=-1)) + 1
    return 2 <= count <= min(len(content) / SAMPLES_PER_CLASS, MAX_CLASSES)


def predict_classes(fit: CrossFit, classes: Ints, known: Bools | None) -> ClassPredictions:
    """Margins, best classes and their probabilities; O(n d q).

    probability = softmax(prediction / T), with the T under which the given classes `[n]` of the known samples (bool
    `[n]`, or None: all) are the most likely.
    """
    n = len(classes)
    fitted = np.arange(n) if known is None else np.flatnonzero(known)
    sampled = fitted[np.linspace(0, len(fitted) - 1, min(len(fitted), TEMPERATURE_ROWS)).astype(np.int64)]
    scores = fit.predict(sampled)
    temperatures = np.geomspace(0.01, 2, 40)
    losses = [_class_loss(scores / t, classes[sampled]) for t in temperatures]
    temperature = temperatures[int(np.argmin(losses))]

    margin, best, probability = np.empty(n, np.float32), np.empty(n, np.int64), np.empty(n, np.float32)
    for start in range(0, n, BATCH_ROWS):
        rows = np.arange(start, min(start + BATCH_ROWS, n))
        scores = fit.predict(rows)
        margin[rows], best[rows] = class_margin(scores, classes[rows]), scores.argmax(1)
        relative = (scores - scores.max(1, keepdims=True)) / temperature
        probability[rows] = 1 / np.exp(relative).sum(1)
    return ClassPredictions(margin, best, probability)


def class_margin(scores: Floats, given: Ints) -> Floats:
    """float32 `[q]`: the best other score of each row of `[q, c]`, less that of the class that it is given."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, given] = -np.inf
    return np.asarray(others.max(1) - scores[rows, given], dtype=np.float32)


def _class_loss(logits: Floats, given: Ints) -> float:
    """Mean of -log softmax(logits `[q, c]`) at the given classes."""
    largest = logits.max(1)
    log_sum = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
    return float(np.mean(log_sum - logits[np.arange(len(given)), given]))


def unit_predictions(fit: CrossFit, rows: Ints | None = None) -> Floats:
    """float32 `[n, q]`: the direction in which each sample's target lies from the mean target; 0 if it has none.

    Of all samples, or of some rows.
    """
    predictions = fit.predict(rows, from_mean=True)
    predictions /= np.maximum(np.linalg.norm(predictions, axis=1, keepdims=True), 1e-9)
    return predictions


def linear_contrasts(
    fit: CrossFit,
    target: Floats,
    source_is_a: bool,
    negatives: Negatives,
    probes: Ints,
    content_columns: tuple[int, int],
) -> tuple[Floats, Floats]:
    """(contrast of the samples `[n]`, of the probe pairs `[q]`) of the predictions with the unit targets `[n, q]`.

    The rest is as in `contrast.embedding_contrast`; `content_columns` and `probes` are of sides (a, b).
    """
    predictions = unit_predictions(fit)
    sides = (predictions, target) if source_is_a else (target, predictions)
    a, b = (torch.from_numpy(np.ascontiguousarray(side)).to(negatives.pool.device) for side in sides)
    return embedding_contrast(a, b, negatives, probes, content_columns, TEMPERATURE)
