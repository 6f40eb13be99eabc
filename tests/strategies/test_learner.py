from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    KINDS,
    N_EXAMPLES,
    gradients_of,
    learn_tasks,
    make_learner,
    make_network,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor
from torch.nn import functional as F

from strategies import (
    Batch,
    Forward,
    Generators,
    IncrementalType,
    Strategy,
    TaskData,
    TrainingSettings,
    TrialDivergedError,
)


class Recorder(Strategy):
    """Notes the seams that it meets, and the batches."""

    name = "recorder"
    summary = "for tests"

    def __init__(self, learner: Any, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self.seams: list[str] = []
        self.batches: list[Batch] = []
        self.momenta: list[Tensor] = []

    def begin_task(self, task: TaskData) -> None:
        self.seams.append("begin_task")

    def prepare(self, task: TaskData) -> None:
        self.seams.append("prepare")

    def classification_loss(self, batch: Batch, forward: Forward) -> Tensor | None:
        self.seams.append("classification_loss")
        return None

    def training_data(self, task: TaskData) -> TaskData:
        self.seams.append("training_data")
        return task

    def extend_batch(self, batch: Batch) -> Batch:
        assert self.learner.network.training
        self.seams.append("extend_batch")
        self.batches.append(batch)
        weight = self.learner.network.backbone[0].weight
        self.momenta.append(self.learner.optimizer.state[weight]["momentum_buffer"].clone())
        return batch

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | None:
        self.seams.append("penalty")
        return None

    def adjust_gradients(self) -> None:
        assert self.learner.network.backbone[0].weight.grad is not None
        self.seams.append("adjust_gradients")

    def after_step(self, batch: Batch, forward: Forward) -> None:
        self.seams.append("after_step")

    def end_task(self, task: TaskData) -> None:
        self.seams.append("end_task")


class PullToZero(Strategy):
    """Adds ½ Σ θ² to the loss, whose gradient is θ."""

    name = "pull"
    summary = "for tests"

    def penalty(self, batch: Batch, forward: Forward) -> Tensor | None:
        return sum(0.5 * p.square().sum() for p in self.learner.network.parameters())  # type: ignore[return-value]


def recorded(kind: IncrementalType = "task", tasks: int = 1, **settings: Any) -> Recorder:
    learner = learn_tasks(make_learner(Recorder, kind=kind, **settings), range(tasks))
    return learner.strategies[0]  # type: ignore[return-value]


def plain_loop(n_tasks: int, keep_momentum: bool, rate: float, momentum: float, seed: int) -> dict[str, Tensor]:
    """Return the parameters after task-incremental SGD with momentum, written out by hand."""
    network = make_network("task", n_heads=n_tasks, seed=seed)
    order = Generators(seed).fresh("batches")
    velocity: dict[str, Tensor] = {}
    for index in range(n_tasks):
        task = make_task(index)
        if not keep_momentum:
            velocity = {}
        for _ in range(2):
            for rows in torch.randperm(N_EXAMPLES, generator=order).split(8):
                logits = network.heads[index](network.backbone(task.inputs[rows]))
                loss = F.cross_entropy(logits, task.labels[rows] - 2 * index)
                used = {n: p for n, p in network.named_parameters() if "heads" not in n or f".{index}." in n}
                gradients = torch.autograd.grad(loss, list(used.values()))
                for (name, parameter), gradient in zip(used.items(), gradients, strict=True):
                    old = velocity.get(name)
                    velocity[name] = gradient if old is None else momentum * old + gradient
                    parameter.data = torch.add(parameter.data, velocity[name], alpha=-rate)
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_naive_is_plain_sgd_with_momentum_bit_for_bit(keep: bool, seed: int) -> None:
    learner = make_learner("naive", seed=seed, learning_rate=0.1, momentum=0.5, keep_optimizer=keep)
    learn_tasks(learner, range(3))

    assert same(parameters_of(learner), plain_loop(3, keep, rate=0.1, momentum=0.5, seed=seed))


def test_the_seams_are_met_in_the_published_order() -> None:
    step = ["extend_batch", "classification_loss", "penalty", "adjust_gradients", "after_step"]

    assert recorded(iterations=2).seams == ["begin_task", "prepare", "training_data", *step, *step, "end_task"]


def test_an_epoch_passes_once_over_the_data_and_its_last_batch_is_smaller() -> None:
    batches = recorded(epochs=2).batches
    order = torch.cat([batch.inputs for batch in batches])
    task = make_task(0)

    assert [len(batch.labels) for batch in batches] == [8, 8, 4, 8, 8, 4]
    for epoch in order.split(N_EXAMPLES):
        assert torch.equal(epoch[epoch[:, 1].argsort()], task.inputs[task.inputs[:, 1].argsort()])
    assert not torch.equal(order[:N_EXAMPLES], order[N_EXAMPLES:])
    assert not torch.equal(order[:N_EXAMPLES], task.inputs)


@pytest.mark.parametrize(("iterations", "sizes"), [(2, [8, 8]), (3, [8, 8, 4]), (5, [8, 8, 4, 8, 8])])
def test_iterations_replace_epochs(iterations: int, sizes: list[int]) -> None:
    assert [len(batch.labels) for batch in recorded(iterations=iterations, epochs=1).batches] == sizes


def test_each_task_starts_a_fresh_optimizer_unless_it_is_kept() -> None:
    def has_momentum(keep: bool) -> list[bool]:
        """Return, for the first step of each of three tasks, whether the first weights have a momentum already."""
        momenta = recorded(tasks=3, keep_optimizer=keep, iterations=2).momenta
        return [bool(momentum.any()) for momentum in momenta[::2]]

    assert has_momentum(keep=False) == [False, False, False]
    assert has_momentum(keep=True) == [False, True, True]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_kept_optimizer_trains_the_heads_that_grow(optimizer: str) -> None:
    learner = make_learner("naive", kind="class", optimizer=optimizer, keep_optimizer=True, learning_rate=0.01)
    learn_tasks(learner, [0])
    first_weights = make_network("class", n_heads=2).heads[1].weight

    learn_tasks(learner, [1])

    assert learner.optimizer is not None
    assert len(learner.optimizer.param_groups[0]["params"]) == len(list(learner.network.parameters()))
    assert not torch.equal(learner.network.heads[1].weight, first_weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", ["seen", "all", "current"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_kept_optimizer_meets_heads_of_which_some_were_never_trained(
    kind: IncrementalType, active: str, optimizer: str
) -> None:
    learner = make_learner("naive", kind=kind, active_outputs=active, optimizer=optimizer, keep_optimizer=True)
    heads = [learn_tasks(learner, [task]).network.heads[-1 if active == "seen" else 0].weight for task in range(3)]

    assert all(bool(torch.isfinite(weight).all()) for weight in heads)
    assert len({id(weight) for weight in heads}) == (3 if active == "seen" and kind != "domain" else 1)


def test_a_task_trains_in_training_mode_after_an_evaluation() -> None:
    learner = learn_tasks(make_learner(Recorder), [0])
    learner.network.eval()
    learn_tasks(learner, [1])

    assert learner.network.training


def test_weight_decay_moves_no_parameter_without_a_gradient() -> None:
    learner = learn_tasks(make_learner("naive", weight_decay=0.1, keep_optimizer=True), [0])
    old_head = parameters_of(learner)["heads.0.weight"]
    learn_tasks(learner, [1])

    assert torch.equal(parameters_of(learner)["heads.0.weight"], old_head)


def test_clipping_limits_the_norm_of_the_whole_gradient() -> None:
    def moved(clip: float | None) -> float:
        learner = make_learner("naive", iterations=1, momentum=0.0, learning_rate=0.5, clip_gradient_norm=clip)
        before = {name: p.detach() for name, p in make_network("task", n_heads=1).named_parameters()}
        after = parameters_of(learn_tasks(learner, [0]))
        return math.sqrt(sum(float((after[n] - before[n]).square().sum()) for n in after))

    assert moved(0.01) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moved(None) > 0.02
    assert moved(1e6) == moved(None)


def test_penalties_add_to_the_loss_and_to_each_other() -> None:
    learners = [make_learner(*methods) for methods in (["naive"], [PullToZero], [PullToZero, PullToZero])]
    losses = []
    for learner in learners:
        learner.n_seen = 1
        learner.network.add_heads(1, learner.device, learner.generators.fresh)
        learner.reset_optimizer()
        theta = parameters_of(learner)
        losses.append(learner.step(make_task(0).take(torch.arange(8))).item())
    plain, once, twice = map(gradients_of, learners)

    half_square = sum(0.5 * float(p.square().sum()) for p in theta.values())
    assert losses[1] == pytest.approx(losses[0] + half_square)
    assert losses[2] == pytest.approx(losses[0] + 2 * half_square)
    for name, p in theta.items():
        torch.testing.assert_close(once[name], plain[name] + p)
        torch.testing.assert_close(twice[name], plain[name] + 2 * p)


@pytest.mark.parametrize("method", ["naive", "joint", "ewc", "replay", "packnet"])
def test_a_loss_that_leaves_the_finite_numbers_is_a_diverged_trial(method: str) -> None:
    learner = make_learner(method, learning_rate=100.0, epochs=50)
    with pytest.raises(TrialDivergedError, match=r"the training loss of task 0 is (nan|inf); lower the learning rate"):
        learner.learn(make_task(0, scale=1e30))


@pytest.mark.parametrize("method", ["naive", "joint", "ewc", "replay", "packnet"])
def test_a_last_step_that_leaves_the_finite_numbers_is_a_diverged_trial(method: str) -> None:
    learner = make_learner(method, learning_rate=100.0, weight_decay=1e38, iterations=1)
    with pytest.raises(TrialDivergedError, match=r"parameter backbone.0.weight after task 0 is (nan|-?inf)"):
        learner.learn(make_task(0))


def test_logits_that_overflow_at_finite_parameters_are_a_diverged_trial() -> None:
    learner = make_learner("ewc", learning_rate=100.0, iterations=1, batch_size=N_EXAMPLES)
    with pytest.raises(TrialDivergedError, match="lower the learning rate"):
        learner.learn(make_task(0, scale=1e15))


def test_a_long_diverged_task_is_stopped_at_the_first_check() -> None:
    learner = make_learner(Recorder, learning_rate=100.0, iterations=100_000)
    with pytest.raises(TrialDivergedError, match="by step 500"):
        learner.learn(make_task(0, scale=1e30))
    assert len(learner.strategies[0].batches) == 500  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_depends_on_its_seed_and_on_nothing_else(kind: IncrementalType) -> None:
    def run(seed: int, global_seed: int) -> dict[str, Tensor]:
        torch.manual_seed(global_seed)
        return parameters_of(learn_tasks(make_learner("naive", kind=kind, seed=seed), range(2)))

    assert same(run(0, global_seed=1), run(0, global_seed=2))
    assert not same(run(0, global_seed=1), run(3, global_seed=1))


def test_in_domain_the_untrained_model_can_be_measured() -> None:
    learner = make_learner("naive", kind="domain")

    assert learner.n_seen == 0
    assert learner.logits(make_task(2).inputs, 2).shape == (N_EXAMPLES, 2)


@pytest.mark.parametrize(("active", "n_heads"), [("seen", 1), ("current", 1), ("all", 3)])
def test_all_active_outputs_exist_from_the_start(active: str, n_heads: int) -> None:
    learner = learn_tasks(make_learner("naive", kind="class", active_outputs=active), [0])

    assert len(learner.network.heads) == n_heads
    assert learner.logits(make_task(0).inputs, 0).shape == (N_EXAMPLES, 2)


def test_starting_from_scratch_restores_every_first_weight() -> None:
    learner = learn_tasks(make_learner("naive"), range(3))
    learner.start_from_scratch()

    assert same(parameters_of(learner), {n: p.detach() for n, p in make_network("task", 3).named_parameters()})
    assert learner.optimizer is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("iterations", 0),
        ("batch_size", 0),
        ("optimizer", "lion"),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -0.1),
        ("weight_decay", math.inf),
        ("clip_gradient_norm", 0.0),
        ("active_outputs", "some"),
        ("warmup", 1),
    ],
)
def test_settings_refuse_what_cannot_be_trained(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainingSettings(**{field: value})
