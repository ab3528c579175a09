"""Commands that change a dataset, killed or interrupted at any moment; given again, they end as if nothing had been.

The commands are processes of their own on a real database, as a person gives them.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.attack import Attack, State, Tally
from tests.chaos.conftest import ROOT, Chaos
from tests.chaos.harness import Outcome, Stage, stage
from tests.chaos.test_kills import CODES
from tests.chaos.test_low_resources import patience

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(12_000)]
pytest.importorskip("fiftyone")
# Deleting an audit, and finishing what was interrupted, are calls from Python.
CALL = "import fiftyone as fo; from audit_plugin import fiftyone_io as io; io.{}(fo.load_dataset('d'){})"
LEASES = "audit_plugin.leases"
REFUSAL = "audit_plugin.arrays.AuditError: "


@dataclass(frozen=True)
class Case:
    """A command on a dataset; `last`: operations of the harness that follow it."""

    base: str
    arguments: Callable[[Stage], list[str]]  # of the command line, or a call
    last: str = ""
    once: bool = True  # given again after its end, it changes nothing


def call(name: str, *arguments: str) -> list[str]:
    return ["-c", CALL.format(name, "".join(f", {argument!r}" for argument in arguments))]


def command(*arguments: str) -> list[str]:
    return ["-m", "audit_plugin", "review", *arguments]


def names_of(where: Stage) -> list[str]:
    """Ids of the samples, in their order."""
    (facts,) = where.database["datasets"].find({"name": "d"})
    return [str(each["_id"]) for each in where.database[facts["sample_collection_name"]].find({}, {"_id": 1})]


def decide(where: Stage) -> list[str]:
    return command("decide", "d", "remove", *names_of(where)[5:60], "--reviewer", "ann", "--note", "a note")


def import_table(where: Stage) -> list[str]:
    """Decisions on half of the samples, by path."""
    table = where.folder / "many.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "kind", "text", "reviewer"])
        kinds = (("remove", ""), ("relabel", "by table"), ("keep", ""))
        paths = (where.folder / f"many-{row}.png" for row in range(0, 240, 2))
        writer.writerows([path, *kinds[row % 3], "eve"] for row, path in enumerate(paths))
    return command("import", "d", str(table), "--key", "filepath")


CASES = {
    "apply": Case("many_decided", lambda _: command("apply", "d"), last="undo_all"),
    "undo": Case("many_applied", lambda _: command("undo", "d")),
    "apply --delete": Case("many_decided", lambda _: command("apply", "d", "--delete", "120"), last="undo_all"),
    "decide": Case("many_audited", decide, once=False),
    "import": Case("many_audited", import_table),
    "delete_audit": Case("many_applied", lambda _: call("delete_audit", "audit")),
}
# What may be given in place of the same command: it finishes what was begun.
RECOVER = call("recover")


def start(where: Stage, arguments: list[str]) -> subprocess.Popen[str]:
    database = {"FIFTYONE_DATABASE_URI": where.uri, "FIFTYONE_DATABASE_NAME": where.name}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **database},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome_of(process: subprocess.Popen[str], codes: tuple[int, ...] = ()) -> Outcome:
    """What became of a process; `codes` are those of the signal that it got."""
    try:
        output, errors = process.communicate(timeout=patience())
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Outcome("hangs")
    if process.returncode in codes and "Traceback" not in output + errors:
        return Outcome("killed", errors)
    if process.returncode == 0:
        return Outcome("done", output)
    last = errors.rstrip().rpartition("\n")[2]
    if last.startswith(REFUSAL):  # of a call from Python
        return Outcome("refused", last.removeprefix(REFUSAL))
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    is_plain = process.returncode == 2 and len(lines) == 1 and "Traceback" not in errors
    return Outcome("refused", lines[0]) if is_plain else Outcome("failed", f"{process.returncode} {errors}")


def has_lease(where: Stage) -> bool:
    return where.database[LEASES].find_one({"owner": {"$ne": None}}, {"_id": 1}) is not None


@dataclass(frozen=True)
class Expected:
    """States, and times, of commands that nothing disturbs."""

    arguments: list[str]
    before: State
    complete: State
    twice: State
    last: State
    seconds: float  # of the whole command
    leased: float  # of those, since it had the lease


def expected(attack: Attack, case: Case) -> Expected:
    attack.base(case.base)
    where, before = attack.where, attack.state(case.base)
    arguments = case.arguments(where)
    began = time.monotonic()
    process = start(where, arguments)
    while not has_lease(where) and process.poll() is None:
        time.sleep(0.005)
    leased = time.monotonic()
    assert outcome_of(process).state == "done"
    ended = time.monotonic()
    complete = attack.state(case.base)
    assert complete != before
    twice = last = complete
    if case.last:
        attack.where.must(case.last)
        last = attack.state(case.base)
    if not case.once:
        assert outcome_of(start(where, arguments)).state == "done"
        twice = attack.state(case.base)
    return Expected(arguments, before, complete, twice, last, ended - began, ended - leased)


def kill(attack: Attack, name: str, wanted: Expected, number: int, rng: random.Random, tally: Tally) -> None:
    """A signal at a random moment, of the whole command or its writing; then the same command, or `recover` before."""
    case, where = CASES[name], attack.where
    which = list(CODES)[number % len(CODES)]
    is_late = number % 4 > 0  # the writing takes the shortest part
    after = rng.random() * (wanted.leased if is_late else wanted.seconds)
    what = f"{name}, {which.name} {after:.2f} s after {'the lease' if is_late else 'the start'}"
    attack.base(case.base)
    process = start(where, wanted.arguments)
    while is_late and not has_lease(where) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(after)
    process.send_signal(which)
    outcome = outcome_of(process, CODES[which])
    if wanted.arguments[0] == "-c" and which == signal.SIGINT and "KeyboardInterrupt" in outcome.text:
        outcome = Outcome("killed")  # Python itself shows where it was
    tally.cases += 1
    if not tally.judge(what, outcome):
        return
    allowed = [wanted.complete, wanted.twice] if attack.state(case.base) == wanted.complete else [wanted.complete]
    if not tally.judge(f"{what}: look", where.run("look")):
        return
    if number % 3 == 2:
        what += ", recover"
        if not tally.judge(what, outcome_of(start(where, RECOVER))):
            return
        # what it finished is not done twice
        state = attack.state(case.base)
        tally.compare(what, [wanted.before, wanted.complete], state, undoes=name == "undo")
        allowed = [wanted.complete, wanted.twice] if state == wanted.complete else allowed
    what += ", again"
    if not tally.judge(what, outcome_of(start(where, wanted.arguments))):
        return
    tally.compare(what, allowed, attack.state(case.base), undoes=name == "undo")
    if case.last and tally.judge(f"{what}, {case.last}", where.run(case.last)):
        tally.compare(f"{what}, {case.last}", [wanted.last], attack.state(case.base), undoes=True)


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    folder: Path = tmp_path_factory.mktemp("command_kills")
    with stage(folder, "command_kills") as where:
        yield Attack(where)


def test_a_killed_command_is_given_again(attack: Attack, chaos: Chaos) -> None:
    tally, rng = Tally(), random.Random(11)
    for name, case in list(CASES.items())[: chaos.count(2, len(CASES))]:
        wanted = expected(attack, case)
        for number in range(12) if chaos.is_long else [1]:
            kill(attack, name, wanted, number, rng, tally)
    tally.show()
    chaos.record("command_kills", tally.cases, "crash points and kills", **tally.faults)
