"""What lies near each sample of a set: neighbors per modality, near-duplicates, leave-together groups.

Neighbors are found over distinct contents, in the projection of each modality: its partly whitened principal
components. Each modality is a resumable part of the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit_plugin.arrays import Features, Floats, Ints, Neighbors, SampleFacts, count_text, dense_ids
from audit_plugin.store import RunFolder

from .exact import pair_similarities
from .near_duplicates import group_near_duplicates, join_groups, split_large_groups
from .projection import fit_projection, project
from .search import SearchResult

WHITENING = 0.65  # components are divided by deviation^0.65: the fine differences of a narrow set count more
LARGEST_GROUP = 0.01  # share of the samples above which a group is divided
SMALLEST_LIMIT = 10  # groups of so many samples are never divided

# (unit rows `[u, q]`, called with (done, total)) -> their nearest neighbors
Search = Callable[[Floats, Callable[[int, int], None]], SearchResult]


@dataclass(frozen=True)
class Neighborhood:
    """What lies near each of n samples, by modality."""

    projections: Mapping[str, Floats]  # unit rows [n, q_a], partly whitened principal components of the features
    neighbors: Mapping[str, Neighbors]  # over distinct contents [n, k], with cosines in the projections
    cosines: Mapping[str, Floats]  # [n, k], of the same in the plain features; NaN beside -1; not of texts
    search: Mapping[str, Mapping[str, Any]]  # how the neighbors were found: {"method", "recall"}
    near_duplicates: Mapping[str, Ints]  # groups [n], in modalities that are not text
    leave_together: Ints  # [n], groups of samples that share a side of every trial
    notes: tuple[str, ...] = ()  # for people


def find_neighborhood(
    features: Features, facts: SampleFacts, search: Search, run: RunFolder, progress: Callable[[str, int, int], None]
) -> Neighborhood:
    """Finds neighbors, near-duplicates and leave-together groups of n samples in canonical order.

    Projections are fitted to the known samples. `search` finds nearest neighbors of unit rows, the run's folder keeps
    finished spaces, `progress` is called with ("neighbors", done, total).
    """
    vectors = features.vectors
    fitted_to = {name: v if facts.known is None else v[facts.known] for name, v in vectors.items()}
    projections = {name: project(v, fit_projection(fitted_to[name], WHITENING)) for name, v in vectors.items()}
    neighbors, cosines, how = {}, {}, {}
    n = max(1, len(facts))
    for number, name in enumerate(projections):

        def report(done: int, total: int, number: int = number) -> None:
            progress("neighbors", number * n + done * n // total, len(projections) * n)

        report(0, 1)
        make = functools.partial(_search, projections[name], facts.contents[name], search, report)
        part = run.once(f"neighbors_{name}", make)
        indices = part["indices"].astype(np.int32, copy=False)  # former versions stored int64
        neighbors[name] = Neighbors(indices, part["similarities"])
        if name not in facts.words:
            cosines[name] = pair_similarities(vectors[name], indices)
        how[name] = {"method": str(part["method"]), "recall": round(float(part["recall"]), 4)}
    progress("neighbors", len(projections) * n, len(projections) * n)
    duplicate_groups, leave_together, notes = _group(vectors, neighbors, cosines, facts)
    return Neighborhood(projections, neighbors, cosines, how, duplicate_groups, leave_together, tuple(notes))


def _search(
    projection: Floats, contents: Ints, search: Search, report: Callable[[int, int], None]
) -> dict[str, np.ndarray]:
    """Neighbors in the projection `[n, q]` of a modality, and how they were found: one part of the run."""
    content = dense_ids(contents)
    _, first = np.unique(content, return_index=True)  # a sample with each content
    result = search(projection[first], report)
    # from numbers of contents to samples: the first sample with a content stands for it; the last, -1, is none
    samples = np.append(first, -1).astype(np.int32)[result.neighbors.indices]
    return {
        "indices": samples[content],
        "similarities": result.neighbors.similarities[content],
        "method": np.array(result.method),
        "recall": np.array(result.recall),
    }


def _group(
    vectors: Mapping[str, Floats], neighbors: Mapping[str, Neighbors], cosines: Mapping[str, Floats], facts: SampleFacts
) -> tuple[dict[str, Ints], Ints, list[str]]:
    """(near-duplicate groups per modality that is not text, leave-together groups `[n]`, notes)."""
    n = len(facts)
    largest = max(SMALLEST_LIMIT, int(LARGEST_GROUP * n))
    leave_together = np.arange(n) if facts.user_groups is None else facts.user_groups
    duplicate_groups, notes = {}, []
    for name in vectors:
        if name in facts.words:
            continue
        by_cosine = Neighbors(neighbors[name].indices, cosines[name])
        groups, divided = group_near_duplicates(vectors[name], by_cosine, facts.contents[name], largest)
        if divided:
            notes.append(f"{count_text(divided, 'group')} of near-duplicates ({name}) larger than {largest} divided")
        duplicate_groups[name] = groups
        leave_together = join_groups(leave_together, groups)
    leave_together, divided = split_large_groups(leave_together, largest)
    if divided:
        notes.append(
            f"{count_text(divided, 'group')} of over {largest} rows divided (near-duplicates, or groups of your own), "
            "too large to keep on one side of a trial"
        )
    return duplicate_groups, leave_together, notes
