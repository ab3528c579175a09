"""Virtual plants: pairs that are wrong by construction, scored like the real ones.

A plant is the mismatched pair (x_i, y_j), scored in the trials in which neither i nor j was a member. Nothing is
planted in the data or in the training: the same scores are asked of a pair that is wrong by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from audit_plugin.arrays import Floats, Ints

from .scores import Evidence, combine, scale_of

PLANTS_PER_KIND = 1024


def draw_probe_pairs(near: Sequence[Ints], leave_together: Ints, contents: Ints, seed: int) -> dict[str, Ints]:
    """Kind -> rows (i, j) `[q, 2]`: j anywhere, or j among i's neighbors; never of i's group or with i's content.

    Args:
        near: `[n, k]` neighbors of i, per modality: each in turn.
        leave_together: `[n]` groups.
        contents: `[n, m]` content numbers.
        seed: of the draw; rows are in canonical order.
    """
    rng = np.random.default_rng((seed, 11))
    n = len(leave_together)
    left = rng.permutation(n)[:PLANTS_PER_KIND]
    table = np.stack(near)  # [m, n, k]
    chosen = {
        "random": rng.integers(0, n, len(left)),
        "neighborhood": table[
            np.arange(len(left)) % len(table), left, rng.integers(0, max(table.shape[2], 1), len(left))
        ],
    }
    plants = {}
    for kind, right in chosen.items():
        fits = (right >= 0) & (leave_together[left] != leave_together[right])
        fits &= (contents[left] != contents[right]).all(1)
        plants[kind] = np.stack([left[fits], right[fits]], axis=1)
    return plants


def probe_scores(evidence: Evidence, pair: tuple[str, str], planted: Mapping[str, Floats]) -> Floats:
    """`[q]`: the combined misalignment that the virtual pairs would get, on the scale of the real samples.

    Args:
        evidence: of the set.
        pair: its modalities.
        planted: evidence -> its values on the plants `[q]`.
    """
    real = evidence.parts[pair]
    scale = {name: scale_of(values, evidence) for name, values in real.items()}
    return combine({name: planted[name] for name in real}, scale, evidence.weights.get(pair))
