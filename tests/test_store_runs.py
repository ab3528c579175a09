"""The folder of a run: its identity, its parts and its lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.store import Damaged, FeatureCache, RunFolder, digest_of, load_json, read_json, remove_leftovers
from audit_plugin.store.files import LEFTOVER_SECONDS, write_bytes

IDENTITY = {"settings": {"seed": 0}, "data": "abc"}


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- the run folder ------------------------------------------------------------------------------------------------


def test_parts_are_made_once_and_come_back_equal(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(6).reshape(2, 3), "y": np.array([np.nan], np.float32)}

    for _ in range(2):
        with RunFolder(tmp_path / "run", IDENTITY) as run:
            arrays = run.once("part", make)
    assert len(made) == 1
    assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["y"].dtype == np.float32


def test_a_folder_of_another_run_is_refused_by_the_differing_key(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    with pytest.raises(AuditError, match=r"belongs to another run \(data was 'abc', now 'xyz'\); choose another"):
        RunFolder(tmp_path / "run", {**IDENTITY, "data": "xyz"})
    with pytest.raises(AuditError, match="format was None, now 2"):
        RunFolder(tmp_path / "run", {**IDENTITY, "format": 2})
    RunFolder(tmp_path / "run", IDENTITY).close()  # a refusal leaves no lock and changes nothing


def test_a_finished_run_is_opened_whoever_made_it_and_nothing_else_is(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"trials": 4}) as run:
        run.save("part", values=np.arange(3))
    with RunFolder(tmp_path / "run", None) as again:
        found = again.load("part")
    assert found is not None
    assert found["values"].tolist() == [0, 1, 2]
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(AuditError, match=r"is not the folder of a run; the summary of an audit names its own"):
            RunFolder(folder, None)
    assert not (tmp_path / "nothing").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(AuditError, match="holds other files"):
        RunFolder(tmp_path, IDENTITY)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("content", [b'{"my": [', b"\xff\xfe", b"[1]", b"null"])
def test_a_damaged_record_that_may_be_the_users_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(
        AuditError, match=r"run\.json is damaged, and nothing in the folder shows whose run it is; move"
    ):
        RunFolder(tmp_path, IDENTITY)
    assert (tmp_path / "run.json").read_bytes() == content


LEFTOVER = f".run.json.{'0' * 32}.part"


@pytest.mark.parametrize("content", [None, b"", b"\0" * 40, b"whole", b"half"])
def test_a_kill_while_the_record_is_written_leaves_a_folder_that_goes_on(tmp_path: Path, content: bytes | None) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    whole = (tmp_path / "run" / "run.json").read_bytes()
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / LEFTOVER).write_bytes(whole[:20])
    if content is not None:
        (folder / "run.json").write_bytes({b"whole": whole, b"half": whole[:30]}.get(content, content))
    RunFolder(folder, IDENTITY).close()
    assert files(folder) == [".lock", "run.json"]
    assert (folder / "run.json").read_bytes() == whole


@pytest.mark.parametrize("damage", ["flipped", "empty", "deleted", "pipe", "of another run"])
def test_a_damaged_record_is_restored_where_a_part_shows_whose_run_it_is(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=np.arange(3))
    RunFolder(tmp_path / "other", {**IDENTITY, "data": "xyz"}).close()
    record = tmp_path / "run" / "run.json"
    whole = record.read_bytes()
    if damage == "of another run":  # it is whole: the folder is that run's
        record.write_bytes((tmp_path / "other" / "run.json").read_bytes())
        with pytest.raises(AuditError, match=r"belongs to another run \(data was 'xyz', now 'abc'\)"):
            RunFolder(tmp_path / "run", IDENTITY)
        return
    if damage == "flipped":
        record.write_bytes(whole.replace(b"abc", b"abd"))
        with pytest.raises(AuditError, match=r"run\.json is damaged; run the command that made"):
            RunFolder(tmp_path / "run", None)
    elif damage == "empty":
        record.write_bytes(b"")
    else:
        record.unlink()
    if damage == "pipe":
        os.mkfifo(record)
    with pytest.raises(AuditError, match=r"is damaged, and nothing|holds other files"):
        RunFolder(tmp_path / "run", {**IDENTITY, "data": "xyz"})
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        assert run.load("part") is not None
        assert run.notes == (
            [] if damage == "deleted" else ["1 stored part of the run was damaged and made again (run.json)"]
        )
    assert record.read_bytes() == whole


def test_a_folder_whose_name_is_the_runs_own_is_taken_whatever_its_record_says(tmp_path: Path) -> None:
    """The default folder, in the cache: nobody else's, and nobody can be asked for another."""
    folder = tmp_path / digest_of(IDENTITY)[:16]
    folder.mkdir()
    for content in (b"\xff", b"[1]", json.dumps({"data": "xyz"}).encode()):
        (folder / "run.json").write_bytes(content)
        RunFolder(folder, IDENTITY).close()
        assert read_json(folder / "run.json", "run.json") == (IDENTITY, True)


def test_a_record_of_a_former_version_is_taken_and_sealed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(IDENTITY))
    RunFolder(tmp_path / "run", None).close()
    RunFolder(tmp_path / "run", IDENTITY).close()
    assert read_json(tmp_path / "run" / "run.json", "run.json") == (IDENTITY, True)


def test_a_second_process_gets_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from audit_plugin.store import RunFolder\n"
        f"try: RunFolder(Path({str(tmp_path / 'run')!r}), {IDENTITY!r})\n"
        "except ValueError as error: print(error)"
    )
    with RunFolder(tmp_path / "run", IDENTITY):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
        )
    assert done.stdout.strip().endswith("is in use by another audit; wait for it, or choose another --run-dir")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "flipped", "pickle", "of another name", "of another run", "unsealed", "pipe", "link"]
)
def test_a_damaged_part_is_made_anew(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "other", {**IDENTITY, "data": "xyz"}) as other:
        other.save("part", x=np.arange(100))
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=np.arange(100))
        run.save("second", x=np.arange(100))
        path = run.path / "part.npz"
        content = bytearray(path.read_bytes())
        if damage == "empty":
            content = bytearray()
        elif damage == "cut":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[400] ^= 255  # within the numbers: only the checksum knows
        path.write_bytes(bytes(content))
        if damage == "pickle":
            np.savez(path, x=np.array([{"an": "object"}], dtype=object))
        elif damage == "of another name":
            os.replace(run.path / "second.npz", path)
        elif damage == "of another run":
            os.replace(other.path / "part.npz", path)
        elif damage == "unsealed":
            np.savez(path, x=np.arange(100))
        elif damage in ("pipe", "link"):
            path.unlink()
            (tmp_path / "thesis").write_text("my thesis")
            os.mkfifo(path) if damage == "pipe" else path.symlink_to(tmp_path / "thesis")
        assert run.once("part", lambda: {"x": np.zeros(2)})["x"].tolist() == [0, 0]
        assert run.notes == ["1 stored part of the run was damaged and made again (part)"]
        assert run.load("part")["x"].tolist() == [0, 0]  # type: ignore[index]
        assert len(run.notes) == 1
    assert damage != "link" or (tmp_path / "thesis").read_text() == "my thesis"


@pytest.mark.parametrize(
    "values", [np.arange(12).reshape(3, 4).T, np.array("a"), np.array(["é", "b"]), np.zeros((0, 3))]
)
def test_any_flipped_byte_of_a_part_is_noticed(tmp_path: Path, values: np.ndarray) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        run.save("part", x=values)
        path = run.path / "part.npz"
        whole = path.read_bytes()
        assert run.load("part")["x"].tolist() == values.tolist()  # type: ignore[index]
        for at in range(0, len(whole), 7):
            content = bytearray(whole)
            content[at] ^= 1 << at % 8
            path.write_bytes(bytes(content))
            assert run.load("part") is None, at
        for other in (whole[:-1], whole + b"x", whole[:40], whole[-100:], b"\0" * len(whole)):
            path.write_bytes(other)
            assert run.load("part") is None


def test_a_folder_in_the_place_of_a_part_is_named(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run:
        (run.path / "part.npz").mkdir()
        with pytest.raises(AuditError, match=r"part\.npz is a folder where a file of the run belongs; move it away"):
            run.once("part", lambda: {"x": np.zeros(2)})


def test_parts_that_are_no_arrays_are_checked_too(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", IDENTITY) as run, RunFolder(tmp_path / "other", {"data": "xyz"}) as other:
        run.save_json("why", {"a": [1.5, None]})
        other.save_json("why", {"a": [1.5, None]})
    assert load_json(run.path, "why") == {"a": [1.5, None]}
    whole = (run.path / "why.json").read_bytes()
    for content in (whole.replace(b"1.5", b"1.6"), whole[:9], b"[]", b"\xff", (other.path / "why.json").read_bytes()):
        (run.path / "why.json").write_bytes(content)
        with pytest.raises(Damaged):
            load_json(run.path, "why")


def test_what_dead_processes_left_is_removed_and_what_others_write_stays(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / f".{name}.{'0' * 32}.part").touch()
    (tmp_path / ".x.part").touch()
    with open(tmp_path / f".y.{'0' * 32}.part", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == 1
    assert files(tmp_path) == [".x.part", f".y.{'0' * 32}.part"]
    assert remove_leftovers(tmp_path, "x") == 0
    assert remove_leftovers(tmp_path, "y") == 1


def test_on_disks_without_locks_only_old_leftovers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    part = tmp_path / f".x.{'0' * 32}.part"
    part.touch()
    assert remove_leftovers(tmp_path) == 0  # of a living process, perhaps
    os.utime(part, (time.time() - LEFTOVER_SECONDS,) * 2)
    assert remove_leftovers(tmp_path) == 1


def test_a_temporary_file_that_is_taken_for_a_leftover_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, []

    def sweep_first(handle: int, operation: int) -> None:
        if not swept:  # another process comes between the opening and the locking
            swept.append([part.unlink() for part in tmp_path.glob(".*.part")])
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    write_bytes(tmp_path / "x", b"whole")
    assert len(swept[0]) == 1
    assert files(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    with RunFolder(tmp_path / "run", IDENTITY) as run:
        np.savez(run.path / "part.npz", x=np.array([Bomb()], dtype=object))
        assert run.load("part") is None
    cache = FeatureCache("key", tmp_path / "f")
    np.savez(cache.path / "a.index.npz", keys=np.array([Bomb()], dtype=object))
    assert cache.known() == set()
    assert not (tmp_path / "exploded").exists()


def test_the_record_can_be_read_by_people(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", IDENTITY).close()
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored == {**IDENTITY, "seal": stored["seal"]}
