"""For which rows the cleaned text is proposed: those whose only fault is in what is taken off it.

Misaligned texts, conflicts, boilerplate and texts under placeholders may be another sample's, however clean. An outlier
counts in the same way, unless the text is what is unlike the rest: markup and damage alone make it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from audit_plugin.arrays import Bools, Floats

if TYPE_CHECKING:
    from .evidence import Evidence
    from .suggest.captions import Suggestions

AGAINST_CAPTION = ("misaligned", "conflict", "outlier", "boilerplate", "placeholder")


def suggest_cleaned(
    suggestions: Suggestions,
    evidence: Evidence,
    flags: Mapping[str, Bools],
    scores: Mapping[str, Floats],
    to_remove: Bools,
) -> tuple[Suggestions, Bools]:
    """(suggestions with the cleaned text where a text is damaged or holds what can be taken off it, where: bool `[n]`).

    Args:
        suggestions: for n rows; those for a row of a join bug stay, also where they are none.
        evidence: on the rows.
        flags: kind -> bool `[n]`.
        scores: columns `[n]`, with `outlier_{modality}`.
        to_remove: bool `[n]`, samples that repeat another one, for which nothing is proposed.
    """
    captions, is_cleaned = suggestions.captions.copy(), np.zeros(len(evidence), dtype=bool)
    in_repair = np.zeros(len(evidence), dtype=bool)
    in_repair[list(suggestions.why)] = True
    for name, found in list(evidence.text_problems.items())[:1]:  # the text that suggestions are for
        others = [flags[kind] for kind in AGAINST_CAPTION if kind != "outlier"]
        against = np.logical_or.reduce([*others, flags["outlier"] & ~_is_odd_text(scores, name, evidence.modalities)])
        is_cleaned = (captions == "") & (found.cleaned != "") & ~against & ~in_repair & ~to_remove
        captions[is_cleaned] = found.cleaned[is_cleaned]
    return replace(suggestions, captions=captions), is_cleaned


def _is_odd_text(scores: Mapping[str, Floats], text: str, modalities: tuple[str, ...]) -> Bools:
    """bool `[n]`: of all modalities the text is the one that is most unlike the rest; NaN is not."""
    largest = np.fmax.reduce([scores[f"outlier_{name}"] for name in modalities])
    with np.errstate(invalid="ignore"):
        return np.asarray(scores[f"outlier_{text}"] >= largest)


def stored_cleaned(flags: Mapping[str, Bools], action: Any, suggestion_score: Floats) -> Bools:
    """bool `[n]`: stored suggestions that are cleaned texts, by the flags (kind -> bool `[n]`) and action beside them.

    They have no score. Nor have a captioner's, which are proposed for misaligned rows alone: cleaned texts never are.
    """
    is_captioners = flags["misaligned"] & np.asarray(action == "relabel")
    return np.asarray(flags["text_problem"] & np.isnan(suggestion_score) & ~is_captioners)


def outdated_cleaned(cleaned: Bools, flags: Mapping[str, Bools], before: Mapping[str, Bools], action: Any) -> Bools:
    """bool `[n]`: those of the stored `cleaned` texts that are not proposed under other flags.

    `flags`, `before`: kind -> bool `[n]`, now and as stored with the `action` `[n]`. A flag that is raised now says
    that the caption may be wrong; one that was raised before does so where the text was not proposed beside it.
    """
    now = np.logical_or.reduce([flags[kind] for kind in AGAINST_CAPTION])
    is_raised = np.logical_or.reduce([flags[kind] & ~before[kind] for kind in AGAINST_CAPTION])
    was_proposed = np.asarray(action == "relabel")
    return np.asarray(cleaned & now & (is_raised | ~was_proposed))
