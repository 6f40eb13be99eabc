"""What the tests of commands share: running one in this process, and a run folder with trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import app
from orchestrator.cli.shared.exits import EXIT_MISTAKE, guarded
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.protocol import run_trial

SMALL = ("--set", "training.epochs=1", "--set", "model.hidden=[16]", "--set", "streams.split-digits.n_tasks=2")

RunCli = Callable[..., tuple[int, str, str]]
Mistake = Callable[..., str]
RunFolder = tuple[Path, dict[str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> RunCli:
    """Return a function from arguments to the exit code, output and errors of a command run in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = guarded(lambda: app([str(argument) for argument in arguments], prog_name="orchestrator"))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def mistake(cli: RunCli) -> Mistake:
    """Return a function from arguments to the message of a command that must refuse them."""

    def run(*arguments: object) -> str:
        code, out, err = cli(*arguments)
        assert code == EXIT_MISTAKE
        assert err.startswith("error: ")
        assert all(line.startswith("note: ") for line in out.splitlines())
        return err

    return run


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> RunFolder:
    """Return a run folder with three real trials of naive, and the key of one trial per phase."""
    spec = parse_spec(
        {
            "methods": ["naive"],
            "seeds": {"search": 1, "confirm": 2},
            "model": {"hidden": [16]},
            "training": {"epochs": 5},
            "streams": {"split-digits": {"n_tasks": 2}},
        }
    )
    run = Run.create(tmp_path_factory.mktemp("runs") / "a", spec)
    keys = {}
    for phase in ("search", "confirm"):
        for seed in spec.seeds.of(phase):  # type: ignore[arg-type]
            trial = spec.trial(spec.cells[0], {}, seed, phase, digits.fingerprint())  # type: ignore[arg-type]
            result = run_trial(trial, digits.phase(phase, trial.validation_share, trial.validation_seed))  # type: ignore[arg-type]
            run.tables.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
            keys[phase] = trial.key
    return run.path, keys
