"""Elastic weight consolidation.

Source: Kirkpatrick et al. 2017, arXiv 1612.00796, Eq. 3; online form: Schwarz et al. 2018, arXiv 1805.06370, section 4.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from strategies.contract import Hyperparameters, StreamSizes, TaskData
from strategies.gradients.kronecker import FactoredPull, called_once, factor_bytes, measure_factors, merged_factors
from strategies.gradients.objectives import OF_BATCHES, FisherKind, GradientsOf, fisher_objectives
from strategies.lazy import torch
from strategies.parts.curvature import CurvedPull, CurvedState, merge_curvature
from strategies.parts.importance import fisher_diagonal, fisher_gradients
from strategies.parts.quadratic import Pull, Pulls, QuadraticStrategy, merge_anchor, parameters_to_hold
from strategies.settings import Added

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner


class EwcHyperparameters(Hyperparameters):
    """The penalty and how its Fisher information is measured."""

    penalty_weight: float = Field(100.0, ge=0, description="λ of the penalty λ/2 Σ F (θ - θ*)²")
    penalty_decay: float = Field(1.0, gt=0, le=1, description="λ is multiplied by this after each task but the first")
    variant: Literal["separate", "online"] = Field(
        "separate", description="a Fisher and an anchor a task, or one running Fisher and the latest anchor"
    )
    fisher_decay: float = Field(1.0, gt=0, le=1, description="γ of the online variant, F ← γF + F_new")
    fisher: FisherKind = Field(
        "true",
        description="labels drawn from the model (sampled or true), all by probability (exact), the data's "
        "(empirical), or the most likely (predicted)",
    )
    fisher_samples: int | None = Field(200, ge=1, description="examples for the Fisher; null takes all of the task")
    structure: Annotated[Literal["diagonal", "low_rank", "kronecker"], Added()] = Field(
        "diagonal",
        description="the Fisher's diagonal; its leading eigenvectors too; or a Kronecker product a layer; the last two "
        "are always online",
    )
    rank: Annotated[int, Added()] = Field(20, ge=0, le=500, description="eigenvectors of low_rank")
    eigenvectors_in: Annotated[Literal["float32", "int8"], Added()] = Field(
        "float32",
        description="numbers of the eigenvectors of low_rank: int8 takes a quarter of the memory, and less time on "
        "CPUs with AVX-512",
    )
    importance_of: Annotated[GradientsOf, Added()] = Field(
        "examples",
        description="gradients that are squared: of single examples; or of means of training batches, as in much "
        "public code, which is no Fisher information",
    )

    def unused(self) -> frozenset[str]:
        """Return what belongs to the other variant, or everything else if λ is 0."""
        if self.penalty_weight == 0:
            return frozenset(type(self).model_fields) - {"penalty_weight"}
        of_low_rank = frozenset({"rank", "eigenvectors_in"})
        if self.structure != "diagonal":
            return frozenset({"variant"}) | (of_low_rank if self.structure == "kronecker" else frozenset())
        return of_low_rank if self.variant == "online" else of_low_rank | {"fisher_decay"}


class Ewc(QuadraticStrategy):
    """Hold each parameter near its value after past tasks, in proportion to its Fisher information.

    Differs: anchors are merged, with the same gradient (`merge_anchor`), and steps with ηλF > 1 are damped
    (`QuadraticPull`). In the online form Schwarz et al. also multiply the penalty by γ, which is part of λ here.
    `structure: low_rank` (`strategies.parts.curvature`) and `kronecker` (`strategies.gradients.kronecker`, by Ritter et
    al. 2018, arXiv 1805.07810) are not in either paper. They are online whatever `variant` says: such pulls to
    different anchors do not add up to one. Differs from Ritter et al.: a layer keeps the one Kronecker product that is
    nearest to the sum of its tasks', so memory does not grow with them.
    """

    name = "ewc"
    summary = "pulls parameters towards past values, weighted by their Fisher information"
    paper = (
        "Kirkpatrick et al. 2017, arXiv 1612.00796; online: Schwarz et al. 2018, arXiv 1805.06370; kronecker: "
        "Ritter et al. 2018, arXiv 1805.07810"
    )
    fixed_by_state: ClassVar[frozenset[str]] = frozenset({"variant", "structure", "rank", "eigenvectors_in"})
    state_class = CurvedState
    hyperparameter_class = EwcHyperparameters
    knows_kept_bytes = True

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        own: EwcHyperparameters = self.hyperparameters
        if own.importance_of == "batches" and (own.structure != "diagonal" or own.fisher == "exact"):
            other = f"structure: {own.structure}" if own.structure != "diagonal" else "fisher: exact"
            raise ValueError(
                f"ewc: importance_of: batches has no {other}, which is about single examples; drop one of the two"
            )

    def report(self) -> dict[str, Any]:
        """Return that the importance is no Fisher information, if it is not."""
        return OF_BATCHES if self.hyperparameters.importance_of == "batches" else {}

    def bytes_to_keep(self, sizes: StreamSizes) -> int | None:
        """Return the bytes of one Fisher, its eigenvectors and one anchor, which are measured even if λ is 0."""
        parameters = parameters_to_hold(self.learner, sizes.example_shape, unused_too=False)
        if parameters is None:
            return None
        each = 2 * sum(parameter.nbytes for parameter in parameters)
        if self.hyperparameters.structure == "kronecker":
            return each + self._bytes_beyond_the_diagonal(sizes.example_shape)
        if self._as_bytes:  # and a scale for each row of each parameter
            return each + self._rank * sum(parameter.numel() + 4 for parameter in parameters)
        return each + each // 2 * self._rank

    @property
    def _as_bytes(self) -> bool:
        return bool(self.hyperparameters.eigenvectors_in == "int8")

    @property
    def _rank(self) -> int:
        own = self.hyperparameters
        return int(own.rank) if own.structure == "low_rank" else 0

    @property
    def _is_online(self) -> bool:
        own: EwcHyperparameters = self.hyperparameters
        return own.variant == "online" or own.structure != "diagonal"

    def prepare(self, task: TaskData) -> None:
        """Prepare the pull at this task's strength."""
        state, network, strength = self.state, self.learner.network, self.strength()
        rate = self.learner.settings.learning_rate
        if strength and state.directions:
            self._pull = CurvedPull(state, dict(network.named_parameters()), strength, rate)
            return
        super().prepare(task)
        if strength and state.inner:
            factored = FactoredPull(network, state.factors(), state.anchor, strength, rate)
            self._pull = Pulls([cast(Pull, self._pull), factored])

    def strength(self) -> float:
        """Return λ d^(n - 1) after n consolidated tasks, d being the decay."""
        n = max(self.state.n_consolidated - 1, 0)
        return float(self.hyperparameters.penalty_weight * self.hyperparameters.penalty_decay**n)

    def end_task(self, task: TaskData) -> None:
        """Measure the task's Fisher at the present parameters, and consolidate both."""
        if self.hyperparameters.structure == "kronecker":
            self._merge_factors(task)
            return
        if self._rank:
            self._merge_low_rank(task)
            return
        fisher = self._fisher(task)
        anchors = {name: p.detach().clone() for name, p in self.learner.network.named_parameters()}
        for name, importance in fisher.items():
            if not self._is_online:
                merge_anchor(self.state, name, importance, anchors[name])
            elif name in self.state.importance:
                self.state.importance[name].mul_(self.hyperparameters.fisher_decay).add_(importance)
            else:
                self.state.importance[name] = importance
        if self._is_online:
            for name in self.state.importance.keys() - fisher.keys():  # heads of other tasks: no new information
                self.state.importance[name].mul_(self.hyperparameters.fisher_decay)
            self.state.anchor = {name: anchors[name] for name in self.state.importance}
        self.state.n_consolidated += 1

    def _merge_low_rank(self, task: TaskData) -> None:
        """Add the task's Fisher to the running one, and anchor at the present parameters."""
        own, generator = self.hyperparameters, self.learner.generators["fisher"]
        batches = self.samples(task, own.fisher_samples, generator)
        portions = fisher_gradients(
            self.learner.network,
            batches,
            self.competing_logits,
            own.fisher,
            generator,
            most=max(self._rank, 8),
            as_factors=self._as_bytes,  # exact, and faster, but not bit for bit what float32 has been
        )
        n_examples = sum(len(batch.labels) for batch in batches)
        merge_curvature(self.state, portions, n_examples, self._rank, own.fisher_decay, self._as_bytes)
        parameters = dict(self.learner.network.named_parameters())
        self.state.anchor = {name: parameters[name].detach().clone() for name in self.state.importance}
        self.state.n_consolidated += 1

    def _merge_factors(self, task: TaskData) -> None:
        """Add the task's factors to the running ones, and anchor at the present parameters.

        Parameters outside linear layers and convolutions have a diagonal, by the same examples.
        """
        own, generator, network = self.hyperparameters, self.learner.generators["fisher"], self.learner.network
        batches = self.samples(task, own.fisher_samples, generator)
        objectives = partial(fisher_objectives, own.fisher, generator, batches, self.competing_logits)
        state: CurvedState = self.state
        merged = merged_factors(
            state.factors(), measure_factors(network, batches, self.competing_logits, objectives), own.fisher_decay
        )
        state.inner = {name: both.inner for name, both in merged.items()}
        state.outer = {name: both.outer for name, both in merged.items()}
        parameters = dict(network.named_parameters())
        in_layers = {f"{layer}.{part}" for layer in merged for part in ("weight", "bias")} & parameters.keys()
        if any(p.requires_grad and name not in in_layers for name, p in network.backbone.named_parameters("backbone")):
            fisher = fisher_diagonal(network, batches, self.competing_logits, own.fisher, generator)
            for name in fisher.keys() - in_layers:
                old = state.importance.get(name)
                state.importance[name] = fisher[name] if old is None else old * own.fisher_decay + fisher[name]
        state.anchor = {name: parameters[name].detach().clone() for name in sorted(in_layers | state.importance.keys())}
        state.n_consolidated += 1

    def _bytes_beyond_the_diagonal(self, shape: tuple[int, ...]) -> int:
        """Return how many bytes more the factors of all layers take than the importances in whose place they are."""
        with torch.random.fork_rng(devices=[]):
            network = self.learner.untrained(self.learner.layout.n_heads).eval()
        zeros = torch.zeros(2, *shape)
        layers = called_once(network, lambda: network.outputs(network.backbone(zeros), len(network.heads)))
        return sum(factor_bytes(layer) - sum(p.nbytes for p in layer.parameters()) for layer in layers.values())

    def _fisher(self, task: TaskData) -> dict[str, Tensor]:
        generator = self.learner.generators["fisher"]
        own, of_batches = self.hyperparameters, self.hyperparameters.importance_of == "batches"
        size = self.learner.settings.batch_size if of_batches else None
        batches = self.samples(task, own.fisher_samples, generator, size)
        return fisher_diagonal(self.learner.network, batches, self.competing_logits, own.fisher, generator, of_batches)
