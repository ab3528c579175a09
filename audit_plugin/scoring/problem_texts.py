"""What was found in samples beside scores, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import Ints

if TYPE_CHECKING:
    from .evidence import Evidence


def problem_texts(evidence: Evidence, ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    """`flags.PROBLEMS` -> object `[n]`: what was found, as people read it, or ""; of personal data only the kinds.

    `ids` `[n]` name the samples that others are copies of. Of several text modalities, each is named.
    """
    copies = np.full(len(evidence), "", dtype=object)
    for row in np.flatnonzero(evidence.altered_copies.source >= 0):
        copies[row] = f"{evidence.altered_copies.how[row]} copy of {ids[evidence.altered_copies.source[row]]}"
    leaks, exact = np.full(len(evidence), "", dtype=object), evidence.exact_leaks.source
    source = np.where(exact >= 0, exact, evidence.leaks.source)  # so that a reason to remove names the same sample
    for at in np.flatnonzero(source >= 0).tolist():
        leaks[at] = leak_text(evidence, ids, at, source)
    found = np.full(len(evidence), "", dtype=object)
    for name, of_text in evidence.text_problems.items():
        where = f"in {name}: " if len(evidence.text_problems) > 1 else ""
        for row in np.flatnonzero((of_text.problems != "") | (of_text.personal != "")):
            personal = f"personal data: {of_text.personal[row]}" if of_text.personal[row] else ""
            in_text = where + "; ".join(filter(None, (of_text.problems[row], personal)))
            found[row] = "; ".join(filter(None, (found[row], in_text)))
    return {
        "copy_of": copies,
        "leak_of": leaks,
        "text_problem": found,
        "image_problem": evidence.image_problems.problems,
        "box_problem": evidence.box_problems.texts(ids),
    }


def leak_text(evidence: Evidence, ids: Sequence[str], row: int, source: Ints) -> str:
    """`also in train: id`, or `nearly the same in train: id` where not all media are; `source` as in `Leaks`."""
    other = source[row]
    is_same = all(evidence.contents[name][row] == evidence.contents[name][other] for name in evidence.copy_groups)
    return f"{'also' if is_same else 'nearly the same'} in {evidence.splits[other]}: {ids[other]}"
