"""Evaluations while tasks are trained: when they are, what they hold, and that nothing else depends on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.scores import ACCURACY, Score
from orchestrator.results.compaction import compact
from orchestrator.results.evaluations.rows import evaluation_rows, moments_of
from orchestrator.results.rows import accuracy_rows, matrices_of, trial_row
from orchestrator.results.run import Run
from orchestrator.results.schema import SCHEMAS
from orchestrator.results.tables import Table
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial import protocol
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult

MakeTrial = Callable[..., TrialSpec]
TRAINING: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}


def run(spec: TrialSpec, digits: Dataset, **options: Any) -> TrialResult:
    result = run_trial(spec, digits.phase(spec.phase, spec.validation_share, spec.validation_seed), **options)
    assert result.status == "completed", result.reason
    return result


def with_every(make_trial: MakeTrial, every: int | None, method: str = "replay", **fields: Any) -> TrialSpec:
    more = {"evaluate_every": every} if every else {}
    training = TRAINING | fields.pop("training", {}) | more
    return make_trial(fields.pop("scenario", "split-digits/class"), method, training=training, **fields)


def test_only_evaluations_differ(make_trial: MakeTrial, digits: Dataset) -> None:
    """R and what the method reports are those of a trial without, with diagnostics too."""
    plain = run(with_every(make_trial, None), digits, diagnostics=True)
    found = run(with_every(make_trial, 100), digits, diagnostics=True)
    assert (plain.moments, plain.n_given) == ([], [])
    for name in ("n_correct", "measured", "right", "details", "diagnostics", "n_examples"):
        assert getattr(found, name) == getattr(plain, name), name
    assert found.key != plain.key
    over_time = ("anytime_average", "worst_case_average")
    mine, other = ({n: v for n, v in r.metrics().items() if n not in over_time} for r in (found, plain))
    assert mine == pytest.approx(other, nan_ok=True)
    assert found.metrics()["anytime_average"] != plain.metrics()["anytime_average"]


def test_when_they_are(make_trial: MakeTrial, digits: Dataset) -> None:
    """After the first step that completes each hundred of a task's examples, but not after the last step of a task."""
    trial = with_every(make_trial, 100)
    result = run(trial, digits)
    sizes = [int((digits.train_labels // 2 == task).sum()) for task in range(5)]
    expected, before = [], 0
    for task, n in enumerate(sizes):
        steps = np.cumsum([min(32, n - first) for first in range(0, n, 32)] * 2)
        steps[len(steps) // 2 :] = n + steps[: len(steps) // 2]
        due = [int(b) for a, b in zip([0, *steps], steps, strict=False) if a // 100 != b // 100 and b < 2 * n]
        expected += [[task, before + n_in_task] for n_in_task in due]
        before += 2 * n
    assert result.moments == expected
    assert result.n_given == np.cumsum([2 * n for n in sizes]).tolist()
    assert [len(row) for row in result.measured_within] == [task + 1 for task, _ in expected]


def test_no_evaluation_falls_on_the_end_of_a_task(make_trial: MakeTrial, digits: Dataset) -> None:
    """With an evaluation after each step there is one less than there are steps: R has the last."""
    trial = with_every(make_trial, 1, "naive", training={"iterations": 3})
    assert [task for task, _ in run(trial, digits).moments] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("packnet", "task"),
        ("pnn", "task"),
        ("supsup", "task"),
        ("icarl", "task"),
        ("ridge", "class"),
        ("ncm", "class"),
    ],
)
def test_what_is_being_learned_is_answered_by_what_learns_it(
    method: str, kind: str, make_trial: MakeTrial, digits: Dataset
) -> None:
    """Late in a task its accuracy is above chance, though its mask, exemplars or weights are chosen at its end."""
    trial = with_every(
        make_trial, 60, method, scenario=f"split-digits/{kind}", training={"learning_rate": 0.1, "epochs": 10}
    )
    result = run(trial, digits)
    within = result.within(ACCURACY)
    assert within is not None
    for task in range(5):
        last = within.scores[within.tasks == task][-1, task]
        assert last > 0.6, (task, last)


@pytest.mark.parametrize("method", ["joint", "gdumb"])
def test_a_method_that_starts_each_task_anew_is_evaluated_at_its_end(
    method: str, make_trial: MakeTrial, digits: Dataset
) -> None:
    result = run(with_every(make_trial, 50, method), digits)
    assert (result.moments, len(result.n_given)) == ([], 5)
    rows = evaluation_rows(with_every(make_trial, 50, method), 0, result)
    assert [row["during_task"] for row in rows] == [after for after in range(5) for _ in range(after + 1)]


def test_what_a_method_adds_to_the_training_data_counts(make_trial: MakeTrial, digits: Dataset) -> None:
    """Two passes over all tasks so far of joint, and over the task and 20 exemplars of iCaRL."""
    sizes = [int((digits.train_labels // 2 == task).sum()) for task in range(5)]
    joint = run(with_every(make_trial, 50, "joint"), digits)
    assert joint.n_given == np.cumsum(2 * np.cumsum(sizes)).tolist()
    icarl = run(with_every(make_trial, 50, "icarl", hyperparameters={"buffer_size": 20}), digits)
    assert icarl.n_given[1] == 2 * (sizes[0] + sizes[1] + 20)


def test_a_method_without_steps_gets_portions_that_are_small_enough(make_trial: MakeTrial, digits: Dataset) -> None:
    every = run(with_every(make_trial, 50, "ridge"), digits)
    assert len(every.moments) >= 5 * 4
    plain = run(with_every(make_trial, None, "ridge"), digits)
    assert every.n_correct == plain.n_correct


@pytest.mark.parametrize("method", ["replay", "ridge", "packnet"])
def test_a_stop_inside_a_task_changes_nothing(
    method: str, make_trial: MakeTrial, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after each step in turn and goes on from the checkpoint of that step."""
    scenario = "split-digits/task" if method == "packnet" else "split-digits/class"
    trial = with_every(make_trial, 80, method, scenario=scenario, training={"epochs": 1})
    whole = run(trial, digits)
    monkeypatch.setattr(protocol, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    save, n_left = protocol._Protocol._save, 0

    class Killed(BaseException):
        """Not caught by the protocol: stands for the end of the process."""

    def save_and_stop(self: Any, path: Path) -> None:
        nonlocal n_left
        save(self, path)
        n_left -= 1
        if n_left == 0:
            raise Killed

    monkeypatch.setattr(protocol._Protocol, "_save", save_and_stop)
    path, n_stops = tmp_path / "checkpoint.pt", 0
    while True:
        n_left = 4
        try:
            found = run(trial, digits, checkpoint=path)
        except Killed:
            n_stops += 1
            continue
        break
    assert n_stops > 4
    for name in ("moments", "measured_within", "n_given", "n_correct"):
        assert getattr(found, name) == getattr(whole, name), name


def test_costs_are_those_of_evaluation(make_trial: MakeTrial, digits: Dataset) -> None:
    """A hundred times as many evaluations take their time from no training."""
    few, many = (run(with_every(make_trial, every, "naive"), digits).costs for every in (100_000, 1))
    assert many["evaluate_seconds"] > 3 * few["evaluate_seconds"]
    assert many["seconds"] >= many["evaluate_seconds"] + many["train_seconds"]


# The table.


@pytest.fixture(scope="module")
def trial(make_trial: MakeTrial) -> TrialSpec:
    return with_every(make_trial, 100, scenario="split-digits/task")


@pytest.fixture(scope="module")
def result(trial: TrialSpec, digits: Dataset) -> TrialResult:
    return run(trial, digits)


def test_rows_are_the_evaluations_in_their_order(trial: TrialSpec, result: TrialResult, tmp_path: Path) -> None:
    rows = evaluation_rows(trial, 3, result)
    table = Table(tmp_path, "evaluations")
    table.write(trial.key, rows)
    frame = table.read(with_lists=True)
    assert list(frame.columns) == SCHEMAS["evaluations"].names
    assert frame["n_given"].is_monotonic_increasing
    assert len(frame) == sum(map(len, result.measured_within)) + sum(range(1, 6))
    ends = frame[frame["n_given"].isin(result.n_given)]
    of_r = pd.DataFrame(accuracy_rows(trial, 3, result)).query("after_task >= task")
    assert ends["n_correct"].tolist() == of_r["n_correct"].tolist()
    assert ends["score"].tolist() == of_r["score"].tolist()
    assert (frame["task"] <= frame["during_task"]).all()


def test_metrics_follow_from_the_tables(trial: TrialSpec, result: TrialResult) -> None:
    scores = [ACCURACY, Score("macro_f1")]
    evaluations = pd.DataFrame(evaluation_rows(trial, 0, result))
    found = moments_of(evaluations.sample(frac=1.0, random_state=0), scores)[trial.key]
    for score in scores:
        expected = result.within(score)
        assert expected is not None
        np.testing.assert_array_equal(found[score].tasks, expected.tasks)
        np.testing.assert_array_equal(found[score].scores, expected.scores[:, : found[score].scores.shape[1]])
    r = matrices_of(pd.DataFrame(accuracy_rows(trial, 0, result)), [ACCURACY])[trial.key][ACCURACY]
    over_time = [result.within(ACCURACY).scores[:, 0].min(), r[2:, 0].min()]  # type: ignore[union-attr]
    assert result.quantities(["worst_case_average[0/1]"], ACCURACY)["worst_case_average[0/1]"] >= min(over_time)


@pytest.fixture
def recorded(
    trial: TrialSpec, result: TrialResult, make_spec: Callable[..., SweepSpec], tmp_path: Path
) -> tuple[Run, Callable[[str], SweepSpec]]:
    """Return a run with this trial alone, and a function from an objective to a spec that has it."""

    def spec(objective: str) -> SweepSpec:
        training = TRAINING | {"evaluate_every": 100}
        return make_spec(methods=["replay"], training=training, objective=objective)

    run = Run.create(tmp_path / "run", spec("average"))
    rows = trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result)
    run.tables.write_trial(trial.key, *rows, evaluations=evaluation_rows(trial, 0, result))
    return run, spec


@pytest.mark.parametrize(
    "text",
    ["anytime_average", "macro_f1.anytime_average", "worst_case_average[0/1,4/5]", "macro_f1.worst_case_average"],
)
def test_a_search_reads_them_from_the_tables(
    text: str, recorded: tuple[Run, Callable[[str], SweepSpec]], trial: TrialSpec, result: TrialResult
) -> None:
    run, spec = recorded
    value = run.outcomes(spec(text))[trial.key].values[text]
    expected = result.quantities([text], ACCURACY)[text]
    assert value == pytest.approx(expected, abs=1e-15)
    without = dataclasses.replace(result, moments=[], measured_within=[], ranked_within=[])
    assert value != pytest.approx(without.quantities([text], ACCURACY)[text], abs=1e-3)


def test_a_trial_whose_evaluations_are_lost_runs_again(
    recorded: tuple[Run, Callable[[str], SweepSpec]], trial: TrialSpec
) -> None:
    run, spec = recorded
    assert trial.key in run.outcomes(spec("average"))
    assert len(run.evaluations()) > 0
    (run.path / "evaluations" / f"{trial.key}.parquet").unlink()
    assert trial.key not in run.outcomes(spec("average"))
    assert run.evaluations().empty


def test_compacting_merges_them(recorded: tuple[Run, Callable[[str], SweepSpec]], trial: TrialSpec) -> None:
    run, _ = recorded
    before, other = run.evaluations(), "0" * 16
    (row,) = run.tables.trials.read_file(f"{trial.key}.parquet").to_pylist()
    rows = [each | {"key": other} for each in run.tables.evaluations.read_file(f"{trial.key}.parquet").to_pylist()]
    run.tables.write_trial(other, row | {"key": other}, [], evaluations=rows)
    assert {done.table: done.n_after for done in compact(run.tables)}["evaluations"] == 1
    after = run.evaluations()
    pd.testing.assert_frame_equal(after[after["key"] == trial.key].reset_index(drop=True), before)


def test_a_result_travels_as_text(result: TrialResult) -> None:
    again = TrialResult.from_json(result.to_json())
    assert again == result
    assert again.metrics() == pytest.approx(result.metrics(), nan_ok=True)


def test_a_trial_without_has_no_rows(trial: TrialSpec, result: TrialResult) -> None:
    plain = dataclasses.replace(result, moments=[], measured_within=[], ranked_within=[], n_given=[])
    assert evaluation_rows(trial, 0, plain) == []
    assert plain.within(ACCURACY) is None
    assert math.isfinite(plain.metrics()["worst_case_average"])
