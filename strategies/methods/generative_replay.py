"""Generative replay: a generator learns the past inputs, and is sampled in place of a memory.

Source: Shin et al. 2017, arXiv 1705.08690, section 3 (Eq. 2). The generator is a variational autoencoder as in
van de Ven et al. 2022 (Nature Machine Intelligence 4), in place of the paper's GAN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from strategies.contract import Batch, Hyperparameters, Strategy, StreamSizes, TaskData, TrialDivergedError
from strategies.lazy import no_grad, torch
from strategies.parts.buffers import n_remembered

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner
    from strategies.parts.vae import Vae

_ROWS = 1024


class GenerativeReplayHyperparameters(Hyperparameters):
    """The generator, its training, and how much is replayed."""

    replay_ratio: float = Field(0.5, ge=0, le=0.95, description="share of each training batch that is generated")
    latent_size: int = Field(100, ge=1, le=4096, description="numbers of the generator's code")
    hidden_size: int = Field(400, ge=1, le=65536, description="width of the generator's hidden layers, two each way")
    generator_epochs: int | None = Field(
        None,
        ge=1,
        description="the generator's passes over a task; null trains it as long as the network; few data want more",
    )
    generator_learning_rate: float = Field(1e-3, gt=0, le=1, description="step size of the generator's Adam")
    pool_size: int = Field(10_000, ge=1, description="inputs generated before each task, from which batches draw")

    def unused(self) -> frozenset[str]:
        """Return everything about the generator if nothing is replayed."""
        return frozenset(type(self).model_fields) - {"replay_ratio"} if self.replay_ratio == 0 else frozenset()


@dataclass
class GenerativeReplayState:
    """The generator, and within a task the labels of what it generated.

    Args:
        generator: parameters of the `Vae` by name; empty before the end of task 0.
        low: smallest input seen in each channel, (S0,) float32, S0 the first entry of an input's shape.
        high: largest, likewise.
        losses: the generator's mean loss in the last epoch of its training, one per task.
        labels: output index of each generated input, predicted by the network before the task, (P,) int64.
        task_ids: the past task that each represents, (P,) int64.
    """

    generator: dict[str, Tensor] = field(default_factory=dict)
    low: Tensor | None = None
    high: Tensor | None = None
    losses: list[float] = field(default_factory=list)
    labels: Tensor | None = None
    task_ids: Tensor | None = None


class GenerativeReplay(Strategy):
    """Add generated inputs, labelled by the network as it was before the task, to every batch.

    After task k the generator learns the task's inputs and its own earlier output, weighted 1/(k + 1) and k/(k + 1) (r
    of Eq. 2). It ends in a sigmoid, scaled to the range of each channel seen so far, so any normalisation and shape of
    inputs works. In `class` a label is the most likely of all old outputs. In `task` each generated input represents
    one past task, drawn uniformly, and its label is the most likely of that head.

    Differs: a VAE in place of a GAN; the network's loss weighs new and generated inputs by `replay_ratio`, not by r;
    batches draw from a pool that is generated before each task. The generator is not trained after the last task,
    since it would not be used.
    """

    name = "generative-replay"
    summary = "trains beside the new examples on inputs from a generator that learned the past; keeps no raw data"
    paper = "Shin et al. 2017, arXiv 1705.08690; generator: Kingma & Welling 2014, arXiv 1312.6114"
    hyperparameter_class = GenerativeReplayHyperparameters
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"latent_size", "hidden_size"})
    state_class = GenerativeReplayState
    knows_kept_bytes = True
    needs_whole_tasks = "it labels what it generates as one of the tasks before"
    naive_at: ClassVar[Mapping[str, Any]] = {"replay_ratio": 0.0}

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        self._pool: Tensor | None = None

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of the generator and of its channels' ranges, 0 if it is never sampled."""
        if self.n_generated == 0 or self.learner.n_tasks == 1:
            return 0
        from strategies.parts.vae import n_parameters

        own, shape = self.hyperparameters, sizes.example_shape
        return 4 * n_parameters(math.prod(shape), own.hidden_size, own.latent_size) + 2 * 4 * shape[0]

    @property
    def n_generated(self) -> int:
        """Return how many generated inputs are added to a batch."""
        return n_remembered(self.learner.settings.batch_size, self.hyperparameters.replay_ratio)

    def begin_task(self, task: TaskData) -> None:
        """Label the pool with the network, which knows only past tasks yet."""
        if not self.state.generator:
            return
        self.learner.network.eval()
        pool = self._generate(task)
        ids = torch.randint(
            task.index, (len(pool),), generator=self.learner.generators.fresh(f"generative replay/tasks/{task.index}")
        ).to(self.learner.device)
        labelled = [self._label(*part) for part in zip(torch.split(pool, _ROWS), torch.split(ids, _ROWS), strict=True)]
        self.state.labels = torch.cat([labels for labels, _ in labelled])
        self.state.task_ids = torch.cat([owners for _, owners in labelled])

    def prepare(self, task: TaskData) -> None:
        """Generate the pool, again after a resume: the generator does not change within a task."""
        self._pool = self._generate(task) if self.state.generator else None

    def extend_batch(self, batch: Batch) -> Batch:
        """Return the new examples followed by generated ones."""
        if self._pool is None or self.n_generated == 0:
            return batch
        rows = self._draw(self.n_generated, self.learner.generators["generative replay"])
        past = Batch(self._pool[rows], self.state.labels[rows], self.state.task_ids[rows])
        return batch.with_remembered(past)

    @property
    def plans_ahead(self) -> str:
        """Return that the generator is not trained on the last task."""
        return "its generator is not trained on the last task" if self.n_generated else ""

    def end_task(self, task: TaskData) -> None:
        """Train the generator on the task and on its own output for the past."""
        self.state.labels = self.state.task_ids = None
        if self.n_generated == 0 or task.index == self.learner.n_tasks - 1:
            return  # nothing will be generated
        self._widen_range(task.inputs)
        vae = self._vae(task)
        self.state.losses.append(self._train(vae, task))
        self.state.generator = {name: p.detach() for name, p in vae.named_parameters()}
        self._pool = None

    def report(self) -> dict[str, Any]:
        """Return the generator's loss after each task that it learned."""
        return {"generator_losses": self.state.losses} if self.state.losses else {}

    # The generator.

    def _vae(self, task: TaskData) -> Vae:
        """Return the generator of the state, or a new one at the end of task 0."""
        from strategies.parts.vae import Vae

        own = self.hyperparameters
        n_values = math.prod(task.inputs.shape[1:])
        vae = Vae(n_values, own.hidden_size, own.latent_size, self.learner.generators.fresh("init/generator"))
        if self.state.generator:
            vae.load_state_dict(self.state.generator)
        return vae.to(self.learner.device)

    @no_grad
    def _generate(self, task: TaskData) -> Tensor:
        """Return the pool of the task, (P, *S) float32; every call within the task returns the same."""
        own, vae = self.hyperparameters, self._vae(task)
        generator = self.learner.generators.fresh(f"generative replay/pool/{task.index}")
        noise = torch.randn(own.pool_size, own.latent_size, generator=generator).to(self.learner.device)
        shape = task.inputs.shape[1:]
        low, spread = self._range(len(shape))
        pool = [vae.sample(codes).view(-1, *shape).mul_(spread).add_(low) for codes in torch.split(noise, _ROWS)]
        return torch.cat(pool)

    @no_grad
    def _label(self, inputs: Tensor, task_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the label and the task (B,) of each generated input; `task_ids` are the tasks drawn for them."""
        network = self.learner.network
        n_past = self.learner.task
        logits, first = network.training_outputs(network.backbone(inputs), task_ids, n_past, "seen")
        labels = logits.argmax(1) + first
        if network.layout.incremental_type == "class":
            starts = torch.tensor([start for start, _ in network.layout.ranges[:n_past]], device=labels.device)
            task_ids = torch.bucketize(labels, starts, right=True) - 1
        return labels, task_ids

    def _train(self, vae: Vae, task: TaskData) -> float:
        """Train the generator on the task and the pool, and return its mean loss in the last epoch.

        Raises:
            TrialDivergedError: if the loss is no longer finite.
        """
        from strategies.optimizers import Adam

        settings, own = self.learner.settings, self.hyperparameters
        generator = self.learner.generators["generative replay/generator"]
        optimizer = Adam(vae.parameters(), lr=own.generator_learning_rate, fused=True)
        n_a_pass = math.ceil(len(task) / settings.batch_size)
        n_steps = (own.generator_epochs or settings.epochs) * n_a_pass
        if own.generator_epochs is None and settings.iterations is not None:
            n_steps = settings.iterations
        total, n_summed = torch.zeros((), device=self.learner.device), 0
        batches: Sequence[Tensor] = ()
        for n_done in self.learner.steps(0, n_steps):
            if n_done % n_a_pass == 0:
                self._mean(total, n_summed, task.index)
                order = torch.randperm(len(task), generator=generator).to(self.learner.device)
                batches = torch.split(order, settings.batch_size)
                total, n_summed = torch.zeros((), device=self.learner.device), 0
            optimizer.zero_grad(set_to_none=True)
            loss = self._generator_loss(vae, task, batches[n_done % n_a_pass], generator)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
            n_summed += 1
        return self._mean(total, n_summed, task.index)

    @staticmethod
    def _mean(total: Tensor, n: int, task: int) -> float:
        """Return the mean of `n` losses, 0 if there are none.

        Raises:
            TrialDivergedError: if it is not finite.
        """
        mean = float(total) / max(n, 1)
        if not math.isfinite(mean):
            raise TrialDivergedError(f"the generator's loss on task {task} is {mean}; lower generator_learning_rate")
        return mean

    def _generator_loss(self, vae: Vae, task: TaskData, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return r · (loss on the task's `rows`) + (1 - r) · (loss on a batch's number of generated inputs)."""
        inputs = task.inputs.index_select(0, rows)
        if self._pool is not None:
            inputs = torch.cat([inputs, self._pool[self._draw(self.n_generated, generator)]])
        low, spread = self._range(inputs.dim() - 1)
        values = ((inputs - low) / spread).flatten(1)
        noise = torch.randn(len(values), self.hyperparameters.latent_size, generator=generator)
        losses = vae.loss(values, noise.to(values.device))
        if self._pool is None:
            return losses.mean()
        importance = 1 / (task.index + 1)
        return importance * losses[: len(rows)].mean() + (1 - importance) * losses[len(rows) :].mean()

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.hyperparameters.pool_size, (n,), generator=generator).to(self.learner.device)

    def _widen_range(self, inputs: Tensor) -> None:
        """Extend the generator's range to `inputs`, channel by channel."""
        channels = inputs.transpose(0, 1).flatten(1)
        low, high = channels.amin(1), channels.amax(1)
        self.state.low = low if self.state.low is None else torch.minimum(self.state.low, low)
        self.state.high = high if self.state.high is None else torch.maximum(self.state.high, high)

    def _range(self, n_dimensions: int) -> tuple[Tensor, Tensor]:
        """Return each channel's lowest value and spread, which broadcast to (B, *S); a spread of 0 counts as 1."""
        spread = self.state.high - self.state.low
        shape = (-1, *[1] * (n_dimensions - 1))
        return self.state.low.view(shape), torch.where(spread > 0, spread, 1.0).view(shape)
