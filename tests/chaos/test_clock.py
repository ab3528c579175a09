"""A clock that was set back by a day: the last is still the last, for undoing and for what holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.attack import Attack, Tally
from tests.chaos.conftest import Chaos
from tests.chaos.harness import stage

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(600)]
pytest.importorskip("fiftyone")

# (dataset, what follows with the clock set back, what is undone after that)
CASES = (
    ("applied", "decide_later_and_apply", "undo"),
    ("applied", "delete_removed", "undo"),
    ("decided", "decide", "undo_last"),
    ("decided", "decide_batch", "nothing"),
    ("audited", "start_spot_check", "decide_spot_check"),
    ("deleted", "undo", "undo"),
    ("applied_twice", "undo", "undo"),
)


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    with stage(tmp_path_factory.mktemp("clock"), "clock") as where:
        yield Attack(where)


def test_the_last_is_the_last_with_the_clock_set_back(attack: Attack, chaos: Chaos) -> None:
    tally = Tally()
    for base, command, undo in CASES:
        for late in ("", "with_clock_set_back"):  # the clock is right again for the undo, or not
            attack.base(base)
            attack.where.must(command, clock_set_back=True)
            outcome = attack.where.run(undo, clock_set_back=bool(late))
            tally.cases += 1
            name = f"{base}, {command} with the clock set back, {undo} {late}"
            if tally.judge(name, outcome):
                tally.compare(name, [attack.after(base, command, undo)], attack.state(base), undoes=True)
    tally.show()
    chaos.record("clock", tally.cases, "crash points and kills", **tally.faults)
