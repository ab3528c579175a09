"""Why a sample was flagged: what its score is made of, which neighbors disagree, what would fit, which words do not.

One record per flagged sample, JSON-ready, kept in the run folder, so that it can be shown without computing anything.
Texts stand in it as they are: whoever shows them escapes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Ints
from audit_plugin.audit.prepare import Prepared
from audit_plugin.audit.score import Scored
from audit_plugin.store import write_atomically
from audit_plugin.trials.run import Job

from .fits import rival_captions
from .parts import neighbor_records, partners, score_parts
from .words import misfit_words

FILE = "explanations.json"
FORMAT = 1
MOST_ROWS = 2000
MOST_RIVALS = 500  # rows whose rivals are sought
MOST_CAPTIONS = 200  # captions that are taken apart word by word
MISFITS = ("misaligned", "conflict", "memorized")  # the flags that the words of a caption can explain

Explanations = dict[str, Any]


def explain(ready: Prepared, scored: Scored, job: Job) -> Explanations:
    """Explains every sample with a flag or a proposal, the most suspicious ones first in detail, and saves it.

    A record holds `id`, `caption_index`, `flags`, `action`, `misalignment`; `pairs`: pair -> score and its parts, whose
    shares add up to the score; `neighbors`: per side the samples that voted, the ones that disagree most first;
    `duplicates` and `conflicts`: ids; and, of the most suspicious ones, `rivals`: captions of the set that fit a medium
    better, and `words` of the caption, those that fit least first.

    Args:
        ready: the samples.
        scored: their scores, flags and proposals.
        job: settings and folder; told of the stage "explain".

    Returns:
        {"format", "notes": sentences on what was left out, "samples": id -> its records, one per flagged caption}.
    """
    job.progress("explain", 0, 1)
    evidence, notes = scored.evidence, []
    every = flagged_rows(scored)
    rows, misfits = every[:MOST_ROWS], np.array([r for r in every if _misfit(scored, r)], dtype=np.int64)
    records = {int(row): _head(row, ready, scored) for row in rows}
    found = [score_parts(evidence, rows), neighbor_records(evidence, rows, ready), partners(scored, rows, ready)]
    if evidence.trials is not None:
        found.append(rival_captions(evidence, misfits[:MOST_RIVALS], ready, job.config.seed))
        found.append(misfit_words(evidence, misfits[:MOST_CAPTIONS], ready, job))
    for part in found:
        for row, more in part.items():
            records[row] |= more
    for what, count, most in (
        ("samples are flagged; the most suspicious {1} of them are explained", len(every), MOST_ROWS),
        ("samples do not fit; better captions were sought for the most suspicious {1}", len(misfits), MOST_RIVALS),
        ("captions do not fit; the most suspicious {1} were taken apart word by word", len(misfits), MOST_CAPTIONS),
    ):
        if count > most:
            notes.append(f"{count} " + what.format(count, most))
    samples: dict[str, list[dict[str, Any]]] = {}
    for record in records.values():
        samples.setdefault(record["id"], []).append(record)
    out = {"format": FORMAT, "notes": notes, "samples": samples}
    text = json.dumps(out, ensure_ascii=True, allow_nan=False).encode()
    write_atomically(job.run.path / FILE, lambda file: file.write(text))
    job.progress("explain", 1, 1)
    return out


def load_explanations(run_dir: str | Path) -> Explanations:
    """What `explain` made for a finished run.

    Raises:
        AuditError: the folder holds none.
    """
    path = Path(run_dir) / FILE
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise AuditError(f"{run_dir} holds no explanations; run the audit again with the same settings") from None
    except (ValueError, TypeError) as error:
        raise AuditError(f"{path} is damaged; delete it and run the audit again") from error
    if found.get("format") != FORMAT:
        raise AuditError(f"{path} was written by another version; run the audit again")
    return found


def renamed(samples: Mapping[str, list[dict[str, Any]]], names: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The records of a manifest's rows by the ids that these have in a dataset.

    Args:
        samples: id -> records, of `explain`.
        names: id -> other id, of every row.
    """

    def other(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: other(held, name) for name, held in value.items()}
        if isinstance(value, list):
            return [other(held, key) for held in value]
        return names[value] if key in ("id", "duplicates", "conflicts") else value

    return {names[name]: other(records) for name, records in samples.items()}


def flagged_rows(scored: Scored) -> Ints:
    """Rows with a flag or a proposal, the highest misalignment first, rows without one last."""
    chosen = np.logical_or.reduce(list(scored.flags.values())) | (scored.texts["action"] != "keep")
    rows = np.flatnonzero(chosen)
    values = np.nan_to_num(scored.scores["misalignment"][rows], nan=-np.inf)
    return rows[np.argsort(-values, kind="stable")]


def _misfit(scored: Scored, row: int) -> bool:
    return any(scored.flags[kind][row] for kind in MISFITS)


def _head(row: int, ready: Prepared, scored: Scored) -> dict[str, Any]:
    at, samples = ready.order.rows[row], ready.samples
    value = float(scored.scores["misalignment"][row])
    return {
        "id": samples.ids[at],
        "caption_index": int(samples.caption[at]) if samples.caption else 0,
        "flags": [kind for kind, flagged in scored.flags.items() if flagged[row]],
        "action": str(scored.texts["action"][row]),
        "misalignment": round(value, 4) if np.isfinite(value) else None,
    }


def find(explanations: Mapping[str, Any], sample_id: str, caption_index: int = 0) -> dict[str, Any] | None:
    """The record of one caption of one sample, or None: it was not flagged."""
    records = explanations["samples"].get(sample_id, [])
    return next((record for record in records if record["caption_index"] == caption_index), None)
