"""Importance of each parameter: the mean over examples of a magnitude of each example's own gradient.

The gradient of every single example is needed, not that of a batch's mean. There are two ways, equal up to rounding:

- one backward pass per batch, if every parameter belongs to an `nn.Linear` that is used once;
- otherwise `torch.func.vmap` over examples, or a loop if a module cannot be vectorised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from strategies.contract import Batch
from strategies.gradients.objectives import FisherKind, LogitsOf, Objective, fisher_objectives, sensitivity_objective
from strategies.gradients.outer import OuterRows
from strategies.lazy import nn, torch
from strategies.parts.per_example import linear_pass, only_linear, single, taking_part

if TYPE_CHECKING:
    from torch import Tensor


CHUNK_BYTES = {"cpu": 16 * 2**20}
MOST_CHUNK_BYTES = 256 * 2**20
"""Bytes of single examples' gradients that are held at once, by type of device (but at least one example's).

On one CPU thread, chunks that fit into the cache take as little as half the time of large ones; other devices use the
maximum.
"""


def fisher_diagonal(
    network: nn.Module,
    batches: list[Batch],
    logits_of: LogitsOf,
    kind: FisherKind,
    generator: torch.Generator,
    of_batches: bool = False,
) -> dict[str, Tensor]:
    """Return the diagonal Fisher information, parameter name -> tensor of the parameter's shape, float32.

    The mean over examples of the squared gradient of -log p(y|x), each example on its own (not of a batch's mean).
    Parameters that the logits do not depend on (other tasks' heads) are absent.

    Args:
        network: the model, in evaluation mode. Its output for an example must not depend on the others.
        batches: the examples.
        logits_of: runs `network` on a batch.
        kind: the source of y: `sampled` draws it from the model's prediction, `exact` takes each label with its
            probability as weight, which costs a pass each, `empirical` the data's label, `predicted` the most likely.
        generator: for `sampled`; one draw per batch, for either way of computing gradients.
        of_batches: whether to square the gradient of each batch's mean, as much public code does. That is no Fisher
            information: gradients of a batch cancel, and near an optimum it falls as one over the batch's size.

    Raises:
        TrialDivergedError: if the logits are not finite, so that no label can be drawn.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796; kinds as in Martens 2014, arXiv 1412.1193, section 5.
    """
    total: dict[str, Tensor] = {}
    for objective in fisher_objectives(kind, generator, batches, logits_of):
        for name, value in _mean(network, batches, logits_of, objective, of_batches).items():
            total[name] = total[name] + value if name in total else value
    return total


def fisher_gradients(
    network: nn.Module,
    batches: list[Batch],
    logits_of: LogitsOf,
    kind: FisherKind,
    generator: torch.Generator,
    most: int,
    as_factors: bool = False,
) -> Iterator[dict[str, Tensor] | OuterRows]:
    """Yield the gradients of which `fisher_diagonal` averages the squares, by name, (m, *shape) float32, 1 ≤ m ≤ most.

    With `as_factors`, those of a batch are yielded at once, as their factors, if all layers are linear. Other arguments
    and errors are those of `fisher_diagonal`.
    """
    for objective in fisher_objectives(kind, generator, batches, logits_of):
        yield from _gradients(network, batches, logits_of, objective, most, as_factors)


def _gradients(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, objective: Objective, most: int, as_factors: bool
) -> Iterator[dict[str, Tensor] | OuterRows]:
    """Yield the gradients of single examples by name, (m, *shape) float32, 1 ≤ m ≤ most, or as factors."""
    is_linear = only_linear(network)
    for batch in batches:
        with linear_pass(network) as layers, torch.set_grad_enabled(is_linear):
            logits, first = logits_of(batch)
        targets = objective.targets_of(logits.detach(), batch.labels - first)
        if is_linear and layers.are_all_of(logits):
            passed = layers.gradients(objective.loss_of(logits, targets))
            if as_factors:
                biased = frozenset(name for name in passed if network.get_submodule(name).bias is not None)
                yield OuterRows(passed, biased)
                continue
            for rows in torch.split(torch.arange(len(targets), device=targets.device), most):
                yield _outer_products(network, passed, rows)
        else:
            portions = _vectorised_gradients(network, batch, targets, logits_of, objective, most)
            try:
                first_portion = next(portions)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # as in `_example_sums`
                yield from _looped_gradients(network, batch, targets, logits_of, objective)
            else:
                yield first_portion
                yield from portions


def _looped_gradients(
    network: nn.Module, batch: Batch, targets: Tensor, logits_of: LogitsOf, objective: Objective
) -> Iterator[dict[str, Tensor]]:
    """Yield the gradients (1, *shape) by name of one example after the other."""
    parameters = taking_part(network, batch, logits_of)
    for row, one in enumerate(single(batch)):
        loss = objective.loss_of(logits_of(one)[0], targets[row : row + 1])
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        yield {
            name: (torch.zeros_like(parameter) if gradient is None else gradient)[None]
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
        }


def _outer_products(network: nn.Module, passed: dict[str, tuple[Tensor, Tensor]], rows: Tensor) -> dict[str, Tensor]:
    """Return the gradients δaᵀ of the examples `rows` from each layer's inputs a and output gradients δ."""
    found = {}
    for name, (inputs, delta) in passed.items():
        found[f"{name}.weight"] = delta[rows, :, None] * inputs[rows, None, :]
        if network.get_submodule(name).bias is not None:
            found[f"{name}.bias"] = delta[rows]
    return found


def output_sensitivity(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, of_batches: bool = False
) -> dict[str, Tensor]:
    """Return the importance of MAS, parameter name -> tensor of the parameter's shape, float32, ≥ 0.

    The mean over examples of the absolute gradient of ½‖f(x)‖², f being the logits that compete. Labels are not used.
    Parameters that the logits do not depend on are absent.

    Args:
        network: the model, in evaluation mode. Its output for an example must not depend on the others.
        batches: the examples.
        logits_of: runs `network` on a batch.
        of_batches: whether to take the gradient of each batch's mean.

    Raises:
        TrialDivergedError: if a logit is not finite.

    Source: Aljundi et al. 2018, arXiv 1711.09601, Eq. 3 and 4. Differs: ½ before the squared norm, which halves Ω.
    """

    return _mean(network, batches, logits_of, sensitivity_objective(), of_batches)


def _mean(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, objective: Objective, of_batches: bool
) -> dict[str, Tensor]:
    """Return the mean magnitude of the gradients of examples, or of the means of batches, by parameter name."""
    if of_batches:
        return _mean_over_batches(network, batches, logits_of, objective)
    return _mean_over_examples(network, batches, logits_of, objective)


def _mean_over_batches(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, objective: Objective
) -> dict[str, Tensor]:
    """Return the mean over batches of the magnitude of the gradient of each batch's mean loss, by parameter name."""
    sums: dict[str, Tensor] = {}
    for batch in batches:
        logits, first = logits_of(batch)
        targets = objective.targets_of(logits.detach(), batch.labels - first)
        parameters = taking_part(network, batch, logits_of)
        loss = objective.loss_of(logits, targets) / len(targets)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                values = objective.magnitude(gradient)
                sums[name] = sums[name] + values if name in sums else values
    return {name: total / len(batches) for name, total in sums.items()}


def _mean_over_examples(
    network: nn.Module, batches: list[Batch], logits_of: LogitsOf, objective: Objective
) -> dict[str, Tensor]:
    """Return the mean over examples of the magnitude of each example's gradient, by parameter name."""
    n_examples = sum(batch.labels.shape[0] for batch in batches)
    sums: dict[str, Tensor] = {}
    is_linear, vectorised = only_linear(network), True
    for batch in batches:
        found = _linear_sums(network, batch, logits_of, objective) if is_linear else None
        if found is None:
            is_linear = False
            found, vectorised = _example_sums(network, batch, logits_of, objective, vectorised)
        for name, values in found.items():
            sums[name] = sums[name] + values if name in sums else values
    return {name: total / n_examples for name, total in sums.items()}


def _linear_sums(
    network: nn.Module, batch: Batch, logits_of: LogitsOf, objective: Objective
) -> dict[str, Tensor] | None:
    """Return the sums over the batch by one backward pass, or None if that is not possible.

    With a layer's inputs a (B, I) and the gradients δ (B, O) of the loss with respect to its outputs, example n's
    gradient is δ_n a_nᵀ, so the sum of squares is (δ²)ᵀ(a²), and of absolute values |δ|ᵀ|a|.
    Source: Goodfellow 2015, arXiv 1510.01799.
    """
    with linear_pass(network) as layers:
        logits, first = logits_of(batch)
    if not layers.are_all_of(logits):
        return None
    loss = objective.loss_of(logits, objective.targets_of(logits.detach(), batch.labels - first))
    sums: dict[str, Tensor] = {}
    for name, (inputs, delta) in layers.gradients(loss).items():
        magnitude = objective.magnitude(delta)
        sums[f"{name}.weight"] = magnitude.T @ objective.magnitude(inputs)
        if network.get_submodule(name).bias is not None:
            sums[f"{name}.bias"] = magnitude.sum(0)
    return sums


def _example_sums(
    network: nn.Module, batch: Batch, logits_of: LogitsOf, objective: Objective, vectorised: bool
) -> tuple[dict[str, Tensor], bool]:
    """Return the sums over the batch from every example's own gradient, and whether `vmap` works."""
    with torch.no_grad():
        logits, first = logits_of(batch)
    targets = objective.targets_of(logits, batch.labels - first)
    if vectorised:
        try:
            return _vectorised_sums(network, batch, targets, logits_of, objective), True
        except torch.OutOfMemoryError:
            raise
        except (
            RuntimeError
        ):  # random numbers, control flow by value, operations without a rule; all with different messages
            pass
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    sums: dict[str, Tensor] = {}
    for row, one in enumerate(single(batch)):
        loss = objective.loss_of(logits_of(one)[0], targets[row : row + 1])
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                values = objective.magnitude(gradient)
                sums[name] = sums[name] + values if name in sums else values
    return sums, False


def _as_module(network: nn.Module, logits_of: LogitsOf) -> nn.Module:
    """Return `logits_of` as a forward pass, so that `functional_call` can replace the parameters of its `network`."""

    class Logits(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            return logits_of(batch)[0]

    module = Logits().train(network.training)
    module.network = network
    return module


def _vectorised_sums(
    network: nn.Module, batch: Batch, targets: Tensor, logits_of: LogitsOf, objective: Objective
) -> dict[str, Tensor]:
    """Return the sums by `vmap` over chunks of examples, whose gradients fit into a chunk's bytes.

    Raises:
        RuntimeError: if the network cannot be vectorised.
    """
    sums: dict[str, Tensor] = {}
    for portion in _vectorised_gradients(network, batch, targets, logits_of, objective):
        for name, gradient in portion.items():
            values = objective.magnitude(gradient).sum(0)
            sums[name] = sums[name] + values if name in sums else values
    return sums


def _vectorised_gradients(
    network: nn.Module,
    batch: Batch,
    targets: Tensor,
    logits_of: LogitsOf,
    objective: Objective,
    most: int | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the gradients (m, *shape) by name of chunks of examples, at most `most` of them.

    Raises:
        RuntimeError: if the network cannot be vectorised.
    """
    module = _as_module(network, logits_of)
    has_ids = isinstance(batch.task_ids, torch.Tensor)

    def loss(values: dict[str, Tensor], inputs: Tensor, label: Tensor, target: Tensor, task_id: int | Tensor) -> Tensor:
        ids = task_id[None] if isinstance(task_id, torch.Tensor) else task_id
        one = Batch(inputs[None], label[None], ids)
        logits = torch.func.functional_call(
            module, {f"network.{name}": value for name, value in values.items()}, (one,)
        )
        return objective.loss_of(logits, target[None])

    gradients_of = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0 if has_ids else None))
    values = {name: parameter.detach() for name, parameter in taking_part(network, batch, logits_of).items()}
    n_parameters = sum(value.numel() for value in values.values())
    n_bytes = CHUNK_BYTES.get(targets.device.type, MOST_CHUNK_BYTES)
    size = max(1, min(n_bytes // (4 * max(n_parameters, 1)), most or len(targets)))
    for rows in torch.split(torch.arange(len(targets), device=targets.device), size):
        ids = batch.task_ids[rows] if isinstance(batch.task_ids, torch.Tensor) else batch.task_ids
        yield gradients_of(values, batch.inputs[rows], batch.labels[rows], targets[rows], ids)
