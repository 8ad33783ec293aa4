"""The rooms of the package: who may import whom, and what must run without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import offramp

PACKAGE = Path(offramp.__file__).resolve().parent

# Imports point strictly to a lower level; rooms of one level never import each other.
LEVELS = (
    ("_core",),
    ("data", "backbones", "criteria", "costs", "layer_zero", "metrics"),
    ("model", "engine"),
    ("inference", "training"),
    ("calibration", "attacks", "exporting"),
    ("evaluation", "integrations"),
    ("defences", "reports", "serving"),
    ("bench", "playground", "studies"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Rooms and modules that must import where torch and its like are not installed.
TORCH_FREE = (
    "_core",
    "criteria",
    "engine",
    "layer_zero",
    "metrics",
    "calibration",
    "evaluation",
    "attacks.text",
    "serving.watching",
)
TORCH_LIKE = ("torch", "transformers", "datasets", "accelerate", "safetensors", "tokenizers")
HEAVY = ("torch", "transformers", "datasets", "sklearn", "matplotlib", "scipy.stats", "pyarrow")


def imported_modules(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a module, those inside functions and `TYPE_CHECKING` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            # `from offramp import metrics` names a room only in what it imports.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            named = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            yield from ((node.lineno, name) for name in named if isinstance(name, str))


def violations(package: Path) -> list[str]:
    """Every import in a package folder that the table of levels forbids, as `file:line: reason`."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        room = parts[0]
        if len(parts) == 1 and room in ("__init__", "__main__"):  # the facade above all rooms
            continue
        is_package = parts[-1] == "__init__"
        module = ".".join(["offramp", *(parts[:-1] if is_package else parts)])
        place = path.relative_to(package).as_posix()
        if room not in LEVEL:
            found.append(f"{place}:1: room {room!r} is not in the table of levels")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, name in imported_modules(tree, module, is_package):
            reason = forbidden(room, name)
            if reason:
                found.append(f"{place}:{line}: {reason}")
    return found


def forbidden(room: str, name: str) -> str | None:
    """Why a room may not import a module, or None where it may."""
    top, *rest = name.split(".")
    if top != "offramp" or rest == ["__version__"]:
        return None
    target = rest[0] if rest else ""
    if target == room:
        return None
    if target not in LEVEL:
        return f"{room} imports {name}: the facade is for users"
    if LEVEL[target] < LEVEL[room]:
        return None
    return f"{room} (level {LEVEL[room]}) imports {target} (level {LEVEL[target]})"


def test_imports_point_down() -> None:
    assert violations(PACKAGE) == []


def test_every_room_is_in_the_table_once() -> None:
    rooms = [room for rooms in LEVELS for room in rooms]
    assert len(rooms) == len(set(rooms))


@pytest.mark.parametrize(
    ("place", "code", "reason"),
    [
        (
            "engine/x.py",
            "from offramp.inference.tracing import trace",
            "engine (level 2) imports inference (level 3)",
        ),
        ("engine/x.py", "import offramp.cli", "engine (level 2) imports cli (level 8)"),
        ("engine/x.py", "from offramp.model import read_model", "engine (level 2) imports model (level 2)"),
        ("engine/x.py", "from offramp import training", "engine (level 2) imports training (level 3)"),
        ("engine/x.py", "from ..model import config", "engine (level 2) imports model (level 2)"),
        ("engine/sub/x.py", "from ...model.config import A", "engine (level 2) imports model (level 2)"),
        ("engine/__init__.py", "from ..model import config", "engine (level 2) imports model (level 2)"),
        ("engine/sub/__init__.py", "from ...model import config", "engine (level 2) imports model (level 2)"),
        ("metrics.py", "from . import costs", "metrics (level 1) imports costs (level 1)"),
        ("metrics.py", "from offramp import Trace", "metrics imports offramp.Trace: the facade is for users"),
        ("metrics.py", "import offramp", "metrics imports offramp: the facade is for users"),
        ("_core/x.py", "def f():\n    from offramp.data import a", "_core (level 0) imports data (level 1)"),
        (
            "data/x.py",
            "class A:\n  def f(self):\n    import offramp.costs",
            "data (level 1) imports costs (level 1)",
        ),
        (
            "data/x.py",
            "if TYPE_CHECKING:\n    import offramp.engine",
            "data (level 1) imports engine (level 2)",
        ),
        ("data/x.py", "importlib.import_module('offramp.cli')", "data (level 1) imports cli (level 8)"),
        ("data/x.py", "f = __import__('offramp.cli')", "data (level 1) imports cli (level 8)"),
        ("kitchen/x.py", "", "room 'kitchen' is not in the table of levels"),
    ],
)
def test_a_planted_violation_is_found(place: str, code: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(code)
    (found,) = violations(tmp_path)
    assert found.startswith(place)
    assert found.endswith(reason)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("engine/x.py", "from offramp.criteria import scores\nfrom offramp.engine.policy import Policy"),
        ("engine/x.py", "from .policy import Policy\nfrom . import segments\nfrom .._core import errors"),
        ("engine/sub/__init__.py", "from . import a\nfrom .. import b\nfrom ..policy import Policy"),
        ("cli/x.py", "from offramp import __version__, metrics\nimport numpy, offrampart.cli"),
        ("__init__.py", "from offramp.cli import main"),
        ("data/x.py", "importlib.import_module(name)\n'offramp.cli'"),
    ],
)
def test_what_the_table_allows_is_not_reported(place: str, code: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(code)
    assert violations(tmp_path) == []


def module_imports(package: Path) -> dict[str, set[str]]:
    """The modules that each module of a package folder imports, lazy and type-only imports included."""
    paths = {}
    for path in sorted(package.rglob("*.py")):
        parts = ("offramp", *path.relative_to(package).with_suffix("").parts)
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [name for _, name in imported_modules(tree, module, path.stem == "__init__")]
        owners = {next((m for m in _outwards(name) if m in paths), module) for name in names}
        graph[module] = owners - {module}
    return graph


def _outwards(name: str) -> Iterator[str]:
    """A dotted name, and the names of what holds it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def import_circle(package: Path) -> list[str]:
    """A circle of imports in a package folder, as the modules on it in order; empty where there is none."""
    try:
        TopologicalSorter(module_imports(package)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert import_circle(PACKAGE) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import offramp.engine.b", "from offramp.engine import a"),
        ("from offramp.engine.b import x", "def f():\n    from offramp.engine.a import y"),
        ("from .b import x", "if TYPE_CHECKING:\n    from offramp.engine.a import y"),
    ],
)
def test_a_planted_circle_is_found(first: str, second: str, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    for name, code in {"__init__": "", "a": first, "b": second, "c": "import offramp.engine.a"}.items():
        (tmp_path / "engine" / f"{name}.py").write_text(code)
    assert set(import_circle(tmp_path)) == {"offramp.engine.a", "offramp.engine.b"}


# Words that say nothing of what they name, and names that fields do not use; see the architecture page.
BANNED_NAMES = frozenset("found told known place places one ones part hunt look looks door".split())
BANNED_CLASSES = frozenset(
    "Door Account Look Hunt Found Job Opened Effects Forecast PlusSearch Misread DepthAlone".split()
)
BANNED_CLASSES |= frozenset("GridCell Board Place Sweep Flight Log Contest Course Peer".split())


def bindings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a module binds: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def test_names_are_those_of_the_field() -> None:
    banned = BANNED_NAMES | BANNED_CLASSES
    assert [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name in bindings(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_") in banned
    ] == []


def test_every_kind_of_binding_is_seen() -> None:
    code = "def a(b, *c, d=(e := 1), **f):\n    for g, self.h in x: pass\nclass i:\n    j: int\nimport k as l"
    assert sorted(name for _, name in bindings(ast.parse(code))) == [*"abcdefghijl"]


LONGEST_BODY, LONGEST_MODULE = 40, 300  # lines


def test_functions_and_modules_are_short() -> None:
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        code = path.read_text(encoding="utf-8")
        if code.count("\n") > LONGEST_MODULE:
            long.append(f"{path.relative_to(PACKAGE)}: {code.count(chr(10))} lines")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_BODY:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.name} has {lines} lines")
    assert long == []


def modules_of(room: str) -> list[str]:
    """Full names of all modules of a room or of one module."""
    base = PACKAGE.joinpath(*room.split("."))
    if not base.is_dir():
        return [f"offramp.{room}"]
    inner = [path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(base.rglob("*.py"))]
    return [".".join(["offramp", *parts]).removesuffix(".__init__") for parts in inner]


def python(code: str) -> str:
    """What a fresh interpreter prints, with this package on its path; its error where it fails."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WITHOUT_TORCH = f"""
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TORCH_LIKE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib
"""


def test_the_blocker_blocks() -> None:
    printed = python(WITHOUT_TORCH + "try:\n    import torch.nn\nexcept ImportError as e: print(e.name)")
    assert printed == "torch"


@pytest.mark.parametrize("room", TORCH_FREE)
def test_core_rooms_run_without_torch(room: str) -> None:
    modules = modules_of(room)
    printed = python(
        WITHOUT_TORCH
        + f"broken = []\nfor name in {modules!r}:\n"
        + "    try: importlib.import_module(name)\n"
        + "    except ImportError as error: broken.append(f'{name}: {error}')\n"
        + "print('; '.join(broken))"
    )
    assert printed == ""


def test_importing_offramp_loads_nothing_heavy() -> None:
    printed = python(f"import offramp\nprint([name for name in {HEAVY!r} if name in sys.modules])")
    assert printed == "[]"


def test_public_names_are_sorted_and_listed_by_dir() -> None:
    assert offramp.__all__ == sorted(offramp.__all__)
    assert {name for name in dir(offramp) if not name.startswith("_")} == set(offramp.__all__)


@pytest.mark.parametrize("name", offramp.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(offramp, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        offramp.nonsense  # noqa: B018


def test_without_torch_a_torch_name_gives_the_install_line() -> None:
    code = (
        "import offramp\ntry: offramp.MultiExitForSequenceClassification\nexcept ImportError as e: print(e)"
    )
    assert "pip install 'offramp[torch]'" in python(WITHOUT_TORCH + code)
