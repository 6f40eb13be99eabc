"""The table of a paper against numbers computed by hand, and what stands below it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.report.exports.entries import Entry
from orchestrator.report.exports.markdown import render_markdown
from orchestrator.report.exports.paper_table import PaperTable, table_of
from tests.report.exports.answers import SCENARIO, T_2, answer, five_methods
from tests.search.test_answer import plain, with_replay

DROP = "worst_forgetting"


@pytest.fixture(scope="module")
def table() -> PaperTable:
    return table_of(answer(five_methods()))


def entry(table: PaperTable, method: str, metric: str = "average") -> Entry:
    return table.entries[method, SCENARIO, metric]


def notes(table: PaperTable) -> str:
    return "\n".join(table.notes)


def test_means_intervals_and_marks(table: PaperTable) -> None:
    """Of replay less si: -0.05, 0.07, 0.04, so t = 0.5547 and p = 0.635; of replay less ewc: p = 0.0131."""
    assert table.metrics == ("average", DROP)
    shown = {method: entry(table, method).text + entry(table, method).marks for method in table.methods}
    half = T_2 * 0.02 / math.sqrt(3)
    assert f"{half:.3f}" == "0.050"
    assert f"{T_2 * 0.05 / math.sqrt(3):.3f}" == "0.124"
    assert shown == {
        "naive": "0.700‡",
        "joint": "0.990",
        "ewc": "0.820 ± 0.050",
        "replay": "0.920 ± 0.050",
        "si": "0.900 ± 0.124†",
    }
    assert [method for method in table.methods if entry(table, method).is_best] == ["replay"]
    replay = entry(table, "replay").number
    assert replay is not None
    assert (replay.mean, replay.half_width) == pytest.approx((0.92, half), abs=1e-6)
    ewc, si = entry(table, "ewc").comparison, entry(table, "si").comparison
    assert ewc is not None
    assert si is not None
    assert (ewc.difference, si.difference) == pytest.approx((0.10, 0.02))
    p_ewc = 1 - math.sqrt(75 / 77)  # of Student's t with 2 degrees of freedom: 1 - t / √(2 + t²), and t² = 75
    assert ewc.p_holm == pytest.approx(2 * p_ewc), "the second smallest of three"
    assert si.p_holm == pytest.approx(1 - 0.5547 / math.sqrt(2 + 0.5547**2), abs=1e-4)


def test_a_limit_is_marked_at_its_own_metric_too(table: PaperTable) -> None:
    naive = entry(table, "naive", DROP)
    assert (naive.text, naive.marks, naive.violated) == ("0.300", "‡", ("worst_forgetting <= 0.1",))
    assert entry(table, "si", DROP).marks == "", "what is not told apart is the objective"
    assert not entry(table, "replay", DROP).is_best


def test_notes_say_what_a_reader_must_know(table: PaperTable) -> None:
    assert table.notes[0] == (
        "Mean ± half-width of its 95 % confidence interval (Student's t) over 3 seeds, on the test split."
    )
    text = notes(table)
    assert "Limits: worst_forgetting <= 0.1; a limit is met if the mean over seeds meets it." in text
    assert "Bold: the best average accuracy among the methods that meet the limits." in text
    assert (
        "† average accuracy not told apart from the best: Student's paired test by seed, p ≥ 0.05 after Holm's" in text
    )
    assert "‡ Violates a limit." in text
    assert "* Keeps the data of all tasks: an upper bound, never best nor recommended (joint)." in text
    assert "Not final" not in text
    assert table.row_head("joint") == "joint*"


def test_markdown_as_it_is_printed(table: PaperTable) -> None:
    lines = render_markdown(table).splitlines()
    assert lines[:9] == [
        "**split-digits/task**",
        "",
        "| method  |          accuracy | worst forgetting |",
        "| ------- | ----------------: | ---------------: |",
        "| naive   |            0.700‡ |           0.300‡ |",
        "| joint\\* |             0.990 |            0.000 |",
        "| ewc     |     0.820 ± 0.050 |            0.020 |",
        "| replay  | **0.920 ± 0.050** |            0.020 |",
        "| si      |    0.900 ± 0.124† |            0.020 |",
    ]


def test_what_is_not_measured_is_said() -> None:
    """ewc and replay: one is confirmed, the other has no trials at all."""
    table = table_of(answer(plain()))
    assert (entry(table, "replay").text, entry(table, "replay").marks) == ("—", "")
    assert "— replay on split-digits/task: not measured yet." in table.notes
    assert table.notes[0].startswith("Not final: ")


def test_nothing_feasible_has_no_best() -> None:
    table = table_of(answer(plain(methods=["naive", "joint", "ewc"], limits=["worst_forgetting <= 0.03"])))
    assert not any(one.is_best or one.is_tied for one in table.entries.values())
    assert "split-digits/task: no method surely meets the limits." in table.notes
    assert "Bold" not in notes(table)
    assert (
        "— ewc on split-digits/task: not measured on test, as on validation it violates worst_forgetting <= 0.03."
        in (table.notes)
    )


def test_without_limits_the_best_of_all_is_bold() -> None:
    table = table_of(answer(five_methods(limits=[])))
    assert table.metrics == ("average",)
    assert "There are no limits." in table.notes
    assert "Bold: the best average accuracy of all methods." in table.notes
    assert [method for method in table.methods if entry(table, method).is_best] == ["replay"]
    assert entry(table, "naive").marks == ""


def test_without_a_search() -> None:
    rows = plain(seeds={"search": 0, "confirm": 2}, spaces={"ewc": {"penalty_weight": 5}}, methods=["naive", "ewc"])
    table = table_of(answer(rows))
    assert [method for method in table.methods if entry(table, method).is_best] == ["ewc"]
    assert entry(table, "ewc").text == "0.790 ± 0.127"


def test_one_seed_has_no_interval() -> None:
    rows = plain(seeds={"search": 2, "confirm": 1}, methods=["naive", "joint", "ewc"])
    table = table_of(answer(rows))
    assert entry(table, "ewc").text == "0.780"
    assert table.notes[0] == (
        "Measured on the test split with 1 seed, so there is no interval and nothing can be told apart."
    )
    assert entry(table, "naive").marks == "†‡"
    assert "it needs two seeds in common to be tested" in notes(table)


def test_the_recommended_is_named_if_another_is_best_on_test() -> None:
    table = table_of(answer(with_replay([(0.9, 0.02)] * 2, [(0.74, 0.02), (0.78, 0.02)])))
    assert entry(table, "ewc").is_best
    assert entry(table, "replay").is_recommended
    assert (
        "split-digits/task: replay is recommended, because methods are chosen on validation; ewc is best on test."
    ) in table.notes


def test_a_failed_trial_on_test_is_no_number() -> None:
    table = table_of(answer(with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0), "failed"])))
    assert entry(table, "replay").text == "—"
    assert "— replay on split-digits/task: 1 of its 2 trials on test did not complete." in table.notes


def test_what_meets_the_limits_by_too_little_is_marked() -> None:
    found = answer(five_methods())
    (scenario,) = found.scenarios
    methods = [replace(one, is_confirmed=False) if one.method == "ewc" else one for one in scenario.methods]
    table = table_of(replace(found, scenarios=[replace(scenario, methods=methods)]))
    assert entry(table, "ewc").marks == "§"
    assert any(note.startswith("§ Meets the limits on test by too little") for note in table.notes)


def test_other_metrics_on_request(table: PaperTable) -> None:
    found = answer(five_methods())
    chosen = table_of(found, ["kept_bytes", "average_accuracy", "kept_bytes"])
    assert chosen.metrics == ("kept_bytes", "average_accuracy")
    assert entry(chosen, "replay", "kept_bytes").text == "100 B"
    assert entry(chosen, "naive", "kept_bytes").marks == "‡", "the objective is not there to be marked"
    with pytest.raises(UsageError) as raised:
        table_of(found, ["acuracy", "forward_transfer"])
    assert len(raised.value.faults) == 2
    assert (
        "got 'acuracy'; choose from: average, worst_forgetting, average_accuracy, learning_" in raised.value.faults[0]
    )


def test_scenarios_are_columns_and_metrics_panels() -> None:
    """packnet is left out where the task is not known."""
    scenarios = ["split-digits/task", "split-digits/class"]
    rows = plain(scenarios=scenarios, methods=["naive", "packnet"], unsupported_cells="skip")
    table = table_of(answer(rows))
    assert [(panel.title, [head for head, _, _ in panel.columns]) for panel in table.panels] == [
        ("accuracy", scenarios),
        ("worst forgetting", scenarios),
    ]
    assert "— packnet on split-digits/class: left out, as it does not support this incremental type." in table.notes
