"""Cross-modal recall of a user's samples: which identities are recalled in one modality and not in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, Samples, dense_ids
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.result import versions
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import Progress, silent
from audit_plugin.synthetic.personas import BACKGROUND, TEST, TRAIN

from .name_heads import NamingTask, ask_name_heads, join_rows
from .statistics import rank_correlation
from .summary import identity_table, row_columns, summarize

SEEDS = 3
FOLDS = 2  # identities take turns: half of them are asked about, on the other half the modalities are aligned
MIN_IDENTITIES, MIN_PAIRS = 8, 32
STAGE = "cross-modal recall"


@dataclass(frozen=True)
class CrossModalResult:
    """Cross-modal recall of samples, by row and by identity.

    Attributes:
        ids: of the samples, in their order.
        columns: `recall_SOURCE_TARGET` -> float32 `[n]`, NaN for rows that were not asked about.
        identities: one record per identity, the largest gap first.
        summary: see `summary.summarize`, with notes, seeds, encoder, versions and seconds.
    """

    ids: tuple[str, ...]
    columns: dict[str, Floats]
    identities: list[dict[str, Any]]
    summary: dict[str, Any]


def measure_cross_modal_recall(
    samples: Samples, config: AuditConfig | None = None, progress: Progress | None = None, align: bool = True
) -> CrossModalResult:
    """Learns identities' names in one modality and asks for them in the other, with variants unseen in training.

    Args:
        samples: two modalities; `labels` hold each row's identity or class, several rows each. If there are `splits`,
            rows marked "train" are learned from, "test" are asked about and "background" align the modalities.
            Without train and test the two halves of every identity's rows take turns; without background two halves
            of the identities do.
        config: encoder, device, seed.
        progress: called with the stages "read", "encode MODALITY" and `STAGE`.
        align: False for the control in which nothing can be recalled across.

    Raises:
        AuditError: not two modalities, or too few identities or rows.
    """
    config, clock = config or AuditConfig(), Clock(progress or silent)
    if len(samples.modalities) != 2:
        named = ", ".join(samples.modalities)
        raise AuditError(
            f"cross-modal recall is measured between two modalities, not {len(samples.modalities)}: {named}"
        )
    if not any(samples.labels):
        raise AuditError("no row names an identity; name the column or field that does: label")
    prepared = prepare(samples, config, clock)
    rows = prepared.order.rows
    row_labels = [samples.labels[row] for row in rows]
    labels = sorted({label for label in row_labels if label})
    number_of = {label: number for number, label in enumerate(labels)} | {"": -1}
    identity = np.array([number_of[label] for label in row_labels], dtype=np.int64)
    split = np.array([samples.splits[row] if samples.splits else "" for row in rows], dtype=object)
    background, parts = split == BACKGROUND, _learn_ask_masks(identity, split)
    fold, notes = fold_identities(identity, parts, background, config.seed)
    folds = int(fold.max()) + 1
    seeds = [config.seed + number for number in range(SEEDS)]
    answers_of = []
    with clock.stage(STAGE):
        for number in range(folds):
            clock.progress(STAGE, number, folds)
            in_fold = fold == number
            alignment_rows = background if background.any() else ~in_fold
            if alignment_rows.sum() < MIN_PAIRS:
                raise AuditError(
                    f"only {int(alignment_rows.sum())} pairs are left to align the modalities on (at least {MIN_PAIRS} "
                    "needed); give samples of more identities"
                )
            masks = tuple((learn & in_fold, ask & in_fold) for learn, ask in parts)
            task = NamingTask(prepared.features, identity, masks, alignment_rows)
            answers_of.append(ask_name_heads(task, seeds, prepared.device, align))
        clock.progress(STAGE, 1, 1)
    answers = join_rows(answers_of)
    answers = replace(answers, rows=rows[answers.rows])
    first, second = prepared.features.modalities
    columns = row_columns(answers, (first, second), len(samples))
    summary = summarize(answers, (first, second))
    summary |= {"notes": [*prepared.embedded.notes, *notes], "encoder": prepared.encoder_name, "seed": config.seed}
    summary |= {"versions": versions(), "seconds": clock.seconds}
    return CrossModalResult(samples.ids, columns, identity_table(answers, (first, second), labels), summary)


def memorization_link(result: CrossModalResult, multimem: Mapping[str, float], labels: Sequence[str]) -> dict[str, Any]:
    """Whether memorized samples are recalled across less: rank correlations of MultiMem with recall over rows.

    `multimem` is by id. Rows that share one of the `labels` are drawn together in the bootstrap.

    Returns:
        `recall_SOURCE_TARGET` -> Spearman's correlation of MultiMem with it, with its interval.
    """
    values = np.array([multimem.get(sample_id, np.nan) for sample_id in result.ids], dtype=np.float64)
    unit = dense_ids(labels)
    return {name: rank_correlation(values, recall, unit) for name, recall in result.columns.items()}


def _learn_ask_masks(identity: Ints, split: np.ndarray) -> tuple[tuple[Bools, Bools], ...]:
    """(rows to learn from, rows to ask about): by the `split` column, else both halves of every identity in turn."""
    if np.isin(split, (TRAIN, TEST)).any():
        return ((split == TRAIN, split == TEST),)
    by_identity = np.argsort(identity, kind="stable")
    first = np.searchsorted(identity[by_identity], identity[by_identity])
    odd = np.empty(len(identity), dtype=bool)
    odd[by_identity] = (np.arange(len(identity)) - first) % 2 == 1  # every other row of an identity
    return ((~odd, odd), (odd, ~odd))


def fold_identities(
    identity: Ints, parts: Sequence[tuple[Bools, Bools]], background: Bools, seed: int
) -> tuple[Ints, list[str]]:
    """(fold `[n]` of the rows whose identity is asked about, -1 for the others; notes on identities left out).

    `identity` is -1 for none. `parts` are (learned, asked) masks: an identity needs a row in each. `background` is the
    mask of rows that only align.

    Raises:
        AuditError: fewer than `MIN_IDENTITIES` can be asked about.
    """
    count = int(identity.max(initial=-1)) + 1
    background_rows = np.bincount(identity[background & (identity >= 0)], minlength=count)
    usable = background_rows == 0
    for part in parts:
        for mask in part:
            usable &= np.bincount(identity[mask & ~background & (identity >= 0)], minlength=count) > 0
    if usable.sum() < MIN_IDENTITIES:
        raise AuditError(
            f"{int(usable.sum())} of {count} identities have rows both to learn from and to ask about, at least "
            f"{MIN_IDENTITIES} are needed; name a column in which several rows share an identity or class"
        )
    fold = np.full(count + 1, -1)  # the last is of rows without an identity
    drawn = np.random.default_rng((seed, 23)).permutation(np.flatnonzero(usable))
    fold[drawn] = 0 if background.any() else np.arange(len(drawn)) % FOLDS
    left_out = int((~usable & (background_rows == 0)).sum())
    notes = [f"{left_out} of {count} identities have too few rows and were not asked about"] if left_out else []
    return np.where(background, -1, fold[identity]), notes
