from __future__ import annotations

import pytest
import torch
from tiny_worlds import learn_tasks, make_learner, make_task, parameters_of, same

from orchestrator.core.errors import SpecError
from orchestrator.spec.loading import parse_spec


@pytest.mark.parametrize(("strength", "factor"), [(1.0, 0.5), (0.5, 0.5**0.5)])
def test_new_rows_get_the_mean_norm_of_old_ones(strength: float, factor: float) -> None:
    """Old rows of norm 3, 5, 1 and 3 and new ones of 4 and 8: γ = 3 / 6."""
    learner = learn_tasks(make_learner("wa", kind="class", hyperparameters={"strength": strength}), range(3))
    with torch.no_grad():
        for head, norms in zip(learner.network.heads, ((3.0, 5.0), (1.0, 3.0), (4.0, 8.0)), strict=True):
            weight = head.get_parameter("weight")
            weight.zero_()
            for row, norm in enumerate(norms):
                weight[row, row + 1] = norm
    before = parameters_of(learner)
    learner.strategies[0].end_task(make_task(2, "class"))
    after = parameters_of(learner)
    torch.testing.assert_close(after.pop("heads.2.weight"), before.pop("heads.2.weight") * factor)
    assert same(after, before)


def test_outputs_that_are_smaller_already_are_left_alone() -> None:
    learner = learn_tasks(make_learner("wa", kind="class"), range(2))
    with torch.no_grad():
        learner.network.heads[1].get_parameter("weight").mul_(0.01)
    before = parameters_of(learner)
    learner.strategies[0].end_task(make_task(1, "class"))
    assert same(parameters_of(learner), before)


def test_the_first_task_and_strength_0_are_left_alone() -> None:
    naive = learn_tasks(make_learner("naive", kind="class"), range(1))
    assert same(parameters_of(learn_tasks(make_learner("wa", kind="class"), range(1))), parameters_of(naive))


@pytest.mark.parametrize("kind", ["task", "domain"])
def test_it_is_refused_where_outputs_do_not_compete(kind: str) -> None:
    with pytest.raises(SpecError, match=r"nothing to align|no new ones to align"):
        parse_spec({"scenarios": [f"split-digits/{kind}"], "methods": ["replay+wa"]})
