"""The command `show`."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.cli.shared.exits import EXIT_INCOMPLETE, EXIT_MISTAKE, EXIT_NO_ANSWER
from tests.cli.conftest import Mistake, RunCli, RunFolder


def test_show(cli: RunCli, run_folder: RunFolder) -> None:
    path, _ = run_folder
    code, out, _ = cli("show", path)
    assert code == 0
    assert "Recommended: naive: average accuracy" in out
    assert "test, 2 seeds" in out


def test_show_every_trial(cli: RunCli, run_folder: RunFolder) -> None:
    path, keys = run_folder
    code, out, _ = cli("show", path, "--trials")
    assert code == 0
    assert keys["search"] in out
    assert keys["confirm"] in out
    assert out.count("completed") == 3


def test_show_one_trial(cli: RunCli, run_folder: RunFolder) -> None:
    path, keys = run_folder
    code, out, _ = cli("show", path, "--trial", keys["search"][:12])
    assert code == 0
    assert f"trial {keys['search']}" in out
    assert "after 0/1" in out
    assert "after 2/3" in out


def test_show_refuses_what_it_cannot_show(mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    path, _ = run_folder
    assert "expected a run folder with spec.yaml" in mistake("show", tmp_path)
    assert "expected a run folder with spec.yaml" in mistake("show", tmp_path / "nope")
    assert "no trial has a key that begins with 'zzz'" in mistake("show", path, "--trial", "zzz")
    assert "3 trials have keys that begin with ''" in mistake("show", path, "--trial", "")
    (tmp_path / "spec.yaml").write_text("methods: [ewcc]\n")
    assert "expected the spec of a run, got one with faults" in mistake("show", tmp_path)


def test_show_a_run_without_rows(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("{}")
    code, out, _ = cli("show", tmp_path)
    assert code == EXIT_INCOMPLETE
    assert "No answer yet: no method has been measured" in out
    assert "trials are missing, so this answer is not final" in out
    assert cli("show", tmp_path, "--trials")[0] == 0
    assert cli("show", tmp_path, "--trial", "abc")[0] == EXIT_MISTAKE


def test_require_answer(cli: RunCli, run_folder: RunFolder, tmp_path: Path) -> None:
    """Exit code 3 while trials are missing, 5 once none is and a scenario has no recommendation."""
    path, _ = run_folder
    assert cli("show", path, "--require-answer")[0] == 0
    copy = shutil.copytree(path, tmp_path / "run")
    spec = (copy / "spec.yaml").read_text().partition("\n")[2]
    (copy / "spec.yaml").write_text(spec.replace("limits: []", "limits: ['average_accuracy >= 0.9999']"))
    code, out, _ = cli("show", copy, "--require-answer")
    assert code == EXIT_NO_ANSWER
    assert "--require-answer: no recommendation for split-digits/task." in out
    assert cli("show", copy)[0] == 0
