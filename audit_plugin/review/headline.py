"""One sentence each on how many pairs are wrong, how far the review is, and what the flags can be expected to miss.

All numbers are those of `flag_quality`, of the queue and of the summary; nothing is estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit_plugin.arrays import count_text, percent

from .flag_quality import UNKNOWN, FlagQuality

ALL_KINDS = ""  # of `KindProgress`: any finding
WEAK = 0.5  # probe recall below which looking at the worst rows finds more than the flags do
WORST = 30  # rows to look at instead
PROBES = {
    "random": "at random",
    "neighborhood": "with a similar sample",
}  # kind of probe pairs -> how they are mismatched


@dataclass(frozen=True)
class KindProgress:
    """How far the review of one kind of finding is, in rows of its queue.

    Attributes:
        kind: of `FLAGS`, or `ALL_KINDS`.
        flagged: rows of the queue.
        decided: those with a decision that is not to skip them.
        applied: those whose decision was carried out.
    """

    kind: str
    flagged: int
    decided: int
    applied: int

    @property
    def left(self) -> int:
        """Rows still to be decided."""
        return self.flagged - self.decided


def wrong_sentence(quality: FlagQuality) -> str:
    """`About 93 wrong of 1,000 (71 to 116).`, by the model `At least 71 wrong of 1,000.`, or that it is not known."""
    of_judged = quality.of_judged
    if quality.wrong is None or quality.wrong_text == UNKNOWN:
        return f"How many{of_judged} pairs are wrong is not known."
    low, high = round(quality.wrong.low), round(quality.wrong.high)
    if not quality.is_checked:
        if quality.wrong.low >= 1:
            least = math.floor(quality.wrong.low)
            return f"At least {least:,} wrong{of_judged}, by the model. A spot check measures how many."
        return f"No wrong pairs{of_judged} can be distinguished from chance. A spot check measures how many there are."
    if math.isnan(quality.wrong.value):
        return f"{low:,} to {high:,} wrong{of_judged}."
    return f"About {round(quality.wrong.value):,} wrong{of_judged} ({low:,} to {high:,})."


def flagged_text(total: int, noun: str = "") -> str:
    """`64 flagged`; with a noun, of lists of texts, `64 captions flagged`."""
    return f"{count_text(total, noun)} flagged" if noun else f"{total:,} flagged"


def review_sentence(total: int, done: int, noun: str = "") -> str:
    """The sentence `64 flagged, 21 decided: review 43 more.`, or that nothing is left; `noun` as in `flagged_text`."""
    if not total:
        return "Nothing is flagged."
    flagged = flagged_text(total, noun)
    if done == total:
        return f"{flagged}, all decided."
    return f"{flagged}, {done:,} decided: review {total - done:,} more."


def weakness_sentence(summary: Mapping[str, Any], is_own: bool) -> str:
    """That the audit's own flags miss most errors, by its probe pairs; "" where they do not, or it is not known.

    Args:
        summary: of the audit.
        is_own: whether the flags are those of the audit, of which it measured the probe recall.
    """
    shares = {kind: share for kind, share in (summary.get("probe_recall") or {}).items() if share is not None}
    if not is_own or not shares or max(shares.values()) >= WEAK:
        return ""
    parts = [f"{percent(share)} of the pairs mismatched {PROBES.get(kind, kind)}" for kind, share in shares.items()]
    return (
        f"The flags miss most errors: of the probe pairs, which are wrong on purpose, only {' and '.join(parts)} "
        f"would be flagged. Look at the worst {WORST} instead."
    )
