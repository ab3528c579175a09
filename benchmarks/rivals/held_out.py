"""The similarity matrix of encoders that share no space, from trials that saw neither side of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from audit_plugin.arrays import Bools, Floats


def held_out_similarity(embed: Callable[[int], Sequence[torch.Tensor]], member: Bools) -> Floats:
    """s_ij = mean over the trials r in which neither i nor j was a member of <phi_a(i), phi_b(j)>, float32 `[n, n]`.

    Rows of members are set to 0 before the product, so a sum over all trials is the sum over those wanted, and the
    number of them is a product too. O(r n^2 o), no loop over pairs.

    Args:
        embed: trial number -> the two modalities' unit embeddings `[n, o]`.
        member: bool `[r, n]`.

    Returns:
        NaN where i and j were never left out together.
    """
    outside = torch.from_numpy(~member).float()
    total = torch.zeros(member.shape[1], member.shape[1])
    for number, out in enumerate(outside):
        left, right = (e.float().cpu() * out[:, None] for e in embed(number))
        total.addmm_(left, right.T)
    count = outside.T @ outside
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan).numpy().astype(np.float32)
