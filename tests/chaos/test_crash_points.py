"""Every command is killed right before its database writes, each of them in the long form: what a crash leaves is
never half, and the same command again, or another that a person would give, ends as if nothing had happened.

A case is a dataset, a command and what is done after the kill, which is killed too in some cases.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.attack import Attack, State, Tally
from tests.chaos.conftest import Chaos
from tests.chaos.harness import stage

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(12_000)]
pytest.importorskip("fiftyone")


@dataclass(frozen=True)
class Case:
    """`then`: given after the kill, the command itself if empty; `last`: given at the end, with or without a kill."""

    base: str
    command: str
    then: str = ""
    last: str = ""
    once: bool = True  # given again after its end, it changes nothing
    short: bool = False  # in the short form too

    def __str__(self) -> str:
        return " ".join(filter(None, (self.base, self.command, self.then, self.last)))


CASES = (
    Case("plain", "audit"),
    Case("audited", "audit_again", short=True),
    Case("with_threshold", "audit_again"),
    Case("audited", "audit_of_half"),
    Case("with_later_sample", "add_result"),
    Case("audited", "set_threshold", short=True),
    Case("with_threshold", "set_other_threshold"),
    Case("with_threshold", "take_threshold_back"),
    Case("audited", "set_threshold", "take_threshold_back"),
    Case("audited", "map_embeddings"),
    Case("with_threshold", "delete_audit", short=True),
    Case("decided", "delete_audit"),
    Case("plain", "audit", "delete_audit"),
    Case("with_threshold", "audit_again", "delete_audit"),
    Case("with_later_sample", "add_result", "delete_audit"),
    Case("audited", "map_embeddings", "delete_audit"),
    Case("plain", "measure_labeled"),
    Case("measured", "measure"),
    Case("measured", "delete_measurement"),
    Case("measured", "measure", "delete_measurement"),
    Case("audited", "start_spot_check", once=False),
    Case("spot_checked", "decide_spot_check", once=False, short=True),
    Case("left_over", "prune_database", short=True),
    Case("audited", "build_index"),
    Case("indexed", "build_index"),
    Case("indexed", "delete_index", "delete_index_and_collect"),
    Case("plain", "compute_similarity"),
    Case("decided", "apply", last="undo_all", short=True),
    Case("decided", "apply", "recover_and_apply"),
    Case("lists_decided", "apply", last="undo_all"),
    Case("objects_decided", "apply", last="undo_all"),
    Case("groups_decided", "apply", last="undo_all"),
    Case("applied", "undo", short=True),
    Case("applied_twice", "undo", once=False),
    Case("applied_twice", "undo_twice", "undo_all"),
    Case("applied", "delete_removed", last="undo_all", short=True),
    Case("applied", "delete_removed", "recover_and_delete"),
    Case("groups_decided", "delete_group", last="undo_all"),
    Case("deleted", "undo", once=False),
    Case("deleted", "undo_twice", "undo_all"),
    Case("decided", "decide", once=False),
    Case("decided", "decide_batch", once=False),
    Case("decided", "undo_last", once=False),
    Case("audited", "import_decisions", short=True),
    Case("audited", "import_with_ids"),
    Case("audited", "repair", once=False),
    Case("applied", "export_clean"),
    Case("nothing", "load_manifest_dataset"),
    Case("with_demo", "load_manifest_dataset"),
    Case("nothing", "load_personas"),
    Case("nothing", "import_scores", short=True),
)


@dataclass(frozen=True)
class Expected:
    """How a case must end."""

    writes: int  # of the command
    complete: State  # after the command
    allowed: tuple[State, ...]  # after what follows the kill
    allowed_complete: tuple[State, ...]  # after it, where the kill came after all that counts
    last: State


def expected(attack: Attack, case: Case) -> Expected:
    """Of the uninterrupted commands."""
    attack.base(case.base)
    writes = len(attack.where.must(case.command).writes)
    complete = attack.state(case.base)
    twice = complete if case.once else attack.after(case.base, case.command, case.command)
    last = attack.after(case.base, case.command, case.then, case.last) if case.last else complete
    if not case.then:
        return Expected(writes, complete, (complete,), (complete, twice), last)
    # a crash may have left the dataset as before the command
    allowed = (attack.after(case.base, case.command, case.then), attack.after(case.base, case.then))
    return Expected(writes, complete, allowed, allowed, last)


def kill(
    attack: Attack, case: Case, points: tuple[int, ...], wanted: Expected, tally: Tally, interrupt: bool = False
) -> None:
    """Kill the command before a write, then what follows before a write of it, and so on; then go to the end."""
    name = f"{case}, {'interrupted' if interrupt else 'killed'} before write {', '.join(map(str, points))}"
    then = case.then or case.command
    attack.base(case.base)
    commands = [case.command, *[then] * (len(points) - 1)]
    for command, point in zip(commands, points, strict=True):
        outcome = attack.where.run(command, kill_at=point, interrupt=interrupt)
        if outcome.state != "killed":
            break  # less is left to do than before
        tally.cases += 1
    complete = attack.state(case.base) == wanted.complete
    tally.judge(f"{name}: look", attack.where.run("look"))
    outcome = attack.where.run(then)
    if not tally.judge(f"{name}: {then}", outcome):
        return
    name += f" ({outcome.text})" if outcome.state == "refused" else ""
    allowed = wanted.allowed_complete if complete else wanted.allowed
    tally.compare(name, allowed, attack.state(case.base), undoes="undo" in then)
    if case.last and tally.judge(f"{name}: {case.last}", attack.where.run(case.last)):
        tally.compare(f"{name}, {case.last}", [wanted.last], attack.state(case.base), undoes=True)


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    folder: Path = tmp_path_factory.mktemp("crash_points")
    with stage(folder, "crash_points") as where:
        yield Attack(where)


def test_a_kill_before_any_write_is_mended(attack: Attack, chaos: Chaos) -> None:
    tally, chance = Tally(), random.Random(0)
    for case in CASES:
        if not (case.short or chaos.is_long):
            continue
        wanted = expected(attack, case)
        points = range(1, wanted.writes + 1)
        some = sorted(chance.sample(points, min(len(points), 2)))
        for point in points if chaos.is_long else some:
            kill(attack, case, (point,), wanted, tally)
        for _ in range(chaos.count(1, 2)):
            kill(attack, case, (chance.choice(points), chance.choice(points)), wanted, tally)
        for _ in range(chaos.count(0, 1)):
            kill(attack, case, (chance.choice(points),), wanted, tally, interrupt=True)
    tally.show()
    chaos.record("crash-points", tally.cases, "crash points and kills", **tally.faults)
