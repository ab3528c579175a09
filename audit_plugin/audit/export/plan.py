"""Which rows of an audit are exported, which are removed and why, and which captions are replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit_plugin.arrays import AuditError, Bools

ACTIONS = ("remove", "relabel", "review")
AUDIT, UNREADABLE, SELECTION = "audit", "export", "selection"  # by whom a row is removed, where no person did
DIGITS = 32  # of the sha256 of a text in a decision
NEEDED = (
    "id caption_index misalignment multimem probability action reason suggestion failure duplicate_group".split()  # noqa: SIM905
)
Key = tuple[str, int]  # id, position of the caption


@dataclass(frozen=True)
class ScoreTable:
    """The columns of an audit that an export takes, `[n]` each.

    Attributes:
        ids: object.
        captions: int, or empty where every sample has one caption.
        columns: those of `NEEDED` and the flags `is_…`.
        summary: of the audit.
        name: of the table, for messages.
    """

    ids: NDArray[Any]
    captions: NDArray[Any]
    columns: Mapping[str, NDArray[Any]]
    summary: Mapping[str, Any]
    name: str

    def __len__(self) -> int:
        return len(self.ids)

    def caption(self, row: int) -> int:
        """Which of its sample's captions a row is."""
        return int(self.captions[row]) if len(self.captions) else 0

    def texts(self, column: str) -> NDArray[Any]:
        """object `[n]`: "" where there is none."""
        values = self.columns.get(column)
        return np.full(len(self), "", dtype=object) if values is None else np.where(values == None, "", values)  # noqa: E711

    def numbers(self, column: str) -> NDArray[np.float32]:
        """float32 `[n]`: NaN where there is none."""
        return np.asarray(self.columns.get(column, np.full(len(self), np.nan)), dtype=np.float32)

    @property
    def kinds(self) -> list[str]:
        """The kinds of flags."""
        return [name.removeprefix("is_") for name in self.columns if name.startswith("is_")]


@dataclass(frozen=True)
class Verdict:
    """The decision of a person on a row: keep, remove, or relabel with a text.

    `text_digest` is the beginning of the sha256 (hex) of the caption that the person saw, "" if it is not known.
    """

    kind: str
    text: str = ""
    reviewer: str = ""
    note: str = ""
    text_digest: str = ""

    def is_stale(self, text: str | None) -> bool:
        """Whether the caption is another one than the person saw."""
        if not self.text_digest or text is None:
            return False
        # the text that a relabel asks for is not a change
        return _digest(text) not in (self.text_digest, _digest(self.text) if self.kind == "relabel" else "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Rules:
    """What a person asks for; without anything, rows are removed as proposed, and captions stay as they are.

    Attributes:
        drop: flags or actions whose rows are removed, in place of the proposed actions; of duplicates one stays.
        keep: flags whose rows stay, whatever is proposed for them, unless another flag speaks against them.
        top_n: of the rows that `drop` names, or else of all rows, only the n with the highest misalignment are removed.
        selection: the rows to export, with the weight of each; None: all.
        relabel: captions that the audit proposes are applied; those that a person decided always are.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    top_n: int | None = None
    selection: Mapping[Key, float] | None = None
    relabel: bool = False

    def check(self, kinds: Sequence[str]) -> None:
        """Raises `AuditError` for unknown kinds and for rules that exclude each other."""
        if self.keep and (self.drop or self.top_n is not None):
            other = "drop" if self.drop else "top-n"
            raise AuditError(f"--keep {','.join(self.keep)} and --{other} exclude each other; give one of them")
        if self.top_n is not None and self.top_n < 0:
            raise AuditError(f"--top-n is {self.top_n}; give the number of rows to remove, 0 or more")
        for option, names, known in (("drop", self.drop, (*kinds, *ACTIONS)), ("keep", self.keep, kinds)):
            for name in names:
                if name not in known:
                    raise AuditError(f"--{option} {name!r} is not a flag of this audit; it has {', '.join(known)}")


@dataclass(frozen=True)
class Outcome:
    """What happens to one row.

    Attributes:
        why: the reason why it is removed; "" if it is exported.
        by: who decided that: a person, or `AUDIT`, `UNREADABLE` or `SELECTION`.
        text: its new caption; None if it keeps its own.
        stale: a decision is not followed, because the caption has changed since.
        proposal: the caption that the audit proposes and that is not applied; None if there is none.
    """

    why: str = ""
    by: str = ""
    text: str | None = None
    stale: bool = False
    proposal: str | None = None


@dataclass(frozen=True)
class ExportPlan:
    """What the audit, the rules and people say of each row.

    Attributes:
        why: object `[n]`, why the audit or the rules remove a row; "" where it stays.
        by: object `[n]`, `AUDIT` or `SELECTION`.
        proposals: row -> the caption that the audit proposes.
        relabel: proposals are applied.
        verdicts: row -> the decision of a person, which overrules the audit unless the caption changed since.
        unknown: decisions on rows that the table does not have.
    """

    why: NDArray[Any]
    by: NDArray[Any]
    proposals: Mapping[int, str] = field(default_factory=dict)
    relabel: bool = False
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    unknown: int = 0

    def outcome(self, row: int, text: str | None) -> Outcome:
        """The outcome of a row whose caption is `text` now."""
        verdict = self.verdicts.get(row)
        stale = verdict is not None and verdict.is_stale(text)
        if verdict is not None and not stale:
            note = f": {verdict.note}" if verdict.note else ""
            if verdict.kind == "remove":
                return Outcome(f"decision remove{note}", verdict.reviewer or "reviewer")
            if self.by[row] != SELECTION:
                new = verdict.text if verdict.kind == "relabel" else None
                return Outcome("", verdict.reviewer or "reviewer", new)
        if self.why[row]:
            return Outcome(self.why[row], self.by[row], stale=stale)
        proposal = self.proposals.get(row)
        if self.relabel:
            return Outcome("", AUDIT, proposal, stale)
        return Outcome("", AUDIT, None, stale, proposal if proposal != text else None)


def plan_export(table: ScoreTable, rules: Rules, verdicts: Mapping[Key, Verdict]) -> ExportPlan:
    """The plan of an export.

    Raises:
        AuditError: a rule names what the table does not have, or no decision is about a row of it.
    """
    rules.check(table.kinds)
    row_of = {}
    if verdicts:
        row_of = {(name, table.caption(row)): row for row, name in enumerate(table.ids)}
        if not row_of.keys() & verdicts.keys():
            name = next(iter(verdicts))[0]
            raise AuditError(
                f"none of the {len(verdicts):,} decisions is about a row of {table.name} (the first is about "
                f"{name!r}); name the samples by the ids of the table, or name the FiftyOne dataset"
            )
    by_row = {row_of[key]: verdict for key, verdict in verdicts.items() if key in row_of}
    removed_by_people = np.zeros(len(table), dtype=bool)
    removed_by_people[[row for row, verdict in by_row.items() if verdict.kind == "remove"]] = True
    why, proposals = _by_rules(table, rules, removed_by_people), _proposed_captions(table, rules)
    by = np.where(why != "", AUDIT, "").astype(object)
    stays = (why == "") & ~removed_by_people
    if "duplicate" in rules.drop and rules.top_n is None:
        for row in _surplus_copies(table, stays):
            why[row], by[row] = "flag duplicate: another copy stays", AUDIT
    failure = table.texts("failure")
    for row in np.flatnonzero(failure != "").tolist():
        why[row], by[row] = f"not scored: {failure[row]}", UNREADABLE
    if rules.selection is not None:
        for row, name in enumerate(table.ids):
            if (name, table.caption(row)) not in rules.selection:
                why[row], by[row] = "not in the selection", SELECTION
    return ExportPlan(why, by, proposals, rules.relabel, by_row, len(verdicts) - len(by_row))


def _by_rules(table: ScoreTable, rules: Rules, removed_by_people: Bools) -> NDArray[Any]:
    """object `[n]`: why a row is removed, "" if it stays; copies are looked at with `top_n` only.

    Rows that people remove (bool `[n]`) are no copies that stay.
    """
    why = np.full(len(table), "", dtype=object)
    if rules.top_n is not None:
        chosen = _flagged(table, [kind for kind in rules.drop if kind != "duplicate"])
        if "duplicate" in rules.drop:
            chosen[_surplus_copies(table, ~chosen & ~removed_by_people)] = True
        elif not rules.drop:
            chosen[:] = True
        scores = table.numbers("misalignment")
        rows = np.flatnonzero(chosen & np.isfinite(scores))
        worst = rows[np.argsort(-scores[rows], kind="stable")][: rules.top_n]
        why[worst] = f"among the {len(worst):,} most misaligned"
        return why
    if rules.drop:
        for kind in [kind for kind in rules.drop if kind != "duplicate"]:
            rows = _flagged(table, (kind,)) & (why == "")
            why[rows] = f"action {kind}" if kind in ACTIONS else f"flag {kind}"
        return why
    action, reason = table.texts("action"), table.texts("reason")
    for row in np.flatnonzero(~_overruled(table, rules) & (action == "remove")):
        why[row] = f"action remove: {reason[row]}" if reason[row] else "action remove"
    return why


def _proposed_captions(table: ScoreTable, rules: Rules) -> dict[int, str]:
    """Row -> the caption that the audit proposes for it."""
    action, suggestion = table.texts("action"), table.texts("suggestion")
    rows = np.flatnonzero(~_overruled(table, rules) & (action == "relabel") & (suggestion != ""))
    return {int(row): str(suggestion[row]) for row in rows}


def _overruled(table: ScoreTable, rules: Rules) -> Bools:
    """bool `[n]`: flagged rows whose flags are all in `rules.keep`: nothing that is proposed for them is done."""
    others = [kind for kind in table.kinds if kind not in rules.keep]
    return _flagged(table, rules.keep) & ~_flagged(table, others)


def _flagged(table: ScoreTable, kinds: Sequence[str]) -> Bools:
    """bool `[n]`: rows with one of these flags or actions."""
    flagged = np.zeros(len(table), dtype=bool)
    action = table.texts("action") if set(kinds) & set(ACTIONS) else None
    for kind in kinds:
        flagged |= action == kind if kind in ACTIONS else np.asarray(table.columns[f"is_{kind}"], dtype=bool)
    return flagged


def _surplus_copies(table: ScoreTable, stays: Bools) -> list[int]:
    """The rows of duplicate groups beyond the one sample of each that stays: its representative, or else the first."""
    flagged = _flagged(table, ("duplicate",)) & stays
    groups = table.texts("duplicate_group")
    staying: dict[str, str] = {}
    for row in np.flatnonzero(flagged & (groups != "")):
        group, name = groups[row], table.ids[row]
        if group not in staying or name == group:
            staying[group] = name
    return [int(row) for row in np.flatnonzero(flagged & (groups != "")) if staying[groups[row]] != table.ids[row]]
