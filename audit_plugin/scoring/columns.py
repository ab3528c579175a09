"""The columns of a result, for people: label and one line of help, made from the tables of scores and flags."""

from __future__ import annotations

from dataclasses import dataclass

from .flags import FLAGS
from .scores import SCORES

# Samples with a list of texts have the worst text's values, its position in the list, and lists of what differs from
# text to text: scores, proposals, and the flags of texts. The other flags are those of the sample's media.
CAPTION_INDEX, LIST = "caption_index", "_list"
TEXT_FLAGS = ("misaligned", "memorized", "conflict", "vague", "boilerplate", "text_problem", "personal")
LISTED: tuple[str, ...] = (
    *("misalignment", "probability", "multimem", "suggestion", "action", "reason", "text_problem"),
    *(f"is_{kind}" for kind in TEXT_FLAGS),
)


@dataclass(frozen=True)
class Column:
    """One column: `kind` is score (float), flag (bool) or text."""

    name: str
    label: str
    help: str
    kind: str = "text"


# What `audit-plugin judge` adds to a finished result
JUDGE_COLUMNS = (
    Column(
        "judge_asked",
        "Judge asked",
        "After `audit-plugin judge`: why the judge was asked, suspicious, or control (drawn at random of the others)",
    ),
    Column("judge_fits", "Judge: fits", "Whether the judge finds that the caption fits the image: yes or no"),
    Column(
        "judge_confidence",
        "Judge: confidence",
        "How sure the judge says that it is, 0 to 1; no other column depends on it",
        "score",
    ),
    Column("judge_words", "Judge: wrong words", "The pieces of the caption that the judge finds wrong, as a JSON list"),
    Column(
        "judge_caption",
        "Judge: caption",
        "The caption as the judge would correct it; applied only where a person decides so",
    ),
    Column(
        "judge_probability",
        "Probability with judge",
        "`probability` combined with the judge's answer; the same where there is none",
        "score",
    ),
    Column("judge_failure", "Judge: failure", "Why a pair that was chosen has no answer of the judge"),
)


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
        *_found_columns(),
        Column("action", "Action", "Suggested action: keep, relabel, remove, review, or fix (it could not be read)"),
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
        *JUDGE_COLUMNS,
    )
    return {column.name: column for column in columns}


def _found_columns() -> tuple[Column, ...]:
    """What was found beside scores."""
    return (
        Column("leak", "Leak", "The other splits that hold a copy of the sample's image, audio or video"),
        Column(
            "leak_of", "Leak of", "The split that models are trained on, and the id of the sample, with the same medium"
        ),
        Column("copy_of", "Copy of", "How the image is an altered copy of another one, and the id of that sample"),
        Column(
            "text_problem",
            "What the text holds",
            "What checks of the text itself found, each with the piece that shows it; of personal data only the kinds",
        ),
        Column(
            "image_problem",
            "What the image shows",
            "What checks of the image's pixels found, each with the value that shows it",
        ),
        Column(
            "box_problem",
            "What the box shows",
            "What checks of the box of an object found, each with its values, or the id of the other box",
        ),
    )


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
