"""The command line: what each command prints, its exit codes, and no traceback for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator import api
from orchestrator.cli.exits import EXIT_DIFFERENT, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_MISTAKE, guarded
from orchestrator.cli.main import app
from orchestrator.core.errors import DataError, OrchestratorError, RunFolderError, SpecError
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import load_spec, parse_spec, preset_names
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.protocol import run_trial
from strategies import STRATEGIES

COMMANDS = ("sweep", "plan", "trial", "show", "methods", "scenarios", "schema", "spec")
SMALL = ("--set", "training.epochs=1", "--set", "model.hidden=[16]", "--set", "streams.split-digits.n_tasks=2")

RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> RunCli:
    """Return a function from arguments to exit code, output and errors of a command run in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = guarded(lambda: app([str(argument) for argument in arguments], prog_name="orchestrator"))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def mistake(cli: RunCli) -> Callable[..., str]:
    """Return a function from arguments to the message of a command that must refuse them."""

    def run(*arguments: object) -> str:
        code, out, err = cli(*arguments)
        assert code == EXIT_MISTAKE
        assert err.startswith("error: ")
        assert out == ""
        return err

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> tuple[Path, dict[str, str]]:
    """Return a run folder with real trials of naive and a failed one, and the key of each by phase."""
    spec = parse_spec(
        {
            "methods": ["naive"],
            "seeds": {"search": 1, "confirm": 2},
            "model": {"hidden": [8]},
            "training": {"epochs": 1},
            "streams": {"split-digits": {"n_tasks": 2}},
        }
    )
    run = Run.create(tmp_path_factory.mktemp("runs") / "a", spec)
    keys = {}
    for phase in ("search", "confirm"):
        for seed in spec.seeds.of(phase):  # type: ignore[arg-type]
            trial = spec.trial(spec.cells[0], {}, seed, phase, digits.fingerprint())  # type: ignore[arg-type]
            result = run_trial(trial, digits.phase(phase, spec.validation_share))  # type: ignore[arg-type]
            run.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
            keys[phase] = trial.key
    return run.path, keys


# Help, and what has no arguments.


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; sys.argv = ['orchestrator', '--help']\n"
        "from orchestrator.cli.main import app\nfrom orchestrator.cli.exits import guarded\n"
        "assert guarded(app) == 0\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'pyarrow', 'pydantic', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout
    assert "2 a mistake" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_each_command(cli: RunCli, command: str, flag: str) -> None:
    code, out, err = cli(command, flag)
    assert (code, err) == (0, "")
    assert f"orchestrator {command}" in out


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


def test_one_method(cli: RunCli, mistake: Callable[..., str]) -> None:
    code, out, _ = cli("methods", "replay")
    assert code == 0
    assert [line for line in out.splitlines() if line[:1].isalpha()] == [f"replay: {STRATEGIES['replay'].summary}"]
    assert "did you mean 'replay'?" in mistake("methods", "replya")
    assert "run from its folder" in mistake("methods", "no_such_module:Class")


def test_methods(cli: RunCli) -> None:
    code, out, _ = cli("methods")
    assert code == 0
    for name, strategy in STRATEGIES.items():
        assert f"{name}: {strategy.summary}" in out


def test_scenarios(cli: RunCli) -> None:
    code, out, _ = cli("scenarios")
    assert code == 0
    assert "split-fashion-mnist" in out
    assert "worst_forgetting" in out


def test_schema(cli: RunCli) -> None:
    code, out, _ = cli("schema")
    assert code == 0
    jsonschema.validate({"methods": ["ewc"], "seeds": {"search": [1, 2]}}, json.loads(out))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"method": ["ewc"]}, json.loads(out))


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_spec_prints_a_preset_with_its_comments(cli: RunCli, preset: str | None) -> None:
    code, out, _ = cli("spec", *(["--preset", preset] if preset else []))
    assert code == 0
    assert out.startswith("# ")
    assert parse_spec(yaml.safe_load(out)) == load_spec(preset=preset)


# Mistakes.


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "sweep", "nope.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == EXIT_MISTAKE
    assert done.stderr.startswith(
        "error: the spec has 1 fault:\n  nope.yaml: expected a readable YAML file, got 'No such"
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing is written for a spec with faults"


@pytest.mark.parametrize("command", ["sweep", "plan"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "quickstrt"], ["did you mean 'quickstart'?"]),
        (["--methods", "ewcc"], ["methods.0: expected a known method, got 'ewcc'; did you mean 'ewc'?"]),
        (["--methods", ""], ["methods: expected at least 1 of them, got []"]),
        (["--scenarios", "split-digits/klass,foo"], ["2 faults", "did you mean 'class'?", "got 'foo'"]),
        (["--limit", "forgetting < 1", "--limit", "x <= 1"], ["limits.0: expected 'METRIC <=", "limits.1: "]),
        (["--suggestions", "0"], ["search.suggestions: "]),
        (["--confirm-seeds", "0"], ["seeds.confirm: expected at least 1"]),
        (["--search-seeds", "-1"], ["seeds.search: expected a count"]),
        (["--gpus-per-trial", "1.5"], ["resources.gpus: "]),
        (["--cpus-per-trial", "0"], ["resources.cpus: "]),
        (["--set", "trainin.epochs=3"], ["trainin: expected a known field", "did you mean 'training'?"]),
        (["--set", "training.epochs=many"], ["training.epochs: expected a whole number, got 'many'"]),
        (["--set", "training.epochs"], ["--set: expected FIELD=VALUE, got 'training.epochs'"]),
        (["--set", "=3"], ["--set: expected FIELD=VALUE, got '=3'"]),
        (["--set", "a..b=3"], ["--set: expected FIELD=VALUE, got 'a..b=3'"]),
        (["--set", "name=[1", "--set", "x"], ["2 faults", "got 'name=[1'", "got 'x'"]),
        (["--set", "name=!!int ''"], ["--set: expected FIELD=VALUE"]),
        (["--set", "name=" + "[" * 5000], ["--set: expected FIELD=VALUE, got 'name=[[["]),
        (["--set", "name=a/b"], ["name: expected text of the form"]),
        (["--set", "methods.0=ewc"], ["methods: expected a list"]),
        (["a.yaml", "--preset", "quickstart"], ["expected a file or a preset"]),
    ],
)
def test_mistakes_in_a_spec(mistake: Callable[..., str], command: str, arguments: list[str], parts: list[str]) -> None:
    message = mistake(command, *arguments)
    assert len(message) < 2000
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["split-digits/task"], "trial: expected SCENARIO METHOD, or --from RUN KEY, got 'split-digits/task'"),
        ([], "trial: expected SCENARIO METHOD"),
        (["split-digits/task", "ewcc"], "methods.0: expected a known method"),
        (["split-digits/class", "packnet"], "it must know the task at inference"),
        (["split-digits/task", "ewc", "--with", "lambda=1"], "spaces.ewc.lambda: expected a hyper-parameter"),
        (["split-digits/task", "ewc", "--with", "penalty_weight"], "--with: expected NAME=VALUE, got 'penalty_weight'"),
        (["split-digits/task", "ewc", "--with", "penalty_weight=-1"], "spaces.ewc.penalty_weight: "),
        (
            ["split-digits/task", "naive", "--phase", "search", "--set", "validation_share=0"],
            "validation_share: expected",
        ),
        (["--from", "nowhere", "abc"], "expected a run folder with spec.yaml, got 'nowhere'"),
    ],
)
def test_mistakes_in_a_trial(mistake: Callable[..., str], arguments: list[str], part: str) -> None:
    assert part in mistake("trial", *arguments)


@pytest.mark.parametrize("option", ["--phase", "--device"])
def test_options_with_choices_name_them(cli: RunCli, option: str) -> None:
    code, _, err = cli("trial", "split-digits/task", "naive", option, "tpu")
    assert code == EXIT_MISTAKE
    assert ("'cuda'" if option == "--device" else "'confirm'") in err


def test_a_gpu_that_is_not_there(mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device: expected a device of this machine" in mistake(
        "trial", "split-digits/task", "naive", "--device", "cuda"
    )


def test_guarded_turns_exceptions_into_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def command() -> None:
            raise error

        return command

    assert guarded(lambda: None) == 0
    assert guarded(raising(SystemExit(3))) == 3
    assert guarded(raising(SystemExit())) == 0
    assert guarded(raising(BrokenPipeError())) == 0
    assert guarded(raising(SpecError(["a: expected b, got c; d"]))) == EXIT_MISTAKE
    assert guarded(raising(KeyboardInterrupt())) == EXIT_INTERRUPTED
    err = capsys.readouterr().err
    assert "error: the spec has 1 fault:\n  a: expected b, got c; d\n" in err
    assert "stopped: complete trials are kept" in err
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RunFolderError("got '\x1b[2J\x07\x9b\u202e'"), r"error: got '\x1b[2J\x07\x9b\u202e'"),
        (RunFolderError("odd\nBest: evil\n  column: a\rb"), "error: odd\n  Best: evil\n  column: a\\rb"),
        (SpecError(["a: got 'x\n  b: y'", "c: z"]), "error: the spec has 2 faults:\n  a: got 'x\\n  b: y'\n  c: z"),
        (DataError("a: got 'x\ny'"), "error: a: got 'x\\ny'"),
    ],
)
def test_an_error_is_told_without_what_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], error: OrchestratorError, shown: str
) -> None:
    def command() -> None:
        raise error

    assert guarded(command) == EXIT_MISTAKE
    assert capsys.readouterr().err == f"{shown}\n"


# What the options mean.


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, cli: RunCli) -> Callable[..., SweepSpec]:
    """Return a function from options of `plan` to the spec that they make."""

    def run(*arguments: str) -> SweepSpec:
        seen: list[SweepSpec] = []

        def keep(spec: SweepSpec, *rest: Any) -> None:
            seen.append(spec)
            raise SpecError(["kept"])

        monkeypatch.setattr(api, "plan", keep)
        cli("plan", *arguments)
        return seen[0]

    return run


def test_options_override_the_spec(planned: Callable[..., SweepSpec]) -> None:
    spec = planned(
        *("--scenarios", "split-digits/task, rotated-digits/domain", "--methods", "naive,ewc"),
        *("--limit", "forgetting <= 0.1", "--limit", "seconds <= 60", "--suggestions", "7"),
        *("--search-seeds", "2", "--confirm-seeds", "4", "--cpus-per-trial", "2", "--gpus-per-trial", "0.5"),
        *("--set", "training.learning_rate=1e-3", "--set", "search.sampler=random"),
        *("--set", "spaces.ewc.penalty_weight={low: 1, high: 10}", "--set", "resources.methods.naive.gpus=0"),
    )
    assert spec.scenarios == ("split-digits/task", "rotated-digits/domain")
    assert spec.methods == ("naive", "ewc")
    assert spec.limits == ("forgetting <= 0.1", "seconds <= 60")
    assert (spec.search.suggestions, spec.search.batch, spec.search.sampler) == (7, 4, "random")
    assert (len(spec.seeds.of("search")), len(spec.seeds.of("confirm"))) == (2, 4)
    assert spec.training.learning_rate == 0.001
    assert spec.cells[1].space.distributions["penalty_weight"].high == 10  # type: ignore[attr-defined]
    assert spec.resources.of("split-digits/task", "naive").device == "cpu"
    assert spec.resources.of("split-digits/task", "ewc").gpus == 0.5


def test_without_options_it_is_the_quickstart(planned: Callable[..., SweepSpec]) -> None:
    assert planned() == load_spec(preset="quickstart")
    assert planned("--preset", "split-mnist") == load_spec(preset="split-mnist")


def test_other_scenarios_may_leave_settings_of_a_stream_unused(planned: Callable[..., SweepSpec]) -> None:
    spec = planned("--preset", "split-mnist", "--scenarios", "split-digits/task")
    assert [cell.stream for cell in spec.cells] == ["split-digits"] * 5


# Plan, trial and show.


def test_a_plan_writes_nothing(cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.search.plan.naive_seconds", lambda *_: 1.0)
    code, out, err = cli(
        "plan", "--scenarios", "split-digits/class", "--methods", "naive,ewc,packnet", "--workers", "2"
    )
    assert (code, err) == (0, "")
    assert "note: split-digits/class packnet is left out: it must know the task" in out
    assert "0 trials done, up to 49 to do in runs/quickstart" in out
    assert "with 2 trials at once" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_a_run_counts_its_rows(cli: RunCli, run_folder: tuple[Path, dict[str, str]]) -> None:
    path, _ = run_folder
    before = sorted(path.rglob("*"))
    code, out, _ = cli("plan", path / "spec.yaml", "--run", path, "--confirm-seeds", "3", "--workers", "1")
    assert code == 0
    assert "3 trials done, up to 1 to do" in out
    assert "from rows of this run" in out
    assert sorted(path.rglob("*")) == before


def test_a_plan_refuses_a_run_that_it_could_not_extend(
    mistake: Callable[..., str], run_folder: tuple[Path, dict[str, str]]
) -> None:
    path, _ = run_folder
    message = mistake("plan", path / "spec.yaml", "--run", path, "--set", "training.epochs=2")
    assert "expected a spec that repeats or extends the run" in message


def test_a_trial_runs_in_this_process_without_ray() -> None:
    arguments = ["trial", "split-digits/task", "ewc", "--with", "penalty_weight=10", *SMALL]
    program = (
        "import sys\nfrom orchestrator.cli.main import app\nfrom orchestrator.cli.exits import guarded\n"
        f"code = guarded(lambda: app({arguments!r}))\n"
        "sys.exit('ray was imported' if 'ray' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ": completed" in done.stdout
    for part in (
        "accuracy on   task 0  task 1\n",
        "after task 0",
        "after task 1",
        "average_accuracy",
        "worst_forgetting",
        "kept_bytes",
        "seconds",
    ):
        assert part in done.stdout
    assert "forward_transfer" not in done.stdout, "it was not measured"


def test_a_trial_takes_what_a_trial_needs_from_a_spec_and_no_more(cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    content = {
        "scenarios": ["permuted-digits/domain"],
        "methods": ["naive", "packnet"],
        "unsupported_cells": "skip",
        "limits": ["forward_transfer >= 0"],
        "seeds": {"search": 0, "confirm": 1},
        "resources": {"scenarios": {"permuted-digits/domain": {"cpus": 2}}},
        "streams": {"permuted-digits": {"n_tasks": 3}, "split-digits": {"n_tasks": 1}},
        "training": {"iterations": 2},
        "model": {"hidden": [4]},
    }
    content["spaces"] = {"packnet": {"pruning_rate": 0.5, "post_prune_epochs": 1}}
    path.write_text(yaml.safe_dump(content))
    code, out, _ = cli("trial", "split-digits/task", "replay", "--spec", path, "--with", "buffer_size=10")
    assert code == 0
    assert "after task 0" in out
    assert "after task 1" not in out


def test_a_trial_that_diverges_is_incomplete(cli: RunCli) -> None:
    code, out, _ = cli(
        *("trial", "split-digits/task", "naive", *SMALL),
        *("--set", "training.learning_rate=100", "--set", "training.weight_decay=1000"),
    )
    assert code == EXIT_INCOMPLETE
    assert "failed diverged" in out


def test_a_recorded_trial_is_repeated(cli: RunCli, run_folder: tuple[Path, dict[str, str]]) -> None:
    path, keys = run_folder
    code, out, _ = cli("trial", "--from", path, keys["confirm"][:10])
    assert code == 0
    assert "repeating split-digits/task naive, seed 1001, confirm" in out
    assert "equal: the matrix is bit-equal to the recorded one" in out


def test_a_repeated_trial_that_differs_says_where(
    cli: RunCli, run_folder: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keys = run_folder
    real = api.run_single_trial

    def other(*arguments: Any) -> Any:
        result = real(*arguments)
        result.n_correct[2][0] += 1
        return result

    monkeypatch.setattr(api, "run_single_trial", other)
    code, out, _ = cli("trial", "--from", path, keys["search"])
    assert code == EXIT_DIFFERENT
    assert "different in 1 of 3 cells (after task, task): [(1, 0)]" in out
    assert "recorded on" in out


def test_show(cli: RunCli, run_folder: tuple[Path, dict[str, str]]) -> None:
    path, _ = run_folder
    code, out, _ = cli("show", path)
    assert code == 0
    assert "Best feasible: naive: average_accuracy" in out
    assert "test, 2 seeds" in out


def test_show_every_trial(cli: RunCli, run_folder: tuple[Path, dict[str, str]]) -> None:
    path, keys = run_folder
    code, out, _ = cli("show", path, "--trials")
    assert code == 0
    assert keys["search"] in out
    assert keys["confirm"] in out
    assert out.count("completed") == 3


def test_show_one_trial(cli: RunCli, run_folder: tuple[Path, dict[str, str]]) -> None:
    path, keys = run_folder
    code, out, _ = cli("show", path, "--trial", keys["search"][:12])
    assert code == 0
    assert f"trial {keys['search']}" in out
    assert "after 0" in out
    assert "after 1" in out


def test_show_refuses_what_it_cannot_show(
    mistake: Callable[..., str], run_folder: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, _ = run_folder
    assert "expected a run folder with spec.yaml" in mistake("show", tmp_path)
    assert "expected a run folder with spec.yaml" in mistake("show", tmp_path / "nope")
    assert "expected the key of one trial, got 'zzz' which fits 0" in mistake("show", path, "--trial", "zzz")
    assert "which fits 3" in mistake("show", path, "--trial", "")
    (tmp_path / "spec.yaml").write_text("methods: [ewcc]\n")
    assert "expected the spec of a run, got one with faults" in mistake("show", tmp_path)


def test_show_a_run_without_rows(cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("{}")
    code, out, _ = cli("show", tmp_path)
    assert code == 0
    assert "No method has a complete result yet" in out
    assert cli("show", tmp_path, "--trials")[0] == 0
    assert cli("show", tmp_path, "--trial", "abc")[0] == EXIT_MISTAKE
