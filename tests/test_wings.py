"""Which part of the package may import which: the rules of docs/design.md, checked."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cnnlesson

PACKAGE = Path(cnnlesson.__file__).parent

# A unit is a top-level module or subpackage of cnnlesson.
CORE = {"models", "training", "data", "anatomy", "signals", "runtime"}

# The libraries, and units of ours, that importing all modules of a unit must not load.
HEAVY = {"ipywidgets", "matplotlib", "pandas", "sklearn"}
NOT_LOADED = {unit: HEAVY for unit in CORE} | {
    "models": HEAVY | {"PIL", "requests", "torchvision", "cnnlesson.training"},
    "training": HEAVY | {"PIL", "requests", "torchvision", "cnnlesson.models"},
    "search": {"ipywidgets", "matplotlib", "ray"},
    "widgets": {"cnnlesson.search"},
}
NEEDS_AN_EXTRA = {"cnnlesson.search.on_ray"}  # imports ray, which is not installed with the package


def modules_of(unit: str) -> list[Path]:
    return sorted((PACKAGE / unit).rglob("*.py")) if (PACKAGE / unit).is_dir() else [PACKAGE / f"{unit}.py"]


def imported_units(path: Path) -> set[str]:
    """The units that a module imports, in functions too; imports for the type checker do not count."""
    names, nodes = [], [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, from cnnlesson"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        nodes += ast.iter_child_nodes(node)
    return {name.split(".")[1] for name in names if name.startswith("cnnlesson.")}


UNITS = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
IMPORTS = {unit: set().union(*map(imported_units, modules_of(unit))) - {unit} for unit in sorted(UNITS)}


@pytest.mark.parametrize("unit", sorted(NOT_LOADED))
def test_importing_a_unit_loads_nothing_it_does_not_need(unit):
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in modules_of(unit)]
    names = [name.removesuffix(".__init__") for name in names if name not in NEEDS_AN_EXTRA]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert NOT_LOADED[unit] & set(run.stdout.split()) == set()


def test_the_core_imports_only_the_core():
    for unit in CORE:
        assert IMPORTS[unit] <= CORE, unit
    assert IMPORTS["models"] <= {"runtime"} and IMPORTS["training"] <= {"runtime"}


def test_a_search_needs_no_figures_and_no_widgets():
    for unit in ("search", "results", "points", "doctor"):
        assert IMPORTS[unit] <= CORE | {"doctor", "points", "results"}, unit


def test_no_two_units_import_each_other():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, with the cycle
