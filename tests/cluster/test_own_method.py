"""The page on methods of one's own, done as it says: its files are written, its commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.cluster.conftest import RAY_IN_THIS_PROCESS, TwoNodes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-method.md").read_text()
SMALL = [
    *("--scenarios", "split-digits/domain", "--suggestions", "2", "--search-seeds", "1", "--confirm-seeds", "1"),
    *("--set", "training.epochs=1"),
]

pytestmark = RAY_IN_THIS_PROCESS


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def commands() -> list[list[str]]:
    return [line.split("#")[0].split()[2:] for line in PAGE.splitlines() if line.startswith("$ python -m ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the two files of the page."""
    path = tmp_path_factory.mktemp("own")
    method, test = blocks("python")
    (path / "my_method.py").write_text(method)
    (path / "test_my_method.py").write_text(test)
    return path


def run(folder: Path, arguments: list[str]) -> str:
    """Return what a command of the page prints, run in the folder as a user would; the packages are this checkout's."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_the_commands_that_are_run_here() -> None:
    assert [command[1:3] for command in commands()] == [
        ["orchestrator", "trial"],
        ["orchestrator", "sweep"],
        ["orchestrator", "show"],
        ["pytest", "test_my_method.py"],
    ]


def test_its_method_runs_alone(folder: Path) -> None:
    assert "average_accuracy" in run(folder, [*commands()[0], "--set", "training.epochs=1"])


def test_its_method_is_swept_beside_others(folder: Path, two_nodes: TwoNodes) -> None:
    sweep, show = commands()[1:3]
    printed = run(folder, [*sweep, *SMALL, "--address", two_nodes.address])
    trials = pd.read_parquet(folder / "runs" / "mine" / "trials")

    assert set(trials["method"]) == {"naive", "my_method:Anchor", "replay+my_method:Anchor"}
    assert (trials["status"] == "completed").all()
    searched = trials[trials["method"] == "my_method:Anchor"]["hyperparameters"]
    assert searched.nunique() == 2
    assert "my_method:Anchor" in printed
    assert "my_method:Anchor" in run(folder, show)


def test_a_run_folder_never_imports_what_it_names(folder: Path) -> None:
    without = subprocess.run(
        [sys.executable, "-m", "orchestrator", "show", "runs/mine"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert without.returncode == 2
    assert "--plugin my_method:Anchor" in without.stderr
    assert "Traceback" not in without.stderr


def test_its_test_suite_passes_and_checks_something(folder: Path) -> None:
    printed = run(folder, [*commands()[3], "-p", "no:cacheprovider"])
    passed = re.search(r"(\d+) passed", printed)

    assert passed is not None
    assert int(passed[1]) > 30
    assert "failed" not in printed
