"""The database server is killed: what was acknowledged is there afterward, and what was not is done again."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest

from benchmarks import own_database
from tests.chaos.attack import Attack, Tally
from tests.chaos.conftest import Chaos
from tests.chaos.harness import stage

pytestmark = [pytest.mark.fiftyone, pytest.mark.timeout(3000)]
pytest.importorskip("fiftyone")

COMMANDS = (
    ("decided", "decide"),
    ("decided", "apply"),
    ("applied", "undo"),
    ("applied", "delete_removed"),
    ("decided", "undo_last"),
    ("audited", "import_decisions"),
    ("deleted", "undo"),
    ("audited", "audit_again"),
    ("audited", "set_threshold"),
    ("with_threshold", "delete_audit"),
    ("audited", "repair"),
    ("audited", "start_spot_check"),
    ("measured", "measure"),
    ("nothing", "import_scores"),
    ("applied", "export_clean"),
)
ONCE = frozenset(("apply", "delete_removed", "import_decisions", "audit_again", "set_threshold", "delete_audit"))


class Server:
    """A database server on one port and one folder, which can be started again after a kill."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.uri = f"mongodb://127.0.0.1:{self.port}/?serverSelectionTimeoutMS=1500"

    def start(self) -> int:
        """Its process, once it answers."""
        program = own_database.mongod()
        assert program is not None
        self.process = subprocess.Popen(
            own_database.command(program, self.folder, self.port),
            stdout=subprocess.DEVNULL,
            preexec_fn=own_database.end_with_parent,  # noqa: PLW1509 (it only asks the kernel for a signal)
        )
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("killed_database"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def attack(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    with stage(tmp_path_factory.mktemp("killed"), "killed", server.uri) as where:
        yield Attack(where)


def test_what_was_acknowledged_outlives_the_server(attack: Attack, server: Server, chaos: Chaos) -> None:
    tally = Tally()
    for base, command in COMMANDS[: chaos.count(4, len(COMMANDS))]:
        wanted = attack.after(base, command)
        for _ in range(chaos.count(1, 4)):
            prepare(attack, base)
            outcome = attack.where.run(command, then_kill=server.process.pid)
            assert outcome.state == "done", outcome
            assert server.process.wait(30) == -signal.SIGKILL
            server.start()
            tally.cases += 1
            name = f"{base} {command}, server killed after it"
            tally.compare(name, [wanted], attack.state(base), undoes=command.startswith("undo"))
    tally.show()
    chaos.record("acknowledged", tally.cases, "crash points and kills", **tally.faults)


def test_a_command_that_lost_the_server_is_repeated(attack: Attack, server: Server, chaos: Chaos) -> None:
    tally, chance = Tally(), random.Random(2)
    commands = [pair for pair in COMMANDS if pair[1] in ONCE]
    for base, command in commands[: chaos.count(2, len(commands))]:
        wanted = attack.after(base, command)
        attack.base(base)
        writes = len(attack.where.must(command).writes)
        for _ in range(chaos.count(1, 4)):
            prepare(attack, base)
            point = chance.randint(1, writes)
            name = f"{base} {command}, server killed before write {point}"
            outcome = attack.where.run(command, kill_at=point, victim=server.process.pid)
            assert server.process.wait(30) == -signal.SIGKILL
            server.start()
            tally.cases += 1
            if not tally.judge(name, outcome):
                continue
            if outcome.state == "done":
                tally.add("silent_wrong", f"{name}: reported as done")
            if tally.judge(f"{name}: again", attack.where.run(command)):
                tally.compare(name, [wanted], attack.state(base))
    tally.show()
    chaos.record("lost-server", tally.cases, "crash points and kills", **tally.faults)


def prepare(attack: Attack, base: str) -> None:
    """The dataset as it was before, on the disk."""
    attack.base(base)
    attack.where.client.admin.command("fsync")
