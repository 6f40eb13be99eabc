from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    N_BACKBONE_WEIGHTS,
    learn_tasks,
    make_backbone,
    make_learner,
    make_task,
    parameters_of,
    same,
    through_a_file,
)
from torch import Tensor

from strategies import Batch, Forward, Learner, TaskData
from strategies.methods.packnet import Packnet, PacknetHyperparameters
from strategies.parts.layers import initialise_layer

FREE = 255
LAYERS = ("backbone.0", "backbone.2")
N_TASKS = 4
WAYS_TO_TRAIN: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"keep_optimizer": True},
    {"keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "adam", "learning_rate": 0.01, "keep_optimizer": True},
    {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "keep_optimizer": True},
    {"optimizer": "rmsprop", "learning_rate": 0.01, "keep_optimizer": True},
    {"clip_gradient_norm": 0.1, "iterations": 7},
]
PRUNINGS: list[dict[str, Any]] = [
    {"pruning_rate": 0.5},
    {"pruning_rate": 0.5, "post_prune_epochs": 0},
    {"pruning_rate": 0.95, "post_prune_epochs": 1},
    {"pruning": "equal_share", "post_prune_epochs": 1},
]


def packnet(own: dict[str, Any] | None = None, **training: Any) -> Learner:
    return make_learner("packnet", n_tasks=N_TASKS, hyperparameters=own or {"pruning_rate": 0.5}, **training)


def owners(learner: Learner) -> dict[str, Tensor]:
    method = learner.strategies[0]
    assert isinstance(method, Packnet)
    return {name: owner.clone() for name, owner in method.state.owner.items()}


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: parameters_of(learner)[f"{name}.weight"] for name in LAYERS}


def assert_never_forgets(learner: Learner) -> None:
    inputs = [make_task(task).inputs for task in range(N_TASKS)]
    measured: list[Tensor] = []
    for task in range(N_TASKS):
        learn_tasks(learner, [task])
        measured.append(learner.logits(inputs[task], task))
        for past in range(task):
            assert torch.equal(learner.logits(inputs[past], past), measured[past])
    assert not torch.equal(learner.logits(inputs[0], 1), learner.logits(inputs[0], 2))


@pytest.mark.parametrize(
    ("training", "own"),
    [(training, PRUNINGS[0]) for training in WAYS_TO_TRAIN] + [(WAYS_TO_TRAIN[6], own) for own in PRUNINGS[1:]],
    ids=str,
)
def test_logits_of_old_tasks_never_change_by_a_bit(training: dict[str, Any], own: dict[str, Any]) -> None:
    assert_never_forgets(packnet(own, **training))


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_a_layer_so_small_that_no_weight_survives_changes_nothing_about_that(training: dict[str, Any]) -> None:
    """round(0.95 · 8) = 8: task 0 owns no weight of the last layer, only its biases."""
    learner = make_learner(
        "packnet", n_tasks=N_TASKS, hyperparameters={"pruning_rate": 0.95}, widths=(8, 1), **training
    )
    learn_tasks(learner, [0])
    assert bool((owners(learner)["backbone.2"] == FREE).all())
    bias = parameters_of(learner)["backbone.2.bias"]
    before = learner.logits(make_task(0).inputs, 0)

    learn_tasks(learner, [1, 2, 3])
    assert torch.equal(parameters_of(learner)["backbone.2.bias"], bias)
    assert torch.equal(learner.logits(make_task(0).inputs, 0), before)


def test_a_layer_of_which_no_weight_survived_trains_all_of_them_in_the_next_task() -> None:
    learner = make_learner("packnet", hyperparameters={"pruning_rate": 0.95}, widths=(8, 1))
    learn_tasks(learner, [0])
    task = make_task(0)
    second = TaskData(1, task.inputs, task.labels, 0)
    learner.strategies[0].begin_task(second)
    learner.strategies[0].prepare(second)
    learner.reset_optimizer()
    drawn = weights(learner)["backbone.2"]
    torch.nn.init.constant_(_linears(learner)["backbone.2"].bias, 10.0)
    learner.step(task.take(torch.arange(8)))

    assert bool((weights(learner)["backbone.2"] != drawn).any())


@pytest.mark.parametrize("post_prune_epochs", [0, 1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_kept_optimizer_ends_with_the_retraining(optimizer: str, post_prune_epochs: int) -> None:
    own = {"pruning_rate": 0.5, "post_prune_epochs": post_prune_epochs}
    training = {"optimizer": optimizer, "learning_rate": 0.01}
    kept, fresh = (learn_tasks(packnet(own, keep_optimizer=keep, **training), range(2)) for keep in (True, False))

    assert same(parameters_of(kept), parameters_of(fresh)) == (post_prune_epochs > 0)


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_owned_weights_never_move_again(training: dict[str, Any]) -> None:
    learner = learn_tasks(packnet(**training), [0])
    for task in range(1, N_TASKS):
        before, owned = weights(learner), {name: owner < task for name, owner in owners(learner).items()}
        learn_tasks(learner, [task])
        after = weights(learner)
        for name in LAYERS:
            assert torch.equal(after[name][owned[name]], before[name][owned[name]])
            assert torch.equal(owners(learner)[name] < task, owned[name])


@pytest.mark.parametrize("rate", [0.4, 0.5, 0.8])
def test_pruning_frees_the_smallest_of_the_free_weights_of_each_layer(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[dict[str, Tensor]] = []
    prune = Packnet.end_task

    def noting(self: Packnet, task: TaskData) -> None:
        trained.append(weights(self.learner))
        prune(self, task)

    monkeypatch.setattr(Packnet, "end_task", noting)
    learner = packnet({"pruning_rate": rate, "post_prune_epochs": 0})
    free = {name: torch.ones_like(owner, dtype=torch.bool) for name, owner in owners(learner).items()}
    for task in range(N_TASKS):
        learn_tasks(learner, [task])
        for name, owner in owners(learner).items():
            magnitude = trained[task][name].abs()
            kept, pruned = owner == task, owner == FREE
            assert torch.equal(kept | pruned, free[name])
            assert int(pruned.sum()) == round(rate * int(free[name].sum()))
            assert magnitude[pruned].max() <= magnitude[kept].min()
            assert bool((weights(learner)[name][pruned] == 0).all())
            assert torch.equal(weights(learner)[name][kept], trained[task][name][kept])
            free[name] = pruned


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
def test_freed_weights_are_zero_while_the_survivors_retrain(
    training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    retraining: list[tuple[int, dict[str, Tensor]]] = []
    after_step = Packnet.after_step

    def noting(self: Packnet, batch: Batch, forward: Forward) -> None:
        after_step(self, batch, forward)
        assert isinstance(batch.task_ids, int)
        if any(bool((owner == batch.task_ids).any()) for owner in self.state.owner.values()):
            retraining.append((batch.task_ids, weights(self.learner)))

    monkeypatch.setattr(Packnet, "after_step", noting)
    learner = packnet({"pruning_rate": 0.5, "post_prune_epochs": 2}, **training)
    for task in range(2):
        learn_tasks(learner, [task])
        steps = [values for index, values in retraining if index == task]
        assert len(steps) == 6
        for name, owner in owners(learner).items():
            assert all(bool((values[name][owner == FREE] == 0).all()) for values in steps)
            assert bool((steps[0][name][owner == task] != steps[-1][name][owner == task]).any())
            assert torch.equal(steps[-1][name], weights(learner)[name])


def test_task_k_owns_its_share_of_every_layer() -> None:
    """From 120 and 600 weights with p = ½; Python rounds a half to the even number."""
    learner = make_learner(
        "packnet",
        n_tasks=N_TASKS,
        widths=(30, 20),
        hyperparameters={"pruning_rate": 0.5, "post_prune_epochs": 0},
        iterations=1,
    )
    learn_tasks(learner, range(N_TASKS))
    counts = {name: torch.bincount(owner.flatten().long(), minlength=256) for name, owner in owners(learner).items()}

    assert counts["backbone.0"][:4].tolist() == [60, 30, 15, 7]
    assert counts["backbone.2"][:4].tolist() == [300, 150, 75, 37]
    assert [int(count[FREE]) for count in counts.values()] == [8, 38]


@pytest.mark.parametrize("rate", [0.4, 0.75, 0.95])
def test_shares_follow_the_formula_up_to_rounding(rate: float) -> None:
    learner = packnet({"pruning_rate": rate, "post_prune_epochs": 0}, iterations=1)
    learn_tasks(learner, range(N_TASKS))
    for owner in owners(learner).values():
        for task in range(N_TASKS):
            n_owned = int((owner == task).sum())
            assert n_owned == pytest.approx((1 - rate) * rate**task * owner.numel(), abs=1)


def test_equal_shares_leave_nothing_free() -> None:
    learner = make_learner(
        "packnet",
        n_tasks=N_TASKS,
        widths=(6, 6),
        hyperparameters={"pruning": "equal_share", "pruning_rate": 0.9},
        iterations=1,
    )
    learn_tasks(learner, range(N_TASKS))
    for name, share in (("backbone.0", 6), ("backbone.2", 9)):
        assert torch.bincount(owners(learner)[name].flatten().long()).tolist() == [share] * N_TASKS
    method = learner.strategies[0]
    assert isinstance(method, Packnet)
    assert [method.pruning_rate(task) for task in range(N_TASKS)] == [3 / 4, 2 / 3, 1 / 2, 0]


def test_biases_train_in_the_first_task_and_freeze_after_it() -> None:
    learner = packnet(weight_decay=0.1, keep_optimizer=True)
    first = {name: layer.bias.detach().clone() for name, layer in _linears(learner).items()}
    after = [
        {name: layer.bias.detach().clone() for name, layer in _linears(learn_tasks(learner, [task])).items()}
        for task in range(3)
    ]

    assert all(bool((after[0][name] != first[name]).any()) for name in LAYERS)
    assert same(after[0], after[1])
    assert same(after[0], after[2])


def test_biases_retrain_with_the_survivors_of_the_first_task() -> None:
    biases = [
        parameters_of(learn_tasks(packnet({"pruning_rate": 0.5, "post_prune_epochs": n}), [0]))["backbone.0.bias"]
        for n in (0, 1)
    ]

    assert not torch.equal(*biases)


def _linears(learner: Learner) -> dict[str, torch.nn.Linear]:
    found = {name: learner.network.get_submodule(name) for name in LAYERS}
    assert all(isinstance(layer, torch.nn.Linear) for layer in found.values())
    return found  # type: ignore[return-value]


def test_freed_weights_are_drawn_anew_for_the_next_task() -> None:
    learner = learn_tasks(packnet(), [0])
    before, owner = weights(learner), owners(learner)
    learner.strategies[0].begin_task(make_task(1))
    learner.strategies[0].prepare(make_task(1))

    for name, values in weights(learner).items():
        free = owner[name] == FREE
        drawn = torch.nn.Linear(values.shape[1], values.shape[0], bias=False)
        initialise_layer(drawn, learner.generators.fresh(f"packnet/1/{name}"))
        assert bool((before[name][free] == 0).all())
        assert torch.equal(values[free], drawn.weight.detach()[free])
        assert torch.equal(values[~free], before[name][~free])


def test_the_first_task_trains_as_naive_until_it_prunes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packnet, "end_task", lambda self, task: None)
    naive = make_learner("naive", n_tasks=N_TASKS)

    assert same(parameters_of(learn_tasks(packnet(), [0])), parameters_of(learn_tasks(naive, [0])))


def test_inference_uses_the_weights_of_tasks_up_to_its_own_and_zero_for_all_others() -> None:
    learner = learn_tasks(packnet(), range(3))
    inputs = make_task(1).inputs
    for task in range(3):
        masked = make_backbone(torch.Generator())
        for name, layer in _linears(learner).items():
            own = masked.get_submodule(name.removeprefix("backbone."))
            assert isinstance(own, torch.nn.Linear)
            own.weight.data = layer.weight.detach() * (owners(learner)[name] <= task)
            own.bias.data = layer.bias.detach()
        expected = learner.network.heads[task](masked(inputs)).detach()
        torch.testing.assert_close(learner.logits(inputs, task), expected)


def test_the_capacity_report_sums_to_one() -> None:
    learner = packnet()
    assert learner.strategies[0].report() == {"capacity": {name: {"free": 1.0} for name in LAYERS}}
    learn_tasks(learner, range(3))
    capacity = learner.strategies[0].report()["capacity"]

    assert capacity["backbone.0"] == {"0": 12 / 24, "1": 6 / 24, "2": 3 / 24, "free": 3 / 24}
    assert {name: sum(shares.values()) for name, shares in capacity.items()} == dict.fromkeys(LAYERS, 1.0)


def test_state_survives_a_reload_bit_for_bit() -> None:
    learner = learn_tasks(packnet(), range(2))
    loaded = packnet()
    loaded.load_state_dict(through_a_file(learner.state_dict()))

    assert same(owners(loaded), owners(learner))
    for task in range(2):
        inputs = make_task(task).inputs
        assert torch.equal(loaded.logits(inputs, task), learner.logits(inputs, task))


def test_it_needs_the_task_and_says_so() -> None:
    assert Packnet.unsupported.keys() == {"domain", "class"}
    assert all("must know the task at inference" in reason for reason in Packnet.unsupported.values())


def test_more_tasks_than_owners_are_refused() -> None:
    make_learner("packnet", n_tasks=255)
    with pytest.raises(ValueError, match="at most 255 tasks, got 256"):
        make_learner("packnet", n_tasks=256)


def test_kept_bytes_are_an_owner_a_weight() -> None:
    learner = packnet()
    assert learner.strategies[0].kept_bytes() == N_BACKBONE_WEIGHTS
    for task in range(3):
        learn_tasks(learner, [task])
        assert learner.strategies[0].kept_bytes() == N_BACKBONE_WEIGHTS


@pytest.mark.parametrize(
    ("field", "value"),
    [("pruning_rate", 0.0), ("pruning_rate", 1.0), ("post_prune_epochs", -1), ("pruning", "global")],
)
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        PacknetHyperparameters(**{field: value})
