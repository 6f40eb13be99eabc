"""Every method on networks with convolutions and norms, and on a user's own class."""

from __future__ import annotations

import pytest
from matrix import MODELS, NO_RUNNING_STATISTICS, ONE_LEFT, SMALL, model_rows, types_of
from torch import nn

from orchestrator.conformance import Case
from orchestrator.conformance.suite import Row
from orchestrator.conformance.world import N_TASKS
from strategies import STRATEGIES, find_method

ROWS = {f"{row.case.model.name.rpartition(':')[2]}-{row.case.method}-{row.id}": row for row in model_rows()}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_it_holds_on_a_model(row: Row) -> None:
    """Running statistics are part of the state that is compared."""
    row.check.function(row.case)


@pytest.mark.parametrize("method", [method for method in STRATEGIES.own if method not in NO_RUNNING_STATISTICS])
def test_a_method_trains_on_one_example_at_a_time(method: str) -> None:
    """Norms of vectors have nothing to measure then: their running statistics stay as they began."""
    own = {"post_prune_epochs": 0} if method == "packnet" else SMALL.get(method, {})
    for kind in types_of(method):
        learner = Case(method, kind, own, {"batch_size": 1}, MODELS["own"]).learned([0])
        first = learner.network.backbone[2]
        assert isinstance(first, nn.BatchNorm1d)
        assert first.num_batches_tracked == 0


@pytest.mark.parametrize("method", NO_RUNNING_STATISTICS)
def test_running_statistics_are_refused(method: str) -> None:
    assert "resnet18" in find_method(method).unsupported_models
    with pytest.raises(ValueError, match=f"^{method}.*backbone.*choose another model or method"):
        Case(method, "task", model=MODELS["own"]).learner()


def test_the_last_batch_may_be_one_example() -> None:
    case = Case("naive", training=ONE_LEFT, model=MODELS["own"])
    assert [len(case.task(index)) % 7 for index in range(N_TASKS)] == [6, 0, 1]
