"""The sequential protocol, run directly: what it measures and when, resuming in a new process, and failures.

That each method repeats, resumes inside a task and equals naive at strength 0 is tested by the conformance suite.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.core.metrics import METRICS
from orchestrator.core.placement import Placement
from orchestrator.core.scores import ACCURACY, Measurement
from orchestrator.results.rows import trial_row
from orchestrator.results.tables import Table
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.streams.stream import Stream
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from strategies import TrialDivergedError
from strategies.methods.naive import Naive
from strategies.methods.packnet import Packnet

MakeTrial = Callable[..., TrialSpec]
TRAINING = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}

CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("split-digits/task", "packnet", {}, {}),
    ("split-digits/class", "ewc", {}, {}),
    ("split-digits/class", "replay", {"buffer_size": 40}, {"keep_optimizer": True, "optimizer": "adam"}),
    ("permuted-digits/domain", "naive", {}, {"optimizer": "rmsprop", "iterations": 30, "learning_rate": 0.003}),
]
"""Each incremental type and each kind of state: weights, masks, anchors, a buffer, an optimizer."""


@pytest.fixture(scope="module")
def trials(make_trial: MakeTrial) -> list[TrialSpec]:
    """Return the trial of every case."""
    return [
        make_trial(
            scenario,
            method,
            values,
            training=TRAINING | training,
            streams={"permuted-digits": {"n_tasks": 4}} if scenario.startswith("permuted") else {},
        )
        for scenario, method, values, training in CASES
    ]


def run(spec: TrialSpec, digits: Dataset, **options: Any) -> TrialResult:
    return run_trial(spec, digits.phase(spec.phase, spec.validation_share, spec.validation_seed), **options)


@pytest.fixture(scope="module")
def results(trials: list[TrialSpec], digits: Dataset) -> dict[str, TrialResult]:
    """Return the result of every case, run in this process one after the other."""
    torch.set_num_threads(1)
    found = {spec.key: run(spec, digits) for spec in trials}
    assert len(found) == len(CASES)
    assert {r.status for r in found.values()} == {"completed"}, [r.reason for r in found.values()]
    return found


# What is measured.


def test_only_domain_measures_tasks_before_training(trials: list[TrialSpec], results: dict[str, TrialResult]) -> None:
    for spec in trials:
        result = results[spec.key]
        n_tasks = len(result.n_examples)
        assert len(result.n_correct) == n_tasks + 1
        for after, row in enumerate(result.n_correct, start=-1):
            measured = [task for task, count in enumerate(row) if count is not None]
            assert measured == list(range(n_tasks if spec.incremental_type == "domain" else after + 1)), spec.cell
        transfer = result.metrics()["forward_transfer"]
        assert math.isfinite(transfer) == (spec.incremental_type == "domain")


def test_counts_are_of_the_held_out_examples(
    trials: list[TrialSpec], results: dict[str, TrialResult], digits: Dataset
) -> None:
    result = results[trials[0].key]
    expected = [int(((digits.test_labels == 2 * t) | (digits.test_labels == 2 * t + 1)).sum()) for t in range(5)]
    assert result.n_examples == expected
    assert all(0 <= c <= n for row in result.n_correct for c, n in zip(row, expected, strict=True) if c is not None)


def test_naive_in_class_remembers_only_the_last_task(make_trial: MakeTrial, digits: Dataset) -> None:
    training = {"epochs": 12, "batch_size": 16, "learning_rate": 0.1}
    result = run(make_trial("split-digits/class", "naive", training=training, model={"hidden": [64]}), digits)
    last = result.n_correct[-1][-1]
    assert last is not None
    final = last / result.n_examples[-1]
    assert final > 0.9
    assert result.metrics()["average_accuracy"] == pytest.approx(final / 5, abs=0.02)
    assert result.metrics()["learning_accuracy"] > 0.9


def test_packnet_forgets_exactly_nothing(trials: list[TrialSpec], results: dict[str, TrialResult]) -> None:
    found = [results[spec.key] for spec in trials if spec.method == "packnet"]
    assert len(found) == 1
    for result in found:
        metrics = result.metrics()
        assert metrics["forgetting"] == metrics["worst_forgetting"] == metrics["backward_transfer"] == 0.0
        for task in range(5):
            assert len({row[task] for row in result.n_correct[task + 1 :]}) == 1


def test_evaluation_comes_after_consolidation(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def erase(self: Naive, task: object) -> None:
        for parameter in self.learner.network.parameters():
            parameter.data.zero_()

    monkeypatch.setattr(Naive, "end_task", erase)
    result = run(make_trial(), digits)
    zeros = [int((digits.test_labels == 2 * task).sum()) for task in range(5)]
    assert result.n_correct[-1] == zeros, "with all logits equal the first class of a task is predicted"


def test_packnet_is_measured_after_pruning(make_trial: MakeTrial, digits: Dataset) -> None:
    fields = {"training": {"epochs": 10, "learning_rate": 0.1}, "model": {"hidden": [32]}}
    learned = {}
    for rate in (0.01, 0.9999):
        spec = make_trial(method="packnet", hyperparameters={"pruning_rate": rate, "post_prune_epochs": 0}, **fields)
        learned[rate] = run(spec, digits).metrics()["learning_accuracy"]
    assert learned[0.01] > 0.9
    assert learned[0.9999] < 0.6, "every weight was pruned before the measurement"


def test_report_gets_each_row(make_trial: MakeTrial, digits: Dataset) -> None:
    rows: dict[int, list[float]] = {}

    def report(after: int, row: list[Measurement | None], stream: Stream) -> None:
        names = stream.class_names
        rows[after] = [math.nan if c is None else c.value(ACCURACY, n) for c, n in zip(row, names, strict=True)]

    result = run(make_trial("split-digits/class"), digits, report=report)
    assert list(rows) == [-1, 0, 1, 2, 3, 4]
    torch.testing.assert_close(
        torch.tensor(list(rows.values()), dtype=torch.float64),
        torch.from_numpy(result.matrix.accuracy),
        equal_nan=True,
        rtol=0,
        atol=0,
    )


def test_costs(make_trial: MakeTrial, digits: Dataset) -> None:
    n_parameters = (64 * 16 + 16) + 5 * (16 * 2 + 2)
    expected = {
        "naive": 0,
        "replay": 30 * (64 * 4 + 8 + 8),
        "packnet": 64 * 16,
        "ewc": 2 * 4 * n_parameters,
        "joint": sum(int((digits.train_labels == c).sum()) for c in range(8)) * (64 * 4 + 8),
    }
    for method, kept in expected.items():
        values = {"buffer_size": 30} if method == "replay" else {}
        result = run(make_trial(method=method, hyperparameters=values), digits)
        assert result.costs["n_parameters"] == n_parameters, method
        assert result.costs["kept_bytes"] == kept, method
        parts = result.costs["train_seconds"] + result.costs["evaluate_seconds"]
        assert 0 < parts <= result.costs["seconds"]
        assert result.costs["peak_memory_bytes"] > 2**20


def test_domain_has_one_head(make_trial: MakeTrial, digits: Dataset) -> None:
    assert run(make_trial("split-digits/domain"), digits).costs["n_parameters"] == (64 * 16 + 16) + (16 * 2 + 2)


def test_the_search_phase_uses_the_validation_split(make_trial: MakeTrial, digits: Dataset) -> None:
    result = run(make_trial(phase="search"), digits)
    assert sum(result.n_examples) == len(digits.phase("search", 0.1).evaluation_labels)


def test_a_gpu_that_is_not_there_is_the_machines_error(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial()
    result = run_trial(trial, digits.phase(trial.phase, 0.1, trial.validation_seed), Placement("cuda"))
    if torch.cuda.is_available():
        assert result.status == "completed"
    else:
        assert result.status == "error"
        assert "no GPU that torch can use" in result.reason


def test_without_held_out_examples_nothing_is_measured(make_trial: MakeTrial, digits: Dataset) -> None:
    # No sweep asks for this: a spec with search seeds and no validation data is refused.
    result = run(make_trial(phase="search").model_copy(update={"validation_share": 0.0}), digits)
    assert result.status == "failed"
    assert "raise validation_share" in result.reason
    assert all(math.isnan(value) for value in result.metrics().values())


def test_result_travels_as_json(trials: list[TrialSpec], results: dict[str, TrialResult]) -> None:
    for spec in trials:
        result = results[spec.key]
        assert "NaN" not in result.to_json()
        copy = TrialResult.from_json(result.to_json())
        assert copy == result
        assert json.dumps(copy.metrics()) == json.dumps(result.metrics())
        assert result.key == spec.key
        assert TrialSpec.model_validate_json(spec.model_dump_json()).key == spec.key


# Repeatability.

CHILD = """
import json, sys
from pathlib import Path
import torch
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.protocol import run_trial
from orchestrator.spec.trial_spec import TrialSpec

torch.set_num_threads(1)
digits = load_dataset("digits", Path("nowhere"))
found = []
for text, checkpoint in json.load(sys.stdin):
    spec = TrialSpec.model_validate_json(text)
    rows = []
    result = run_trial(
        spec,
        digits.phase(spec.phase, spec.validation_share, spec.validation_seed),
        report=lambda after, row, stream: rows.append(after),
        checkpoint=Path(checkpoint) if checkpoint else None,
    )
    found.append([result.to_json(), rows])
print(json.dumps(found))
"""


def in_new_process(jobs: list[tuple[TrialSpec, Path | None]]) -> list[tuple[TrialResult, list[int]]]:
    """Run trials in a fresh process and return each result and the rows that were measured there."""
    sent = json.dumps([[spec.model_dump_json(), str(path) if path else None] for spec, path in jobs])
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=sent, capture_output=True, text=True, timeout=120, cwd=Path.cwd()
    )
    assert child.returncode == 0, child.stderr
    return [(TrialResult.from_json(result), rows) for result, rows in json.loads(child.stdout)]


class StopError(BaseException):
    """What ends a process from outside, such as an interrupt; not a fault of the trial."""


@pytest.fixture(scope="module")
def second_process(
    trials: list[TrialSpec], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[TrialResult, list[int]]]]:
    """Return the results of a new process: every trial continued after a stop here, then from scratch."""
    torch.set_num_threads(1)

    def stop(after: int, row: object, stream: object) -> None:
        if after == 2:
            raise StopError

    folder = tmp_path_factory.mktemp("checkpoints")
    stopped: list[tuple[TrialSpec, Path | None]] = [(spec, folder / f"{spec.key}.pt") for spec in trials]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        for spec, path in stopped:
            with pytest.raises(StopError):
                run(spec, digits, report=stop, checkpoint=path)
            assert path is not None
            assert path.is_file()
    found = in_new_process([*stopped, *((spec, None) for spec in reversed(trials))])
    assert list(folder.iterdir()) == [], "a checkpoint is deleted at the end"
    return {"continued": found[: len(trials)], "afresh": found[len(trials) :][::-1]}


def test_a_new_process_continues_a_stopped_trial(
    trials: list[TrialSpec],
    results: dict[str, TrialResult],
    second_process: dict[str, list[tuple[TrialResult, list[int]]]],
) -> None:
    for spec, (result, rows) in zip(trials, second_process["continued"], strict=True):
        assert result.status == "completed", (spec.cell, result.reason)
        assert rows == list(range(2, len(result.n_examples))), "continued after task 1, not from the start"
        assert result.n_correct == results[spec.key].n_correct, spec.cell
        assert result.n_examples == results[spec.key].n_examples
        assert result.details == results[spec.key].details
        for cost in ("kept_bytes", "n_parameters"):
            assert result.costs[cost] == results[spec.key].costs[cost]


def test_a_fresh_process_measures_the_same(
    trials: list[TrialSpec],
    results: dict[str, TrialResult],
    second_process: dict[str, list[tuple[TrialResult, list[int]]]],
) -> None:
    """Also in another order: what ran before in a process leaves no trace in a trial."""
    for spec, (result, _) in zip(trials, second_process["afresh"], strict=True):
        assert result.n_correct == results[spec.key].n_correct, spec.cell
        assert result.details == results[spec.key].details


@pytest.fixture
def every_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a checkpoint after every task."""
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


def test_a_killed_process_leaves_a_checkpoint(
    trials: list[TrialSpec], results: dict[str, TrialResult], digits: Dataset, tmp_path: Path
) -> None:
    spec = next(s for s in trials if s.cell == "split-digits/class replay")
    path = tmp_path / "running.pt"
    fatal = CHILD.replace(
        "lambda after, row, stream: rows.append(after)",
        "lambda after, row, stream: os.kill(os.getpid(), 9) if after == 3 else None",
    )
    code = (
        "import os\nfrom orchestrator.trial import protocol as trial\ntrial.SECONDS_BETWEEN_CHECKPOINTS = 0.0\n" + fatal
    )
    sent = json.dumps([[spec.model_dump_json(), str(path)]])
    child = subprocess.run([sys.executable, "-c", code], input=sent, text=True, capture_output=True, timeout=120)
    assert child.returncode == -signal.SIGKILL
    rows: list[int] = []
    result = run(spec, digits, report=lambda after, row, stream: rows.append(after), checkpoint=path)
    assert rows == [3, 4]
    assert result.n_correct == results[spec.key].n_correct


@pytest.mark.parametrize("method", ["naive", "replay"])
def test_another_seed_measures_something_else(make_trial: MakeTrial, digits: Dataset, method: str) -> None:
    found = [run(make_trial("split-digits/class", method, seed=seed), digits).n_correct for seed in (0, 1)]
    assert found[0] != found[1]


@pytest.mark.usefixtures("every_boundary")
def test_the_time_before_a_stop_is_counted_once(make_trial: MakeTrial, digits: Dataset, tmp_path: Path) -> None:
    """However often it is stopped."""
    path, spec = tmp_path / "c.pt", make_trial()
    for last in (0, 1, 2):

        def stop(after: int, row: object, stream: object, last: int = last) -> None:
            if after == last + 1:
                raise StopError

        with pytest.raises(StopError):
            run(spec, digits, report=stop, checkpoint=path)
        content = torch.load(path, weights_only=True)
        seconds = content["payload"]["seconds"]
        if last == 0:
            seconds["train_seconds"] = 1000.0  # as if the first task had taken that long
            torch.save(content, path)
    costs = run(spec, digits, checkpoint=path).costs
    assert 1000 < costs["train_seconds"] < 1100
    assert costs["train_seconds"] + costs["evaluate_seconds"] <= costs["seconds"] < 1100


# Failing.


def test_a_learning_rate_that_diverges_is_a_result(make_trial: MakeTrial, digits: Dataset, tmp_path: Path) -> None:
    spec = make_trial(training={"learning_rate": 100.0, "epochs": 5}, model={"hidden": [64] * 6})
    path = tmp_path / "c.pt"
    result = run(spec, digits, checkpoint=path)
    assert result.status == "failed"
    assert result.reason.startswith("diverged: ")
    assert "lower the learning rate" in result.reason
    assert (result.n_correct, result.n_examples, result.details) == ([], [], {})
    assert all(math.isnan(value) for value in result.metrics().values())
    assert set(result.metrics()) == set(METRICS)
    assert result.costs["seconds"] > 0
    assert json.loads(result.to_json())["status"] == "failed"
    assert "NaN" not in result.to_json()


FAULTS: list[tuple[Exception, str, str]] = [
    (TrialDivergedError("the loss is nan; lower it"), "failed", "diverged: the loss is nan; lower it"),
    (ValueError("two\nlines"), "failed", r"ValueError: two at test_protocol\.py:\d+"),
    (RuntimeError(""), "failed", r"RuntimeError:  at test_protocol\.py:\d+"),
    (AssertionError("oops"), "failed", r"AssertionError: oops at test_protocol\.py:\d+"),
    (OSError(28, "No space left on device"), "error", r"OSError: \[Errno 28\] No space left on device at .*"),
    (MemoryError(), "error", r"MemoryError:  at .*"),
    (torch.OutOfMemoryError("CUDA out of memory"), "error", r"OutOfMemoryError: CUDA out of memory at .*"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "error", ".*ALLOC.*"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "error", ".*NOT_INITIALIZED at .*"),
    (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), "error", ".*ALLOC_FAILED at .*"),
    (RuntimeError("CUDA error: out of memory"), "error", ".*out of memory at .*"),
    (RuntimeError("CUDA driver error: out of memory"), "error", ".*out of memory at .*"),
    (RuntimeError("mat1 and mat2 must have the same dtype"), "failed", ".*dtype at .*"),
    (ValueError("CUDA error"), "failed", ".*"),
]


@pytest.mark.parametrize(("fault", "status", "reason"), FAULTS)
def test_whose_fault_it_was(
    make_trial: MakeTrial,
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: Exception,
    status: str,
    reason: str,
) -> None:
    def fail(self: Naive, task: object) -> None:
        raise fault

    monkeypatch.setattr(Naive, "end_task", fail)
    path = tmp_path / "c.pt"
    path.write_bytes(b"of an earlier attempt")
    result = run(make_trial(), digits, checkpoint=path)
    assert result.status == status
    assert re.fullmatch(reason, result.reason), result.reason
    assert path.exists() == (status == "error"), "kept for the next attempt if the machine was at fault"


def test_refused_memory_is_the_machines_fault(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs torch raises a RuntimeError."""

    def hoard(self: Naive, task: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(Naive, "end_task", hoard)
    result = run(make_trial(), digits)
    assert result.status == "error"
    assert "can't allocate memory" in result.reason


def test_a_fault_while_setting_up_has_a_reason(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Packnet, *args: Any) -> None:
        raise ValueError("cannot be built")

    monkeypatch.setattr(Packnet, "__init__", refuse)
    result = run(make_trial(method="packnet"), digits)
    assert result.status == "failed"
    assert result.reason.startswith("ValueError: cannot be built at test_protocol.py:")
    assert "seconds" not in result.costs


@pytest.mark.parametrize(
    ("reported", "written"),
    [
        ({"loss": math.nan, "all": [1, math.inf, 0.5]}, {"loss": None, "all": [1, None, 0.5]}),
        ({"name": "caf\u00e9 \udce9", "\udce9": True}, {"name": "caf\u00e9 ?", "?": True}),
        (
            {"n": np.int64(3), "x": np.float32(0.5), "none": None, "at": Path("a")},
            {"n": 3, "x": 0.5, "none": None, "at": "a"},
        ),
        ({1: (2, 3), "a": {"b": -math.inf}}, {"1": [2, 3], "a": {"b": None}}),
    ],
)
def test_any_report_of_a_method_can_be_written(
    make_trial: MakeTrial,
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    reported: dict[Any, Any],
    written: dict[str, Any],
) -> None:
    monkeypatch.setattr(Naive, "report", lambda self: reported)
    spec = make_trial()
    result = run(spec, digits)
    assert result.status == "completed"
    assert result.details == {"naive": written}
    Table(tmp_path, "trials").write(spec.key, [trial_row(spec, 0, result, {})])
    assert json.loads(Table(tmp_path, "trials").read()["details"][0]) == {"naive": written}
    assert TrialResult.from_json(result.to_json()) == result


def test_a_reason_can_always_be_written(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(self: Naive, task: object) -> None:
        raise ValueError("no file 'caf\udce9'")

    monkeypatch.setattr(Naive, "end_task", fail)
    spec = make_trial()
    result = run(spec, digits)
    assert result.reason.startswith("ValueError: no file 'caf?' at ")
    Table(tmp_path, "trials").write(spec.key, [trial_row(spec, 0, result, {})])
    assert Table(tmp_path, "trials").read()["reason"][0] == result.reason


@pytest.mark.parametrize(("name", "has_seconds"), [("report", True), ("kept_bytes", False)])
def test_a_report_that_raises_fails_its_trial(
    make_trial: MakeTrial, digits: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, has_seconds: bool
) -> None:
    def fail(self: Naive) -> None:
        raise ValueError("nothing to say")

    monkeypatch.setattr(Naive, name, fail)
    result = run(make_trial(), digits)
    assert result.status == "failed"
    assert result.reason.startswith("ValueError: nothing to say at test_protocol.py:")
    assert ("seconds" in result.costs) == has_seconds
    assert (result.n_correct, result.details, result.chance_accuracy) == ([], {}, None)


def test_provenance_says_where_it_ran(trials: list[TrialSpec], results: dict[str, TrialResult]) -> None:
    provenance = results[trials[0].key].provenance
    assert provenance["process_id"] == os.getpid()
    assert provenance["device"] == Placement().device == "cpu"
    assert provenance["torch_version"] == torch.__version__
    assert provenance["data_hash"] == trials[0].data_fingerprint
    assert provenance["started_at"].endswith("+00:00")


@pytest.mark.mnist
def test_naive_in_class_on_mnist(make_trial: MakeTrial, mnist_dir: Path) -> None:
    """van de Ven et al. 2022 print 19.89 ± 0.02 for 2000 iterations; a tenth of them gets near."""
    dataset = load_dataset("mnist", mnist_dir)
    spec = make_trial(
        "split-mnist/class",
        training={"iterations": 150, "batch_size": 128, "optimizer": "adam", "learning_rate": 0.001},
        model={"hidden": [100]},
    )
    result = run_trial(spec, dataset.phase("confirm", 0.1))
    last = result.n_correct[-1][-1]
    assert last is not None
    assert last / result.n_examples[-1] > 0.95
    assert result.metrics()["average_accuracy"] == pytest.approx(last / result.n_examples[-1] / 5, abs=0.01)
    assert result.n_correct[-1][:4] == pytest.approx([0, 0, 0, 0], abs=40)
