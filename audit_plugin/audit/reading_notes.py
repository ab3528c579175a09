"""What people should know about rows that could not be read: how many, why, and where the first one was looked for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping

from audit_plugin.arrays import MODALITIES, Samples, count_text
from audit_plugin.inputs.files import file_of
from audit_plugin.inputs.rows import grouped

MOST_NAMES = 100_000  # of a folder in which a similar name is looked for
NOT_FOUND = "file not found"


def unread_notes(samples: Samples, failures: Mapping[int, str]) -> list[str]:
    """Sentences on the rows that could not be read; empty where all were.

    Args:
        samples: rows.
        failures: row -> why it could not be read.
    """
    if not failures:
        return []
    share = len(failures) / len(samples)
    percent = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
    notes = [
        f"{len(failures):,} of {count_text(len(samples), 'row')} "
        f"({percent}) could not be read: {grouped(failures.values())}"
    ]
    missing = [row for row in sorted(failures) if NOT_FOUND in failures[row]]
    if missing:
        path = _missing_path(samples, missing[0], failures[missing[0]])
        similar = _similar_file(path)
        there = f" ({similar!r} is there: write the names as the files have them)" if similar else ""
        notes.append(
            f"{count_text(len(missing), 'row names a file that is', 'rows name files that are')} "
            f"not there; the first was looked for as {path!r}{there}: relative "
            "paths begin in the folder of the manifest; move it, or name the folder of the media by --media-root"
        )
    return notes


def _similar_file(path: str) -> str:
    """The name of a file that differs from a path by case, or by an ending that the path lacks; "" for none."""
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MOST_NAMES)]
    except (OSError, ValueError):
        return ""
    wanted = name.casefold()
    similar = [each for each in names if wanted in (each.casefold(), os.path.splitext(each)[0].casefold())]
    return min(similar, default="")


def _missing_path(samples: Samples, row: int, failure: str) -> str:
    """The path of the medium of a row that was not found."""
    names = [name for name in samples.media if not MODALITIES[name].is_text and f"{name}: {NOT_FOUND}" in failure]
    return file_of(samples.media[names[0]][row] or "").partition("\0")[0] if names else ""
