from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import (
    KINDS,
    N_EXAMPLES,
    N_INPUTS,
    learn_tasks,
    make_learner,
    make_network,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor

from strategies import Batch, IncrementalType, Strategy, TaskData
from strategies.methods.joint import Joint


class Witness(Strategy):
    """Notes the weights before each task's first step and what is trained on."""

    name = "witness"
    summary = "for tests"

    def __init__(self, learner: Any, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self.starts: list[dict[str, Tensor]] = []
        self.data: list[TaskData] = []
        self.batches: list[list[Batch]] = []

    def training_data(self, task: TaskData) -> TaskData:
        self.starts.append(parameters_of(self.learner))
        self.data.append(task)
        self.batches.append([])
        return task

    def extend_batch(self, batch: Batch) -> Batch:
        self.batches[-1].append(batch)
        return batch


def witnessed(kind: IncrementalType = "task", **settings: Any) -> Witness:
    witness = learn_tasks(make_learner("joint", Witness, kind=kind, **settings), range(3)).strategies[1]
    assert isinstance(witness, Witness)
    return witness


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_begins_at_the_same_first_weights(kind: IncrementalType) -> None:
    for task, start in enumerate(witnessed(kind).starts):
        first = make_network(kind, n_heads=1 if kind == "domain" else task + 1)
        assert same(start, {name: p.detach() for name, p in first.named_parameters()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_trains_on_all_data_so_far_each_with_its_own_task(kind: IncrementalType) -> None:
    for index, data in enumerate(witnessed(kind).data):
        tasks = [make_task(t, kind) for t in range(index + 1)]
        ids = [0] * N_EXAMPLES if index == 0 else [t for t in range(index + 1) for _ in range(N_EXAMPLES)]
        found = [data.task_ids] * N_EXAMPLES if isinstance(data.task_ids, int) else data.task_ids.tolist()

        assert data.index == index
        assert torch.equal(data.inputs, torch.cat([task.inputs for task in tasks]))
        assert torch.equal(data.labels, torch.cat([task.labels for task in tasks]))
        assert found == ids


def test_its_budget_is_the_same_epochs_over_more_data() -> None:
    assert [sum(len(b.labels) for b in batches) for batches in witnessed(epochs=2).batches] == [40, 80, 120]
    assert [len(batches) for batches in witnessed(iterations=4).batches] == [4, 4, 4]


def test_an_example_is_trained_through_the_head_of_its_task() -> None:
    last = witnessed().batches[2]
    ids, labels = (torch.cat([getattr(b, field) for b in last]) for field in ("task_ids", "labels"))

    assert torch.equal(ids, labels // 2)
    assert set(ids.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run(kind: IncrementalType) -> None:
    naive, joint = make_learner("naive", kind=kind), make_learner("joint", kind=kind)

    assert same(parameters_of(learn_tasks(naive, [0])), parameters_of(learn_tasks(joint, [0])))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_from_scratch_means_a_fresh_optimizer_even_where_it_is_kept(optimizer: str) -> None:
    runs = [
        learn_tasks(make_learner("joint", optimizer=optimizer, keep_optimizer=keep, learning_rate=0.01), range(3))
        for keep in (False, True)
    ]

    assert same(parameters_of(runs[0]), parameters_of(runs[1]))


def test_a_later_task_is_that_of_a_learner_that_saw_no_earlier_one() -> None:
    """The last task, trained by a naive learner on the joined data from the same first weights and batches."""
    witness = witnessed("class")
    joint = learn_tasks(make_learner("joint", kind="class"), [0, 1])
    naive = make_learner("naive", kind="class")
    naive.network.add_heads(3, naive.device, naive.generators.fresh)
    naive.generators.load_state_dict(joint.generators.state_dict())
    naive.learn(witness.data[2])

    assert same(parameters_of(naive), parameters_of(learn_tasks(joint, [2])))


def test_kept_bytes_are_those_of_the_past_tasks_data() -> None:
    learner = make_learner("joint")
    kept = [learn_tasks(learner, [task]).strategies[0].kept_bytes() for task in range(3)]

    assert make_learner("joint").strategies[0].kept_bytes() == 0
    assert kept == [n * N_EXAMPLES * (4 * N_INPUTS + 8) for n in (0, 1, 2)]


def test_it_is_a_reference() -> None:
    assert Joint.is_reference


@pytest.mark.parametrize("kind", KINDS)
def test_joint_that_trains_once_waits_for_the_last_task_and_sees_all_examples_then(kind: IncrementalType) -> None:
    learner = make_learner("joint", kind=kind, hyperparameters={"trained": "final"})
    untrained = parameters_of(learner)
    for index in range(2):
        learn_tasks(learner, [index])
        assert all(
            torch.equal(untrained[name], value) for name, value in parameters_of(learner).items() if name in untrained
        )
    learn_tasks(learner, [2])

    assert not torch.equal(parameters_of(learner)["backbone.0.weight"], untrained["backbone.0.weight"])
    every = make_learner("joint", kind=kind)
    assert learner.strategies[0].kept_bytes() == learn_tasks(every, range(3)).strategies[0].kept_bytes()
    assert "once" in learner.strategies[0].plans_ahead
    assert every.strategies[0].plans_ahead == ""
