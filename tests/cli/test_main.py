"""The program as a whole: help, version, what it imports, encodings, and Windows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import main as main_module
from orchestrator.cli.shared.exits import EXIT_MISTAKE
from tests.cli.conftest import RunCli, RunFolder

COMMANDS = ("sweep", "plan", "trial", "show", "plot", "compact", "methods", "scenarios", "schema", "spec")

COMMANDS_IN_ONE_PROCESS = """
import json, sys
from orchestrator.cli.main import main

def run(arguments):
    sys.argv = ["orchestrator", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code

def imported(names):
    return [name for name in names if name in sys.modules]
"""


def python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMANDS_IN_ONE_PROCESS + program, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env=os.environ | environment,
    )


# Help.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(cli: RunCli, command: str) -> None:
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "")
    assert f"orchestrator {command}" in out


def test_help_lists_commands_and_exit_codes(cli: RunCli) -> None:
    code, out, err = cli("-h")
    assert (code, err) == (0, "")
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("│") and len(line.split()) > 1}
    assert {*COMMANDS, "--version"} <= listed
    assert "2 wrong arguments" in out


def test_no_command_shows_the_help(cli: RunCli) -> None:
    code, out, err = cli()
    assert code == 2
    assert "Usage" in out + err


@pytest.mark.parametrize(
    "arguments", [["swep"], ["sweep", "--nope"], ["plan", "--workers", "0"], ["trial", "--seed", "x"]]
)
def test_wrong_usage_is_a_mistake(cli: RunCli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments)
    assert code == EXIT_MISTAKE
    assert "Error" in err
    assert out == ""


def test_version(cli: RunCli) -> None:
    code, out, err = cli("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"continual-sweep \d+\.\d+\.\d+\n", out)


# Imports. A heavy one takes seconds.


def test_help_lists_and_the_first_line_import_nothing_heavy(tmp_path: Path) -> None:
    program = """
from orchestrator.report.progress import ProgressDisplay

def stop(display, address):
    raise SystemExit(7)

ProgressDisplay.connecting = stop
for code, *arguments in json.loads(sys.argv[1]):
    assert run(arguments) == code, arguments
    assert imported(["torch", "sklearn", "pandas", "ray", "pyarrow", "scipy", "optuna"]) == [], arguments
"""
    commands: list[list[object]] = [[0, command, "--help"] for command in COMMANDS]
    commands += [
        [0, "--help"],
        [0, "spec"],
        [0, "schema"],
        [0, "methods"],
        [0, "methods", "ewc+replay"],
        [0, "scenarios"],
    ]
    commands += [[EXIT_MISTAKE, "trial"], [EXIT_MISTAKE, "sweep", "--methods", "ewcc"]]
    commands += [[7, "sweep", "--run", str(tmp_path / "new")]]
    done = python(program, json.dumps(commands))
    assert done.returncode == 0, done.stderr


# Encodings.


def test_ascii_output_never_ends_a_command(run_folder: RunFolder) -> None:
    """Also shows that Ray is not imported with what these commands and `trial` import before they run."""
    path, key = str(run_folder[0]), run_folder[1]["confirm"]
    program = """
for code, *arguments in json.loads(sys.argv[1]):
    print("$", *arguments)
    assert run(arguments) == code, arguments
assert imported(["ray"]) == []
"""
    commands = [
        [0, "methods"],
        [0, "show", path],
        [0, "show", path, "--trial", key],
        [0, "plan", f"{path}/spec.yaml", "--run", path, "--confirm-seeds", "3"],
        [0, "sweep", "--help"],
        [EXIT_MISTAKE, "show", path, "--trial", "–"],
    ]
    done = python(program, json.dumps(commands), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "begins with '-'" in done.stderr
    methods, show, _, plan, *_ = re.split(r"^\$ .*\n", done.stdout, flags=re.MULTILINE)[1:]
    assert "0.1 ... 1e+10, log scale" in methods
    assert ">= 0" in methods
    assert " +/- " in show
    assert "at most 1 to do" in plan
    assert "?" not in show + plan
    assert "\\u" not in done.stdout


# Processes of their own.


def test_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "sweep", "nope.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == EXIT_MISTAKE
    assert done.stderr.startswith("error: the spec has 1 fault:\n  nope.yaml: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing is written for a spec with faults"


def test_windows_is_told_about_wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("no command may run")

    monkeypatch.setattr(main_module, "app", refuse)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as end:
        main_module.main()
    assert end.value.code == EXIT_MISTAKE
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: continual-sweep runs on Linux and macOS. On Windows, install WSL" in err
    assert err.count("\n") == 1
