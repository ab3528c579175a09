"""Datasets as they were before an attack, what commands make of them, and the count of what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.harness import Outcome, Snapshot, Stage, difference, normalized, restore, snapshot

State = dict[str, Counter[str]]


@dataclass
class Tally:
    """What went wrong, by kind, with the reports of it."""

    cases: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reports: list[str] = field(default_factory=list)

    def add(self, fault: str, report: str) -> None:
        self.faults[fault] += 1
        self.reports.append(f"{fault}: {report}")

    def judge(self, name: str, outcome: Outcome) -> bool:
        """Whether an operation ended as it may: done, or refused in a sentence; then the dataset shows what it did."""
        if outcome.state == "hangs":
            self.add("hangs", name)
        elif outcome.state == "failed":
            self.add("tracebacks", f"{name}\n{outcome.text[-2500:]}")
        elif outcome.state == "refused" and "\n" in outcome.text:
            self.add("tracebacks", f"{name}: {outcome.text}")
        else:
            return True
        return False

    def compare(self, name: str, allowed: Sequence[State], got: State, undoes: bool = False) -> None:
        """The state must be one of those allowed."""
        if got in allowed:
            return
        lines = difference(allowed[0], got)
        signs = {line[0] for line in lines.splitlines()}
        fault = "wrong_undo" if undoes else {"-": "lost", "+": "doubled"}.get("".join(signs), "half")
        self.add(fault, f"{name}\n{lines[:3000]}")

    def show(self) -> None:
        """The first reports, and how often each case failed."""
        heads = Counter(report.splitlines()[0].partition(", ")[0] for report in self.reports)
        for line in (*self.reports[:40], *(f"{count} x {head}" for head, count in heads.most_common())):
            print(line)  # noqa: T201


class Attack:
    """Datasets by the commands that made them: the first one makes a dataset, the others change it."""

    def __init__(self, where: Stage) -> None:
        self.where = where
        self.snapshots: dict[tuple[str, ...], Snapshot] = {}

    def base(self, *names: str) -> Snapshot:
        """Put the database into the state that commands leave which nothing disturbs; made once."""
        if names not in self.snapshots:
            if len(names) == 1:
                self.make(names[0])
            else:
                self.base(*names[:-1])
                outcome = self.where.run(names[-1])
                # one that has nothing to do may refuse
                assert outcome.state in ("done", "refused"), f"{names}: {outcome}"
            self.snapshots[names] = snapshot(self.where.database)
        restore(self.where.database, self.snapshots[names])
        return self.snapshots[names]

    def make(self, name: str) -> None:
        """The dataset itself."""
        restore(self.where.database, {})
        self.where.must(name)

    def state(self, base: str) -> State:
        """What the database holds now, compared with the dataset `base`."""
        return normalized(self.snapshots[base,], snapshot(self.where.database))

    def after(self, base: str, *names: str) -> State:
        """The state that commands leave which nothing disturbs."""
        names = (base, *filter(None, names))
        self.base(base)
        return normalized(self.snapshots[base,], self.base(*names))
