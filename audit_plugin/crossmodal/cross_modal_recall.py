"""On people's own samples: who is recalled in one modality and not in the other, by design B on frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, Samples, dense_ids
from audit_plugin.audit.prepare import Clock, prepare
from audit_plugin.audit.result import versions
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import Progress, silent
from audit_plugin.synthetic.drawing import BACKGROUND, TEST, TRAIN

from .name_heads import Asked, joined, measure
from .statistics import rank_correlation
from .summary import identity_table, row_columns, summarize

SEEDS = 3
FOLDS = 2  # identities take turns: half of them are asked about, on the other half the modalities are aligned
LEAST_IDENTITIES, LEAST_PAIRS = 8, 32


@dataclass(frozen=True)
class TransferResult:
    """What `run_transfer` found.

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


def run_transfer(
    samples: Samples, config: AuditConfig | None = None, progress: Progress | None = None, align: bool = True
) -> TransferResult:
    """Learns identities' names in one modality and asks for them in the other, with variants that no step has seen.

    Args:
        samples: two modalities; `labels` hold each row's identity or class, several rows each. If there are `splits`,
            rows marked "train" are learned from, "test" are asked about and "background" align the modalities.
            Without train and test the two halves of every identity's rows take turns; without background two halves
            of the identities do.
        config: encoder, device, seed.
        progress: told of the stages "read", "encode MODALITY" and "transfer".
        align: False for the control in which nothing can transfer.

    Raises:
        AuditError: not two modalities, or too few identities or rows, in one sentence.
    """
    config, clock = config or AuditConfig(), Clock(progress or silent)
    if len(samples.modalities) != 2:
        raise AuditError(f"{', '.join(samples.modalities)} were named; transfer is measured between two modalities")
    if not any(samples.labels):
        raise AuditError("no row names an identity; name the column or field that does: label")
    ready = prepare(samples, config, clock)
    rows = ready.order.rows
    labels, number = _numbered([samples.labels[row] for row in rows])
    split = np.array([samples.splits[row] if samples.splits else "" for row in rows], dtype=object)
    aside, parts = split == BACKGROUND, _parts(number, split)
    fold, notes = fold_identities(number, parts, aside, config.seed)
    seeds, found = [config.seed + at for at in range(SEEDS)], []
    with clock.stage("transfer"):
        for at in range(fold.max(initial=-1) + 1):
            clock.progress("transfer", at, int(fold.max()) + 1)
            here, others = fold == at, aside if aside.any() else fold != at
            if others.sum() < LEAST_PAIRS:
                raise AuditError(
                    f"only {int(others.sum())} pairs are left to align the modalities on (at least {LEAST_PAIRS} "
                    "needed); give samples of more identities"
                )
            asked = Asked(ready.features, number, tuple((learn & here, ask & here) for learn, ask in parts), others)
            found.append(measure(asked, seeds, ready.device, align))
        clock.progress("transfer", 1, 1)
    answers, names = joined(found), (ready.features.modalities[0], ready.features.modalities[1])
    columns = {}
    for name, values in row_columns(answers, names, len(rows)).items():
        columns[name] = np.full(len(samples), np.nan, np.float32)
        columns[name][rows] = values
    summary = summarize(answers, names) | {"notes": [*ready.embedded.notes, *notes], "encoder": ready.encoder_name}
    summary |= {"seed": config.seed, "versions": versions(), "seconds": clock.seconds}
    return TransferResult(samples.ids, columns, identity_table(answers, names, labels), summary)


def memorization_link(found: TransferResult, memorized: Mapping[str, float], labels: Sequence[str]) -> dict[str, Any]:
    """Whether samples that a model memorizes are those that do not transfer: rank correlations over rows.

    Args:
        found: of the same samples.
        memorized: id -> MultiMem.
        labels: identity of each row: rows of one are drawn together.

    Returns:
        `recall_SOURCE_TARGET` -> Spearman's correlation of MultiMem with it, with its interval.
    """
    values = np.array([memorized.get(name, np.nan) for name in found.ids], dtype=np.float64)
    unit = dense_ids(labels)
    return {name: rank_correlation(values, recall, unit) for name, recall in found.columns.items()}


def _numbered(names: Sequence[str]) -> tuple[list[str], Ints]:
    """(the names, sorted; number of each row's, -1 for none)."""
    labels = sorted({name for name in names if name})
    at = {name: number for number, name in enumerate(labels)}
    return labels, np.array([at.get(name, -1) for name in names], dtype=np.int64)


def _parts(number: Ints, split: np.ndarray) -> tuple[tuple[Bools, Bools], ...]:
    """(rows to learn from, rows to ask about): as `split` says, else both halves of every identity in turn."""
    if np.isin(split, (TRAIN, TEST)).any():
        return ((split == TRAIN, split == TEST),)
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], number[order])
    odd = np.empty(len(number), dtype=bool)
    odd[order] = (np.arange(len(number)) - first) % 2 == 1  # every other row of an identity
    return ((~odd, odd), (odd, ~odd))


def fold_identities(
    number: Ints, parts: Sequence[tuple[Bools, Bools]], aside: Bools, seed: int
) -> tuple[Ints, list[str]]:
    """(fold `[n]` of the rows whose identity is asked about, -1 for the others; notes on who was left out).

    Args:
        number: identity of each row, -1 for none.
        parts: (learned, asked) masks; an identity needs a row in each.
        aside: rows that only align.
        seed: of the draw of folds.

    Raises:
        AuditError: fewer than `LEAST_IDENTITIES` can be asked about.
    """
    count = int(number.max(initial=-1)) + 1
    some = [np.bincount(number[mask & ~aside & (number >= 0)], minlength=count) > 0 for part in parts for mask in part]
    can = np.logical_and.reduce(some) if count else np.zeros(0, dtype=bool)
    can &= np.bincount(number[aside & (number >= 0)], minlength=count) == 0
    if can.sum() < LEAST_IDENTITIES:
        raise AuditError(
            f"{int(can.sum())} of {count} identities have rows both to learn from and to ask about, at least "
            f"{LEAST_IDENTITIES} are needed; name a column in which several rows share an identity or class"
        )
    fold = np.full(count + 1, -1)  # the last is of rows without an identity
    drawn = np.random.default_rng((seed, 23)).permutation(np.flatnonzero(can))
    fold[drawn] = 0 if aside.any() else np.arange(len(drawn)) % FOLDS
    left = int((~can).sum()) - len(np.unique(number[aside & (number >= 0)]))
    notes = [f"{left} of {count} identities have too few rows and were not asked about"] if left > 0 else []
    return np.where(aside, -1, fold[number]), notes
