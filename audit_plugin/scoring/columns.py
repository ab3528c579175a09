"""The columns of a result, for people: label and one line of help, made from the tables of scores and flags."""

from __future__ import annotations

from dataclasses import dataclass

from .flags import FLAGS
from .scores import SCORES

# Samples with a list of texts have the worst text's values, its position in the list, and lists of what a review looks
# at text by text.
CAPTION_INDEX, LIST = "caption_index", "_list"
LISTED = ("misalignment", "probability", "is_misaligned", "suggestion", "action")


@dataclass(frozen=True)
class Column:
    """One column: `kind` is score (float), flag (bool) or text."""

    name: str
    label: str
    help: str
    kind: str = "text"


def all_columns() -> dict[str, Column]:
    """Name -> column, in the order of a result, with the scores and flags that are in their tables now."""
    columns = (
        *(Column(s.name, s.label, s.help, "score") for s in SCORES.values()),
        Column("multimem_stderr", "MultiMem error", "Standard error of MultiMem over blocks of trials", "score"),
        Column("multimem_mean", "MultiMem per pair", "Mean over pairs of modalities of the pair's MultiMem", "score"),
        Column(
            "probability",
            "Probability wrong",
            "Estimated probability that the modalities do not belong together (model-based)",
            "score",
        ),
        Column(
            "culprit",
            "Culprit",
            "With three or more modalities, of misaligned or contradicting rows: the one whose removal lowers the "
            "misalignment most",
        ),
        Column(
            "driver",
            "Driver",
            "With three or more modalities, of memorized rows: the one that contributes most to MultiMem",
        ),
        Column("role", "Role", "In the split protocol: which models saw the sample (both, f, g, none, reference)"),
        Column("duplicate_group", "Duplicate group", "Id of the sample that represents this group of near-duplicates"),
        *(Column(f"is_{f.kind}", f.label, f.help, "flag") for f in FLAGS.values()),
        Column(
            "leak",
            "Leak",
            "Where splits are named: the other splits that hold a copy of the sample's image, audio or video",
        ),
        Column("action", "Action", "Suggested action: keep, relabel, remove or review"),
        Column("reason", "Reason", "Why this action is suggested"),
        Column(
            "suggestion",
            "Suggestion",
            "A caption of the set that fits the sample clearly better; of classes, the one that a classifier names",
        ),
        Column(
            "suggestion_score",
            "Suggestion gain",
            "How far the suggestion ranks above what good rows find (repairs: mean fall of the suspicion), in robust "
            "deviations of the set's own pairs; for classes, the probability of the suggested one",
            "score",
        ),
        Column("repair", "Repair", "The join bug that the suggestion would fix: a shift of rows, a swap or a cycle"),
        Column("failure", "Failure", "Why the sample could not be scored"),
    )
    return {column.name: column for column in columns}


def list_columns() -> list[str]:
    """The columns that only samples with lists of texts get."""
    return [CAPTION_INDEX, *(f"{name}{LIST}" for name in LISTED)]


def column_help(name: str) -> str:
    """One line on a column, also on the part of a score for one pair or modality (`outlier_image`).

    Raises:
        KeyError: for a column that an audit does not write.
    """
    columns = all_columns()
    if name in columns:
        return columns[name].help
    if name == CAPTION_INDEX:
        return "Position of the worst text in the sample's list, from 0: the sample's own values are those of this text"
    if name in list_columns():
        return f"{column_help(name.removesuffix(LIST))}; one value per text, in the order of the sample's list"
    score = next((s for s in SCORES.values() if name.startswith(f"{s.name}_")), None)
    if score is None:
        raise KeyError(name)
    part = name.removeprefix(f"{score.name}_")
    if score.name == "multimem" and part.startswith("due_"):
        return f"MultiMem contributed by {part.removeprefix('due_')}"
    modalities = part.replace("_", " and ")
    if score.name == "multimem":
        return f"MultiMem of {modalities}"
    unit = "units of the tail scale" if score.name == "outlier" else "robust deviations"
    return f"{score.label} of {modalities} alone, in {unit}"
