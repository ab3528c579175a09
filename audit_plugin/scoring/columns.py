"""The columns of a result, for people: label and one line of help, made from the tables of scores and flags."""

from __future__ import annotations

from dataclasses import dataclass

from .flags import FLAGS
from .scores import SCORES


@dataclass(frozen=True)
class Column:
    """One column: `kind` is score (float), flag (bool) or text."""

    name: str
    label: str
    help: str
    kind: str


def _scores() -> list[Column]:
    return [Column(s.name, s.label, s.help, "score") for s in SCORES.values()]


COLUMNS: dict[str, Column] = {
    c.name: c
    for c in (
        *_scores(),
        Column("multimem_stderr", "MultiMem error", "Standard error of MultiMem over blocks of trials", "score"),
        Column("multimem_mean", "MultiMem per pair", "Mean over pairs of modalities of their own MultiMem", "score"),
        Column(
            "probability", "Probability wrong", "Model-based probability that the media do not belong together", "score"
        ),
        Column(
            "culprit",
            "Culprit",
            "With three or more modalities: the one whose removal lowers the misalignment most",
            "text",
        ),
        Column(
            "driver",
            "Driver",
            "With three or more modalities: the one without which most of the MultiMem goes away",
            "text",
        ),
        Column(
            "role", "Role", "In the split protocol: which models saw the sample (both, f, g, none, reference)", "text"
        ),
        Column(
            "duplicate_group",
            "Duplicate group",
            "Id of the sample that stands for this group of near-duplicates",
            "text",
        ),
        *(Column(f"is_{f.kind}", f.label, f.help, "flag") for f in FLAGS.values()),
        Column(
            "leak", "Leak", "With a split named: the other splits in which a copy of the sample's medium stands", "text"
        ),
        Column("action", "Action", "What is proposed: keep, relabel, remove or review", "text"),
        Column("reason", "Reason", "Why this action is proposed", "text"),
        Column("suggestion", "Suggestion", "A caption of the set that fits the sample clearly better", "text"),
        Column(
            "suggestion_score",
            "Suggestion gain",
            "How far the misfit falls with the suggestion, in robust deviations of the set's own pairs",
            "score",
        ),
        Column(
            "repair", "Repair", "The join bug that the suggestion mends: a shift of rows, a swap or a cycle", "text"
        ),
        Column("failure", "Failure", "Why the sample could not be scored", "text"),
    )
}


def column_help(name: str) -> str:
    """One line on a column, also on the part of a score for one pair or modality (`outlier_image`)."""
    if name in COLUMNS:
        return COLUMNS[name].help
    base = next((s for s in SCORES.values() if name.startswith(f"{s.name}_")), None)
    if base is None:
        raise KeyError(name)
    part = name.removeprefix(f"{base.name}_")
    if base.name == "multimem":
        due = part.removeprefix("due_")
        return f"MultiMem that goes away without {due}" if due != part else f"MultiMem of {part.replace('_', ' and ')}"
    part = part.replace("_", " and ")
    return f"{base.label} of {part} alone, in robust deviations"
