"""How near the rows of an audit lie to a reference set, by the features that both audits have stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Floats

from .plan import Rules, ScoreTable, plan_export

NEAREST = 10  # reference rows whose cosines are averaged
BLOCK = 4096  # rows that are compared at once

Progress = Callable[[str, int, int], None]


def reference_similarity(
    table: ScoreTable, reference: ScoreTable, progress: Progress | None = None
) -> dict[str, NDArray[np.float32]]:
    """Mean cosine of each row to its `NEAREST` rows of a reference set.

    Of the reference set, the rows are taken that its own audit does not propose to remove.

    Args:
        table: of scores, whose summary names its run folder.
        reference: the same of the reference set.
        progress: called with (stage, rows done, rows).

    Returns:
        Modality -> float32 `[n]` in the order of the table; NaN where the run has no features of a row.

    Raises:
        AuditError: a run folder or its features are gone, or the sets were encoded differently.
    """
    from audit_plugin.encoders.cached_features import stored_features

    keys, digests = _stored(table)
    other_keys, other_digests = _stored(reference)
    if keys != other_keys:
        raise AuditError(
            f"{table.name} was encoded by {_in_words(keys)}, and {reference.name} by {_in_words(other_keys)}: their "
            "features cannot be compared; score the reference set with the same media, encoder and precision"
        )
    stays = plan_export(reference, Rules(), {}).why == ""
    similarity = {}
    for modality, key in keys.items():
        own, others = digests[modality], other_digests[modality]
        rows = [digest for digest, is_kept in zip(others, stays, strict=True) if digest and is_kept]
        if not rows:
            raise AuditError(f"{reference.name} has no rows with features that stay; name another reference set")
        features = stored_features({modality: key}, {modality: rows}).rows(np.arange(len(rows)))
        near = np.full(len(table), np.nan, dtype=np.float32)
        positions = np.flatnonzero([bool(digest) for digest in own])
        for start in range(0, len(positions), BLOCK):
            if progress:
                progress(f"compare {modality}", start, len(positions))
            part = positions[start : start + BLOCK]
            queries = stored_features({modality: key}, {modality: [own[row] for row in part]}).rows(
                np.arange(len(part))
            )
            near[part] = _mean_of_nearest(queries.vectors[modality], features.vectors[modality])
        similarity[modality] = near
    return similarity


def _mean_of_nearest(queries: Floats, rows: Floats) -> NDArray[np.float32]:
    """float32 `[q]`: mean inner product of unit rows with the nearest ones."""
    from audit_plugin.neighbors.exact import top_products

    products, _ = top_products(rows, min(NEAREST, len(rows)), queries)
    return np.asarray(products.mean(axis=1), dtype=np.float32)


def _stored(table: ScoreTable) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
    """(modality -> encoder key, modality -> content digest of each row of the table, "" where the run has none)."""
    from audit_plugin.audit.extend import load_rows
    from audit_plugin.audit.prepare import encoders_of
    from audit_plugin.store import RunFolder

    folder = table.summary.get("run_dir")
    if not isinstance(folder, str) or not folder:
        raise AuditError(f"the summary (.json) of {table.name} names no run folder; put it beside the table")
    try:
        with RunFolder(Path(folder), None) as run:
            stored, keys = load_rows(run), encoders_of(run.path)
    except AuditError as error:
        raise AuditError(f"the features of {table.name} cannot be found: {error}") from error
    captions = stored.samples.caption or (0,) * len(stored.samples)
    row_of = {key: row for row, key in enumerate(zip(stored.samples.ids, captions, strict=True))}
    rows = [row_of.get((name, table.caption(row)), -1) for row, name in enumerate(table.ids)]
    digests: dict[str, Sequence[str]] = {
        name: [of_run[row] if row >= 0 else "" for row in rows] for name, of_run in stored.digests.items()
    }
    return {name: keys[name] for name in digests}, digests


def _in_words(keys: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {key}" for name, key in keys.items()) or "nothing"
