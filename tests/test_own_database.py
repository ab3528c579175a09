"""Tests and benchmarks never touch the user's database, though FiftyOne joins any database service on the machine."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import psutil
import pymongo
import pytest

from benchmarks import own_database

pytestmark = pytest.mark.fiftyone
ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("fiftyone") is None or own_database.mongod() is None:
    pytest.skip("FiftyOne has no mongod", allow_module_level=True)

# A user with an open App: a service as FiftyOne starts it, with data. It joins no other service of this machine.
USER = """
import os, sys
os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"
import fiftyone.service.util as services
services.find_processes_by_args = lambda arguments: []
del os.environ["FIFTYONE_DISABLE_SERVICES"]
import fiftyone as fo
dataset = fo.Dataset("precious", persistent=True)
dataset.add_samples([fo.Sample(filepath=f"/home/user/{row}.png", caption="a dear one") for row in range(7)])
fo.Dataset("scratch")  # not persistent: FiftyOne deletes such ones when it takes itself for the last client
print("port", os.environ["FIFTYONE_PRIVATE_DATABASE_PORT"], flush=True)
sys.stdin.read()
"""
JOINS = "import os, fiftyone as fo; fo.list_datasets(); print('port', os.environ['FIFTYONE_PRIVATE_DATABASE_PORT'])"
BENCHMARK = """
import sys
from benchmarks import writing_speed
writing_speed.main(["--samples", "50", "--repeats", "1", "--dry-run"])
"""
FEW = (
    "tests/test_decisions.py::test_decide_many_takes_each_decision_as_it_is",
    "tests/test_decisions.py::test_two_processes_both_keep_their_decisions",
)


def environment(home: Path) -> dict[str, str]:
    """A user's: nothing of this session's."""
    cleared = (own_database.VARIABLE, own_database.MARK, "FIFTYONE_PRIVATE_DATABASE_PORT", "PYTEST_XDIST_WORKER")
    own = {"FIFTYONE_DATABASE_DIR": str(home / "db"), "FIFTYONE_CONFIG_PATH": str(home / "none.json")}
    return {name: value for name, value in os.environ.items() if name not in cleared} | own | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[int]:
    """Port of a foreign database service."""
    user = subprocess.Popen(
        [sys.executable, "-c", USER],
        env=environment(tmp_path / "user"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert user.stdin is not None
    assert user.stdout is not None
    yield reported_port(iter(user.stdout))
    user.stdin.close()
    user.wait(60)


def reported_port(lines: Iterator[str]) -> int:
    return int(next(line for line in lines if line.startswith("port ")).split()[1])


def contents(port: int) -> dict[str, Any]:
    """Every collection of every database: count and digest of its documents."""
    with pymongo.MongoClient("127.0.0.1", port) as client:
        return {
            f"{database}.{name}": digest(client[database][name])
            for database in client.list_database_names()
            if database not in ("admin", "config", "local")  # of the server itself
            for name in sorted(client[database].list_collection_names())
        }


def digest(collection: Any) -> tuple[int, str]:
    documents = [bson.encode(document) for document in collection.find(sort=[("_id", 1)])]
    return len(documents), hashlib.sha256(b"".join(documents)).hexdigest()


def run(*command: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_foreign_service_is_as_it_was(service: int, tmp_path: Path) -> None:
    before = contents(service)
    assert any(count == 7 for count, _ in before.values())
    output = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *FEW, home=tmp_path / "tests")
    assert " passed" in output
    assert " skipped" not in output
    assert contents(service) == before
    assert "ratio" in run("-c", BENCHMARK, home=tmp_path / "benchmark")
    assert contents(service) == before
    # what would have happened: without an address of its own, a process joins the service
    assert reported_port(iter(run("-c", JOINS, home=tmp_path / "joins").splitlines())) == service


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, None])
def test_no_server_outlives_its_session(kind: signal.Signals | None) -> None:
    code = (
        "import time; from benchmarks import own_database; print(own_database.start()['FIFTYONE_DATABASE_URI'], "
        f"flush=True); time.sleep({0 if kind is None else 60})"
    )
    session = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert session.stdout is not None
    address = session.stdout.readline().strip()
    if kind is not None:
        with pymongo.MongoClient(address) as client:
            status = client.admin.command("serverStatus")
            folder = Path(client.admin.command("getCmdLineOpts")["parsed"]["storage"]["dbPath"])
        server = psutil.Process(status["pid"])
        assert folder.is_dir()
        session.send_signal(kind)
        assert session.wait(30) != 0
        end = time.monotonic() + 30
        while server.is_running() or folder.exists():
            assert time.monotonic() < end, f"{server} still runs, or {folder} is still there"
            time.sleep(0.05)
    assert kind is not None or session.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)


def test_without_a_mongod_nobody_elses_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_database, "mongod", lambda: None)
    assert own_database.start() == {own_database.VARIABLE: own_database.NOWHERE}
    with pymongo.MongoClient(own_database.NOWHERE) as client, pytest.raises(pymongo.errors.PyMongoError):
        client.server_info()


FIFTYONE = re.compile(r"fiftyone(\.|$)|audit_plugin\.fiftyone_io|tests\.fiftyone_fixtures")


def is_import_of_fiftyone(node: ast.AST) -> bool:
    """Whether a statement imports FiftyOne, or the room that does, at the top or in a function."""
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return any(map(FIFTYONE.match, names))


def uses_the_users_database(code: str) -> bool:
    """Whether a script imports FiftyOne, at the top or in a function, without a database of its own before."""
    tree = ast.parse(code)
    lines = [node.lineno for node in ast.walk(tree) if is_import_of_fiftyone(node)]
    own = [
        statement.lineno
        for statement in tree.body
        if "os.environ.update(own_database.settings())" in (ast.get_source_segment(code, statement) or "")
        and isinstance(statement, ast.Expr)
    ]
    return bool(lines) and not (own and own[0] < min(lines))


def test_every_script_that_uses_fiftyone_has_a_database_of_its_own() -> None:
    scripts = [path for folder in ("benchmarks", "docs", "examples") for path in (ROOT / folder).rglob("*.py")]
    codes = {path: path.read_text(encoding="utf-8") for path in scripts}
    users = [path for path, code in codes.items() if any(map(is_import_of_fiftyone, ast.walk(ast.parse(code))))]
    assert len(users) >= 4
    assert not [path.name for path in scripts if uses_the_users_database(codes[path])]
    # that one starts FiftyOne in another process, which gets the variables of a database of its own
    before, _, after = codes[ROOT / "docs" / "screenshots.py"].partition("database = own_database.start()")
    assert "def main" in before
    assert "subprocess.run(" not in before
    starts = after.count("subprocess.run(") + after.count("browsing.launch(")
    assert starts == after.count("**database") == 1


OWNED = "import os\nfrom benchmarks import own_database\nos.environ.update(own_database.settings())\n"


@pytest.mark.parametrize(
    "code",
    [
        "import fiftyone as fo",
        "def main():\n    import fiftyone.brain as fob",
        "def main():\n    from fiftyone import zoo",
        "if True:\n    from audit_plugin import fiftyone_io",
        "def main():\n    from audit_plugin.fiftyone_io.write import results",
    ],
)
def test_the_check_of_scripts_sees_imports_anywhere(code: str) -> None:
    assert uses_the_users_database(code)
    assert uses_the_users_database(f"{code}\n{OWNED}")
    assert uses_the_users_database(f"def own():\n    {OWNED.splitlines()[-1]}\n{code}")
    assert not uses_the_users_database(f"{OWNED}{code}")
