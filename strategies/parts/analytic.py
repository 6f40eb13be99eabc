"""What analytic methods share: sums over fixed features of the inputs, from which their answers follow in closed form.

Sums do not depend on the order of their terms, so neither do the answers: an old task is answered as if it had been
learned last. To make that exact, random features are whole multiples of 1/127. Sums of their products are integers,
which float32 multiplies and adds without rounding up to 2^24 and `SumState` keeps without rounding at all.

Source: McDonnell et al. 2023 (RanPAC), arXiv 2307.02251, section 3 (Gram matrix and class sums over a fixed random
projection); Prabhu et al. 2024 (RanDumb), arXiv 2402.08823, section 3 (random Fourier features); Rahimi & Recht 2007,
'Random features for large-scale kernel machines', section 3; both cosine and sine of each sum, Sutherland & Schneider
2015, arXiv 1506.02785, section 3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from strategies.contract import Batch, Hyperparameters, Strategy, StreamSizes, TaskData
from strategies.lazy import F, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from strategies.learner import Learner

LEVELS = 127
"""A random feature is a whole multiple of 1 / `LEVELS`, from -1 to 1."""

EXACT_ROWS = 2**24 // LEVELS**2
"""Examples whose products float32 sums without rounding: 1,040."""

_FEW_ROWS = 16
"""A product of fewer rows may be computed in another way, which rounds otherwise."""

_RELU_TOP = 4.0
"""A ReLU feature is cut off there, and divided by it."""

_INT32_EXAMPLES = (2**31 - 1) // LEVELS**2
"""Examples whose sums of products fit into int32: 133,144."""


class AnalyticHyperparameters(Hyperparameters):
    """The fixed features."""

    features: int = Field(2000, ge=0, le=20_000, description="number of random features; 0 for the inputs themselves")
    feature_kind: Literal["fourier", "relu"] = Field(
        "fourier", description="cosines and sines, or rectified sums, of the inputs with random weights"
    )
    feature_scale: float = Field(
        1.0, gt=0, le=100, description="standard deviation of a feature's random sum, for standardised inputs"
    )

    def unused(self) -> frozenset[str]:
        """Return what describes random features if there are none."""
        return frozenset({"feature_kind", "feature_scale"}) if self.features == 0 else frozenset()


def _empty() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass
class SumState:
    """Sums over all examples so far. They are not divided: a random feature counts `LEVELS` times its value.

    Sums are int32, or int64 beyond 133,144 examples; those of the inputs themselves are float64.

    Args:
        counts: examples of each output, (C,) int64.
        sums: sum of the features of each output's examples, (C, F).
        products: the upper half of Σ φφᵀ in blocks of rows: block b holds rows b·B up to (b + 1)·B of the columns from
            b·B on, (≤ B, F - b·B). Of the diagonal blocks both halves are kept. Empty if the method has no use for it.
        n_inputs: numbers in an example.
        features_seed: of the random features: that of the trial that began, if another goes on from its model.
    """

    counts: Tensor = field(default_factory=_empty)
    sums: Tensor = field(default_factory=_empty)
    products: list[Tensor] = field(default_factory=list)
    n_inputs: int = 0
    features_seed: int = 0


def block_rows(n_features: int) -> int:
    """Return B, the rows of a block of products: a 32nd of all, at least 8 and at most 64."""
    return min(max(n_features // 32, 8), 64)


def blocks(n_features: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the number of rows of each block of products."""
    size = block_rows(n_features)
    for first in range(0, n_features, size):
        yield first, min(size, n_features - first)


def add_products(products: list[Tensor], features: Tensor) -> None:
    """Add Σ φφᵀ of features (N, F) to the blocks of `SumState.products`, in place.

    They are float64, or whole numbers of at most `LEVELS` in float32, of at most `EXACT_ROWS` examples.
    """
    multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
    if features.dtype == torch.float32 and features.is_cpu and multiplies_bytes():
        features, multiply = features.to(torch.int8), torch._int_mm
    for block, (first, n) in zip(products, blocks(features.shape[1]), strict=True):
        block += multiply(features[:, first : first + n].T, features[:, first:]).to(block.dtype)


@functools.cache
def multiplies_bytes() -> bool:
    """Return whether the CPU multiplies matrices of bytes into int32: the numbers that float32 gives, much sooner.

    With VNNI instructions it does. Without, or where oneDNN is told not to use them, sums may saturate at 16 bits.
    """
    has_vnni = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni"))
    most = torch.full((64, 128), LEVELS, dtype=torch.int8)
    return has_vnni and bool((torch._int_mm(most, -most.T) == -128 * LEVELS**2).all())


def whole(products: list[Tensor]) -> Tensor:
    """Return the symmetric matrix (F, F) float64 of the blocks of `SumState.products`."""
    n_features = products[0].shape[1]
    matrix = torch.empty(n_features, n_features, dtype=torch.float64, device=products[0].device)
    for block, (first, n) in zip(products, blocks(n_features), strict=True):
        stop = first + n
        matrix[first:stop, first:] = block
        matrix[stop:, first:stop] = matrix[first:stop, stop:].T
        matrix[first:stop, first:stop] = block[:, :n].triu() + block[:, :n].triu(1).T
    return matrix


class RandomFeatures:
    """Fixed features: cos(xW) and sin(xW), or max(xW + b, 0) cut off at 4 and divided by 4, of inputs x.

    W has normal entries of standard deviation `scale` / √D. Cosines and sines approximate an RBF kernel of bandwidth
    √D / `scale`: at 1, the median heuristic for standardised inputs. b is drawn as an entry of xW would be. The weights
    follow from the seed, so they are not kept. Images (C, H, W) lose their own mean and get the norm √D first,
    which makes the features independent of brightness, contrast and the stream's normalisation; vectors are taken as
    they are.

    Args:
        n_inputs: D.
        n_features: F.
        kind: `fourier` or `relu`.
        scale: standard deviation of xW for inputs of variance 1.
        generator: of the weights.
        device: of inputs and features.
    """

    def __init__(
        self, n_inputs: int, n_features: int, kind: str, scale: float, generator: torch.Generator, device: torch.device
    ) -> None:
        self._kind = kind
        n_sums = n_features if kind == "relu" else (n_features + 1) // 2
        weights = torch.randn(n_inputs, n_sums, generator=generator) * (scale / math.sqrt(n_inputs))
        self._weights = weights.to(device)
        self._offsets = (torch.randn(n_features, generator=generator) * scale).to(device) if kind == "relu" else None
        self._n_features = n_features

    @property
    def n_parameters(self) -> int:
        """Return the numbers of W and b."""
        return self._weights.numel() + (0 if self._offsets is None else len(self._offsets))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the features (N, F) float32, in [-1, 1], of inputs (N, *S) float32."""
        flat = inputs.flatten(1)
        if inputs.dim() == 4:
            flat = flat - flat.mean(1, keepdim=True)
            flat = flat * (math.sqrt(flat.shape[1]) / flat.norm(dim=1, keepdim=True).clamp_min(1e-12))
        sums = flat @ self._weights
        if self._offsets is not None:
            return (sums + self._offsets).clamp(0.0, _RELU_TOP) / _RELU_TOP
        return torch.cat([sums.cos(), sums.sin()], 1)[:, : self._n_features]

    def rounded(self, inputs: Tensor) -> Tensor:
        """Return the features times `LEVELS` as whole numbers, (N, F) float32."""
        n = len(inputs)
        if n < _FEW_ROWS:
            inputs = torch.cat([inputs, inputs.new_zeros(_FEW_ROWS - n, *inputs.shape[1:])])
        return self(inputs)[:n].mul_(LEVELS).round_()


class Analytic(Strategy):
    """Base of methods that sum features of each class and answer with weights that follow from the sums.

    A subclass says in `solve` how, and with `uses_products` whether it needs the Gram matrix. No gradient steps: the
    network is neither trained nor asked. Classes without an example are never answered. In `task` the classes of the
    task compete; the sums are over all tasks, as in the other types.
    """

    hyperparameter_class = AnalyticHyperparameters
    state_class = SumState
    trains_network = False
    fixed_by_state = frozenset({"features", "feature_kind", "feature_scale"})
    knows_kept_bytes = True
    alone = "it takes no gradient steps and answers without the network, which other parts change"
    uses_products = True

    def __init__(self, learner: Learner, hyperparameters: Any) -> None:
        super().__init__(learner, hyperparameters)
        if learner.settings.class_weight is not None:
            raise ValueError(
                f"{self.name}: expected no training.class_weight, since it has no loss whose examples could be "
                "weighted; drop one of the two"
            )
        self._random: RandomFeatures | None = None
        self._answer: tuple[Tensor, Tensor] | None = None

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return weights (F, C) and offsets (C,) float64 that answer, from the sums of all examples so far."""
        raise NotImplementedError

    def link(self, scores: Tensor) -> Tensor:
        """Return logits (B, C) of the linear scores (B, C) float32, in the same order."""
        return scores

    @no_grad
    def begin_task(self, task: TaskData) -> None:
        """Make room for the outputs and the examples of the task."""
        n_inputs = task.inputs[0].numel()
        n_features = self.hyperparameters.features or n_inputs
        n_outputs = self.learner.layout.ranges[task.last][1]
        state, device = self.state, self.learner.device
        kind = self._sum_type(int(state.counts.sum()) + len(task))
        if not state.n_inputs:
            state.n_inputs = n_inputs
            state.features_seed = self.learner.generators.fresh("features/random").initial_seed()
            state.counts = torch.zeros(0, dtype=torch.int64, device=device)
            state.sums = torch.zeros(0, n_features, dtype=kind, device=device)
            if self.uses_products:
                state.products = [
                    torch.zeros(n, n_features - first, dtype=kind, device=device) for first, n in blocks(n_features)
                ]
        n_new = max(n_outputs - len(state.counts), 0)
        state.counts = F.pad(state.counts, (0, n_new))
        state.sums = F.pad(state.sums, (0, 0, 0, n_new)).to(kind)
        state.products = [block.to(kind) for block in state.products]

    def absorb(self, batch: Batch) -> None:
        """Add a portion of the task to the sums."""
        state, self._answer = self.state, None
        state.counts += torch.bincount(batch.labels, minlength=len(state.counts))
        for inputs, labels in zip(*(torch.split(of, EXACT_ROWS) for of in (batch.inputs, batch.labels)), strict=True):
            features = self._random_features().rounded(inputs) if self._is_random else inputs.flatten(1).double()
            of_class = F.one_hot(labels, len(state.counts)).to(features.dtype)
            state.sums += (of_class.T @ features).to(state.sums.dtype)
            if self.uses_products:
                add_products(state.products, features)

    @no_grad
    def end_task(self, task: TaskData) -> None:
        """Work out the answers."""
        self._answer = None
        self._solve()

    @no_grad
    def logits(self, inputs: Tensor, task: int) -> Tensor | None:
        """Return the logits (B, C) of the competing classes; -inf for those without examples."""
        if not len(self.state.counts):
            return None
        first, stop = self.learner.layout.inference_range(task, self.learner.n_seen)
        weights, offsets = self._solve()
        features = self._random_features()(inputs) if self._is_random else inputs.flatten(1)
        logits = self.link(features @ weights + offsets)[:, first:stop]
        n_known = logits.shape[1]
        logits = logits.masked_fill(self._unknown[first:stop], -torch.inf)
        return F.pad(logits, (0, stop - first - n_known), value=-torch.inf)

    def bytes_to_keep(self, sizes: StreamSizes) -> int:
        """Return the bytes of counts, sums and products after the last task."""
        n_features = self.hyperparameters.features or math.prod(sizes.example_shape)
        n_outputs = self.learner.layout.n_outputs
        n_products = sum(n * (n_features - first) for first, n in blocks(n_features)) if self.uses_products else 0
        size = 8 if self._sum_type(sizes.n_in_all) != torch.int32 else 4
        return 8 * n_outputs + size * (n_outputs * n_features + n_products)

    def n_parameters(self) -> int:
        """Return the numbers that an answer reads: weights, offsets, and those of the random features."""
        n_features = self.state.sums.shape[1] if self.state.n_inputs else 0
        random = self._random_features().n_parameters if self._is_random and n_features else 0
        return (n_features + 1) * len(self.state.counts) + random

    def diagnose(self) -> dict[tuple[str, str], float]:
        """Return the number of examples in the sums."""
        return {("examples_summed", ""): float(self.state.counts.sum())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state; the answers are worked out when they are first asked for."""
        super().load_state_dict(state)
        self._answer = None

    # The sums in their own units, float64.

    def class_sums(self) -> tuple[Tensor, Tensor]:
        """Return the number of examples (C,) and the sums of the features (C, F) of each output, float64."""
        return self.state.counts.double(), self.state.sums.double() / self._unit

    def gram(self) -> Tensor:
        """Return Σ φφᵀ of all examples, (F, F) float64."""
        return whole(self.state.products).div_(self._unit**2)

    @property
    def _is_random(self) -> bool:
        return bool(self.hyperparameters.features)

    @property
    def _unit(self) -> int:
        return LEVELS if self._is_random else 1

    def _sum_type(self, n_examples: int) -> torch.dtype:
        if not self._is_random:
            return torch.float64
        return torch.int32 if n_examples <= _INT32_EXAMPLES else torch.int64

    def _solve(self) -> tuple[Tensor, Tensor]:
        """Return the answers of the last boundary as float32."""
        if self._answer is None:
            weights, offsets = self.solve()
            self._answer = weights.float(), offsets.float()
            self._unknown = self.state.counts == 0
        return self._answer

    def _random_features(self) -> RandomFeatures:
        if self._random is None:
            own, learner = self.hyperparameters, self.learner
            self._random = RandomFeatures(
                self.state.n_inputs,
                own.features,
                own.feature_kind,
                own.feature_scale,
                torch.Generator().manual_seed(self.state.features_seed),
                learner.device,
            )
        return self._random


def solved(matrix: Tensor, right: Tensor) -> Tensor | None:
    """Return the solution (F, C) float64 of a symmetric positive definite system, or None if it is not definite.

    Args:
        matrix: (F, F) float64.
        right: (F, C) float64.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if bool(info) else torch.cholesky_solve(right, factor)
