"""A gate over models and runs: the same examples for both, and never a PASS where something was not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import orchestrator
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.cli.main import main
from orchestrator.core.errors import UsageError
from tests.champions.conftest import QUARTERS, MakeRun, rows

STRONG = {"training": {"epochs": 4, "batch_size": 16}}
N = 3000


def code_of(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["orchestrator", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def pair(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Return a champion, a challenger that learned a further quarter well, and one that forgot by learning noise."""
    monkeypatch.setattr(
        "tests.champions.conftest.rows", lambda quarters=QUARTERS, kinds="domain": rows(quarters, N, kinds)
    )
    run = make_run(quarters=QUARTERS[:2], methods=("replay",), **STRONG)
    orchestrator.export_model(run, tmp_path / "champion", Wanted(method="replay", suggestion=0, keep_evaluation=True))
    third = rows(QUARTERS[2:3], N)
    orchestrator.update_model(tmp_path / "champion", third, QUARTERS[2], tmp_path / "good")
    noise = third.assign(outcome=np.random.default_rng(0).permutation(third["outcome"].to_numpy()))
    noise[["amount", "pace", "age"]] = rows(QUARTERS[:1], N)[["amount", "pace", "age"]].to_numpy()
    swapped = rows(QUARTERS[:1], N)["outcome"].map({"c0": "c1", "c1": "c0"}).to_numpy()
    orchestrator.update_model(tmp_path / "champion", noise.assign(outcome=swapped), QUARTERS[2], tmp_path / "bad")
    return tmp_path / "champion", tmp_path / "good", tmp_path / "bad"


def test_a_good_update_passes_and_a_spoilt_one_fails(
    pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    champion, good, bad = pair
    report = orchestrator.gate(champion, good)
    assert report.outcome == "PASS", report
    assert {line.task for line in report.lines} == {"2023Q1", "2023Q2", "2023Q3", None}
    assert code_of(monkeypatch, "gate", "--champion", champion, "--challenger", good) == 0
    assert capsys.readouterr().out.startswith("PASS\n")
    assert code_of(monkeypatch, "gate", "--champion", champion, "--challenger", bad, "--json") == 6
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "FAIL"
    (line,) = [c for c in found["checks"] if c["task"] == "2023Q1"]
    assert line["verdict"] == "violated"
    assert line["estimate"] < -0.1
    assert line["n"] == N / 5
    policy = tmp_path / "policy.yaml"
    policy.write_text("checks:\n- {name: average, kind: average, limit: 0.9}\n")
    assert code_of(monkeypatch, "gate", "--champion", champion, "--challenger", bad, "--policy", policy) == 0


def test_estimates_are_those_of_the_answers(pair: tuple[Path, Path, Path]) -> None:
    """The same numbers by another way: both models answer all held-out rows through `predict`."""
    champion, good, _ = pair
    report = orchestrator.gate(champion, good)
    table = rows(QUARTERS[:1], N)
    by_table = orchestrator.gate(champion, good, data=_written(table, champion.parent / "q1.parquet"))
    right = [
        (orchestrator.load_model(place).predict(table)["class"] == table["outcome"]).mean()
        for place in (champion, good)
    ]
    (line,) = [one for one in by_table.lines if one.task == "2023Q1"]
    assert line.estimate == pytest.approx(right[1] - right[0], abs=1e-12)
    assert line.n == N
    assert by_table.outcome == "INCONCLUSIVE"  # the new task is not in that table
    assert report.outcome == "PASS"


def _written(frame: object, place: Path) -> str:
    frame.to_parquet(place)  # type: ignore[attr-defined]
    return str(place)


def test_other_examples_are_never_compared(pair: tuple[Path, Path, Path], make_run: MakeRun, tmp_path: Path) -> None:
    _, good, _ = pair
    run = make_run(quarters=QUARTERS[:2], methods=("ewc",), stream={"test_share": 0.4})
    orchestrator.export_model(run, tmp_path / "other", Wanted(method="ewc", suggestion=0))
    report = orchestrator.gate(tmp_path / "other", good)
    assert report.outcome == "INCONCLUSIVE"
    missing = [line for line in report.lines if line.task == "2023Q1"]
    assert "judged by other examples" in missing[0].reason


def test_a_new_task_is_not_given_to_a_model_that_encodes_otherwise(
    pair: tuple[Path, Path, Path], make_run: MakeRun, tmp_path: Path
) -> None:
    """The challenger's inputs would mean something else to the champion, and its answers nothing."""
    _, good, _ = pair
    run = make_run(quarters=QUARTERS[:2], methods=("ewc",), stream={"normalisation": "standard"})
    orchestrator.export_model(run, tmp_path / "other", Wanted(method="ewc", suggestion=0))
    policy = tmp_path / "policy.yaml"
    policy.write_text("checks:\n- {name: new, kind: new_task, limit: 0.02}\n")
    report = orchestrator.gate(tmp_path / "other", good, policy)
    assert report.outcome == "INCONCLUSIVE"
    assert "encode examples differently" in report.lines[0].reason


def test_runs_are_paired_by_seed(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(methods=("naive", "replay"), seeds={"search": 1, "confirm": 6}, **STRONG)
    policy = tmp_path / "policy.yaml"
    policy.write_text("checks:\n- {name: earlier, kind: earlier_tasks, limit: 0.05}\n")
    same = orchestrator.gate(run.path, run.path, policy, method="replay")
    assert same.outcome == "PASS"
    assert [line.estimate for line in same.lines] == [0.0] * 4
    assert {line.n for line in same.lines} == {6}
    assert code_of(monkeypatch, "gate", "--champion", run.path, "--challenger", run.path, "--method", "replay") == 7
    with pytest.raises(UsageError, match="give two models or two runs"):
        orchestrator.gate(run.path, _model(run.path, tmp_path))


def test_runs_are_paired_by_examples(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(methods=("naive", "replay"), seeds={"search": 1, "confirm": 3}, **STRONG)
    policy = tmp_path / "policy.yaml"
    policy.write_text("checks:\n- {name: earlier, kind: earlier_tasks, limit: 0.3}\n")
    report = orchestrator.gate(run.path, run.path, policy, method="replay", by="examples")
    assert report.outcome == "PASS"
    assert {(line.n, line.estimate, line.unit) for line in report.lines} == {(24, 0.0, "example")}
    other = make_run(methods=("naive",), stream={"test_share": 0.3}, **STRONG)
    report = orchestrator.gate(run.path, other.path, policy, method="naive", by="examples")
    assert report.outcome == "INCONCLUSIVE"
    assert all("judged by other examples" in line.reason for line in report.lines)


def _model(run: Path, folder: Path) -> Path:
    orchestrator.export_model(run, folder / "model", Wanted(method="replay", suggestion=0))
    return folder / "model"


def test_an_unknown_class_task_is_counted_as_wrong(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(quarters=QUARTERS[:2], kind="task", methods=("pnn",), **STRONG)
    orchestrator.export_model(run, tmp_path / "old", Wanted(method="pnn", suggestion=0, keep_evaluation=True))
    orchestrator.update_model(tmp_path / "old", rows(QUARTERS[2:3], kinds="class"), QUARTERS[2], tmp_path / "new")
    report = orchestrator.gate(tmp_path / "old", tmp_path / "new")
    (line,) = [one for one in report.lines if one.task == QUARTERS[2]]
    assert line.verdict == "met"  # the champion has no head for it, so none of its answers is right
    assert line.estimate >= 0.5
