"""Who imports whom, and how long things are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("strategies", "search_spaces", "orchestrator")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

FORBIDDEN = {
    "strategies": {"ray", "optuna", "pyarrow", "pandas", "orchestrator", "search_spaces"},
    "search_spaces": {"ray", "orchestrator", "pyarrow", "pandas"},
    "orchestrator": set(),
}
ONLY_IN = {
    "ray": {"orchestrator/cluster.py", "orchestrator/sweep.py", "orchestrator/workers.py"},
    "pyarrow": {"orchestrator/tables.py", "orchestrator/schema.py", "orchestrator/objectstore.py"},
    "optuna": {"orchestrator/search.py", "orchestrator/mirror.py", "orchestrator/catalogue.py"},
}
MOST_LINES, MOST_FUNCTION_LINES = 350, 55


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level package of every import, those in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (str(a.value).partition(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_the_walk_sees_every_kind_of_import() -> None:
    text = "import a.b\nfrom c.d import e\ndef f():\n    import g\n    importlib.import_module('h.i')\n"
    assert sorted(imported(ast.parse(text))) == ["a", "c", "g", "h"]
    assert len(MODULES) > 30
    assert {name(path) for path in MODULES} >= set().union(*ONLY_IN.values())


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    found = set(imported(parse(path)))
    package = path.relative_to(ROOT).parts[0]
    assert not found & FORBIDDEN[package]
    if package == "orchestrator":
        assert {tool for tool, allowed in ONLY_IN.items() if name(path) not in allowed} & found == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    functions = (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {f: n for f, n in lengths.items() if n > MOST_FUNCTION_LINES} == {}


def test_each_rule_is_in_use() -> None:
    """A rule for an import that nobody makes would hold by itself."""
    users = {tool: {name(path) for path in MODULES if tool in set(imported(parse(path)))} for tool in ONLY_IN}
    for tool, allowed in ONLY_IN.items():
        assert {user for user in users[tool] if user.startswith("orchestrator/")} == allowed


LIGHT = {"__future__", "os", "sys", "signal", "threading", "collections", "contextlib", "pathlib", "typing", "typer"}


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("cli", {"errors", "exits", "options"}),
        ("exits", {"errors", "signals", "visible"}),
        ("signals", set()),
        ("errors", set()),
        ("visible", set()),
    ],
)
def test_the_command_line_imports_nothing_heavy_at_its_top(module: str, own: set[str]) -> None:
    tree = parse(ROOT / "orchestrator" / f"{module}.py")
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert set(imported(top)) - {"orchestrator"} <= LIGHT
    found = {node.module for node in ast.walk(top) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in found if name.startswith("orchestrator")} == {f"orchestrator.{name}" for name in own}
