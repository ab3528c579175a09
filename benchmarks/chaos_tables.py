"""The table of the attacks of `make chaos`, from what each of them counted."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.record import RESULTS, markdown_table

KINDS = ("crash points and kills", "races", "corruptions", "hostile inputs")
# What an attack counts besides its cases. `outside`: files read, written or fetched that were not asked for; `half`:
# datasets or runs that are neither as before nor as after.
FAULTS = ("lost", "doubled", "half", "wrong_undo", "silent_wrong", "hangs", "tracebacks", "outside", "good_rows_lost")


def chaos_table() -> str:
    """One row per attack, and the sum of each kind."""
    attacks = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS / "chaos").glob("*.json")}
    rows = []
    for kind in KINDS:
        of_kind = {name: attacks[name] for name in sorted(attacks) if attacks[name]["kind"] == kind}
        rows.append((f"**{kind}**", *(f"**{number:,}**" for number in _sums(list(of_kind.values())))))
        rows += [
            (name.replace("_", " ").replace("-", " "), *(f"{number:,}" for number in _sums([attack])))
            for name, attack in of_kind.items()
        ]
    return "\n".join(markdown_table(("attack", "cases", "faults", "seconds"), rows))


def _sums(attacks: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Cases, faults of all kinds, and seconds."""
    faults = sum(attack[fault] for attack in attacks for fault in FAULTS)
    return sum(attack["cases"] for attack in attacks), faults, round(sum(attack["seconds"] for attack in attacks))
