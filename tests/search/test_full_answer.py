"""The whole answer as typed objects and as JSON: how sure, what blocks, what another limit would give."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from orchestrator.search.answers.full_answer import Answer, ScenarioAnswer, answer_of
from orchestrator.search.suggestion import Outcome
from orchestrator.search.sweep_search import SweepSearch
from orchestrator.spec.loading import parse_spec
from tests.search.test_answer import Rows, plain, with_replay

SCENARIO = "split-digits/task"


def answer(rows: Rows) -> Answer:
    rows.run()
    return answer_of(rows.search(), rows.frame())


def scenario(rows: Rows) -> ScenarioAnswer:
    return answer(rows).scenario(SCENARIO)


def test_the_recommended_and_the_runner_up() -> None:
    """replay is better by 0.06 and 0.12 on the two test seeds."""
    found = scenario(with_replay([(0.9, 0.02), (0.9, 0.02)], [(0.84, 0.02), (0.92, 0.04)]))
    assert (found.status, found.recommended, found.runner_up) == ("recommended", "replay", "ewc")
    replay, ewc = found.method("replay"), found.method("ewc")
    assert replay.test is not None
    accuracy = replay.test.numbers["average"]
    assert accuracy.mean == pytest.approx(0.88)
    half = 12.706 * 0.04 * math.sqrt(2) / math.sqrt(2)  # t(0.975, 1) · s / √n
    assert (accuracy.low, accuracy.high) == pytest.approx((0.88 - half, 0.88 + half), abs=1e-4)
    (limit,) = replay.test.limits
    assert (limit.limit, limit.is_met) == ("worst_forgetting <= 0.1", True)
    assert (limit.new_run.n_met, limit.new_run.n_seeds) == (2, 2)
    assert limit.margin == pytest.approx(0.07)
    assert limit.new_run.at_least == pytest.approx(math.sqrt(0.05))
    assert ewc.against_recommended is not None
    assert ewc.against_recommended.difference == pytest.approx(0.09)
    assert not ewc.against_recommended.is_told_apart
    assert ewc.against_recommended.n_more_seeds is not None
    assert replay.against_recommended is None


def test_what_another_limit_would_give() -> None:
    """On validation, ewc has 0.81 at 0.05 and 0.90 at 0.20; naive 0.7 at 0.3 never pays; joint is left out."""
    found = scenario(plain())
    steps = found.what_if["worst_forgetting <= 0.1"]
    assert [(step.method, step.suggestion) for step in steps] == [("ewc", 0), ("ewc", 1)]
    assert [step.limit for step in steps] == pytest.approx([0.05, 0.20])
    assert [step.objective for step in steps] == pytest.approx([0.81, 0.90])


def test_the_cheapest_relaxation() -> None:
    """Two limits: ewc's first suggestion violates 0.03 by 0.02; the other limit is met by all."""
    rows = plain(methods=["naive", "joint", "ewc"], limits=["worst_forgetting <= 0.03", "kept_bytes <= 200"])
    found = scenario(rows)
    assert (found.status, found.recommended) == ("nothing meets the limits", None)
    assert found.blocking == {"worst_forgetting <= 0.03": pytest.approx(0.02)}
    assert found.relaxation is not None
    assert (found.relaxation.limit, found.relaxation.method) == ("worst_forgetting <= 0.03", "ewc")
    assert (found.relaxation.value, found.relaxation.by) == pytest.approx((0.05, 0.02))


def test_how_far_validation_and_test_differ() -> None:
    """ewc's first suggestion: 0.81 less 0.79; naive and joint: nothing. Three were measured on both."""
    found = scenario(plain())
    assert found.validation_less_test["average"] == pytest.approx(0.02 / 3)


def test_json_is_plain_and_complete() -> None:
    rows = plain()
    found = answer(rows)
    read = json.loads(found.to_json())
    assert read["version"] == 1
    assert [one["scenario"] for one in read["scenarios"]] == [SCENARIO]
    assert read["scenarios"][0]["recommended"] == "ewc"
    assert {one["method"] for one in read["scenarios"][0]["methods"]} == {"naive", "joint", "ewc", "replay"}
    assert read["n_missing"] == found.n_missing > 0, "replay has no result"
    assert "NaN" not in found.to_json()


def test_what_was_stopped_before_training_is_violated_not_unknown() -> None:
    """replay keeps at least 20 examples of 64 numbers, label and task: 20 · (256 + 16) bytes, and 100 is the limit."""
    spec = parse_spec(
        {
            "scenarios": [SCENARIO],
            "methods": ["replay"],
            "limits": ["kept_bytes <= 100", "worst_forgetting <= 0.1"],
            "spaces": {"replay": {"buffer_size": {"low": 20, "high": 30}}},
            "search": {"suggestions": 2},
        }
    )
    search = SweepSearch(spec, {"digits": "x"}, {})
    while waiting := search.waiting_requests():
        planned = search.hand_out(waiting[0])
        size = 272 * float(planned.spec.hyperparameters["buffer_size"])
        search.record(planned.spec.key, Outcome("stopped", {"kept_bytes": size}))
    least = min(272.0 * float(s.hyperparameters["buffer_size"]) for s in search.cells[0].suggestions)
    columns = ["key", "status", "score", "chance_accuracy", "constant_score", "untrained_score"]
    found = answer_of(search, pd.DataFrame(columns=columns)).scenario(SCENARIO)
    assert found.status == "nothing meets the limits"
    assert found.method("replay").stopped_at == {"kept_bytes": least}
    assert found.blocking == {"kept_bytes <= 100": pytest.approx(least - 100)}


def test_numbers_of_more_than_the_limits_with_their_seeds() -> None:
    found = scenario(plain()).method("ewc").test
    assert found is not None
    assert found.seeds == [1000, 1001]
    assert found.numbers["average"].values == pytest.approx([0.78, 0.80])
    assert {"average_accuracy", "backward_transfer", "n_parameters", "seconds"} < found.numbers.keys()
    assert "forward_transfer" not in found.numbers, "it is not known here"
    half = 12.706 * 0.01 * math.sqrt(2) / math.sqrt(2)
    assert found.numbers["average"].half_width == pytest.approx(half, abs=1e-4)


def test_the_best_on_test_is_not_always_recommended() -> None:
    """replay is chosen on validation; on test ewc, with 0.79, is better by 0.04 and 0.02."""
    found = scenario(with_replay([(0.9, 0.02)] * 2, [(0.74, 0.02), (0.78, 0.02)]))
    assert (found.recommended, found.best_on_test, found.score) == ("replay", "ewc", "accuracy")
    replay, ewc, naive = (found.method(name) for name in ("replay", "ewc", "naive"))
    assert replay.against_best is not None
    assert replay.against_best.difference == pytest.approx(0.03)
    assert ewc.against_best is None
    assert (replay.is_confirmed, ewc.is_confirmed, naive.is_confirmed) == (True, True, False)
    assert found.method("joint").against_best is None
    assert naive.test is not None
    assert naive.test.violated == ["worst_forgetting <= 0.1"]


def test_a_failed_test_trial_is_not_known_and_not_violated() -> None:
    found = scenario(with_replay([(0.9, 0.0)] * 2, [(0.9, 0.0), "failed"])).method("replay").test
    assert found is not None
    assert (found.is_known, found.violated) == (False, [])


def test_notebooks_show_it_escaped() -> None:
    found = answer(plain())
    html = found._repr_html_()
    assert "<b>ewc</b>" in html
    assert "0.790 ± 0.127" in html
    assert "violated: worst_forgetting &lt;= 0.1" in html
    assert "joint (upper bound)" in html
    assert "<script>" not in replace(found, name="<script>")._repr_html_()
