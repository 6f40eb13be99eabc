"""What the artists of each figure hold, against numbers computed by hand or straight from the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from orchestrator.report.figures.curves import deviation
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.figures.kinds import draw
from orchestrator.report.figures.scene import scene_of
from orchestrator.report.page.figure import COLOURS
from orchestrator.results.run import Run
from orchestrator.spec.trial_spec import TrialSpec
from tests.report.figures.conftest import MakeRun

SEEDS = 0.89
"""What all methods score on a task just learned, mean over test seeds 0, 1 and 2: 0.9 less 0.01 for each."""


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text")))  # type: ignore[attr-defined]


def by_gid(figure: Figure, gid: str) -> list[Any]:
    return [artist for artist in figure.findobj(include_self=False) if (artist.get_gid() or "").startswith(gid)]


def panel(figure: Figure, title: str) -> Any:
    return next(axes for axes in figure.axes if title in axes.get_title() or title in axes.get_title(loc="left"))


def from_tables(run: Run, method: str, phase: str, after: int, task: int) -> tuple[float, float]:
    """Return mean and sample deviation of a cell of R over seeds, straight from the accuracy table."""
    rows = run.accuracy()
    found = rows[(rows.method == method) & (rows.phase == phase) & (rows.after_task == after) & (rows.task == task)]
    return float(found.score.mean()), float(found.score.std())


# matrix


def test_the_matrix_is_the_mean_over_test_seeds(make_run: MakeRun) -> None:
    run = make_run()
    figure = draw(run, "matrix").figure
    naive = panel(figure, "naive").collections[0].get_array()
    expected = [[SEEDS, None, None], [SEEDS - 0.3, SEEDS, None], [SEEDS - 0.6, SEEDS - 0.3, SEEDS]]
    for (row, column), value in np.ndenumerate(np.array(expected, dtype=float)):
        if np.isnan(value):
            assert naive.mask[row, column]
        else:
            assert naive[row, column] == pytest.approx(value)
            assert naive[row, column] == pytest.approx(from_tables(run, "naive", "confirm", row, column)[0])
    assert [text.get_text() for text in panel(figure, "naive").texts] == [".89", ".59", ".89", ".29", ".59", ".89"]


def test_the_matrix_shows_the_recommended_between_its_bounds(make_run: MakeRun) -> None:
    run = make_run()
    recommended = run.answer().scenarios[0].recommended
    titles = [axes.get_title() for axes in draw(run, "matrix").figure.axes if axes.get_title()]
    assert titles == [
        f"{recommended}\nrecommended; test, 3 seeds",
        "naive\nlower bound; test, 3 seeds",
        "joint\nupper bound; test, 3 seeds",
    ]


def test_the_matrix_shows_the_nearest_miss(make_run: MakeRun) -> None:
    run = make_run(limits=["worst_forgetting <= 0.0001"], methods=["naive", "ewc"])
    assert run.answer().scenarios[0].status == "nothing meets the limits"
    titles = [axes.get_title() for axes in draw(run, "matrix").figure.axes if axes.get_title()]
    assert titles == ["ewc\nnearest miss; validation, 2 seeds", "naive\nlower bound; test, 3 seeds"]


def test_the_untrained_row_is_drawn_if_it_was_measured(make_run: MakeRun) -> None:
    run = make_run(score=lambda trial, after, task: 0.5 if after < task else 0.9, scenarios=["split-digits/domain"])
    axes = panel(draw(run, "matrix").figure, "joint")
    assert axes.collections[0].get_array().tolist() == [[0.5] * 3, [0.9, 0.5, 0.5], [0.9, 0.9, 0.5], [0.9] * 3]
    assert panel(draw(run, "matrix").figure, "recommended").get_yticklabels()[0].get_text() == "untrained"


def test_many_tasks_have_no_numbers(make_run: MakeRun) -> None:
    figure = draw(make_run(names=[f"t{n}" for n in range(11)], methods=["naive"], limits=[]), "matrix").figure
    assert not figure.axes[0].texts


# curves


def test_curves_have_means_and_deviations_over_seeds(make_run: MakeRun) -> None:
    run = make_run()
    axes = panel(draw(run, "curves").figure, "naive")
    first = axes.lines[0].get_xydata()
    assert first[:, 0].tolist() == [0.5, 1.5, 2.5]
    assert first[:, 1] == pytest.approx([SEEDS, SEEDS - 0.3, SEEDS - 0.6])
    assert len(axes.lines[2].get_xydata()) == 1, "the last task was learned last"
    mean, std = from_tables(run, "naive", "confirm", 1, 0)
    assert std == pytest.approx(0.01)
    band = axes.collections[0].get_paths()[0].vertices
    assert {round(y, 6) for x, y in band if x == 1.5} == {round(mean - std, 6), round(mean + std, 6)}


def test_one_seed_has_no_band(make_run: MakeRun) -> None:
    run = make_run(seeds={"search": 1, "confirm": 1})
    (facts,) = scene_of(run, None, None, 7.0).facts("split-digits/task", ["naive"])
    assert np.isnan(deviation(facts)).all()
    assert "one seed, so no bands" in draw(run, "curves").caption[0]


def test_a_panel_a_method_and_one_axis_of_scores(make_run: MakeRun) -> None:
    panels = [axes for axes in draw(make_run(), "curves").figure.axes if axes.get_title()]
    assert [axes.get_title().partition("\n")[0] for axes in panels] == ["naive", "joint", "ewc", "replay"]
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_curves_draw_evaluations_within_tasks(make_run: MakeRun) -> None:
    """Halfway through a task all scores are 0.2 below those at its end; an end is the right edge of its task."""
    run = make_run(training={"epochs": 1, "evaluate_every": 50})
    drawing = draw(run, "curves")
    axes = panel(drawing.figure, "naive")
    first, second = (line.get_xydata() for line in axes.lines[:2])
    assert first[:, 0].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    expected = [SEEDS - 0.2, SEEDS, SEEDS - 0.5, SEEDS - 0.3, SEEDS - 0.8, SEEDS - 0.6]
    assert first[:, 1] == pytest.approx([max(value, 0.0) for value in expected])
    assert second[:, 0].tolist() == [1.5, 2.0, 2.5, 3.0]
    assert axes.get_xlabel() == "while learning task"
    assert "while each task is trained" in drawing.caption[0]


# frontier


def test_the_frontier_has_a_point_a_suggestion(make_run: MakeRun) -> None:
    run = make_run()
    trials = run.trials()
    own = trials[(trials.method == "ewc") & (trials.phase == "search")].groupby("suggestion")
    expected = own[["worst_forgetting", "average"]].mean().to_numpy()
    figure = draw(run, "frontier").figure
    (points,) = by_gid(figure, "2-complete")
    assert len(expected) == 4
    assert points.get_offsets().data == pytest.approx(expected)
    assert by_gid(figure, "0-complete")[0].get_offsets().data == pytest.approx(np.array([[0.6, 0.595]])), "naive"
    (limit,) = by_gid(figure, "limit")
    assert limit.get_xdata() == [0.1, 0.1]


def test_the_curve_is_the_answers(make_run: MakeRun) -> None:
    run = make_run()
    (curve,) = by_gid(draw(run, "frontier").figure, "what-if")
    steps = run.answer().scenarios[0].what_if["worst_forgetting <= 0.1"]
    assert steps
    assert curve.get_drawstyle() == "steps-post"
    *drawn, last = curve.get_xydata().tolist()
    assert drawn == [[step.limit, step.objective] for step in steps]
    assert last[1] == steps[-1].objective


def test_a_lower_limit_is_met_to_its_right(make_run: MakeRun) -> None:
    run = make_run(limits=["average_accuracy >= 0.7"], objective="kept_bytes")
    figure = draw(run, "frontier").figure
    (curve,) = by_gid(figure, "what-if")
    xs = curve.get_xdata()
    assert list(xs) == sorted(xs, reverse=True), "the strictest limit is the largest"
    assert "limit ≥ 0.7" in texts(figure)


def test_the_metric_picks_the_limit(make_run: MakeRun) -> None:
    figure = draw(make_run(), "frontier", metric="kept_bytes").figure
    assert by_gid(figure, "limit")[0].get_xdata() == [2e6, 2e6]
    assert "limit ≤ 2 MB" in texts(figure)


# bars


def test_bars_are_the_answers_means_and_intervals(make_run: MakeRun) -> None:
    run = make_run()
    answer = run.answer().scenarios[0]
    figure = draw(run, "bars").figure
    average, forgetting, kept = (axes for axes in figure.axes)
    naive = answer.method("naive").test
    assert naive is not None
    (bar,) = by_gid(average, "bar-0")
    assert (
        bar.get_width() == pytest.approx(naive.numbers["average"].mean) == pytest.approx(SEEDS - 0.3 + 0.005, abs=0.01)
    )
    interval = average.collections[0].get_segments()[0][:, 0]
    assert interval == pytest.approx([naive.numbers["average"].low, naive.numbers["average"].high])
    assert by_gid(forgetting, "bar-0")[0].get_width() == pytest.approx(0.6)
    assert [line.get_xdata() for line in by_gid(kept, "limit")] == [[2e6, 2e6]]
    assert not by_gid(average, "limit")


def test_methods_that_violate_are_hatched(make_run: MakeRun) -> None:
    run = make_run()
    answer = run.answer().scenarios[0]
    for axes in draw(run, "bars").figure.axes:
        for row, method in enumerate(answer.methods):
            if method.test is not None:
                hatch = by_gid(axes, f"bar-{row}")[0].get_hatch()
                assert bool(hatch) == any(not check.is_met for check in method.test.limits)
    assert "violates a limit on test" in texts(draw(run, "bars").figure)


def test_what_was_not_confirmed_has_no_bar(make_run: MakeRun) -> None:
    run = make_run(limits=["worst_forgetting <= 0.0001"])
    figure = draw(run, "bars").figure
    assert not by_gid(figure, "bar-2")
    assert "not on test" in texts(figure)
    assert "nothing meets the limits" in texts(figure)


def test_a_failed_trial_has_no_bar(make_run: MakeRun) -> None:
    def fails(trial: TrialSpec) -> bool:
        return trial.method == "naive" and trial.phase == "confirm" and trial.seed % 10 == 1

    figure = draw(make_run(fails=fails), "bars").figure
    assert not by_gid(figure, "bar-0")
    assert "a trial failed" in texts(figure)


def test_one_metric_of_the_bars(make_run: MakeRun) -> None:
    assert len(draw(make_run(), "bars", metric="kept_bytes").figure.axes) == 1


# all


@pytest.mark.parametrize("kind", ["matrix", "curves", "frontier", "bars"])
@pytest.mark.parametrize(("width", "inches"), [("column", 3.5), ("text", 7.0)])
def test_widths(make_run: MakeRun, kind: str, width: str, inches: float) -> None:
    drawing: Drawing = draw(make_run(), kind, width=width)
    assert drawing.figure.get_figwidth() == inches
    assert drawing.caption


def test_a_method_keeps_its_colour(make_run: MakeRun) -> None:
    run = make_run()
    (points,) = by_gid(draw(run, "frontier").figure, "0-complete")
    (bar, *_) = by_gid(draw(run, "bars").figure, "bar-0")
    assert tuple(points.get_edgecolor()[0][:3]) == bar.get_edgecolor()[:3] == to_rgb(COLOURS[0])


def test_scenarios_stand_in_rows(make_run: MakeRun) -> None:
    run = make_run(scenarios=["split-digits/task", "split-digits/domain"], methods=["naive", "joint"], limits=[])
    labels = [axes.get_ylabel() for axes in draw(run, "matrix").figure.axes]
    assert "split-digits/task\nafter task" in labels
    assert "split-digits/domain\nafter task" in labels
    one = draw(run, "matrix", scenario="split-digits/domain").figure
    assert "after task" in [axes.get_ylabel() for axes in one.axes]
