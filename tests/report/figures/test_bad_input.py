"""Runs that are not finished, odd or hostile: drawn, or refused in words."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from orchestrator import plot
from orchestrator.core.errors import MissingExtraError, RunFolderError, UsageError
from orchestrator.report.figures.drawing import encode, shown
from orchestrator.report.figures.kinds import KINDS, draw
from orchestrator.results.run import Run
from tests.report.figures.conftest import MakeRun
from tests.report.figures.test_what_is_drawn import texts

FIXTURES = Path(__file__).parents[2] / "fixtures"
SINGLE = [kind for kind in KINDS if kind != "critical-difference"]
HOSTILE = ["$\\input{x}$", "<script>alert(1)</script>", "x" * 300, "_under", "中文", "a\nb\u202e", "{0}", "%s&amp;--"]


@pytest.mark.parametrize("kind", SINGLE)
def test_hostile_names_are_drawn_literally(make_run: MakeRun, kind: str) -> None:
    drawing = draw(make_run(names=HOSTILE), kind)
    content = encode(drawing, "svg").decode()
    assert "<script" not in content
    assert "\u202e" not in content
    if kind in ("matrix", "curves"):
        found = texts(drawing.figure)
        assert all(name in found for name in ("$\\input{x}$", "<script>ale…", "xxxxxxxxxxx…", "_under", "{0}"))
        assert "\\u4e2d\\u6587" in found, "characters that the font lacks are spelled out"


def test_long_and_odd_text() -> None:
    assert shown("x" * 300, 10) == "xxxxxxxxx…"
    assert shown("a\tb") == "a\\tb"
    assert shown("中" * 9, 10) == "\\u4e2d…"
    assert shown("_hidden from legends") == " _hidden from legends"
    assert shown("é ≤ ü") == "é ≤ ü"


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_of_earlier_schemas(tmp_path: Path, kind: str, version: int) -> None:
    run = shutil.copytree(FIXTURES / f"run-schema-{version}", tmp_path / "run")
    assert plot(run, kind).get_figwidth() == 7.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_run(make_run: MakeRun, kind: str) -> None:
    with pytest.raises(RunFolderError, match=r"expected completed trials in '.*', got none; run the sweep first"):
        draw(make_run(most=0), kind)


@pytest.mark.parametrize("kind", SINGLE)
def test_a_run_whose_trials_all_failed(make_run: MakeRun, kind: str) -> None:
    with pytest.raises(RunFolderError, match="got none"):
        draw(make_run(fails=lambda trial: True), kind)


@pytest.mark.parametrize("kind", SINGLE)
def test_an_incomplete_run_says_so(make_run: MakeRun, kind: str) -> None:
    run = make_run(most=12)
    n = run.answer().n_missing
    assert n
    drawing = draw(run, kind)
    assert f"Not final: {n} trials missing, at most." in drawing.figure.get_supxlabel()
    assert f"Not final: {n} trials missing, at most." in drawing.caption


def test_nothing_on_test_yet(make_run: MakeRun) -> None:
    run = make_run(methods=["ewc"], most=2)
    with pytest.raises(
        RunFolderError, match=r"expected methods measured on test in '.*', got none for split-digits/task"
    ):
        draw(run, "bars")
    assert "nearest so far; validation" in draw(run, "matrix").figure.axes[0].get_title()


def test_nothing_learned(make_run: MakeRun) -> None:
    """All score 0.1, as a constant answer does, so no method is claimed to be the best."""
    run = make_run(lambda trial, after, task: None if after < task else 0.1, limits=[])
    assert run.answer().scenarios[0].status == "nothing learned"
    assert "nothing learned; test" in draw(run, "matrix").figure.axes[0].get_title()
    assert "nothing learned" in texts(draw(run, "bars").figure)


@pytest.mark.parametrize("kind", ["matrix", "curves", "bars"])
def test_one_task_and_no_limits(make_run: MakeRun, kind: str) -> None:
    assert draw(make_run(names=["only"], limits=[]), kind).caption


@pytest.mark.parametrize("kind", SINGLE)
def test_one_seed(make_run: MakeRun, kind: str) -> None:
    assert draw(make_run(seeds={"search": 1, "confirm": 1}), kind, width="column").caption


@pytest.mark.parametrize("kind", ["matrix", "curves"])
@pytest.mark.parametrize("width", ["column", "text"])
def test_fifty_tasks(make_run: MakeRun, kind: str, width: str) -> None:
    run = make_run(
        lambda t, after, task: None if after < task else 0.9, [f"t{n}" for n in range(50)], methods=["naive"]
    )
    figure = draw(run, kind, width=width).figure
    assert sum(label.get_text() != "" for label in figure.axes[0].get_xticklabels()) <= 10


@pytest.mark.parametrize("kind", SINGLE)
def test_twenty_methods_fit_a_page(make_run: MakeRun, kind: str) -> None:
    single = ["naive", "joint", "ewc", "replay", "der", "mer", "lwf", "si", "mas", "agem", "gem", "freeze", "icarl"]
    both = ["replay+lwf", "replay+ewc", "replay+si", "replay+mas", "der+ewc", "lwf+ewc", "lwf+si"]
    run = make_run(methods=[*single, *both], search={"suggestions": 1, "batch": 1}, scenarios=["split-digits/class"])
    assert draw(run, kind).figure.get_figheight() <= 10
    if kind == "frontier":
        assert len(draw(run, kind).figure.legends[0].get_texts()) == 20 + 2


@pytest.mark.parametrize("kind", SINGLE)
def test_no_text_leaves_the_figure(make_run: MakeRun, kind: str) -> None:
    for width in ("column", "text"):
        figure = draw(make_run(names=HOSTILE), kind, width=width).figure
        box = figure.get_tightbbox()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= figure.get_figwidth() + 0.02
        assert box.y1 <= figure.get_figheight() + 0.02


def test_choices_are_listed(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(UsageError, match="KIND: expected one of matrix, curves, frontier, bars, critical-difference"):
        draw(run, "pie")
    with pytest.raises(UsageError, match="--width: expected one of column, text, got 'page'"):
        draw(run, "bars", width="page")
    with pytest.raises(UsageError, match="got 'x/y'; choose from: split-digits/task"):
        draw(run, "bars", scenario="x/y")
    with pytest.raises(UsageError, match="got 'loss'; choose from: average, worst_forgetting, kept_bytes"):
        draw(run, "bars", metric="loss")
    with pytest.raises(UsageError, match="got 'average'; choose from: worst_forgetting, kept_bytes"):
        draw(run, "frontier", metric="average")
    with pytest.raises(UsageError, match="--metric: matrix shows the score that R holds"):
        draw(run, "matrix", metric="average")


def test_a_frontier_needs_a_limit(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="expected a sweep with limits, got one without; draw bars instead"):
        draw(make_run(limits=[]), "frontier")


def test_a_frontier_needs_a_search(make_run: MakeRun) -> None:
    run = make_run(seeds={"search": 0, "confirm": 1}, search={"mode": "defaults"})
    with pytest.raises(UsageError, match="expected a sweep with search seeds"):
        draw(run, "frontier")


def test_too_many_scenarios_for_a_page(make_run: MakeRun) -> None:
    scenarios = [f"{s}-digits/{t}" for s in ("split", "permuted", "rotated", "noisy") for t in ("task", "domain")]
    run = make_run(scenarios=scenarios, methods=["naive", "joint"], limits=[], search={"suggestions": 1, "batch": 1})
    with pytest.raises(
        UsageError, match=r"8 scenarios make a figure of 1. inches, .* choose one with --scenario: split"
    ):
        draw(run, "matrix")
    assert draw(run, "matrix", scenario=scenarios[0]).caption


@pytest.mark.parametrize(("missing", "kind"), [("matplotlib", "bars"), ("scikit_posthocs", "critical-difference")])
def test_a_missing_extra(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, missing: str, kind: str) -> None:
    run = make_run()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"plot {kind} needs .*; run: pip install 'continual-sweep\[report\]'"):
        draw(run, kind)


def test_files_are_the_same_every_time(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    first, second = draw(run, "bars"), draw(Run.open(run.path), "bars")
    for file_format, start in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        one = encode(first, file_format)
        assert one == encode(second, file_format)
        assert one.startswith(start)
        assert b"CreationDate" not in one
        assert b"dc:date" not in one
    content = encode(first, "pdf")
    assert b"/Type3" not in content, "fonts are TrueType"
    assert b"/FontFile2" in content
    (tmp_path / "bars.png").write_bytes(encode(draw(run, "bars", width="column"), "png"))
    with Image.open(tmp_path / "bars.png") as image:
        assert image.width == 3.5 * 300


def test_a_figure_is_no_windows(make_run: MakeRun) -> None:
    figure = plot(make_run(), "bars")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    assert figure.canvas.manager is None
