"""PackNet on convolutions and norms: images of 2 channels and 8 x 8 pixels, 2 classes a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_worlds import make_layout, make_settings, same, through_a_file
from torch import Tensor, nn

from strategies import Batch, Forward, Generators, Learner, Network, TaskData
from strategies.methods.packnet import Packnet, PacknetHyperparameters
from strategies.parts.layers import initialise_layer

FREE = 255
N_TASKS = 3
WAYS_TO_TRAIN: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"keep_optimizer": True},
    {"keep_optimizer": True, "weight_decay": 0.1},
    {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1, "keep_optimizer": True},
]


class Block(nn.Module):
    """A residual block with BatchNorm, the piece that ResNets are made of."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, 2, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(inputs)) + self.shortcut(inputs))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 6), nn.ReLU()
    )


def residual() -> nn.Module:
    return nn.Sequential(Block(2, 4), Block(4, 3), nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU())


NETS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "residual": residual}


def build(net: str, generator: torch.Generator) -> Network:
    backbone = NETS[net]()
    for module in backbone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialise_layer(module, generator)
    return Network(backbone, 6, make_layout("task", N_TASKS))


def make_images(index: int, n: int = 20) -> TaskData:
    """Return a task whose pixels have another mean and scale than those of the other tasks."""
    inputs = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(index)) * (1 + index) + index
    classes = torch.arange(n) % 2
    inputs[:, 0] += 2.0 * classes[:, None, None]
    return TaskData(index, inputs, classes + 2 * index, index)


def packnet(net: str, own: dict[str, Any] | None = None, **training: Any) -> Learner:
    generators = Generators(0)
    return Learner(
        build=lambda: build(net, generators.fresh("init/backbone")),
        past_task=make_images,
        methods=[(Packnet, PacknetHyperparameters(**(own or {"pruning_rate": 0.5, "post_prune_epochs": 1})))],
        settings=make_settings(**training),
        generators=generators,
        device=torch.device("cpu"),
    )


def logits_of(learner: Learner, task: int) -> Tensor:
    learner.network.eval()
    return learner.logits(make_images(task).inputs, task)


def frozen_values(learner: Learner) -> dict[str, Tensor]:
    """Return what has no owners and is not of a head: biases, norms and running statistics."""
    owner = learner.strategies[0].state.owner
    return {
        name: value.clone()
        for name, value in learner.network.state_dict().items()
        if name.startswith("backbone") and name.removesuffix(".weight") not in owner
    }


@pytest.mark.parametrize("training", WAYS_TO_TRAIN, ids=str)
@pytest.mark.parametrize("net", NETS)
def test_logits_of_old_tasks_never_change_by_a_bit(net: str, training: dict[str, Any]) -> None:
    learner = packnet(net, **training)
    measured: list[Tensor] = []
    for task in range(N_TASKS):
        learner.learn(make_images(task))
        measured.append(logits_of(learner, task))
        assert all(torch.equal(logits_of(learner, past), measured[past]) for past in range(task))
    assert not torch.equal(learner.logits(make_images(0).inputs, 1), learner.logits(make_images(0).inputs, 2))


@pytest.mark.parametrize("net", NETS)
def test_all_without_owners_trains_in_the_first_task_and_retraining_and_freezes_after_it(net: str) -> None:
    learner = packnet(net, weight_decay=0.1, keep_optimizer=True)
    values = [frozen_values(learner)]
    for task in range(N_TASKS):
        learner.learn(make_images(task))
        values.append(frozen_values(learner))
    unpruned = packnet(net, {"pruning_rate": 0.5, "post_prune_epochs": 0}, weight_decay=0.1, keep_optimizer=True)
    unpruned.learn(make_images(0))
    before_retraining = frozen_values(unpruned)

    assert values[0].keys() == ({"backbone.0.bias", "backbone.4.bias"} if net == "cnn" else values[0].keys())
    for name, value in values[1].items():
        assert not torch.equal(values[0][name], value)
        assert not torch.equal(before_retraining[name], value)
    assert same(values[1], values[2])
    assert same(values[1], values[3])


def test_a_convolution_is_pruned_by_magnitude_and_redrawn_where_it_is_free() -> None:
    learner = packnet("cnn", {"pruning_rate": 0.75, "post_prune_epochs": 0})
    learner.learn(make_images(0))
    owner = learner.strategies[0].state.owner["backbone.0"].clone()
    layer = learner.network.get_submodule("backbone.0")
    assert isinstance(layer, nn.Conv2d)
    before = layer.weight.detach().clone()
    free = owner == FREE
    learner.strategies[0].begin_task(make_images(1))
    drawn = nn.Conv2d(2, 4, 3)
    initialise_layer(drawn, learner.generators.fresh("packnet/1/backbone.0"))

    assert owner.shape == (4, 2, 3, 3)
    assert int(free.sum()) == 54  # ¾ of 72
    assert bool((before[free] == 0).all())
    assert torch.equal(layer.weight[free], drawn.weight[free])
    assert torch.equal(layer.weight[~free], before[~free])


def test_freed_weights_begin_at_zero_where_norms_are_frozen() -> None:
    learner = packnet("residual")
    learner.learn(make_images(0))
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    learner.strategies[0].begin_task(make_images(1))

    assert same(before, dict(learner.network.state_dict()))
    for name, owner in learner.strategies[0].state.owner.items():
        assert bool((before[f"{name}.weight"][owner == FREE] == 0).all())


def test_weights_that_begin_at_zero_are_learned() -> None:
    learner = packnet("residual", {"pruning_rate": 0.5, "post_prune_epochs": 1}, epochs=30)
    for task in range(N_TASKS):
        learner.learn(make_images(task))
    for task in range(N_TASKS):
        data = make_images(task)
        assert (logits_of(learner, task).argmax(1) + 2 * task == data.labels).float().mean() >= 0.9
    owned = {
        name: learner.network.get_submodule(name).weight[owner == 1]
        for name, owner in learner.strategies[0].state.owner.items()
    }
    assert all(bool((values != 0).any()) for values in owned.values())


def test_norms_follow_the_batch_in_the_first_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool, bool]] = []
    after_step = Packnet.after_step

    def noting(self: Packnet, batch: Batch, forward: Forward) -> None:
        after_step(self, batch, forward)
        norm = self.learner.network.get_submodule("backbone.0.norm")
        assert isinstance(batch.task_ids, int)
        seen.append((batch.task_ids, self.learner.network.training, norm.training))

    monkeypatch.setattr(Packnet, "after_step", noting)
    learner = packnet("residual")
    for task in range(2):
        learner.network.eval()
        learner.learn(make_images(task))

    assert set(seen) == {(0, True, True), (1, True, False)}
    assert len(seen) == 2 * 3 * 3  # 2 tasks of 2 epochs and 1 of retraining, of 3 batches


def test_a_run_goes_on_after_a_reload_as_if_it_had_not_stopped() -> None:
    through, stopped = packnet("residual"), packnet("residual")
    for learner in (through, stopped):
        learner.learn(make_images(0))
    loaded = packnet("residual")
    loaded.load_state_dict(through_a_file(stopped.state_dict()))
    for learner in (through, loaded):
        learner.learn(make_images(1))

    assert same(dict(through.network.state_dict()), dict(loaded.network.state_dict()))


def test_a_tied_weight_has_one_owner() -> None:
    learner = packnet("cnn")
    backbone = learner.network.backbone
    assert isinstance(backbone, nn.Sequential)
    backbone.append(nn.Linear(6, 6))
    backbone.append(nn.Linear(6, 6))
    backbone[6].weight = backbone[7].weight = nn.Parameter(torch.ones(6, 6))
    method = Packnet(learner, PacknetHyperparameters())

    assert list(method.state.owner) == ["backbone.0", "backbone.4", "backbone.6"]
