"""What goes on inside, on the page and in the terminal: the numbers of the table, and nothing without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.report.console import make_console
from orchestrator.report.inside_view import inside_lines, inside_of, lacking, render_inside
from orchestrator.report.numbers import UNKNOWN
from orchestrator.report.page.content import PageContent
from orchestrator.report.page.render import content_of, render_page
from orchestrator.results.run import Run
from orchestrator.search.answers.summary import summarise
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.trial.result import TrialResult
from tests.report.page.reader import Node, read
from tests.report.page.world import TASKS, made_up, make_run

FEW: dict[str, Any] = {"scenarios": ["split-digits/task"], "methods": ["naive", "joint", "replay", "packnet", "pnn"]}
TITLE = "What goes on inside"


def diagnosed(planned: PlannedTrial) -> TrialResult:
    """Return a made-up result with made-up diagnostics; naive is losing its plasticity."""
    result, method, n = made_up(planned), planned.spec.method, 1.0 + planned.spec.seed % 7
    rows: list[list[Any]] = []
    for after in range(len(TASKS)):
        rows += [
            [after, "fisher_share", "", 0.1 * (after + 1)],
            [after, "fisher_share", "heads", 0.9],
            [after, "fisher_share_ever", "", 0.2 * (after + 1)],
            [after, "fisher_trace", "", n],
            [after, "fisher_effective_rank", "", 3.0],
            [after, "dead_units", "", 0.5 if method == "naive" else 0.1],
            [after, "feature_rank", "", 1.5],
        ]
        if after and method != "joint":
            gap = -0.2 - 0.001 * n if method == "naive" else 0.01
            rows += [[after, "probe_accuracy", "", 0.9 + gap], [after, "fresh_accuracy", "", 0.9]]
            rows.append([after, "plasticity_gap", "", gap])
        if method == "replay":
            rows += [[after, "buffer_examples", "", 10.0 * n], [after, "buffer_fairness", "", 0.5]]
            rows += [[after, "buffer_of_task", TASKS[task], 10.0 * n / (after + 1)] for task in range(after + 1)]
            rows += [[after, "buffer_of_class", name, 5.0 * n] for name in ("no", "<b>yes</b>")]
        if method == "packnet":
            rows += [[after, "free_share", "", 0.5 ** (after + 1)], [after, "tasks_left", "", 3.0 - after]]
            rows.append([after, "predicted_free_share", "", 0.5 ** (after + 1)])
        if method == "pnn":
            rows += [[after, "column_bytes", "", 1e6 * (after + 1)], [after, "column_bytes_long_run", "", 2e7]]
    return replace(result, diagnostics=rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("inside") / "run", {**FEW, "diagnostics": True}, result=diagnosed)


@pytest.fixture(scope="module")
def content(run: Run) -> PageContent:
    return content_of(run)


@pytest.fixture(scope="module")
def page(content: PageContent) -> Node:
    return read(render_page(content, "0" * 32))


def records(page: Node, name: str) -> list[dict[str, Any]]:
    return page.one("figure", id=f"scenario-0-inside-{name}").one("table").records()


def expected(run: Run, method: str, name: str, part: str = "") -> list[float]:
    """Return the mean over the trials that stand for a method, by task."""
    trials, table = run.trials(), run.diagnostics()
    own = trials[(trials["method"] == method) & trials["is_chosen"].fillna(False)]
    test = own[own["phase"] == "confirm"]
    keys = (test if len(test) else own)["key"]
    found = table[table["key"].isin(keys) & (table["name"] == name) & (table["part"] == part)]
    return [float(value) for value in found.groupby("after_task")["value"].mean()]


def test_the_section_is_there_with_its_figures(content: PageContent) -> None:
    titles = [title for title, _ in content.scenarios[0].figures]
    assert titles.index(TITLE) == titles.index("What it cost") - 1
    figures = dict(content.scenarios[0].figures)[TITLE]
    assert [figure.name.rpartition("-")[2] for figure in figures] == ["fisher", "plasticity", "buffers", "capacity"]
    assert all(figure.rows and figure.charts and figure.columns for figure in figures)


def test_a_run_without_the_table_has_no_section(tmp_path: Path) -> None:
    content = content_of(make_run(tmp_path / "run", FEW))
    assert TITLE not in [title for title, _ in content.scenarios[0].figures]
    assert not [line for line in content.scenarios[0].warnings if "plasticity" in line]


@pytest.mark.parametrize(
    ("figure", "head", "name"),
    [
        ("fisher", "share in use for any task", "fisher_share_ever"),
        ("fisher", "share in use for all tasks now", "fisher_share"),
        ("fisher", "trace", "fisher_trace"),
        ("plasticity", "gap", "plasticity_gap"),
        ("plasticity", "dead units", "dead_units"),
        ("capacity", "free weights", "free_share"),
        ("capacity", "columns", "column_bytes"),
    ],
)
def test_numbers_are_means_of_the_table(page: Node, run: Run, figure: str, head: str, name: str) -> None:
    n_compared = 0
    for method in FEW["methods"]:
        values = expected(run, method, name)
        found = [r[head] for r in records(page, figure) if r["method"] == method and isinstance(r[head], float)]
        assert found == [pytest.approx(value, rel=1e-12) for value in values]
        n_compared += len(found)
    assert n_compared >= len(TASKS)


def test_the_buffer_is_shown_by_task_and_by_class(page: Node, run: Run) -> None:
    rows = records(page, "buffers")
    assert {row["method"] for row in rows} == {"replay"}
    last = {(row["by"], row["which"]): row for row in rows if row["after"] == TASKS[-1]}
    assert set(last) == {*(("task", task) for task in TASKS), ("class", "no"), ("class", "<b>yes</b>")}
    total = expected(run, "replay", "buffer_examples")[-1]
    assert last["task", TASKS[0]]["examples"] == pytest.approx(total / 4)
    assert last["task", TASKS[0]]["fair share"] == pytest.approx(total / 4)
    assert last["class", "no"]["fair share"] == pytest.approx(total / 2)


def test_a_method_that_is_losing_its_plasticity_is_warned_of(content: PageContent) -> None:
    lines = [line for line in content.scenarios[0].warnings if "plasticity" in line]
    assert len(lines) == 1
    assert lines[0].startswith("naive is losing its plasticity: early in a late task it is 0.20 below a fresh network")
    assert "50 % of its units are dead" in lines[0]
    assert "shrink-and-perturb" in lines[0]


def test_the_terminal_warns_of_the_same(run: Run) -> None:
    search = run.search(run.spec)
    lines = list(inside_lines(search, summarise(search, run.trials()), run.diagnostics()))
    assert len(lines) == 1
    assert lines[0].startswith("split-digits/task: naive is losing its plasticity")
    assert list(inside_lines(search, summarise(search, run.trials()), run.diagnostics().iloc[:0])) == []


def test_trials_without_are_counted(run: Run) -> None:
    trials, diagnostics = run.trials(), run.diagnostics()
    assert lacking(trials, diagnostics) == ""
    some = diagnostics[diagnostics["key"] != trials["key"].iloc[0]]
    assert lacking(trials, some) == "diagnostics: 1 trial ran without, and is not trained again for them"
    failed = trials.assign(status="failed")
    assert lacking(failed, diagnostics.iloc[:0]) == "", "which could not have any"


def test_one_trial_is_shown_as_a_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    trials, diagnostics = run.trials(), run.diagnostics()
    key = trials.loc[trials["method"] == "pnn", "key"].iloc[0]
    make_console().print(render_inside(diagnostics[diagnostics["key"] == key]))
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["fisher_share"] == ["0.100", "0.200", "0.300", "0.400"]
    assert lines["column_bytes"] == ["1", "MB", "2", "MB", "3", "MB", "4", "MB"]
    assert lines["plasticity_gap"][0] == UNKNOWN, "not measured on the first task"


def test_a_trial_that_was_run_alone_is_shown_alike() -> None:
    result = TrialResult("0" * 16, "completed", diagnostics=[[0, "weight_norm", "heads", 1.0], [0, "own", "", 2.0]])
    frame = inside_of(result)
    pd.testing.assert_frame_equal(frame, frame[["after_task", "name", "part", "value"]])
    assert render_inside(frame).row_count == 1
