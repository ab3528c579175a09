"""Puts the plugin where FiftyOne looks for plugins; does not import FiftyOne, which would start a database."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from audit_plugin.arrays import AuditError

PLUGIN_NAME = "@multimem/audit"
_PARTS = ("fiftyone.yml", "__init__.py", "requirements.txt", "operators", "skills", "ui")
_COPY_MARK = ".copied-by-audit-plugin"


def fiftyone_setting(key: str) -> str | None:
    """A setting as FiftyOne resolves it: environment, then its config file; None where neither has it."""
    if value := os.environ.get(f"FIFTYONE_{key.upper()}"):
        return value
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None  # FiftyOne itself reports a broken config file
    return str(value) if value else None


def plugins_dir() -> Path:
    """The folder that FiftyOne searches for plugins."""
    if named := fiftyone_setting("plugins_dir"):
        return Path(named)
    datasets = fiftyone_setting("default_dataset_dir")
    return (Path(datasets).expanduser() if datasets else Path.home() / "fiftyone") / "__plugins__"


def plugin_root() -> Path:
    """The folder with `fiftyone.yml`: inside an installed package, or the checkout around this one."""
    package = Path(__file__).resolve().parents[2]
    for root in (package / "_plugin", package.parent):
        if _is_this_plugin(root):
            return root
    raise AuditError(f"{package} has no fiftyone.yml; install again: pip install --force-reinstall audit-plugin")


def link() -> str:
    """Links (copies, where links are not allowed) the plugin into FiftyOne's plugin folder, and says what was done.

    Raises `AuditError` if another plugin or folder is in the way, or the folder cannot be written.
    """
    root, place = plugin_root(), plugins_dir() / PLUGIN_NAME
    if place.resolve() == root or plugins_dir().resolve() == root:
        return f"{PLUGIN_NAME} is already linked: {place} -> {root}"
    try:
        _remove_former(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        return _link_or_copy(root, place)
    except OSError as error:
        raise AuditError(
            f"{place} cannot be written ({error.strerror or error}); set FIFTYONE_PLUGINS_DIR to a writable folder "
            "and run audit-plugin link again"
        ) from error


def _link_or_copy(root: Path, place: Path) -> str:
    try:
        place.symlink_to(root, target_is_directory=True)
    except OSError:  # some file systems and Windows accounts do not allow links
        place.mkdir()
        (place / _COPY_MARK).touch()
        for part in (root / name for name in _PARTS):
            if part.is_dir():
                shutil.copytree(part, place / part.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif part.exists():
                shutil.copy2(part, place / part.name)
        return f"copied {PLUGIN_NAME} to {place} (links are not allowed there; link again after an update)"
    return f"linked {PLUGIN_NAME}: {place} -> {root}"


def _remove_former(place: Path) -> None:
    """Removes an older link or copy of this plugin; raises `AuditError` for anything else."""
    if place.is_symlink():
        if place.exists() and not _is_this_plugin(place):
            raise AuditError(f"{place} links to another plugin ({place.resolve()}); remove that link, then link again")
        place.unlink()
    elif (place / _COPY_MARK).is_file():
        shutil.rmtree(place)
    elif place.exists():
        remedy = f"run fiftyone plugins delete {PLUGIN_NAME}" if _is_this_plugin(place) else "move it elsewhere"
        raise AuditError(f"{place} already exists and was not created by this command; {remedy} first")


def _is_this_plugin(folder: Path) -> bool:
    try:
        text = (folder / "fiftyone.yml").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(line.startswith("name:") and PLUGIN_NAME in line for line in text.splitlines())
