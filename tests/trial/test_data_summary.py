"""What `plan` says of one's own data."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.scores import Score
from orchestrator.report.console import PlainConsole
from orchestrator.report.data_view import data_text, render_data
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trial.data_summary import StreamSummary, cut_notes, data_notes, fineness_warnings, summaries
from orchestrator.trial.preflight import load_datasets


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of three tasks: 100, 50 and 20 rows, a tenth of them of class b; the last has only a."""
    names = np.repeat(["2023Q1", "2023Q2", "2023Q3"], [100, 50, 20])
    frame = pd.DataFrame({"x": np.arange(170.0), "kind": ["p", "q"] * 85, "id": range(170), "quarter": names})
    frame["y"] = np.where((frame["id"] % 10 == 0) & (frame["quarter"] != "2023Q3"), "b", "a")
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def read(table: Path, **fields: Any) -> tuple[SweepSpec, StreamSummary]:
    settings = {"table": str(table), "label": "y", "task": "quarter", "drop": ["id"]}
    spec = parse_spec(
        {"scenarios": ["t/domain"], "methods": ["naive"], "validation_share": 0.2, "streams": {"t": settings}} | fields
    )
    (summary,) = summaries(spec, load_datasets(spec, table.parent))
    return spec, summary


def test_examples_by_task_class_and_split(table: Path) -> None:
    _, summary = read(table)
    assert summary.task_names == ("2023Q1", "2023Q2", "2023Q3")
    assert summary.class_names == ("a", "b")
    np.testing.assert_array_equal(summary.train, [[72, 8], [36, 4], [16, 0]])
    np.testing.assert_array_equal(summary.test, [[18, 2], [9, 1], [4, 0]])
    np.testing.assert_array_equal(summary.validation, [[14, 2], [7, 1], [3, 0]])
    assert summary.class_shares == pytest.approx([155 / 170, 15 / 170])


def test_constant_answers(table: Path) -> None:
    _, summary = read(table)
    assert summary.constant(Score("accuracy"), False) == pytest.approx((0.9 + 0.9 + 1) / 3)
    assert summary.constant(Score("balanced_accuracy"), False) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert summary.constant(Score("auroc"), False) == 0.5, "the task of one class has none"
    assert summary.constant(Score("average_precision"), False) == pytest.approx(0.1)


def test_how_fine_the_data_can_tell(table: Path) -> None:
    spec, summary = read(table, limits=["worst_forgetting <= 0.1", "recall(b).worst_forgetting[2023Q1] <= 0.1"])
    assert summary.one_example(Score("accuracy"), 0) == 1 / 16
    assert summary.one_example(Score("recall", "b"), 0) == 1 / 2
    coarse, of_class = fineness_warnings(spec, summary)
    assert "'worst_forgetting <= 0.1' is finer than the data can tell on 2023Q2: one validation" in coarse
    assert "example of 2023Q2 is 12.5 points of accuracy" in coarse
    assert "one validation example of 2023Q1 is 50 points of recall(b)" in of_class


def test_tasks_that_lack_a_score_are_named(table: Path) -> None:
    spec, _ = read(table, scores=["recall(b)"])
    datasets = load_datasets(spec, table.parent)
    assert cut_notes(spec, datasets) == ["t/domain: recall(b) is undefined on 2023Q3, which it leaves out"]
    assert set(cut_notes(spec, datasets)) <= set(data_notes(spec, datasets)), "the sweep says it too"
    spec = parse_spec({"scenarios": ["split-digits/task"], "methods": ["naive"], "score": "recall(3)"})
    (note,) = cut_notes(spec, load_datasets(spec, table.parent))
    assert note == "split-digits/task: recall(3) is undefined on 0/1, 4/5, 6/7, 8/9, which it leaves out"


def test_what_must_be_known_of_an_example_is_said(table: Path) -> None:
    spec, _ = read(table)
    both = parse_spec(spec.model_dump(mode="json") | {"scenarios": ["t/task", "t/domain"], "limits": []})
    notes = cut_notes(both, {"t": load_datasets(spec, table.parent)["t"]})
    assert [note for note in notes if "must know" in note] == [
        "t/task: whoever uses the model must know each example's 'quarter'; if it is not known then, use domain"
    ]


def test_the_view(table: Path) -> None:
    spec, summary = read(table, score="auroc")
    console = PlainConsole(file=StringIO(), width=120)
    for part in render_data(spec, summary):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for line in (
        f"t: 170 rows from '{table}'",
        "numbers: x",
        "kinds: kind (2)",
        "dropped: id",
        "classes: a 91.2 %, b 8.82 %",
        "a 90, b 10",
        "always the same answer has accuracy 0.933, auroc 0.500",
    ):
        assert line in text, line


def test_plan_shows_where_tasks_begin(tmp_path: Path) -> None:
    """The tasks end at the maximal length: nothing drifts, so positions are known."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"day": range(2000, 2150), "x": draw.random(150)})
    frame.assign(y=["a", "b", "b"] * 50).to_csv(tmp_path / "t.csv", index=False)
    asked = {"on": "feature", "column": "x", "minimal_length": 20, "maximal_length": 50}
    settings = {"table": str(tmp_path / "t.csv"), "label": "y", "order": "day", "boundaries": asked}
    spec, summary = read(tmp_path / "t.csv", streams={"t": settings})
    assert summary.report is not None
    found = summary.report.boundaries
    assert found is not None
    text = data_text(spec, [summary])
    assert "boundaries: adwin on the column 'x', 0 drifts in 120 training rows" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    at = lines.index("begins at training row day training rows because of")
    begins = [task.value for task in found.tasks]
    assert [int(day) for day in begins] == sorted(map(int, begins))
    assert lines[at + 2 : at + 5] == [
        f"1 {begins[0]} 50 start",
        f"51 {begins[1]} 50 maximal_length",
        f"101 {begins[2]} 20 maximal_length",
    ]
    assert summary.train.sum(axis=1).tolist() == [50, 50, 20]
    assert cut_notes(spec, load_datasets(spec, tmp_path)) == []
    by_task, _ = read(tmp_path / "t.csv", streams={"t": settings}, scenarios=["t/task"])
    (note,) = cut_notes(by_task, load_datasets(by_task, tmp_path))
    assert note.startswith("t/task: whoever uses the model must know between which boundaries an example falls")


def test_the_earlier_tasks_of_a_model_are_held_out_and_not_trained_on(table: Path) -> None:
    """A model's earlier tasks have held-out examples alone, which no training example makes less."""
    spec, summary = read(table)
    from_model = replace(summary, train=summary.train * np.array([[0], [0], [1]]))
    lines = data_text(spec, [from_model]).splitlines()
    counts = {line.split()[0]: line.split()[1:4] for line in lines if line.strip().startswith("2023Q")}
    assert counts == {"2023Q1": ["0", "16", "20"], "2023Q2": ["0", "8", "10"], "2023Q3": ["13", "3", "4"]}
