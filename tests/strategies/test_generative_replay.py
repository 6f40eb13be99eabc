from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_worlds import (
    KINDS,
    N_INPUTS,
    learn_tasks,
    make_learner,
    make_task,
    parameters_of,
    same,
)
from torch import Tensor

from strategies import Batch, IncrementalType, Learner, Strategy, TaskData, TrialDivergedError
from strategies.methods.generative_replay import GenerativeReplay, GenerativeReplayHyperparameters
from strategies.parts.vae import Vae

SMALL = {"latent_size": 3, "hidden_size": 8, "pool_size": 40}


class Watch(Strategy):
    """Notes every batch that follows the strategies before it."""

    name = "watch"
    summary = "for tests"
    seen: list[Batch]

    def extend_batch(self, batch: Batch) -> Batch:
        self.seen = [*getattr(self, "seen", []), batch]
        return batch


def dgr(kind: IncrementalType = "task", training: dict[str, Any] | None = None, **own: Any) -> Learner:
    return make_learner("generative-replay", kind=kind, hyperparameters=SMALL | own, **(training or {}))


def method_of(learner: Learner) -> GenerativeReplay:
    method = learner.strategies[0]
    assert isinstance(method, GenerativeReplay)
    return method


def watched(kind: IncrementalType, tasks: list[int], **own: Any) -> tuple[Learner, list[Batch]]:
    """Return the learner and the batches of the last of `tasks`."""
    learner = make_learner("generative-replay", Watch, kind=kind)
    learner.strategies[0].hyperparameters = GenerativeReplayHyperparameters(**(SMALL | own))
    learn_tasks(learner, tasks[:-1])
    watch = learner.strategies[1]
    assert isinstance(watch, Watch)
    watch.seen = []
    learn_tasks(learner, tasks[-1:])
    return learner, watch.seen


def test_the_bound_of_the_vae_equals_a_number_computed_by_hand() -> None:
    vae = Vae(2, 1, 1, torch.Generator().manual_seed(0))
    for parameter in vae.parameters():
        torch.nn.init.zeros_(parameter)
    vae.encoder[-1].bias.data = torch.tensor([0.5, math.log(4.0)])  # type: ignore[union-attr]
    vae.decoder[0].weight.data.fill_(2.0)  # type: ignore[union-attr]
    vae.decoder[2].weight.data.fill_(1.0)  # type: ignore[union-attr]
    vae.decoder[4].weight.data = torch.tensor([[1.0], [-1.0]])  # type: ignore[union-attr]

    (loss,) = vae.loss(torch.tensor([[1.0, 0.25]]), torch.tensor([[0.25]])).tolist()

    code = 0.5 + 2.0 * 0.25  # mean + deviation · noise = 1; the decoder's logits are then 2 and -2
    p = 1 / (1 + math.exp(-2.0 * code))
    reconstruction = -math.log(p) - 0.25 * math.log(1 - p) - 0.75 * math.log(p)
    divergence = 0.5 * (0.5**2 + 4.0 - 1 - math.log(4.0))
    assert loss == pytest.approx(reconstruction + divergence, rel=1e-5)


def test_a_vae_learns_what_it_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    vae = Vae(4, 16, 2, generator)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    kinds = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    for _ in range(300):
        values = kinds[torch.randint(2, (32,), generator=generator)]
        optimizer.zero_grad()
        vae.loss(values, torch.randn(32, 2, generator=generator)).mean().backward()
        optimizer.step()
    samples = vae.sample(torch.randn(200, 2, generator=generator)).detach()
    distances = torch.cdist(samples, kinds)

    assert float((distances.amin(1) < 0.5).float().mean()) > 0.8
    assert 0.25 < float((distances.argmin(1) == 0).float().mean()) < 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_no_ratio_is_the_naive_run_bit_for_bit(kind: IncrementalType) -> None:
    naive = learn_tasks(make_learner("naive", kind=kind), range(3))
    learner = learn_tasks(dgr(kind, replay_ratio=0), range(3))

    assert same(parameters_of(learner), parameters_of(naive))
    assert method_of(learner).kept_bytes() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_task_is_the_naive_run_and_the_second_is_not(kind: IncrementalType) -> None:
    naive, learner = make_learner("naive", kind=kind), dgr(kind)

    assert same(parameters_of(learn_tasks(learner, [0])), parameters_of(learn_tasks(naive, [0])))
    assert not same(parameters_of(learn_tasks(learner, [1])), parameters_of(learn_tasks(naive, [1])))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_new_examples_followed_by_generated_ones_of_past_tasks(kind: IncrementalType) -> None:
    learner, batches = watched(kind, [0, 1, 2], replay_ratio=0.6)
    new = {tuple(row) for row in make_task(2, kind).inputs.tolist()}
    past_owners: set[int] = set()

    assert [len(batch.labels) for batch in batches] == [8 + 12, 8 + 12, 4 + 12] * 2
    for batch in batches:
        assert isinstance(batch.task_ids, Tensor)
        assert batch.n_new == len(batch.labels) - 12
        assert {tuple(row) for row in batch.inputs[:-12].tolist()} <= new
        assert not {tuple(row) for row in batch.inputs[-12:].tolist()} & new
        assert set(batch.task_ids[:-12].tolist()) == {2}
        past_owners |= set(batch.task_ids[-12:].tolist())
        bounds = torch.tensor(learner.layout.ranges)[batch.task_ids[-12:]]
        assert bool(((batch.labels[-12:] >= bounds[:, 0]) & (batch.labels[-12:] < bounds[:, 1])).all())
    assert past_owners <= {0, 1}
    assert past_owners == {0, 1} or kind == "class"


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_network_before_the_task(kind: IncrementalType) -> None:
    learner = learn_tasks(dgr(kind), [0, 1])
    past = make_task(2, kind)
    before = {task: learner.network(method_of(learner)._generate(past), task, 2).argmax(1) for task in (0, 1)}
    stopped: dict[str, Tensor] = {}

    def stop() -> None:
        state = method_of(learner).state
        stopped.update(labels=state.labels.clone(), task_ids=state.task_ids.clone())
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learner.learn(past, stop)

    ids = stopped["task_ids"]
    starts = torch.tensor([0 if kind == "class" else start for start, _ in learner.layout.ranges])
    expected = torch.where(ids == 0, before[0], before[1]) + starts[ids]
    assert torch.equal(stopped["labels"], expected)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3), (3, 2, 2)])
def test_generated_inputs_have_the_shape_of_the_data_and_lie_in_its_range_channel_by_channel(
    shape: tuple[int, ...],
) -> None:
    method = method_of(dgr())
    n_channels = shape[0]
    offset = torch.arange(n_channels).float().view(-1, *[1] * (len(shape) - 1)) * 100
    inputs = torch.randn(50, *shape, generator=torch.Generator().manual_seed(0)) + offset
    task = TaskData(0, inputs, torch.zeros(50, dtype=torch.int64), 0)
    method.end_task(task)
    pool = method._generate(task)
    rest = [d for d in range(len(shape) + 1) if d != 1]

    assert pool.shape == (40, *shape)
    assert bool((pool.amin(rest) >= inputs.amin(rest)).all())
    assert bool((pool.amax(rest) <= inputs.amax(rest)).all())


def test_the_range_widens_and_a_channel_without_spread_is_kept() -> None:
    method = method_of(dgr())
    for inputs in ([[0.0, 5.0]], [[-2.0, 5.0], [1.0, 5.0]]):
        method._widen_range(torch.tensor(inputs))
    low, spread = method._range(1)

    assert low.tolist() == [-2, 5]
    assert spread.tolist() == [3, 1]


def test_the_range_never_narrows() -> None:
    """A task whose inputs lie within the range leaves it: the past is generated in it too."""
    method = method_of(dgr())
    method._widen_range(torch.tensor([[-2.0, 0.0], [5.0, 1.0]]))
    method._widen_range(torch.tensor([[0.0, -1.0], [1.0, 0.5]]))
    assert method.state.low.tolist() == [-2.0, -1.0]
    assert method.state.high.tolist() == [5.0, 1.0]


def test_the_generator_weighs_tasks_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learn_tasks(dgr(), [0, 1])
    method, task = method_of(learner), make_task(2)
    method._pool = torch.zeros(40, N_INPUTS)
    monkeypatch.setattr(Vae, "loss", lambda self, values, noise: torch.arange(len(values)).float())
    found = method._generator_loss(method._vae(task), task, torch.arange(4), torch.Generator())

    assert float(found) == pytest.approx(1 / 3 * 1.5 + 2 / 3 * 7.5)  # rows 0 … 3 are new, 4 … 11 generated


@pytest.mark.parametrize(
    ("epochs", "iterations", "expected"), [(None, None, 6), (3, None, 9), (None, 5, 5), (2, 5, 6), (None, 2, 2)]
)
def test_the_generator_trains_as_long_as_asked(
    epochs: int | None, iterations: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    plain = GenerativeReplay._generator_loss

    def noting(self: GenerativeReplay, vae: Vae, task: TaskData, rows: Tensor, generator: torch.Generator) -> Tensor:
        steps.append(len(rows))
        return plain(self, vae, task, rows, generator)

    monkeypatch.setattr(GenerativeReplay, "_generator_loss", noting)
    learn_tasks(dgr(generator_epochs=epochs, training={"iterations": iterations}), [0])

    assert len(steps) == expected
    assert sum(steps[:3]) == min(20, sum(steps))


def test_a_generator_that_diverges_is_a_diverged_trial() -> None:
    task = make_task(0)
    unbounded = TaskData(0, task.inputs.index_fill(0, torch.tensor(3), math.inf), task.labels, 0)
    with pytest.raises(TrialDivergedError, match=r"generator's loss on task 0 is (nan|inf)"):
        method_of(dgr()).end_task(unbounded)


def test_only_the_generator_is_kept_and_its_loss_reported() -> None:
    learner = learn_tasks(dgr(), range(3))
    method = method_of(learner)
    encoder = (N_INPUTS * 8 + 8) + (8 * 8 + 8) + (8 * 6 + 6)
    decoder = (3 * 8 + 8) + (8 * 8 + 8) + (8 * N_INPUTS + N_INPUTS)

    assert method.kept_bytes() == 4 * (encoder + decoder) + 2 * 4 * N_INPUTS
    assert method.state.labels is None
    assert len(method.report()["generator_losses"]) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("active", ["seen", "all", "current"])
def test_it_trains_with_every_optimizer_and_choice_of_outputs(optimizer: str, active: str) -> None:
    training = {"optimizer": optimizer, "active_outputs": active, "learning_rate": 0.01}
    learner = learn_tasks(dgr("class", training=training), range(3))

    assert bool(learner.logits(make_task(0, "class").inputs, 0).isfinite().all())


def test_it_combines_with_replay() -> None:
    learner = make_learner("replay", "generative-replay", kind="class", hyperparameters=SMALL)
    learn_tasks(learner, range(3))

    assert len(learner.strategies[0].state) == 60


def test_without_replay_nothing_of_the_generator_is_used() -> None:
    own = GenerativeReplayHyperparameters(replay_ratio=0)

    assert own.unused() == GenerativeReplayHyperparameters.model_fields.keys() - {"replay_ratio"}
    assert GenerativeReplayHyperparameters().unused() == frozenset()


@pytest.mark.parametrize(
    ("field", "value"),
    [("replay_ratio", 1.0), ("latent_size", 0), ("hidden_size", 0), ("generator_epochs", 0), ("pool_size", 0)],
)
def test_hyperparameters_outside_of_their_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        GenerativeReplayHyperparameters(**{field: value})
