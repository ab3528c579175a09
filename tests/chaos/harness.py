"""Kills a process right before its k-th write, pauses one in a race, and compares whole databases.

A helper process imports FiftyOne once and never connects; each operation runs in a fork of it, which connects as a new
process would and is killed, paused or left alone. The database is put back between cases as raw documents.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bson
import pymongo
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import monitoring

ROOT = Path(__file__).resolve().parents[2]
WRITES = frozenset(
    (
        "insert", "update", "delete", "findAndModify", "create", "drop", "createIndexes", "dropIndexes",
        "renameCollection", "bulkWrite", "dropDatabase",
    )
)  # fmt: skip
LEASES = ("audit_plugin.leases", "audit_plugin.ledger_heads")  # counters: what they count is compared itself
PATIENCE = 60.0  # seconds: longer is a hang

# --- in the process of one operation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One operation in a process of its own.

    Attributes:
        name: of a function of the module `operations`.
        kill_at: killed right before its write of that number, counted from 1; 0: never.
        pause_at: sleeps `pause` seconds before that write.
        interrupt: it gets SIGINT, as by Ctrl-C, in place of a kill.
        stop_at: stopped (SIGSTOP) before that write, until somebody lets it go on.
        victim: the process to kill in its place.
        then_kill: a process to kill as soon as it is done; 0: none.
        clock_set_back: its clock is a day late.
    """

    name: str
    kill_at: int = 0
    pause_at: int = 0
    pause: float = 0.0
    interrupt: bool = False
    stop_at: int = 0
    victim: int = 0
    then_kill: int = 0
    clock_set_back: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of it: done, refused (an AuditError), killed (or interrupted), failed (other exceptions) or hangs."""

    state: str
    text: str = ""
    writes: tuple[str, ...] = ()


class Trap(monitoring.CommandListener):
    """Counts the writes of this process, and kills or pauses it before one of them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.writes: list[str] = []
        self.lock = threading.Lock()

    def started(self, event: Any) -> None:
        if event.command_name not in WRITES and not writes_by_aggregation(event):
            return
        if threading.current_thread() is not threading.main_thread():
            return  # a heartbeat
        with self.lock:
            self.writes.append(f"{event.command_name} {event.command.get(event.command_name)}")
            number = len(self.writes)
        if number == self.task.kill_at:
            kind = signal.SIGINT if self.task.interrupt else signal.SIGKILL
            os.kill(self.task.victim or os.getpid(), kind)
        if number == self.task.stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        if number == self.task.pause_at:
            time.sleep(self.task.pause)

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def writes_by_aggregation(event: Any) -> bool:
    stages = event.command.get("pipeline", ()) if event.command_name == "aggregate" else ()
    return any("$out" in stage or "$merge" in stage for stage in stages)


def carry_out(task: Task, functions: Mapping[str, Callable[[], Any]], result: Path) -> None:
    """In a fork: the operation, and what became of it in a file."""
    from audit_plugin.arrays import AuditError

    trap = Trap(task)
    monitoring.register(trap)
    if task.clock_set_back:
        set_clock_back()
    try:
        functions[task.name]()
        if task.then_kill:
            os.kill(task.then_kill, signal.SIGKILL)
        outcome = ("done", "")
    except AuditError as error:
        outcome = ("refused", str(error))
    except KeyboardInterrupt:
        outcome = ("killed", "")
    except BaseException:
        outcome = ("failed", traceback.format_exc())
    result.write_bytes(pickle.dumps((*outcome, tuple(trap.writes))))


def set_clock_back() -> None:
    """By a day, for Python's times and for new ids of the database."""
    real, day = time.time, 86_400.0
    time.time = lambda: real() - day

    class AnyTime(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, datetime)

    class Late(datetime, metaclass=AnyTime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(real() - day, tz)

        @classmethod
        def utcnow(cls) -> datetime:
            return datetime.fromtimestamp(real() - day, UTC).replace(tzinfo=None)

    for name, module in list(sys.modules.items()):
        if name.startswith("audit_plugin") and getattr(module, "datetime", None) is datetime:
            module.datetime = Late  # type: ignore[attr-defined]


def serve(line: Connection, uri: str, name: str, folder: str) -> None:
    """In the helper process: forks for tasks, and reports how the forks ended."""
    import fiftyone as fo

    from tests.chaos import operations

    fo.config.database_uri, fo.config.database_name = uri, name
    operations.prepare(Path(folder))
    assert threading.active_count() == 1, "a fork of threads may hang"
    while True:
        try:
            request = line.recv()
        except EOFError:
            return
        if request[0] == "start":
            _, task, result = request
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    carry_out(task, operations.FUNCTIONS, Path(result))
                    code = 0
                finally:
                    os._exit(code)
            line.send(pid)
        else:
            line.send(wait_for(*request[1:]))


def wait_for(pid: int, seconds: float) -> int | None:
    """The status of a fork that ended; None where it hangs, and it is killed then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# --- in the process of the test -------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A database of its own on the test's server, and the helper process that works in it."""

    uri: str
    name: str
    folder: Path
    line: Connection
    client: Any
    number: int = 0
    running: dict[int, Path] = field(default_factory=dict)

    @property
    def database(self) -> Any:
        return self.client[self.name]

    def start(self, task: Task) -> int:
        """Begin an operation; the id of its process."""
        self.number += 1
        result = self.folder / f"{self.number}.result"
        self.line.send(("start", task, str(result)))
        pid = int(self.line.recv())
        self.running[pid] = result
        return pid

    def wait(self, pid: int, seconds: float = PATIENCE) -> Outcome:
        """What became of it."""
        self.line.send(("wait", pid, seconds))
        ended = self.line.recv()
        result = self.running.pop(pid)
        if ended is None:
            return Outcome("hangs")
        if not result.exists():
            return Outcome("killed")
        outcome = Outcome(*pickle.loads(result.read_bytes()))
        result.unlink()
        return outcome

    def run(self, name: str, **options: Any) -> Outcome:
        """An operation, begun and awaited."""
        return self.wait(self.start(Task(name, **options)))

    def must(self, name: str, **options: Any) -> Outcome:
        """An operation that has to succeed."""
        outcome = self.run(name, **options)
        assert outcome.state == "done", f"{name}: {outcome}"
        return outcome


@contextmanager
def stage(folder: Path, name: str = "chaos", uri: str = "") -> Iterator[Stage]:
    """A stage with an empty database; the helper process ends with it."""
    uri = uri or os.environ["FIFTYONE_DATABASE_URI"]
    here, there = Pipe()
    code = (
        "import sys; from multiprocessing.connection import Connection; from tests.chaos.harness import serve; "
        "serve(Connection(int(sys.argv[1])), *sys.argv[2:])"
    )
    arguments = [str(there.fileno()), uri, name, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    log = (folder / "helper.log").open("w")
    helper = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        pass_fds=[there.fileno()],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    there.close()
    client: Any = pymongo.MongoClient(uri)
    client.drop_database(name)
    try:
        yield Stage(uri, name, folder, here, client)
    finally:
        here.close()
        log.close()
        if helper.wait(30):
            print((folder / "helper.log").read_text()[-3000:])  # noqa: T201
        client.drop_database(name)
        client.close()


Snapshot = dict[str, list[bytes]]


def snapshot(database: Any) -> Snapshot:
    """All documents of all collections, as the database has them."""
    names = sorted(name for name in database.list_collection_names() if not name.startswith("system."))
    return {name: [document.raw for document in raw(database, name).find()] for name in names}


def restore(database: Any, former: Snapshot) -> None:
    """Puts the documents back; indexes may stay."""
    now = snapshot(database)
    for name in now.keys() - former.keys():
        database.drop_collection(name)
    for name, documents in former.items():
        if now.get(name) != documents:
            collection = raw(database, name)
            collection.delete_many({})
            if documents:
                collection.insert_many([RawBSONDocument(document) for document in documents])


def raw(database: Any, name: str) -> Any:
    return database.get_collection(name, codec_options=bson.CodecOptions(document_class=RawBSONDocument))


# --- comparing ------------------------------------------------------------------------------------------------------

# Numbers for order, times and the like differ between two runs that are equal.
VOLATILE = frozenset(
    (
        "_rand", "last_modified_at", "last_loaded_at", "last_deletion_at", "created_at", "uploadDate", "timestamp",
        "slug", "number", "order", "md5", "touched",
    )
)  # fmt: skip
HEX = re.compile(r"[0-9a-f]{24}")
UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27}")


def normalized(former: Snapshot, now: Snapshot) -> dict[str, Counter[str]]:
    """Collection -> its documents as texts, without what differs between two equal runs.

    Ids that are not in `former` stand for what they name: the document that has such an id, or nothing.
    """
    old = frozenset(match.decode() for match in ids_in(former))
    now = without_undone(without_temporary(now))
    documents = {
        name: [bson.decode(document) for document in documents]
        for name, documents in with_files(now).items()
        if name not in LEASES
    }
    meanings: dict[str, str] = {}
    for _ in range(3):  # references are at most that deep
        meanings = {
            str(document["_id"]): short(text_of(document, old, meanings))
            for documents_of in documents.values()
            for document in documents_of
            if isinstance(document.get("_id"), ObjectId) and str(document["_id"]) not in old
        }
    counted: dict[str, Counter[str]] = {}
    for name, documents_of in documents.items():
        texts = Counter(text_of(document, old, meanings) for document in documents_of)
        if texts:
            counted.setdefault(renamed(name, old, meanings), Counter()).update(texts)
    return counted


def without_temporary(now: Snapshot) -> Snapshot:
    """Datasets that are not persistent are deleted by FiftyOne: those of patches, made for a view of them."""
    datasets = [(bson.decode(document), document) for document in now.get("datasets", ())]
    gone = {facts["sample_collection_name"] for facts, _ in datasets if not facts["persistent"]}
    left = {name: documents for name, documents in now.items() if name not in gone}
    return {**left, "datasets": [document for facts, document in datasets if facts["persistent"]]}


def without_undone(now: Snapshot) -> Snapshot:
    """Change sets that were undone are history without effect: an interrupted deletion is one more of them."""
    sets = {document["_id"]: document for document in map(bson.decode, now.get("audit_plugin.change_sets", ()))}
    gone = {name for name, document in sets.items() if document["state"] == "undone"}
    left = {
        "audit_plugin.change_sets": [bson.encode(document) for name, document in sets.items() if name not in gone],
        "audit_plugin.journal": [
            document for document in now.get("audit_plugin.journal", ()) if bson.decode(document).get("set") not in gone
        ],
    }
    return {**now, **left}


def ids_in(former: Snapshot) -> set[bytes]:
    """All ids of a snapshot: of documents, parts of them, and in texts."""
    ids = set()
    for name, documents in former.items():
        ids.update(match.encode() for match in HEX.findall(name))
        for document in documents:
            ids.update(match.encode() for match in HEX.findall(json.dumps(bson.decode(document), default=str)))
            ids.update(re.findall(rb"[0-9a-f]{24}", document))
    return ids


def with_files(now: Snapshot) -> Snapshot:
    """Files of GridFS with their content in place of their chunks; chunks without a file stay chunks."""
    files = {bson.decode(document)["_id"]: bson.decode(document) for document in now.get("fs.files", ())}
    chunks: dict[Any, list[tuple[int, bytes]]] = {}
    for document in now.get("fs.chunks", ()):
        chunk = bson.decode(document)
        chunks.setdefault(chunk["files_id"], []).append((chunk["n"], chunk["data"]))
    merged = [
        {"_id": name, "content": content_of(chunks.pop(name, [])), "type": file.get("contentType")}
        for name, file in files.items()
    ]
    orphans = [{"_id": ObjectId(), "without_file": content_of(parts)} for parts in chunks.values()]
    rest = {name: documents for name, documents in now.items() if name not in ("fs.files", "fs.chunks")}
    return {**rest, "fs": [bson.encode(document) for document in merged + orphans]}


def content_of(parts: list[tuple[int, bytes]]) -> Any:
    data = b"".join(part for _, part in sorted(parts))
    for decode in (lambda: json.loads(data), lambda: json.loads(zlib.decompress(data))):
        try:
            return decode()
        except (ValueError, zlib.error):
            continue
    return data


def text_of(value: Any, old: frozenset[str], meanings: Mapping[str, str]) -> str:
    """A document without its own id, if that is new."""
    plain = {name: item for name, item in value.items() if name != "_id" or str(item) in old}
    return json.dumps(simple(plain, old, meanings), sort_keys=True, default=str)


def simple(value: Any, old: frozenset[str], meanings: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        pairs = {renamed(str(name), old, meanings): item for name, item in value.items() if name not in VOLATILE}
        return {name: simple(item, old, meanings) for name, item in pairs.items()}
    if isinstance(value, list | tuple):
        return [simple(item, old, meanings) for item in value]
    if isinstance(value, ObjectId | str):
        return renamed(str(value), old, meanings)
    if isinstance(value, bool | int | float | None):
        return value
    if hasattr(value, "isoformat"):
        return "a time"
    return repr(value)


def renamed(text: str, old: frozenset[str], meanings: Mapping[str, str]) -> str:
    """With new ids replaced by what they stand for."""
    text = UUID.sub("a uuid", text)
    return HEX.sub(lambda match: match[0] if match[0] in old else f"<{meanings.get(match[0], 'new')}>", text)


def short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:10]


def difference(expected: Mapping[str, Counter[str]], got: Mapping[str, Counter[str]]) -> str:
    """What is missing (-) and what is too much (+), for the reader of a failure; of one document, what differs (~)."""
    lines = []
    for name in sorted({*expected, *got}):
        missing = [json.loads(text) for text in (expected.get(name, Counter()) - got.get(name, Counter())).elements()]
        for extra in map(json.loads, (got.get(name, Counter()) - expected.get(name, Counter())).elements()):
            former = next((document for document in missing if same(document, extra)), None)
            if former is None:
                lines.append(f"+ {name}: {json.dumps(extra)[:400]}")
                continue
            missing.remove(former)
            keys = [key for key in {**former, **extra} if former.get(key) != extra.get(key)]
            lines += [f"~ {name} {key}: {str(former.get(key))[:300]} -> {str(extra.get(key))[:300]}" for key in keys]
        lines += [f"- {name}: {json.dumps(document)[:400]}" for document in missing]
    return "\n".join(lines)


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two documents are versions of one."""
    return any(name in first and first[name] == second.get(name) for name in ("_id", "name", "key", "n"))
