"""Damaged storage: whatever happens to a file of a cache or a run folder, the same audit gives the same scores.

Each case damages one file of a finished run or of its features and audits again. The result must be equal to that of
the intact run, with a note, or one sentence that says what to do; never other scores.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.explain import load_explanations
from audit_plugin.audit.extend import extend_run
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from tests.chaos.conftest import Chaos
from tests.pipeline_fixtures import cells, draw

pytestmark = pytest.mark.timeout(3000)
ROWS, ADDED = 40, 4
CONFIG = AuditConfig(encoder="offline", trials=16, epochs=2)  # two parts of trials
SECONDS = 60
SECRET = "a thesis that is nobody's business"

# Damages one file; `other` is one of the same kind that lies elsewhere.
Damage = Callable[[Path, Path, random.Random], None]


def flip(path: Path, _other: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def zero(path: Path, _other: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(bytes(content))


def zero_all(path: Path, _other: Path, _rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path, _other: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def empty(path: Path, _other: Path, _rng: random.Random) -> None:
    path.write_bytes(b"")


def extend(path: Path, _other: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(100))


def delete(path: Path, _other: Path, _rng: random.Random) -> None:
    path.unlink()


def exchange(path: Path, other: Path, _rng: random.Random) -> None:
    shutil.copyfile(other, path)


def folder(path: Path, _other: Path, _rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path, _other: Path, _rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling_link(path: Path, _other: Path, _rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def link(path: Path, _other: Path, _rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(thesis_of(path))


def forbidden(path: Path, _other: Path, _rng: random.Random) -> None:
    path.chmod(0)


KINDS: tuple[Damage, ...] = (
    flip, zero, zero_all, cut, empty, extend, delete, exchange, folder, pipe, dangling_link, link, forbidden
)  # fmt: skip


def thesis_of(path: Path) -> Path:
    """A file of the user beside the home that holds `path`."""
    home = next(parent for parent in path.parents if parent.name.startswith("home"))
    return home.parent / "thesis.txt"


@dataclass(frozen=True)
class Finished:
    """A finished audit: where its cache and run folder lie, what it gave, and what an extension gives."""

    home: Path
    samples: Samples
    added: Samples
    result: AuditResult
    explanations: object
    extended: AuditResult


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    base = tmp_path_factory.mktemp("storage")
    total = ROWS + ADDED
    captions = [draw(base / f"{row}.png", row) for row in range(total)]
    paths = [str(base / f"{row}.png") for row in range(total)]
    ids = tuple(f"s{row}" for row in range(total))
    both = Samples(ids, {"image": tuple(paths), "text": tuple(captions)})
    samples, added = rows_of(both, slice(0, ROWS)), rows_of(both, slice(ROWS, total))
    home = base / "home"
    with cache_in(home):
        extended_home = base / "home-extended"
        result = run_audit(samples, CONFIG, run_dir=home / "run")
        explanations = load_explanations(result.run_dir)
        # another run with other seeds, whose parts are exchanged for those of the first
        run_audit(samples, replace(CONFIG, seed=1), run_dir=home / "other")
        shutil.copytree(home, extended_home)
        extended = extend_run(added, extended_home / "run")
    return Finished(home, samples, added, result, explanations, extended)


def rows_of(samples: Samples, rows: slice) -> Samples:
    return Samples(samples.ids[rows], {name: values[rows] for name, values in samples.media.items()})


@contextmanager
def cache_in(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(home / "cache"))
        yield


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in what takes longer."""

    def expire(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def targets(home: Path) -> list[tuple[Path, Path]]:
    """(a file, one of the same kind elsewhere), of all that is stored, relative to the home."""
    pairs = []
    for path in sorted((home / "run").iterdir()):
        other = home / "other" / path.name
        pairs.append((path, other if other.exists() else home / "other" / "held_out.npz"))
    caches = sorted((home / "cache" / "features").iterdir())
    for one, other in zip(caches, reversed(caches), strict=True):
        for path in sorted(one.iterdir()):
            suffix = path.name.partition(".")[2]
            pairs.append((path, next(other.glob(f"*.{suffix}"))))
    return [(path.relative_to(home), other.relative_to(home)) for path, other in pairs]


def cases(home: Path, count: int) -> list[tuple[int, Path, Path, Damage]]:
    """Every kind of damage of every file, or a sample of them in which each kind and most files occur."""
    everything = [
        (path, other, kind)
        for path, other in targets(home)
        for kind in KINDS
        if (home / path).stat().st_size or kind not in (flip, zero, zero_all, cut, empty)
    ]
    random.Random(5).shuffle(everything)
    if count < len(everything):  # files and kinds that were not seen yet come first
        chosen, seen = [], set()
        for case in everything:
            if {case[0], case[2]} - seen and len({case[0], case[2]} - seen) == 2:
                chosen.append(case)
                seen |= {case[0], case[2]}
        everything = (chosen + [case for case in everything if case not in chosen])[:count]
    return [(number, *case) for number, case in enumerate(everything)]


def same(a: AuditResult, b: AuditResult) -> bool:
    return a.ids == b.ids and cells(a) == cells(b)


Case = tuple[int, Path, Path, Damage]


def outcome(finished: Finished, folder: Path, case: Case, extending: bool) -> tuple[str, str]:
    """(a fault, or "" for none; what the case was) of auditing or extending after one damage."""
    number, path, other, kind = case
    what = f"{kind.__name__} {path}"
    home = folder / f"home-{number}"
    shutil.copytree(finished.home, home)
    thesis = folder / "thesis.txt"
    thesis.write_text(SECRET)
    kind(home / path, home / other, random.Random(number))
    fault = ""
    try:
        with cache_in(home), at_most(SECONDS):
            fault = difference(finished, home, extending)
    except AuditError as error:
        what += f", then {error}"
        if "\n" in str(error) or ";" not in str(error):  # what is wrong; what to do
            fault = "tracebacks"
        elif not extending:
            fault = difference_after(str(error), finished, home)
    except TimeoutError:
        fault = "hangs"
    except Exception as error:
        fault, what = "tracebacks", f"{what}: {type(error).__name__}: {error}"
    if thesis.read_text() != SECRET:
        fault = "outside"
    shutil.rmtree(home)
    return fault, what


def difference(finished: Finished, home: Path, extending: bool) -> str:
    """The fault of an audit, or of an extension, whose result is not that of the intact run."""
    if extending:
        return "" if same(extend_run(finished.added, home / "run"), finished.extended) else "silent_wrong"
    result = run_audit(finished.samples, CONFIG, run_dir=home / "run")
    is_equal = same(result, finished.result) and load_explanations(result.run_dir) == finished.explanations
    return "" if is_equal else "silent_wrong"


def difference_after(sentence: str, finished: Finished, home: Path) -> str:
    """The fault of an audit after the user has moved away what the sentence names."""
    shutil.rmtree(home / "run" if str(home / "run") in sentence else home / "cache")
    with cache_in(home), at_most(SECONDS):
        return difference(finished, home, extending=False)


@pytest.mark.parametrize("extending", [False, True], ids=["audit", "extension"])
def test_damage_never_changes_a_score(chaos: Chaos, finished: Finished, tmp_path: Path, extending: bool) -> None:
    faults: dict[str, int] = {}
    done = cases(finished.home, chaos.count(3, 30) if extending else chaos.count(10, 120))
    for case in done:
        fault, what = outcome(finished, tmp_path, case, extending)
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
            print(f"{fault}: {what}")  # noqa: T201
    chaos.record("storage_extension" if extending else "storage", len(done), "corruptions", **faults)
