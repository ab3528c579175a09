"""What the commands share: progress that an interrupt stops, checks of output files, FiftyOne, and the summary."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit_plugin.arrays import AuditError
from audit_plugin.store import plain_error

from .options import GATE_FAILED, NOTHING_SCORED, stop

if TYPE_CHECKING:
    from types import FrameType, ModuleType

    from audit_plugin.arrays import Samples
    from audit_plugin.audit.result import AuditResult
    from audit_plugin.config import AuditConfig

    from .gate import Gate

PING_SECONDS = 10


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A `progress` callback for long work, shown on stderr; an interrupt ends the work at its next step."""
    from audit_plugin.report.display import StageDisplay, console

    interrupted = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        if callable(previous):
            previous(number, frame)
        raise KeyboardInterrupt

    def progress(stage: str, done: int, total: int) -> None:
        if interrupted.is_set():  # libraries swallow an interrupt that arrives while they are imported
            raise KeyboardInterrupt
        display(stage, done, total)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        with StageDisplay(console(stderr=True)) as display:
            yield progress
    finally:
        signal.signal(signal.SIGINT, previous)


def audited(samples: Samples, config: AuditConfig, run_dir: Path | None = None) -> AuditResult:
    """The audit of samples, with progress shown."""
    from audit_plugin.audit.run import run_audit

    with shown_progress() as progress:
        return run_audit(samples, config, progress, run_dir)


def finish(result: AuditResult, samples: Samples, places: list[str], gate: Gate | None = None) -> None:
    """Shows the result; exits with code 1 if no row was scored, with 3 if a condition of the gate fails."""
    from audit_plugin.report.display import any_score, console, show_result

    show_result(console(), result, samples, places)
    failing = gate.report(result.columns, result.summary) if gate else ""
    if not any_score(result):
        stop(NOTHING_SCORED, "nothing could be scored; the column 'failure' gives the reason for each row")
    if failing:
        stop(GATE_FAILED, failing)


def check_output(
    out: Path, suffixes: Sequence[str], *inputs: Path, samples: Samples | None = None, option: str = "--out"
) -> None:
    """Raises `AuditError`, before any work is done, for an output that cannot be written; `option` names it.

    That is a file of another kind, an input, a medium of the samples, or a part of a run folder.
    """
    from audit_plugin.store import writable_file

    if out.suffix.lower() not in suffixes:
        raise AuditError(f"{option} {str(out)!r} ends in {out.suffix or 'nothing'!r}; choose {' or '.join(suffixes)}")
    if overwritten := [path.name for path in inputs if _is_same(path, out)]:
        raise AuditError(f"{option} {str(out)!r} would overwrite the input {overwritten[0]!r}; name another file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if out.is_dir() or not folder.is_dir() or not _takes_files(folder):
        raise AuditError(f"{option} {str(out)!r} cannot be written; name a file in a folder where you may write")
    writable_file(out)
    if (out.parent / "run.json").is_file():
        raise AuditError(f"{option} {str(out)!r} lies in the folder of a run; name another folder")
    if samples is not None and any(str(out.absolute()) in values for values in samples.media.values()):
        raise AuditError(f"{option} {str(out)!r} would overwrite a medium of the samples; name another file")


def check_beside(out: Path, endings: Sequence[str], *inputs: Path, samples: Samples | None = None) -> None:
    """Raises `AuditError` for an `--out` beside which other outputs would replace what this tool did not write."""
    for ending in endings:
        path = out.with_name(out.stem + ending)
        check_output(path, (path.suffix,), *inputs, samples=samples)
        if ending == ".json" and path.exists() and "versions" not in _json_of(path):
            raise AuditError(f"{str(path)!r} is not a summary of this tool and would be replaced; name another --out")


def _json_of(path: Path) -> dict[str, Any]:
    from audit_plugin.inputs.tables import read_json

    try:
        return read_json(path)
    except AuditError:
        return {}


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made there: permissions alone do not tell for root, nor on network disks and /proc."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_same(path: Path, out: Path) -> bool:
    try:
        return path.samefile(out)
    except (OSError, ValueError):  # one of them does not exist
        return False


def fiftyone_io(sweep: bool = True) -> ModuleType:
    """The module `audit_plugin.fiftyone_io`; `AuditError` if FiftyOne is missing or its database does not start.

    What this tool stored for datasets that were deleted since is removed, unless `sweep` is false.
    """
    if not find_spec("fiftyone"):
        raise AuditError("FiftyOne is not installed: pip install 'audit-plugin[app]'")
    _ping_database()
    try:
        import fiftyone as fo

        from audit_plugin import fiftyone_io

        fo.list_datasets()
    # A missing mongod, a port or folder in use: each has exceptions of its own.
    except Exception as error:
        if sentence := plain_error(error):
            raise AuditError(sentence) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuditError(f"FiftyOne cannot start ({reason}); to fix it: audit-plugin doctor --fix") from error
    if sweep:
        fiftyone_io.sweep_deleted()
    return fiftyone_io


def _ping_database() -> None:
    """Raises `AuditError` where nothing answers at the address that FiftyOne was given for its database.

    FiftyOne itself would wait half a minute for it, when it is imported and again when the process ends.
    """
    address = _database_address()
    if not address or not find_spec("pymongo"):
        return
    import pymongo
    from pymongo.errors import OperationFailure, PyMongoError

    limits = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), 1000 * PING_SECONDS)
    places: Iterable[tuple[str, int | None]] = ()
    try:
        with pymongo.MongoClient(address, **limits) as client:
            places = client.topology_description.server_descriptions()
            client.admin.command("ping")
    except OperationFailure:
        return  # it answers, and FiftyOne says what it refuses
    except (PyMongoError, ValueError) as error:
        servers = ", ".join(f"{host}:{port}" for host, port in places)  # without the password
        what = (
            f"at {servers} does not answer within {PING_SECONDS} s" if servers else f"has no usable address ({error})"
        )
        raise AuditError(f"FiftyOne's database {what}; start it, or correct FIFTYONE_DATABASE_URI") from error


def _database_address() -> str:
    """The address that FiftyOne takes from its environment or configuration; "" where it starts a database itself."""
    if address := os.environ.get("FIFTYONE_DATABASE_URI"):
        return address
    path = os.environ.get("FIFTYONE_CONFIG_PATH") or os.path.expanduser("~/.fiftyone/config.json")
    try:
        settings = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return ""  # there is none, or FiftyOne says what is wrong with it
    address = settings.get("database_uri") if isinstance(settings, dict) else None
    return address if isinstance(address, str) else ""
