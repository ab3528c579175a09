"""Why a sample was flagged: what its score is made of, which neighbors disagree, what would fit, which words do not.

One record per flagged sample, JSON-ready, kept in the run folder, so that it can be shown without computing anything.
Texts stand in it as they are: whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError
from audit_plugin.audit.prepare import Prepared
from audit_plugin.audit.score import Scored
from audit_plugin.store import Damaged, load_json
from audit_plugin.trials.run import Job

from .records import duplicate_records, neighbor_records, rounded, row_identity, score_parts
from .rivals import rival_captions
from .words import misfit_words

PART = "explanations"  # of the run
FORMAT = 1
MOST_ROWS = 2000  # that are explained
MOST_RIVALS = 500  # rows whose rivals are searched
MISFITS = ("misaligned", "conflict", "memorized")  # the flags that the words of a caption can explain

Explanations = dict[str, Any]


def explain(prepared: Prepared, scored: Scored, job: Job) -> Explanations:
    """Explains every sample with a flag or a proposal, the most suspicious ones first in detail, and saves it.

    A record holds `id`, `caption_index`, `flags`, `action`, `misalignment`; `pairs`: pair -> score and its parts, whose
    shares add up to the score; `neighbors`: per side the samples that voted, the ones that disagree most first;
    `duplicates` and `conflicts`: ids; and, of the most suspicious ones, `rivals`: captions of the set that fit a medium
    better, and `words` of the caption, those that its medium speaks against first.

    Returns:
        {"format", "notes": sentences on what was left out, "samples": id -> its records, one per flagged caption}.
    """
    job.progress("explain", 0, 1)
    evidence = scored.evidence
    is_flagged = np.logical_or.reduce(list(scored.flags.values())) | (scored.verdicts["action"] != "keep")
    misalignment = np.nan_to_num(scored.scores["misalignment"], nan=-np.inf)
    flagged = np.flatnonzero(is_flagged)
    flagged = flagged[np.argsort(-misalignment[flagged], kind="stable")]
    is_misfit = np.logical_or.reduce([scored.flags[kind] for kind in MISFITS])
    rows = flagged[:MOST_ROWS]
    misfits = rows[is_misfit[rows]]
    parts = [
        score_parts(evidence, rows),
        neighbor_records(evidence, rows, prepared),
        duplicate_records(scored, rows, prepared),
    ]
    if evidence.trials is not None:
        parts.append(rival_captions(evidence, misfits[:MOST_RIVALS], prepared, job.config.seed))
        if prepared.text_modalities:
            captions = [caption or "" for caption in prepared.media(prepared.text_modalities[0])]
            parts.append(misfit_words(evidence, captions, misfits, job.config.seed))
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in rows.tolist():
        identity = row_identity(row, prepared)
        record = {
            "id": identity["id"],
            "caption_index": identity["caption_index"],
            "flags": [kind for kind, flags in scored.flags.items() if flags[row]],
            "action": str(scored.verdicts["action"][row]),
            "misalignment": rounded(scored.scores["misalignment"][row]),
        }
        for part in parts:
            record |= part.get(row, {})
        samples.setdefault(record["id"], []).append(record)

    notes = _left_out(len(flagged), int(is_misfit.sum()))
    explanations = {"format": FORMAT, "notes": notes, "samples": samples}
    job.run.save_json(PART, explanations)
    job.progress("explain", 1, 1)
    return explanations


def _left_out(flagged: int, misfits: int) -> list[str]:
    """Sentences on the limits that so many flagged samples, and among them misfits (`MISFITS`), exceed."""
    of_kinds = "misaligned, in conflict or memorized"  # more than are counted as misaligned
    limits = (
        (flagged, MOST_ROWS, "samples are flagged; the most suspicious {} of them are explained"),
        (misfits, MOST_RIVALS, f"samples are {of_kinds}; better captions were searched for the most suspicious {{}}"),
    )
    return [f"{count} {note.format(limit)}" for count, limit, note in limits if count > limit]


def load_explanations(run_dir: str | Path) -> Explanations:
    """What `explain` made for a finished run; AuditError if the folder holds none."""
    path = Path(run_dir) / f"{PART}.json"
    try:
        explanations = load_json(Path(run_dir), PART)
    except (FileNotFoundError, NotADirectoryError):
        raise AuditError(f"{run_dir} holds no explanations; run the audit again with the same settings") from None
    except Damaged as error:
        raise AuditError(f"{error}; run the audit again with the same settings, which writes it again") from error
    if explanations.get("format") != FORMAT:
        raise AuditError(f"{path} was written by another version; run the audit again")
    return explanations


def renamed(samples: Mapping[str, list[dict[str, Any]]], names: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The records of a manifest's rows (id -> records) by the ids that these have in a dataset (id -> other id)."""

    def with_other_ids(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: with_other_ids(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [with_other_ids(entry, key) for entry in value]
        return names[value] if key in ("id", "duplicates", "conflicts") else value

    return {names[name]: with_other_ids(records) for name, records in samples.items()}


def find(explanations: Mapping[str, Any], sample_id: str, caption_index: int = 0) -> dict[str, Any] | None:
    """The record of one caption of one sample, or None: it was not flagged."""
    records = explanations["samples"].get(sample_id, [])
    return next((record for record in records if record["caption_index"] == caption_index), None)
