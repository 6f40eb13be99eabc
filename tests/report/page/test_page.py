"""Every number on the page is that of the tables, and every kind of run renders and says what it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.core.errors import MissingExtraError, StorageError
from orchestrator.execution.session import Session
from orchestrator.report.page import writing
from orchestrator.report.page.content import PageContent
from orchestrator.report.page.facts import MethodFacts, SuggestionFacts, thinned
from orchestrator.report.page.figure import Colours
from orchestrator.report.page.render import content_of, render_page
from orchestrator.report.page.searching import search_figure
from orchestrator.report.page.writing import keep_what_was_read, write_page
from orchestrator.results.run import Run
from orchestrator.search.suggestion import PlannedTrial, Suggestion
from orchestrator.spec.loading import parse_spec
from orchestrator.trial.result import TrialResult
from tests.report.page.reader import Node, drawn, read
from tests.report.page.world import SPEC, TASKS, made_up, make_run

FEW = {"scenarios": ["split-digits/task"], "methods": ["naive", "joint"]}
FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def content(run: Run) -> PageContent:
    return content_of(run)


@pytest.fixture(scope="module")
def page(content: PageContent) -> Node:
    return read(render_page(content, "0" * 32))


@pytest.fixture(scope="module")
def trials(run: Run) -> pd.DataFrame:
    return run.trials()


def scenario_of(page: Node, run: Run, index: int) -> Node:
    return page.one("section", id=f"scenario-{index}")


def shown(trials: pd.DataFrame, scenario: str, method: str) -> pd.DataFrame:
    """Return the trials of the suggestion that stands for a method, on test where it was measured there."""
    own = trials[(trials["scenario"] == scenario) & (trials["method"] == method)]
    chosen = own[own["is_chosen"].fillna(False)]
    test = chosen[chosen["phase"] == "confirm"]
    return test if len(test) else chosen


@pytest.mark.parametrize("index", [0, 1])
def test_the_table_of_methods_is_that_of_the_trials(page: Node, run: Run, trials: pd.DataFrame, index: int) -> None:
    scenario = SPEC["scenarios"][index]
    table = scenario_of(page, run, index).one("table", kind="methods")
    found = {row[0].own_text: row for row in table.rows()}
    assert list(found) == SPEC["methods"]
    heads = [head.text for head in table.one("thead").find("th")]
    columns = {
        "accuracy": "average_accuracy",
        "worst forgetting": "worst_forgetting",
        "memory": "kept_bytes",
        "seconds": "seconds",
    }
    n_compared = 0
    for method, row in found.items():
        own = shown(trials, scenario, method)
        if own.empty:
            continue
        for head, column in columns.items():
            cell, values = row[heads.index(head)], own[column].to_numpy(dtype=float)
            assert float(cell.attributes["data-value"]) == pytest.approx(values.mean(), rel=1e-12)
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
            if head == "accuracy":
                assert cell.own_text == f"{float(cell.attributes['data-value']):.3f}"
                assert cell.one("small").text == f"{values.mean() - half:.3f} to {values.mean() + half:.3f}"
            n_compared += 1
        assert f"{len(own)} seed" in row[heads.index("measured on")].text
        mean = own["worst_forgetting"].mean()
        verdict = row[heads.index("limits")]
        line = next(small.text for small in verdict.find("small") if "worst_forgetting" in small.text)
        assert ("violated" in line) == (mean > 0.1)
        assert f"{abs(0.1 - mean):.3f}" in line
    assert n_compared >= 8


@pytest.mark.parametrize("index", [0, 1])
def test_the_matrices_are_those_of_the_accuracy_table(page: Node, run: Run, trials: pd.DataFrame, index: int) -> None:
    accuracy = run.accuracy()
    rows = page.one("figure", id=f"scenario-{index}-matrix").one("table").records()
    methods = {str(row["method"]) for row in rows}
    assert {"naive", "joint"} < methods
    for method in methods:
        own = accuracy[accuracy["key"].isin(shown(trials, SPEC["scenarios"][index], method)["key"])]
        means = own.groupby(["after_task", "task"])["score"].mean()
        found = {
            (TASKS.index(str(row["after"])), TASKS.index(str(row["task"]))): row["mean accuracy"]
            for row in rows
            if row["method"] == method
        }
        assert found == {place: pytest.approx(mean, rel=1e-12) for place, mean in means.items()}
        last = {str(r["task"]): r for r in rows if r["method"] == method and r["after"] == TASKS[-1]}
        best = own[own["after_task"].between(0, len(TASKS) - 2)].groupby(["task", "after_task"])["score"].mean()
        assert last["zero"]["drop since its best"] == pytest.approx(best[0].max() - means[len(TASKS) - 1, 0])


def test_curves_are_means_and_extremes_over_seeds(page: Node, run: Run, trials: pd.DataFrame) -> None:
    accuracy = run.accuracy()
    own = accuracy[accuracy["key"].isin(shown(trials, SPEC["scenarios"][0], "naive")["key"])]
    cells = own.groupby(["task", "after_task"])["score"].agg(["mean", "min", "max"])
    rows = page.one("figure", id="scenario-0-curves").one("table").records()
    found = [row for row in rows if row["method"] == "naive"]
    assert len(found) == len(cells) == 10
    for row in found:
        wanted = cells.loc[(TASKS.index(str(row["task"])), TASKS.index(str(row["after"])))]
        assert [row["mean accuracy"], row["least"], row["most"]] == pytest.approx(list(wanted), rel=1e-12)


def test_the_search_is_that_of_the_trials(page: Node, run: Run, trials: pd.DataFrame) -> None:
    own = trials[(trials["scenario"] == SPEC["scenarios"][0]) & trials["phase"].isin(["search", "finals"])]
    means = own.groupby(["method", "suggestion"])[["average_accuracy", "worst_forgetting", "kept_bytes"]].mean()
    rows = page.one("figure", id="scenario-0-search").one("table").records()
    assert len(rows) == 24
    for row in rows:
        wanted = means.loc[(str(row["method"]), int(row["suggestion"]))]
        if row["state"] == "stopped early":  # what it was made to say after its memory was known is not looked at
            of_it = own[(own["method"] == row["method"]) & (own["suggestion"] == row["suggestion"])]
            assert of_it["kept_bytes"].max() > 3e5
            assert row["average_accuracy"] == "–"
            continue
        assert row["average_accuracy"] == pytest.approx(wanted["average_accuracy"], rel=1e-12)
        over = max(wanted["worst_forgetting"] - 0.1, 0) / 0.01 + max(wanted["kept_bytes"] - 3e5, 0) / 3e4
        assert row["violation, in tolerances"] == pytest.approx(over, abs=1e-9)
    frontier = page.one("figure", id="scenario-0-limit-0").one("table").records()
    for row in frontier:
        wanted = means.loc[(str(row["method"]), int(row["suggestion"]))]
        assert row["worst_forgetting"] == pytest.approx(wanted["worst_forgetting"], rel=1e-12)
        assert row["average_accuracy"] == pytest.approx(wanted["average_accuracy"], rel=1e-12)


def test_balance_and_costs_are_those_of_the_trials(page: Node, run: Run, trials: pd.DataFrame) -> None:
    for row in page.one("figure", id="scenario-1-balance").one("table").records():
        own = shown(trials, SPEC["scenarios"][1], str(row["method"]))
        assert row["learning average"] == pytest.approx(own["learning_average"].mean(), rel=1e-12)
        assert row["backward transfer"] == pytest.approx(own["backward_transfer"].mean(), rel=1e-12)
    own = trials[trials["scenario"] == SPEC["scenarios"][1]]
    sums = own.groupby(["method", "phase"])["seconds"].agg(["sum", "size"])
    rows = page.one("figure", id="scenario-1-costs").one("table").records()
    assert len(rows) == len(sums)
    for row in rows:
        seconds, n = sums.loc[(str(row["method"]), str(row["phase"]))]
        assert (row["seconds"], row["trials"]) == (pytest.approx(seconds, rel=1e-12), n)


def test_charts_draw_the_numbers_of_their_tables(page: Node) -> None:
    data = drawn(page)
    figures = page.find("figure")
    assert {figure.attributes["id"] for figure in figures} == set(data)
    for figure in figures:
        numbers = [cell.attributes["data-value"] for cell in figure.find("td") if "data-value" in cell.attributes]
        values = data[figure.attributes["id"]]["values"]
        known = {float(v) for row in values for v in row.values() if isinstance(v, int | float)}
        assert {float(number) for number in numbers} <= known
        assert len(figure.one("tbody").find("tr")) == len(values)


def test_the_words_are_those_of_the_answer(page: Node, run: Run, content: PageContent) -> None:
    answer = run.answer()
    for index, scenario in enumerate(answer.scenarios):
        section = scenario_of(page, run, index)
        if scenario.recommended is None:
            continue
        method = scenario.method(scenario.recommended)
        assert method.test is not None
        assert f"Recommended: {scenario.recommended}" in section.one("div", kind="words").text
        assert f"{method.test.numbers['average_accuracy'].mean:.3f}" in page.one("ul", kind="verdicts").text
        assert section.one("tr", kind="recommended").one("th").own_text == scenario.recommended
    assert any(scenario.recommended for scenario in answer.scenarios), "the made-up runs must answer something"


def test_the_slider_says_what_the_answer_says(run: Run, content: PageContent) -> None:
    for scenario, shown_one in zip(run.answer().scenarios, content.scenarios, strict=True):
        figures = [figure for _, own in shown_one.figures for figure in own if "-limit-" in figure.name]
        for figure, (limit, steps) in zip(figures, scenario.what_if.items(), strict=True):
            assert figure.slider is not None, limit
            for step, after in zip(steps, [*steps[1:], None], strict=True):
                middle = step.limit if after is None else (step.limit + after.limit) / 2
                said = figure.slider.words_at(middle)
                assert f"Best: {step.method}, " in said
                assert f"{step.objective:.3f}" in said
                assert f"(suggestion {step.suggestion}, " in said
            assert steps, "the made-up runs must have a frontier"
            assert figure.slider.first_words == figure.slider.words_at(figure.slider.value) != ""


def hostile(planned: PlannedTrial) -> TrialResult:
    return made_up(planned, ("<script>alert(1)</script>", "</script><b>", "'\"&{{7*7}}", "</script\n><img src=x>"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a <b>&'run", FEW, result=hostile)
    html = render_page(content_of(run), "0" * 32)
    page = read(html)
    assert len(page.find("script")) == 3
    assert not page.find("img")
    assert "{{7*7}}" in page.one("figure", id="scenario-0-matrix").text
    assert "<script>alert(1)</script>" in page.one("figure", id="scenario-0-matrix").text


def test_an_incomplete_run_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n_trials=7)
    page = read(render_page(content_of(run), "0" * 32))
    assert "Not final" in page.one("p", kind="state").text
    assert "trials are missing" in page.one("p", kind="state").text


def test_an_empty_run_renders(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n_trials=0)
    page = read(render_page(content_of(run), "0" * 32))
    assert "Not final" in page.one("p", kind="state").text
    assert not page.find("figure")
    assert len(page.find("table", kind="methods")) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_of_older_schemas_render(version: int) -> None:
    run = Run.open(FIXTURES / f"run-schema-{version}", cached=True)
    page = read(render_page(content_of(run), "0" * 32))
    trials = run.trials()
    assert f"{len(trials):,}" in page.one("section", **{"aria-labelledby": "provenance"}).text
    assert page.find("table", kind="methods")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seeds": {"search": 1, "finals": 0, "confirm": 1}}, "Fewer than 3 seeds"),
        ({"limits": ["worst_forgetting <= -0.5"]}, "nothing meets the limits"),
        ({"limits": []}, "Recommended"),
        ({"seeds": {"search": 0, "confirm": 3}, "methods": ["naive", "joint"]}, "measured on"),
        ({"methods": ["joint"]}, "joint"),
        ({"limits": ["worst_forgetting <= 0.001"]}, "finer than the data can tell"),
    ],
)
def test_every_kind_of_run_renders(fields: dict[str, object], words: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"scenarios": ["split-digits/task"], "search": {"suggestions": 4}, **fields})
    page = read(render_page(content_of(run), "0" * 32))
    assert words in page.one("body").text


def test_a_large_search_is_thinned() -> None:
    """Of 1,000 suggestions 100 stay: the chosen one, the 25 nearest to the limits, and others from the whole search."""
    found = [
        SuggestionFacts("ewc", Suggestion(n, {}), 1, "chosen" if n == 777 else "all seeds", 0.9, abs(n - 500.0))
        for n in range(1_000)
    ]
    kept = [one.suggestion.number for one in thinned(found, 100)]
    assert 60 <= len(kept) <= 101
    assert {777, *range(488, 513)} <= set(kept)
    assert kept == sorted(kept)
    assert max(after - before for before, after in pairwise(kept)) < 20
    assert thinned(found[:100], 100) == found[:100]


def test_what_is_left_out_is_said(run: Run) -> None:
    shown_ones = [SuggestionFacts("ewc", Suggestion(0, {}), 1, "all seeds", 0.9, 0.0)]
    figure = search_figure("s", run.spec, shown_ones, 1_234, Colours(("ewc",)))
    assert figure is not None
    assert "1234 suggestions more are left out" in figure.caption.replace(",", "")


def test_a_page_that_is_up_to_date_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", FEW, n_trials=9)
    where = Path(write_page(run))
    first = where.stat().st_mtime_ns
    assert write_page(run) == str(where)
    assert where.stat().st_mtime_ns == first
    again = make_run(tmp_path / "run", FEW, n_trials=1)
    write_page(again)
    assert where.stat().st_mtime_ns > first


def test_what_was_read_of_ones_own_data_is_kept_and_shown(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    rows = "".join(f"{n % 7},{n % 3},{'ab'[n % 2]},{n // 40}\n" for n in range(160))
    table.write_text(f"length,width,kind,month\n{rows}", encoding="utf-8")
    stream = {"table": str(table), "label": "kind", "task": "month"}
    fields = {"streams": {"mine": stream}, "scenarios": ["mine/domain"], "methods": ["naive"]}
    run = Run(tmp_path / "run")
    with run.locked():
        session = Session(parse_spec({**SPEC, **fields}), run, tmp_path, accept_changes=True)
        run.write_spec(session.spec)
        keep_what_was_read(session)
    page = read(render_page(content_of(run), "0" * 32))
    kept = next(one for one in page.find("details") if "What was read" in one.text)
    assert f"mine: 160 rows from '{table}'" in kept.text
    assert "numbers: length, width" in kept.text


def test_the_page_draws_boundaries_that_were_found(tmp_path: Path) -> None:
    """The stream's scenarios show the signal and where tasks begin; a damaged file takes nothing else away."""
    rows = "".join(f"{n % 7},{n % 3},{'ab'[n % 2]}\n" for n in range(250))
    (tmp_path / "mine.csv").write_text(f"length,width,kind\n{rows}", encoding="utf-8")
    asked = {"on": "feature", "column": "length", "minimal_length": 20, "maximal_length": 80}
    stream = {"table": str(tmp_path / "mine.csv"), "label": "kind", "boundaries": asked}
    fields = {"streams": {"mine": stream}, "scenarios": ["mine/domain", "split-digits/task"], "methods": ["naive"]}
    run = Run(tmp_path / "run")
    with run.locked():
        session = Session(parse_spec({**SPEC, **fields}), run, tmp_path, accept_changes=True)
        run.write_spec(session.spec)
        keep_what_was_read(session)
    found = session.datasets["mine"].report.boundaries
    own, other = content_of(run).scenarios
    title, (figure,) = own.figures[0]
    assert (title, figure.title) == ("Where tasks begin", "Boundaries found by adwin on the column 'length'")
    lines = [row for row in figure.rows if row["why"] is not None]
    assert [(row["row"], row["value"]) for row in lines] == [(81, found.tasks[1].value), (161, found.tasks[2].value)]
    assert {row["why"] for row in lines} == {"maximal length"}
    points = [row["signal"] for row in figure.rows if row["why"] is None]
    assert len(points) == 200
    assert points[0] == found.signal[0][1]
    assert "Where tasks begin" not in dict(other.figures)
    assert f'id="{figure.name}"' in render_page(content_of(run), "0" * 32)
    (tmp_path / "run" / "boundaries.json").write_text("{", encoding="utf-8")
    assert "Where tasks begin" not in dict(content_of(run).scenarios[0].figures)


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, full_device: Callable[[str], None]) -> None:
    run = make_run(tmp_path / "run", FEW, n_trials=9)
    place = tmp_path / "page.html"
    place.write_text("the old page", encoding="utf-8")
    full_device(".page.html")
    with pytest.raises(StorageError, match=r"Cannot write to .*page.html.* Choose another -o"):
        write_page(run, place)
    assert place.read_text(encoding="utf-8") == "the old page"


def test_a_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", FEW, n_trials=1)
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'continual-sweep\[report\]'"):
        write_page(run)


def test_matrices_without_a_seed_in_common_are_nan_free() -> None:
    """The mean of cells that only some seeds measured is over those."""
    one = np.array(
        [[[math.nan, math.nan], [0.5, math.nan], [0.25, 1.0]], [[math.nan] * 2, [0.7, math.nan], [math.nan] * 2]]
    )
    facts = MethodFacts(None, None, None, "test", ("a", "b"), one, ("x", "y"))  # type: ignore[arg-type]
    wanted = [[math.nan, math.nan], [0.6, math.nan], [0.25, 1.0]]
    np.testing.assert_allclose(facts.mean, wanted)


def test_the_frontier_has_methods_without_a_search(page: Node, trials: pd.DataFrame) -> None:
    """naive may be the best at some limit, so it is a point; what the search tried has only what was searched."""
    frontier = page.one("figure", id="scenario-0-limit-0").one("table").records()
    own = trials[(trials["method"] == "naive") & (trials["scenario"] == SPEC["scenarios"][0])]
    (naive,) = [row for row in frontier if row["method"] == "naive"]
    assert naive["worst_forgetting"] == pytest.approx(own[own["phase"] == "search"]["worst_forgetting"].mean())
    searched = page.one("figure", id="scenario-0-search").one("table").records()
    assert {row["method"] for row in searched} == {"ewc", "replay"}
