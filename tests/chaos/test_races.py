"""Two processes work on one dataset at once, one of them paused or killed before some write: what is left is what one
after the other would have left, or one of them was refused in a sentence and did nothing.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos.attack import Attack, State, Tally
from tests.chaos.conftest import Chaos
from tests.chaos.harness import Outcome, Task, stage

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(3000)]
pytest.importorskip("fiftyone")

PAUSES = (0.0, 0.05, 0.2, 2.5)  # seconds; after the last one the other is refused
CHANCES = (4, 4, 4, 1)
EXPIRY = 3  # seconds


@dataclass(frozen=True)
class Pair:
    """Two commands on a dataset; of those with `originals` all can be undone to the dataset `base` afterward."""

    base: str
    first: str
    second: str
    originals: bool = False
    short: bool = False

    def __str__(self) -> str:
        return f"{self.base}: {self.first} beside {self.second}"


PAIRS = (
    Pair("decided", "apply", "apply", originals=True, short=True),
    Pair("applied_and_decided", "apply", "undo"),
    Pair("decided", "apply", "recover", originals=True),
    Pair("half_applied", "recover", "recover"),
    Pair("half_applied", "apply", "recover", short=True),
    Pair("half_applied", "recover", "undo"),
    Pair("half_planned", "apply", "recover"),
    Pair("half_undone", "recover", "undo"),
    Pair("half_deleted", "recover", "delete_removed"),
    Pair("applied", "undo", "undo"),
    Pair("applied_twice", "undo", "undo"),
    Pair("applied_and_decided", "delete_removed", "apply", short=True),
    Pair("applied", "delete_removed", "undo"),
    Pair("applied", "delete_removed", "delete_removed"),
    Pair("deleted", "undo", "recover"),
    Pair("plain", "audit", "audit", short=True),
    Pair("audited", "audit_again", "audit", short=True),
    Pair("audited", "audit_again", "delete_audit", short=True),
    Pair("audited", "delete_audit", "delete_audit"),
    Pair("decided", "audit_again", "apply"),
    Pair("audited", "set_threshold", "audit_again", short=True),
    Pair("audited", "set_threshold", "set_other_threshold", short=True),
    Pair("with_threshold", "take_threshold_back", "set_other_threshold"),
    Pair("with_threshold", "set_other_threshold", "delete_audit"),
    Pair("with_later_sample", "add_result", "add_result"),
    Pair("with_later_sample", "add_result", "set_threshold"),
    Pair("audited", "map_embeddings", "delete_audit"),
    Pair("decided", "decide", "decide_batch", short=True),
    Pair("decided", "decide", "undo_last"),
    Pair("decided", "undo_last", "undo_last"),
    Pair("decided", "decide", "apply"),
    Pair("audited", "import_decisions", "import_decisions", short=True),
    Pair("audited", "import_with_ids", "import_with_ids"),
    Pair("audited", "repair", "decide"),
    Pair("audited", "start_spot_check", "delete_audit"),
    Pair("measured", "measure", "measure"),
    Pair("measured", "measure", "delete_measurement"),
    Pair("indexed", "build_index", "build_index"),
    Pair("applied", "export_clean", "export_clean"),
    Pair("applied", "export_clean", "undo"),
    Pair("nothing", "load_manifest_dataset", "load_manifest_dataset"),
    Pair("with_demo", "load_manifest_dataset", "load_manifest_dataset"),
    Pair("nothing", "import_scores", "import_scores"),
)
# A command killed before a write: (dataset, command, share of its writes that were made)
CUT_OFF = {
    "half_planned": ("decided", "apply", 0.35),
    "half_applied": ("decided", "apply", 0.7),
    "half_undone": ("applied_twice", "undo", 0.6),
    "half_deleted": ("applied", "delete_removed", 0.6),
}


class Races(Attack):
    """Knows the cut off datasets too."""

    def make(self, name: str) -> None:
        if name not in CUT_OFF:
            super().make(name)
            return
        base, command, share = CUT_OFF[name]
        point = round(share * count_writes(self, base, command))
        self.base(base)
        assert self.where.run(command, kill_at=point).state == "killed"


def count_writes(attack: Races, base: str, command: str) -> int:
    attack.base(base)
    return max(1, len(attack.where.run(command).writes))


def race(attack: Races, pair: Pair, chance: random.Random, writes: Sequence[int], tally: Tally) -> None:
    """Both at once; where one was killed, it is given again."""
    tasks = [
        Task(name, pause_at=chance.randint(1, count), pause=chance.choices(PAUSES, CHANCES)[0])
        for name, count in zip((pair.first, pair.second), writes, strict=True)
    ]
    tasks[1] = replace(tasks[1], pause=min(tasks[1].pause, 0.2))
    if is_cut := chance.random() < 0.25:
        tasks[0] = replace(tasks[0], kill_at=chance.randint(1, writes[0]))
    attack.base(pair.base)
    numbers = [attack.where.start(task) for task in tasks]
    first, second = (attack.where.wait(number) for number in numbers)
    name = f"{pair}, {tasks[0]}, {tasks[1]}"
    tally.cases += 1
    if first.state == "killed":
        first = attack.where.run(pair.first)
    fine = [tally.judge(f"{name}: {command}", outcome) for command, outcome in (("1", first), ("2", second))]
    if not all(fine):
        return
    name += f" ({first.state} {first.text}; {second.state} {second.text})"
    got = attack.state(pair.base)
    states = allowed(attack, pair, first, second)
    if is_cut and got not in states:  # the one that was killed had come to its end
        states += repeated(attack, pair)
    tally.compare(name, states, got)
    if pair.originals and tally.judge(f"{name}: undo", attack.where.run("undo_all")):
        tally.compare(f"{name}, undone", [attack.after(pair.base)], attack.state(pair.base), undoes=True)


def allowed(attack: Races, pair: Pair, first: Outcome, second: Outcome) -> list[State]:
    """The states that two reports allow: as after one and the other, and who refuses has changed nothing."""
    states = [attack.after(pair.base, pair.first, pair.second), attack.after(pair.base, pair.second, pair.first)]
    if first.state == "refused":
        states.append(attack.after(pair.base, pair.second))
    if second.state == "refused":
        states.append(attack.after(pair.base, pair.first))
    if first.state == second.state == "refused":
        states.append(attack.after(pair.base))
    return states


def repeated(attack: Races, pair: Pair) -> list[State]:
    """As after both with the first one carried out twice."""
    orders = ("112", "121", "211")
    return [attack.after(pair.base, *(pair.first if at == "1" else pair.second for at in order)) for order in orders]


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Races]:
    folder: Path = tmp_path_factory.mktemp("races")
    with stage(folder, "races") as where:
        yield Races(where)


def test_two_at_once_are_as_one_after_the_other(attack: Races, chaos: Chaos) -> None:
    tally, chance = Tally(), random.Random(1)
    for pair in PAIRS:
        if not (pair.short or chaos.is_long):
            continue
        writes = [count_writes(attack, pair.base, command) for command in (pair.first, pair.second)]
        for _ in range(chaos.count(1, 6)):
            race(attack, pair, chance, writes, tally)
    tally.show()
    chaos.record("races", tally.cases, "races", **tally.faults)


STOPPED = (
    Pair("applied_twice", "undo", "undo", short=True),
    Pair("audited", "audit_again", "audit_again"),
    Pair("decided", "apply", "apply"),
    Pair("applied", "undo", "recover"),
    Pair("applied", "delete_removed", "undo"),
    Pair("decided", "decide", "decide_batch"),
    Pair("audited", "import_decisions", "import_decisions"),
    Pair("audited", "set_threshold", "set_other_threshold"),
    Pair("with_threshold", "audit_again", "delete_audit"),
    Pair("with_later_sample", "add_result", "set_threshold"),
    Pair("audited", "map_embeddings", "set_threshold"),
    Pair("indexed", "delete_audit", "set_threshold"),
)


@pytest.fixture
def slow(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Races]:
    """Where a lease expires after seconds."""
    monkeypatch.setenv("AUDIT_CHAOS_EXPIRY", str(EXPIRY))
    with stage(tmp_path_factory.mktemp("stopped"), "stopped") as where:
        yield Races(where)


def test_a_process_that_stood_still_does_no_harm(slow: Races, chaos: Chaos) -> None:
    """Its lease expires and another takes it; then it goes on."""
    tally, chance = Tally(), random.Random(3)
    for pair in STOPPED:
        if not (pair.short or chaos.is_long):
            continue
        writes = count_writes(slow, pair.base, pair.first)
        for _ in range(chaos.count(1, 4)):
            stand_still(slow, pair, chance.randint(1, writes), tally)
    tally.show()
    chaos.record("stopped-processes", tally.cases, "races", **tally.faults)


def stand_still(slow: Races, pair: Pair, point: int, tally: Tally) -> None:
    name = f"{pair}, the first one stopped before write {point}"
    slow.base(pair.base)
    number = slow.where.start(Task(pair.first, stop_at=point))
    while psutil.pid_exists(number) and psutil.Process(number).status() not in ("stopped", "zombie"):
        time.sleep(0.01)
    time.sleep(EXPIRY + 0.2)
    second = slow.where.run(pair.second)
    if psutil.pid_exists(number):
        os.kill(number, signal.SIGCONT)
    first = slow.where.wait(number)
    tally.cases += 1
    if first.state == "refused":  # it was told to repeat the command
        first = slow.where.run(pair.first)
    fine = [tally.judge(f"{name}: {at}", outcome) for at, outcome in enumerate((first, second), 1)]
    if all(fine):
        name += f" ({first.state} {first.text}; {second.state} {second.text})"
        states = [*allowed(slow, pair, first, second), *repeated(slow, pair)]
        tally.compare(name, states, slow.state(pair.base))


# Every command that writes to runs: (dataset, command)
WRITERS = (
    ("audited", "audit_again"),
    ("with_later_sample", "add_result"),
    ("audited", "set_threshold"),
    ("audited", "map_embeddings"),
    ("indexed", "delete_audit"),
    ("measured", "measure"),
    ("measured", "delete_measurement"),
    ("indexed", "build_index"),
    ("audited", "add_to_index"),
)
DATA = ("datasets", "samples.", "views")  # collections, or the beginnings of their names, that people look at


@pytest.mark.parametrize(("base", "command"), WRITERS)
def test_who_lost_the_lease_ends_with_the_write_under_way(attack: Races, chaos: Chaos, base: str, command: str) -> None:
    """Suspended before a write, while another process takes the dataset over: nothing is written after that one.

    FiftyOne's own functions may make two writes in a row, of values and of the schema.
    """
    tally, chance = Tally(), random.Random(base + command)
    attack.base(base)
    writes = attack.where.must(command).writes
    first = next(number for number, write in enumerate(writes, 1) if write.endswith(".leases")) + 1
    points = range(first, len(writes) - 1)
    for point in sorted(chance.sample(points, min(len(points), chaos.count(2, 40)))):
        outcome = taken_over(attack, base, command, point)
        if outcome is None:
            continue
        name, got = f"{base}: {command} taken over before write {point}", seen(attack.state(base))
        tally.cases += 1
        if tally.judge(name, outcome):
            states = [seen_before(attack, base, command, point + more) for more in (1, 2)]
            tally.compare(f"{name} ({outcome.text})", states, got)
    tally.show()
    chaos.record(f"leases-lost-{command}", tally.cases, "races", **tally.faults)


@pytest.mark.parametrize(("base", "command"), [*WRITERS, ("plain", "compute_similarity")])
def test_a_run_that_was_changed_since_it_was_read_is_not_overwritten(attack: Races, base: str, command: str) -> None:
    """As by FiftyOne's own functions, which know no lease: every update of a run's document is refused then."""
    attack.base(base)
    writes = attack.where.must(command).writes
    updates = [number for number, write in enumerate(writes, 1) if write == "findAndModify runs"]
    replacing = [number for number, write in enumerate(writes, 1) if write == "insert runs"]
    assert updates or replacing, "the command writes no run"
    for point in updates:
        attack.base(base)
        stopped = start_and_stop(attack, command, point)
        runs = attack.where.database["runs"]
        runs.update_many({}, {"$set": {"config.by_another": "changed"}})
        os.kill(stopped, signal.SIGCONT)
        outcome = attack.where.wait(stopped)
        assert outcome.state == "refused", outcome
        assert "was changed by another process since it was read" in outcome.text
        assert "reload the dataset, then repeat the command" in outcome.text
        named = [run for dataset in attack.where.database["datasets"].find() for run in named_runs(dataset)]
        assert all(run["config"]["by_another"] == "changed" for run in runs.find({"_id": {"$in": named}}))


def taken_over(attack: Races, base: str, command: str, point: int) -> Outcome | None:
    """What becomes of a command that is stopped before a write while its dataset is taken over.

    None: it has no lease there, but is between two.
    """
    attack.base(base)
    stopped = start_and_stop(attack, command, point)
    taken = {"owner": "another", "pid": 1, "host": "elsewhere", "machine": "another"}
    leases = attack.where.database["audit_plugin.leases"]
    is_held = leases.update_many({"owner": {"$ne": None}}, {"$set": taken}).modified_count > 0
    os.kill(stopped, signal.SIGCONT if is_held else signal.SIGKILL)
    outcome = attack.where.wait(stopped)
    return outcome if is_held else None


def seen_before(attack: Races, base: str, command: str, point: int) -> State:
    """What people see right before a write of a command."""
    attack.base(base)
    stopped = start_and_stop(attack, command, point)
    state = seen(attack.state(base))
    os.kill(stopped, signal.SIGKILL)
    attack.where.wait(stopped)
    return state


def named_runs(dataset: Any) -> list[Any]:
    return [*dataset["runs"].values(), *dataset["brain_methods"].values()]


def start_and_stop(attack: Races, command: str, point: int) -> int:
    """The process of a command that is stopped right before a write."""
    number = attack.where.start(Task(command, stop_at=point))
    while psutil.Process(number).status() not in ("stopped", "zombie"):
        time.sleep(0.005)
    assert psutil.Process(number).status() == "stopped", f"{command} has no write {point}"
    return number


def seen(state: State) -> State:
    """What people look at; runs stand in it by what they hold."""
    return {name: documents for name, documents in state.items() if name.startswith(DATA)}


def test_a_deletion_by_fiftyone_that_lost_the_lease_is_finished_later(attack: Races, chaos: Chaos) -> None:
    """FiftyOne deletes the record of the run whatever our cleanup says: what is left is removed by the next command."""
    tally, chance, base, command = Tally(), random.Random(5), "indexed", "delete_by_fiftyone"
    wanted = attack.after(base, "delete_audit")
    attack.base(base)
    writes = attack.where.must(command).writes
    ends = [number for number, write in enumerate(writes, 1) if write.endswith(".leases")]
    points = range(ends[0] + 1, ends[-1])
    for point in sorted(chance.sample(points, min(len(points), chaos.count(5, 40)))):
        outcome = taken_over(attack, base, command, point)
        assert outcome is not None, "one lease from begin to end"
        free = {"owner": None, "expires": None}
        attack.where.database["audit_plugin.leases"].update_many({}, {"$set": free})
        name = f"{base}: {command} taken over before write {point}"
        tally.cases += 1
        if tally.judge(name, outcome) and tally.judge(name, attack.where.run("finish_deletions")):
            tally.compare(name, [wanted], attack.state(base))
    tally.show()
    chaos.record("leases-lost-by-fiftyone", tally.cases, "races", **tally.faults)
