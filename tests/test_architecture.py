"""Who imports whom, how many modules a folder has, and how long things are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

ORDER = (
    "orchestrator.__main__",
    "orchestrator.cli",
    "orchestrator.conformance",
    "orchestrator",
    "orchestrator.api",
    "orchestrator.report",
    "orchestrator.champions.exporting",
    "orchestrator.champions.gating",
    "orchestrator.execution",
    "orchestrator.results",
    "orchestrator.search",
    "orchestrator.gating",
    "orchestrator.champions",
    "orchestrator.trial",
    "orchestrator.spec",
    "orchestrator.models",
    "orchestrator.streams.sources",
    "orchestrator.streams",
    "orchestrator.storage",
    "orchestrator.core",
    "search_spaces",
    "strategies",
    "strategies.methods",
    "strategies.parts",
    "strategies.gradients",
)
"""A package may import those below it and itself. `docs/architecture.md` draws the same."""

UPWARDS = {
    ("strategies.methods", "strategies"): "methods fill the contract that the package defines",
    ("strategies.parts", "strategies"): "parts are written against the contract",
    ("strategies.gradients", "strategies"): "objectives are of the contract's batches",
}
"""Exceptions to the order, with the reason. They are held by the rule against circles of modules."""

OUTSIDE = {
    "ray": {"orchestrator.execution"},
    "optuna": {"search_spaces", "orchestrator.search"},
    "pyarrow": {"orchestrator.results", "orchestrator.streams.sources"},
    "obstore": {"orchestrator.storage"},
    "pandas": {
        "orchestrator.champions",
        "orchestrator.champions.exporting",
        "orchestrator.results",
        "orchestrator.search",
        "orchestrator.report",
        "orchestrator.streams.sources",
    },
    "river": {"orchestrator.streams.sources"},
    "typer": {"orchestrator.cli"},
    "rich": {"orchestrator.report"},
    "matplotlib": {"orchestrator.report"},
    "scikit_posthocs": {"orchestrator.report"},
}
"""Large dependencies -> the packages that may import them."""

MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES = 12, 350, 55


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for package in ("strategies", "search_spaces", "orchestrator")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def package_of(module: str) -> str:
    """Return the entry of `ORDER` that a module belongs to: the longest that its name begins with."""
    return max((p for p in ORDER if module == p or module.startswith(f"{p}.")), key=len)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield every module that is imported, in functions too, and none that only a type checker imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported(ast.Module(node.orelse, []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))
        yield from imported(node)


EDGES = {module: {target for target in imported(tree) if target in MODULES} for module, tree in MODULES.items()}


def test_the_walk_sees_every_kind_of_import() -> None:
    text = (
        "import a.b\nfrom c.d import e\nfrom strategies import learner\n"
        "def f():\n    import g\n    importlib.import_module('h.i')\n"
        "if TYPE_CHECKING:\n    import never\nelse:\n    import k\n"
    )
    assert sorted(imported(ast.parse(text))) == ["a.b", "c.d", "g", "h.i", "k", "strategies.learner"]
    assert sum(map(len, EDGES.values())) > 300


def test_imports_go_one_way() -> None:
    upwards = {
        (module, target)
        for module, targets in EDGES.items()
        for target in targets
        if ORDER.index(package_of(target)) < ORDER.index(package_of(module))
    }
    found = {(package_of(module), package_of(target)) for module, target in upwards}
    assert {pair for pair in upwards if (package_of(pair[0]), package_of(pair[1])) not in UPWARDS} == set()
    assert found == {*UPWARDS}, "an exception that nobody uses is none"


def test_no_circles() -> None:
    """Remove modules that import nothing of what is left, until nothing is left; a circle never goes."""
    left = {module: set(targets) - {module} for module, targets in EDGES.items()}
    while free := {module for module, targets in left.items() if not targets & left.keys()}:
        left = {module: targets for module, targets in left.items() if module not in free}
    assert left == {}


def test_dependencies_stay_in_their_packages() -> None:
    users = {
        tool: {
            package_of(module) for module, tree in MODULES.items() if tool in {m.split(".")[0] for m in imported(tree)}
        }
        for tool in OUTSIDE
    }
    assert users == OUTSIDE


def test_strategies_know_pytorch_and_nothing_of_ours() -> None:
    tops = {m.split(".")[0] for module in MODULES if module.startswith("strategies") for m in imported(MODULES[module])}
    assert not tops & {"orchestrator", "search_spaces", *OUTSIDE}


def test_folders_hold_few_modules() -> None:
    folders: dict[str, int] = {}
    for path in ROOT.glob("orchestrator/**/*.py"), ROOT.glob("s*/**/*.py"):
        for file in path:
            folders[str(file.parent.relative_to(ROOT))] = folders.get(str(file.parent.relative_to(ROOT)), 0) + (
                file.name != "__init__.py"
            )
    del folders["strategies/methods"]  # one module a method
    assert len(folders) > 14
    assert {folder: n for folder, n in folders.items() if n > MOST_MODULES} == {}


def test_modules_and_functions_stay_short() -> None:
    long = {}
    for module, tree in MODULES.items():
        last = max((node.end_lineno or 0 for node in tree.body), default=0)
        functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        lengths = {f"{module}.{f.name}": (f.end_lineno or 0) - f.lineno + 1 for f in functions}
        long |= {name: n for name, n in lengths.items() if n > MOST_FUNCTION_LINES}
        if last > MOST_LINES:
            long[module] = last
    assert long == {}


LIGHT = {
    "functools",
    "__future__",
    "codecs",
    "collections",
    "contextlib",
    "dataclasses",
    "difflib",
    "io",
    "os",
    "pathlib",
    "signal",
    "sys",
    "threading",
    "typing",
    "unicodedata",
} | {
    "typer",
    "yaml",
}


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    """What `--help` needs is imported in no time: the tops of these modules, and of nothing else."""
    light = {
        "core",
        "core.defaults",
        "core.encoding",
        "core.signals",
        "core.errors",
        "core.text",
        "champions.exporting.wanted",
    }
    light |= {name.removeprefix("orchestrator.") for name in MODULES if name.startswith("orchestrator.cli")}
    for module in light:
        tree = MODULES[f"orchestrator.{module}"]
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        found = set(imported(top))
        assert {m.split(".")[0] for m in found} - {"orchestrator"} <= LIGHT, module
        assert {m.removeprefix("orchestrator.") for m in found if m.startswith("orchestrator")} <= light, module


def test_strategies_and_the_api_import_nothing_heavy() -> None:
    code = (
        "import sys, strategies, search_spaces, orchestrator.models.settings, orchestrator.api; "
        "print({'torch', 'scipy', 'optuna', 'numpy', 'sklearn', 'pandas', 'ray'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_spec_is_read_and_checked_without_heavy_imports() -> None:
    heavy = {"torch", "torchvision", "sklearn", "scipy", "numpy", "pandas", "pyarrow", "optuna", "ray"}
    code = (
        "import sys\n"
        "from orchestrator.spec.loading import load_spec\n"
        "load_spec(preset='quickstart')\n"
        f"print({heavy} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
