"""The command `trial`: one trial in this process, or a recorded one again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import api
from orchestrator.cli.shared.exits import EXIT_DIFFERENT, EXIT_INCOMPLETE, EXIT_MISTAKE
from orchestrator.core.defaults import DATA_DIR
from orchestrator.results.evaluations.rows import evaluation_rows
from orchestrator.results.rows import accuracy_rows, trial_row
from orchestrator.results.run import Run
from orchestrator.spec.loading import load_spec, parse_spec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.protocol import run_trial
from tests.cli.conftest import SMALL, Mistake, RunCli, RunFolder


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["split-digits/task"], "python -m orchestrator trial split-digits/task replay\n"),
        (
            [],
            "a scenario and a method are missing. For example: python -m orchestrator trial split-digits/class rep",
        ),
        (["ewc"], "there is only 'ewc'. For example: python -m orchestrator trial split-digits/class replay\n"),
        (["split-digits/task", "ewcc"], "methods.0: expected a known method"),
        (["split-digits/class", "packnet"], "it must know the task at inference"),
        (["split-digits/task", "ewc", "--with", "lambda=1"], "spaces.ewc.lambda: expected a hyper-parameter"),
        (["split-digits/task", "ewc", "--with", "penalty_weight"], "--with: expected NAME=VALUE, got 'penalty_weight'"),
        (["split-digits/task", "ewc", "--with", "penalty_weight=-1"], "spaces.ewc.penalty_weight: "),
        (
            ["split-digits/task", "naive", "--phase", "search", "--set", "validation_share=0"],
            "validation_share: the search phase needs validation data",
        ),
        (["--from", "nowhere", "abc"], "expected a run folder with spec.yaml, got 'nowhere'"),
    ],
)
def test_mistakes_in_a_trial(mistake: Mistake, arguments: list[str], part: str) -> None:
    assert part in mistake("trial", *arguments)


def test_what_changes_nothing_is_said_before_a_trial(cli: RunCli) -> None:
    given = ["--with", "rank=3", "--with", "penalty_weight=5", "--set", "training.evaluate=masked"]
    code, out, err = cli("trial", "split-digits/domain", "ewc", *given, *SMALL)
    assert code == 0, err
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: training.evaluate: masked changes nothing: no scenario is task-incremental",
        "note: ewc: rank: no effect beside the other hyper-parameters; drop it, or change those",
    ]


def test_an_example_in_a_message_runs(cli: RunCli, mistake: Mistake) -> None:
    for arguments in ([], ["split-digits/task"], ["replay"]):
        message = mistake("trial", *arguments)
        assert "spec" not in message, "the user gave none"
        command = message.partition("python -m orchestrator ")[2].partition("\n")[0]
        assert cli(*command.split(), *SMALL)[0] == 0


@pytest.mark.parametrize("option", ["--phase", "--device"])
def test_options_with_choices_name_them(cli: RunCli, option: str) -> None:
    code, _, err = cli("trial", "split-digits/task", "naive", option, "tpu")
    assert code == EXIT_MISTAKE
    assert ("'cuda'" if option == "--device" else "'confirm'") in err


def test_a_missing_gpu_is_a_mistake(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "PyTorch finds no CUDA device on this machine" in mistake(
        "trial", "split-digits/task", "naive", "--device", "cuda"
    )


def test_a_trial_prints_rows_metrics_and_costs(cli: RunCli) -> None:
    code, out, _ = cli("trial", "split-digits/task", "ewc", "--with", "penalty_weight=10", *SMALL)
    assert code == 0
    assert ": completed\n" in out
    assert "accuracy on     0/1     2/3\n" in out
    for word in ("after 0/1", "after 2/3", "average_accuracy", "worst_forgetting", "kept_bytes", "seconds"):
        assert word in out
    assert "forward_transfer" not in out, "it was not measured"


def test_a_trial_shows_its_inside_on_request(cli: RunCli) -> None:
    code, out, _ = cli("trial", "split-digits/class", "replay", *SMALL, "--set", "diagnostics=true")
    assert code == 0
    for name in ("fisher_share_ever", "fisher_effective_rank", "dead_units", "plasticity_gap", "buffer_fairness"):
        assert len([line for line in out.splitlines() if line.split()[:1] == [name]]) == 1
    assert "fisher_share" not in cli("trial", "split-digits/class", "replay", *SMALL)[1]


def test_a_trial_ignores_what_only_a_sweep_needs(cli: RunCli, tmp_path: Path) -> None:
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
    assert "after 0/1" in out
    assert "after 2/3" not in out


def test_a_confirm_trial_needs_no_validation_data(cli: RunCli, mistake: Mistake, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("methods: [naive]\nvalidation_share: 0\nseeds: {search: 0}\n")
    trial = ("trial", "split-digits/task", "ewc", "--spec", path, *SMALL)
    code, out, _ = cli(*trial)
    assert code == 0
    assert ": completed\n" in out
    assert cli(*trial, "--phase", "confirm")[0] == 0
    assert "validation_share: the search phase needs validation data" in mistake(*trial, "--phase", "search")


def test_a_trial_takes_the_fixed_values_of_its_spec(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "scenarios: [split-digits/task]\nmethods: [ewc]\nvalidation_share: 0\n"
        "spaces:\n"
        "  all: {learning_rate: 0.5}\n"
        "  ewc: {penalty_weight: 7, fisher_samples: {low: 1, high: 9}, fisher: true}\n"
    )
    spec = load_spec(path, phase="confirm")
    trial = api.single_trial_spec(spec, {}, 3, "confirm", DATA_DIR)
    values = trial.hyperparameters
    assert (values["learning_rate"], values["penalty_weight"], values["fisher_samples"]) == (0.5, 7.0, 200)
    assert (trial.validation_share, trial.seed, trial.phase) == (0.0, 3, "confirm")
    assert api.single_trial_spec(spec, {"penalty_weight": 9}, 3, "confirm", DATA_DIR).hyperparameters == values | {
        "penalty_weight": 9.0
    }


def test_a_single_trial_has_the_key_of_the_sweep() -> None:
    spec = parse_spec({"methods": ["ewc"], "spaces": {"ewc": {"penalty_weight": 7}}})
    trial = api.single_trial_spec(spec, {}, 3, "search", DATA_DIR)
    assert trial.key == spec.trial(spec.cells[0], {}, 3, "search", trial.data_fingerprint).key


def test_a_trial_that_diverges_is_incomplete(cli: RunCli) -> None:
    code, out, _ = cli(
        *("trial", "split-digits/task", "naive", *SMALL),
        *("--set", "training.learning_rate=100", "--set", "training.weight_decay=1000"),
    )
    assert code == EXIT_INCOMPLETE
    assert ": failed (diverged" in out


def test_a_recorded_trial_is_repeated(cli: RunCli, run_folder: RunFolder) -> None:
    path, keys = run_folder
    code, out, _ = cli("trial", "--from", path, keys["confirm"][:10])
    assert code == 0
    assert "repeating split-digits/task naive, seed 1001, confirm" in out
    assert "equal: the accuracy matrix is identical to the recorded one" in out


def test_a_repeated_trial_is_compared_within_tasks_too(
    cli: RunCli, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R may be the same by chance where a model on its way to it was not."""
    spec = parse_spec(
        {
            "methods": ["naive"],
            "seeds": {"search": 0, "confirm": 1},
            "search": "defaults",
            "model": {"hidden": [16]},
            "training": {"epochs": 1, "evaluate_every": 100},
            "streams": {"split-digits": {"n_tasks": 2}},
        }
    )
    run = Run.create(tmp_path / "a", spec)
    trial = spec.trial(spec.cells[0], {}, 1001, "confirm", digits.fingerprint())
    result = run_trial(trial, digits.phase("confirm", trial.validation_share, trial.validation_seed))
    row, accuracy = trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result)
    run.tables.write_trial(trial.key, row, accuracy, evaluations=evaluation_rows(trial, 0, result))
    code, out, _ = cli("trial", "--from", run.path, trial.key)
    assert code == 0
    assert "equal: the accuracy matrix is identical to the recorded one and so are all evaluations within tasks" in out
    real = api.run_single_trial

    def other(*arguments: Any) -> Any:
        found = real(*arguments)
        n_right = found.cells_within[0][0].n_right
        found.cells_within[0][0] = replace(found.cells_within[0][0], n_right=(n_right[0] + 1, *n_right[1:]))
        return found

    monkeypatch.setattr(api, "run_single_trial", other)
    code, out, _ = cli("trial", "--from", run.path, trial.key)
    assert code == EXIT_DIFFERENT
    assert "of the accuracy matrix" not in out
    assert re.search(
        r"different: 1 of \d+ evaluations, at \(during task, examples given, task\) \[\(0, \d+, 0\)\]", out
    )


def test_a_repeated_trial_that_differs_says_where(
    cli: RunCli, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
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
    assert "different: 1 of 3 cells of the accuracy matrix, at (after task, task) [(1, 0)]" in out
    assert "recorded on" in out
