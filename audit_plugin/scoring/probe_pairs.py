"""Probe pairs: mismatched pairs, scored like the real ones to see what wrong pairs score.

A probe is the pair (x_i, y_j) of two samples' sides, scored in the trials in which neither i nor j was a member. The
data and the training stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit_plugin.arrays import Ints

PROBES_PER_KIND = 1024


def draw_probe_pairs(neighbors: Sequence[Ints], leave_together: Ints, contents: Ints, seed: int) -> dict[str, Ints]:
    """Kind -> rows (i, j) `[q, 2]`: "random" (j anywhere) and "neighborhood" (j among i's neighbors).

    j is never of i's group (`leave_together` `[n]`) and shares no content with it (`contents` `[n, m]`); what is drawn
    so is dropped, so q <= `PROBES_PER_KIND`. The `neighbors` `[n, k]` of each modality, -1 where there are fewer, take
    turns.
    """
    rng = np.random.default_rng((seed, 11))
    n = len(leave_together)
    left = rng.permutation(n)[:PROBES_PER_KIND]
    anywhere = rng.integers(0, n, len(left))
    table = np.stack(neighbors)  # [m, n, k]
    modality = np.arange(len(left)) % len(table)
    rank = rng.integers(0, max(table.shape[2], 1), len(left))
    probes = {}
    for kind, right in (("random", anywhere), ("neighborhood", table[modality, left, rank])):
        unrelated = (right >= 0) & (leave_together[left] != leave_together[right])
        unrelated &= (contents[left] != contents[right]).all(1)
        probes[kind] = np.stack([left[unrelated], right[unrelated]], axis=1)
    return probes
