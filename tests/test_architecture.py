"""The layers of docs/architecture.md, enforced on the source and shown to be enforceable."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

# From top to bottom: a module imports from its own layer and from those before it.
LAYERS = (
    "errors.py",
    "layout.py",
    "deadline.py",
    "verdict.py",
    "numerics.py",
    "devices.py",
    "torch_private.py",
    "torch_others.py",
    "torch_sharded.py",
    "torch_compiled.py",
    "tangents.py",
    "undo.py",
    "compiled/",
    "capture/",
    "kinks/",
    "steering/",
    "feasibility/",
    "arrangement/",
    "constraints/",
    "theorems/",
    "decide/",
    "fast/",
    "proof/",
    "report/",
    "world.py",
    "rerun.py",
    "prepare.py",
    "check.py",
    "explain.py",
    "subdifferential.py",
    "goldstein/",
    "grad.py",
    "jacobian.py",
    "hunt/",
    "audit/",
    "atlas/",
    "testing/",
    "integrations/",
    "experiments/",
    "cli/",
)
# Not layers, but they have a place: __init__.py sees the layers up to audit/ and is seen by those
# after it; __main__.py sees everything.
PUBLIC = "__init__.py"
PLACES = (
    *LAYERS[: LAYERS.index("audit/") + 1],
    PUBLIC,
    *LAYERS[LAYERS.index("audit/") + 1 :],
    "__main__.py",
)
RANK = {re.sub(r"(\.py|/)$", "", place): rank for rank, place in enumerate(PLACES)}

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "clarke"


# --- the checker ----------------------------------------------------------------------------------


def python_files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def place_of(path: Path, package: Path) -> str:
    """The name in RANK of the file's layer: its first component below the package."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_names(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere in a module, relative names resolved.

    `from a import b` gives `a.b`: whether b is a module or a name in one, its layer is the same.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            name = node.args[0]
            if (
                called.split(".")[-1] in {"import_module", "__import__"}
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield node.lineno, name.value


def layer_violations(package: Path) -> list[str]:
    """Imports of a lower layer, and files that belong to no layer."""
    found = []
    for path in python_files(package):
        where = path.relative_to(package)
        place = place_of(path, package)
        if place not in RANK:
            found.append(f"{where}: not in a layer")
            continue
        is_package = path.name == "__init__.py"
        parts = where.with_suffix("").parts[: -1 if is_package else None]
        module = ".".join((package.name, *parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, name in imported_names(tree, module, is_package=is_package):
            root, *rest = name.split(".")
            if root != package.name:
                continue
            # A name of the package that is no layer is a public name, and comes from __init__.py.
            target = rest[0] if rest and rest[0] in RANK else "__init__"
            if RANK[target] > RANK[place]:
                found.append(f"{where}:{line}: imports {name} from the lower layer {target}")
    return found


def package_violations(package: Path) -> list[str]:
    """Directories with source that are no packages, or that do not say what they are for."""
    found = []
    for directory in sorted({path.parent for path in python_files(package)} | {package}):
        init = directory / "__init__.py"
        where = init.relative_to(package)
        if not init.exists():
            found.append(f"{where}: missing")
        elif not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            found.append(f"{where}: no docstring")
    return found


MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = frozenset(
    {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "ChainMap"}
    | {"deque", "local", "count", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}
)
MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "difference_update", "discard", "extend"}
    | {"extendleft", "insert", "intersection_update", "pop", "popitem", "popleft", "remove"}
    | {"reverse", "rotate", "setdefault", "sort", "symmetric_difference_update", "update"}
)


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, those inside if, try, with and for included."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from module_level(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from module_level(handler.body)


def is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in MUTABLE_TYPES
    return isinstance(value, MUTABLE_DISPLAYS)


def mutated_names(tree: ast.Module) -> set[str]:
    """Names on which something in the module calls a mutator, or whose items it assigns."""
    names: set[str] = set()
    for node in ast.walk(tree):
        changed: list[ast.expr] = []
        if isinstance(node, (ast.Assign, ast.Delete)):
            changed = [t.value for t in node.targets if isinstance(t, ast.Subscript)]
        elif isinstance(node, ast.AugAssign):
            target = node.target
            changed = [target.value if isinstance(target, ast.Subscript) else target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changed = [node.func.value] if node.func.attr in MUTATORS else []
        names |= {expression.id for expression in changed if isinstance(expression, ast.Name)}
    return names


def state_violations(package: Path) -> list[str]:
    """Mutable containers at module level, and `global` statements."""
    found = []
    for path in python_files(package):
        where = path.relative_to(package)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        mutated = mutated_names(tree)
        found += [
            f"{where}:{node.lineno}: global {', '.join(node.names)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Global)
        ]
        for statement in module_level(tree.body):
            final = False
            if isinstance(statement, ast.AnnAssign):
                targets: list[ast.expr] = [statement.target]
                final = "Final" in re.findall(r"\w+", ast.unparse(statement.annotation))
            elif isinstance(statement, ast.Assign):
                targets = statement.targets
            else:
                continue
            if statement.value is None or not is_mutable(statement.value):
                continue
            for name in (target.id for target in targets if isinstance(target, ast.Name)):
                constant = final and name.isupper() and name not in mutated
                if name != "__all__" and not constant:
                    found.append(f"{where}:{statement.lineno}: {name} is a mutable container")
    return found


def documented_layers(page: Path) -> tuple[str, ...]:
    return tuple(re.findall(r"^\| `([a-z_]+(?:\.py|/))` \|", page.read_text("utf-8"), re.MULTILINE))


# --- the project ----------------------------------------------------------------------------------


def test_modules_import_only_from_layers_above():
    assert layer_violations(SOURCE) == []


def test_every_directory_is_a_package_that_says_what_it_is_for():
    assert package_violations(SOURCE) == []


def test_no_module_level_state():
    assert state_violations(SOURCE) == []


def test_layers_have_the_form_that_the_list_gives_them():
    for layer in LAYERS:
        name = re.sub(r"(\.py|/)$", "", layer)
        other = SOURCE / name if layer.endswith(".py") else SOURCE / f"{name}.py"
        assert not other.exists(), f"{layer} is listed, {other.relative_to(SOURCE)} exists"


def test_the_public_module_holds_names_only():
    tree = ast.parse((SOURCE / PUBLIC).read_text(encoding="utf-8"))
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    extra = [s for s in tree.body[1:] if not isinstance(s, allowed)]
    # What `dir(clarke)` lists is about names, too.
    assert [s.name if isinstance(s, ast.FunctionDef) else ast.unparse(s) for s in extra] == [
        "__dir__"
    ]


def test_documentation_lists_the_same_layers():
    assert documented_layers(ROOT / "docs" / "architecture.md") == LAYERS


LONGEST_FILE = 400
LONGEST_FUNCTION = 60
# Each a table of its own, or one thing by a rule of its own.
LONG_FILES = {
    "audit/turn.py",
    "decide/enumerate.py",
    "numerics.py",
    "torch_private.py",
}
LONG_FUNCTIONS = {  # lists of cases
    "atlas/points_choices.py:_groups",
    "atlas/points_formulas.py:formulas",
    "atlas/points_losses.py:losses",
    "atlas/points_matrices.py:_factors",
}


def long_files(package: Path) -> set[str]:
    return {
        path.relative_to(package).as_posix()
        for path in python_files(package)
        if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE
    }


def long_functions(package: Path) -> set[str]:
    """Functions with too many lines of code; signatures and docstrings do not count."""
    found = set()
    for path in python_files(package):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                told = ast.get_docstring(node) is not None and len(node.body) > 1
                first = node.body[int(told)]
                if (node.end_lineno or 0) - first.lineno + 1 > LONGEST_FUNCTION:
                    found.add(f"{path.relative_to(package).as_posix()}:{node.name}")
    return found


def test_files_and_functions_are_short():
    # Equal, and not less: who shortens one of these strikes it off the list.
    assert long_files(SOURCE) == LONG_FILES
    assert long_functions(SOURCE) == LONG_FUNCTIONS


def test_what_is_too_long_is_found(tmp_path):
    body = "\n".join(f"    x{i} = {i}" for i in range(LONGEST_FUNCTION + 1))
    files = {
        "capture/long.py": "x = 1\n" * (LONGEST_FILE + 1),
        "capture/short.py": "x = 1\n" * LONGEST_FILE,
        "kinks/long.py": f"def f():\n{body}\n",
        "kinks/short.py": f'def f():\n    """{chr(10) * 9}"""\n{body[: body.rindex(chr(10))]}\n',
    }
    package = make_package(tmp_path, files)
    assert long_files(package) == {"capture/long.py"}
    assert long_functions(package) == {"kinks/long.py:f"}


IMPORT_PROBE = """
import json, random, sys
import numpy as np
import torch
import torch.nn.modules.module as torch_module
from torch.overrides import _len_torch_function_stack
from torch.utils._python_dispatch import _len_torch_dispatch_stack

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "torch random state": torch.get_rng_state().tolist(),
        "numpy random state": repr(np.random.get_state()),
        "random state": repr(random.getstate()),
        "global hooks": {
            name: len(hooks) for name, hooks in vars(torch_module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        },
        "modes": [_len_torch_function_stack(), _len_torch_dispatch_stack()],
        "entry points": [
            id(f) for f in (
                torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad,
                torch.nn.Module.__call__,
            )
        ],
        "grad enabled": torch.is_grad_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }

before, loaded = state(), set(sys.modules)
import clarke
after = state()
new = set(sys.modules) - loaded
print(json.dumps({
    "changed": [key for key in before if before[key] != after[key]],
    "optional": sorted({name.split(".")[0] for name in new} & {
        "lightning", "matplotlib", "numba", "pandas", "pytest", "pytorch_lightning", "sklearn",
        "tensorboard", "torchvision", "transformers", "typer",
    }),
    "own": sorted(name for name in new if name.split(".")[:2] in (
        ["clarke", "cli"], ["clarke", "experiments"], ["clarke", "integrations"],
    )),
}))
"""


def test_import_loads_nothing_optional_and_leaves_torch_as_it_was():
    path = os.pathsep.join([str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_PROBE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"changed": [], "optional": [], "own": []}


# --- the checker, on packages made to break the rules ---------------------------------------------


def make_package(root: Path, files: dict[str, str]) -> Path:
    package = root / "clarke"
    for name, text in {"__init__.py": '"""Names."""\n', **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return package


@pytest.mark.parametrize(
    ("name", "text", "target"),
    [
        ("errors.py", "import clarke.verdict", "verdict"),
        ("errors.py", "from clarke import verdict", "verdict"),
        ("errors.py", "from clarke.verdict import Verdict", "verdict"),
        ("errors.py", "from . import verdict", "verdict"),
        ("errors.py", "from .cli.app import main", "cli"),
        ("errors.py", "def f():\n    import clarke.cli as c", "cli"),
        ("errors.py", "import importlib\nimportlib.import_module('clarke.audit')", "audit"),
        ("capture/deep/trace.py", "from ...kinks import rules", "kinks"),
        ("capture/__init__.py", "from ..kinks import rules", "kinks"),
        ("kinks/rules.py", "class A:\n    from clarke.steering import s", "steering"),
        (
            "kinks/rules.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import clarke.report",
            "report",
        ),
        ("decide/ladder.py", "import clarke", "__init__"),
        ("decide/ladder.py", "from clarke import Verdict", "__init__"),
        ("__init__.py", "from clarke.cli import main", "cli"),
    ],
)
def test_an_import_from_below_is_found(tmp_path, name, text, target):
    (violation,) = layer_violations(make_package(tmp_path, {name: text}))
    assert violation.startswith(name + ":")
    assert violation.endswith(f"from the lower layer {target}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("verdict.py", "from clarke.errors import ClarkeError"),
        ("verdict.py", "from .errors import ClarkeError"),
        ("capture/deep/trace.py", "from ..mode import x\nfrom ...errors import y\nfrom . import z"),
        ("capture/__init__.py", "from .mode import x\nfrom .. import errors"),
        ("errors.py", "import torch\nimport clarkesville.cli\nfrom __future__ import annotations"),
        ("__init__.py", "from clarke.audit import audit\nfrom clarke.check import check"),
        ("cli/app.py", "import clarke\nfrom clarke import Verdict\nfrom clarke.check import check"),
        ("__main__.py", "from clarke.cli import main"),
    ],
)
def test_an_import_from_above_is_not(tmp_path, name, text):
    assert layer_violations(make_package(tmp_path, {name: text})) == []


def test_a_file_outside_the_layers_is_found(tmp_path):
    files = {"utils.py": "", "helpers/__init__.py": '"""Help."""'}
    assert layer_violations(make_package(tmp_path, files)) == [
        "helpers/__init__.py: not in a layer",
        "utils.py: not in a layer",
    ]


def test_a_directory_without_a_docstring_or_init_is_found(tmp_path):
    files = {"kinks/rules.py": "", "report/__init__.py": "x = 1", "cli/__init__.py": '"""C."""'}
    assert package_violations(make_package(tmp_path, files)) == [
        "kinks/__init__.py: missing",
        "report/__init__.py: no docstring",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "rules = {}",
        "RULES = {}",
        "RULES: dict[str, int] = dict()",
        "RULES: Final = {}\ndef register(k, v):\n    RULES[k] = v",
        "RULES: Final[list[int]] = []\nRULES.append(1)",
        "RULES: Final = set()\nRULES |= {1}",
        "rules: Final = [1]",
        "from collections import defaultdict\ncache = defaultdict(list)",
        "import weakref\ncache = weakref.WeakKeyDictionary()",
        "try:\n    pass\nexcept ValueError:\n    seen = [x for x in 'ab']",
        "depth = 0\ndef enter():\n    global depth\n    depth += 1",
    ],
)
def test_module_level_state_is_found(tmp_path, text):
    assert len(state_violations(make_package(tmp_path, {"errors.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "__all__ = ['f']",
        "NAMES = ('a', 'b')\nSEEN = frozenset({1})\nLIMIT = 3",
        "from types import MappingProxyType\nTABLE = MappingProxyType({'a': 1})",
        "TABLE: Final = {'a': 1}\nprint(TABLE['a'])",
        "TABLE: typing.Final[dict[str, int]] = {'a': 1}",
        "def f():\n    seen = []\n    seen.append(1)",
        "class A:\n    def f(self):\n        x = {}\n        x[1] = 2",
    ],
)
def test_constants_and_locals_are_no_state(tmp_path, text):
    assert state_violations(make_package(tmp_path, {"errors.py": text})) == []


def test_a_page_with_another_order_is_told_apart(tmp_path):
    page = tmp_path / "architecture.md"
    page.write_text("| `verdict.py` | x |\n| `errors.py` | y |\n", encoding="utf-8")
    assert documented_layers(page) == ("verdict.py", "errors.py")


def test_tests_listed_as_slow_exist():
    tests = Path(__file__).parent
    for line in (tests / "slow.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        file, name = line.removeprefix("tests/").split("[")[0].split("::")
        assert f"def {name}(" in (tests / file).read_text(), line
