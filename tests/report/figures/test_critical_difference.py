"""Ranks and tests over scenarios, against numbers computed by hand and by SciPy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import friedmanchisquare

from orchestrator.core.errors import UsageError
from orchestrator.report.figures.critical_difference import rank_methods
from orchestrator.report.figures.kinds import draw
from orchestrator.report.figures.scene import scene_of
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.trial_spec import TrialSpec
from tests.report.figures.conftest import write_run

DIGITS = ["split-digits/task", "split-digits/domain", "split-digits/class", "permuted-digits/task"]
MORE = ["permuted-digits/domain", "permuted-digits/class", "rotated-digits/task", "rotated-digits/domain"]
METHODS = ["naive", "joint", "ewc", "replay"]
LEVELS = {"naive": 0.4, "joint": 0.95, "ewc": 0.6, "replay": 0.8}


def clear(trial: TrialSpec, after: int, task: int) -> float | None:
    """Return what ranks replay before ewc before naive in all scenarios but the first, where ewc is the last."""
    if after < task:
        return None
    swapped = {"naive": 0.6, "ewc": 0.4} if trial.scenario == DIGITS[0] else {}
    return (LEVELS | swapped)[trial.method] + 0.001 * len(trial.scenario)


def run_of(folder: Path, scenarios: list[str], score: Any = clear, methods: list[str] = METHODS, **fields: Any) -> Run:
    spec = {
        "scenarios": scenarios,
        "methods": methods,
        "seeds": {"search": 0, "confirm": 1, "finals": 0},
        "search": {"mode": "defaults", "seeds": "all"},
        "training": {"epochs": 1},
    }
    return write_run(folder, parse_spec(spec | fields), score)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory.mktemp("runs") / "eight", DIGITS + MORE)


def test_mean_ranks(eight: Run) -> None:
    """Over 8 scenarios: replay is 1 in all; ewc 2 in seven and 3 in one; naive the other way round."""
    ranking = rank_methods(scene_of(eight, None, None, 7.0), "average")
    assert ranking.ranks.to_dict() == {"naive": (7 * 3 + 2) / 8, "ewc": (7 * 2 + 3) / 8, "replay": 1.0}
    assert len(ranking.values) == 8


def test_friedmans_test_and_the_pairs(eight: Run) -> None:
    ranking = rank_methods(scene_of(eight, None, None, 7.0), "average")
    columns = ranking.values.to_numpy().T
    assert ranking.p_friedman == pytest.approx(friedmanchisquare(*columns)[1])
    assert ranking.test == "Wilcoxon, Holm", "3 pairs · 2^-7 < 0.05"
    assert ranking.p_pairs.loc["naive", "replay"] == pytest.approx(3 * 2**-7), "the least p-value of 8, times 3 pairs"


def test_a_cost_ranks_the_other_way(tmp_path: Path) -> None:
    """naive alone keeps nothing; the other two share the ranks 2 and 3."""
    run = run_of(tmp_path / "run", DIGITS + MORE, limits=["kept_bytes <= 2e6"])
    ranking = rank_methods(scene_of(run, None, None, 7.0), "kept_bytes")
    assert ranking.ranks.to_dict() == {"naive": 1.0, "ewc": 2.5, "replay": 2.5}


def test_the_diagram(eight: Run) -> None:
    drawing = draw(eight, "critical-difference")
    (axes,) = drawing.figure.axes
    labels = {text.get_text().strip() for text in axes.texts}
    assert labels == {"replay (1.00)", "ewc (2.12)", "(2.88) naive"}
    markers = sorted(float(one.get_offsets()[0][0]) for one in axes.collections)
    assert markers == pytest.approx([1.0, 2.125, 2.875])
    bars = [sorted(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 1.8]
    assert bars == [pytest.approx([2.125, 2.875])], "ewc and naive alone are not told apart"
    assert "Friedman p = 0.00" in axes.get_title() or "Friedman p < 0.001" in axes.get_title()
    assert "Upper bounds are not ranked: joint." in drawing.caption[0]


def test_few_scenarios_say_that_power_is_low(eight: Run) -> None:
    drawing = draw(eight, "critical-difference")
    label = drawing.figure.get_supxlabel().replace("\n", " ")
    assert "Only 8 scenarios: power is low" in label
    assert "They are of 3 streams, so they are not independent" in label


def test_nemenyi_where_wilcoxon_can_find_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", DIGITS + MORE[:1])
    ranking = rank_methods(scene_of(run, None, None, 7.0), "average")
    assert ranking.test == "Nemenyi"
    assert (ranking.p_pairs.to_numpy() <= 1).all()


def test_no_difference_at_all(tmp_path: Path) -> None:
    """Equal methods share rank 2, and one bar joins them."""
    run = run_of(tmp_path / "run", DIGITS + MORE, lambda trial, after, task: None if after < task else 0.5)
    drawing = draw(run, "critical-difference")
    assert {text.get_text().strip() for text in drawing.figure.axes[0].texts} >= {"naive (2.00)"}
    assert "p = 1" in drawing.caption[0]


@pytest.mark.parametrize(
    ("scenarios", "methods", "found"),
    [
        (DIGITS, METHODS, "got 4 scenarios and 3 methods in all of them"),
        (DIGITS + MORE, ["naive", "joint", "ewc"], "got 8 scenarios and 2 methods in all of them"),
    ],
)
def test_too_few(tmp_path: Path, scenarios: list[str], methods: list[str], found: str) -> None:
    run = run_of(tmp_path / "run", scenarios, methods=methods)
    with pytest.raises(UsageError, match=f"expected 3 methods or more .* 5 scenarios or more, {found}"):
        draw(run, "critical-difference")


def test_one_scenario_cannot_be_chosen(eight: Run) -> None:
    with pytest.raises(UsageError, match="ranks methods over all scenarios; drop it"):
        draw(eight, "critical-difference", scenario=DIGITS[0])


def test_methods_not_measured_everywhere_are_left_out(tmp_path: Path) -> None:
    """packnet has no class scenarios."""
    run = run_of(
        tmp_path / "run",
        DIGITS + MORE,
        lambda t, a, k: None if a < k else LEVELS.get(t.method, 0.5),
        [*METHODS, "packnet"],
        unsupported_cells="skip",
    )
    drawing = draw(run, "critical-difference")
    assert "Left out, as not measured in all: packnet." in drawing.caption[0]


def test_labels_do_not_overlap(tmp_path: Path) -> None:
    methods = [*METHODS, "si", "mas", "lwf", "der", "replay+lwf", "replay+ewc", "replay+si"]
    run = run_of(
        tmp_path / "run",
        DIGITS + MORE,
        lambda t, a, k: None if a < k else 0.3 + 0.05 * methods.index(t.method),
        methods,
    )
    figure = draw(run, "critical-difference", width="column").figure
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for side in (True, False):
        own = sorted((box for box in boxes if (box.x0 > figure.bbox.width / 2) is side), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(own))
