"""The Fisher information of a trained network: which parameters matter, and along how many directions.

It is the *true* Fisher of the softmax over the outputs in the training loss, at the present parameters, with one label
drawn from the model for each example (Martens 2014, arXiv 1412.1193, section 5; the default of `ewc` too), and not the
empirical one, which vanishes where the data are fitted (Kunstner et al. 2019, arXiv 1905.12558). The method's own
settings do not matter, so methods can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.trial.diagnostics.quantities import N_TOP, NEGLIGIBLE
from strategies import Batch
from strategies.gradients.objectives import LogitsOf
from strategies.gradients.outer import OuterRows
from strategies.parts.gram import gradient_gram, outer_rows
from strategies.parts.importance import fisher_diagonal

Found = Iterator[tuple[str, str, float]]
"""Name, part and value of what was measured."""


def layer_of(parameter: str) -> str:
    """Return the layer that a parameter is shown under: its module; all heads are one."""
    return "heads" if parameter.startswith("heads.") else parameter.rpartition(".")[0]


def drawn_labels(logits: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return labels (n,) drawn from the model's logits (n, C); None if they are no distribution, as after diverging."""
    probabilities = logits.softmax(1).cpu()
    if not bool(torch.isfinite(probabilities).all()):
        return None
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)


@dataclass(frozen=True)
class Gradients:
    """The gradients of -log p(y|x) of single examples, for labels y that are drawn from the model.

    Args:
        network: in evaluation mode.
        batch: the examples, with the labels that were drawn if the gradients have no factors.
        logits_of: runs the network on a batch.
        rows: the gradients as factors, from one pass; None if layers are not all linear.
    """

    network: nn.Module
    batch: Batch
    logits_of: LogitsOf
    rows: OuterRows | None

    @classmethod
    def drawn(
        cls, network: nn.Module, batch: Batch, logits_of: LogitsOf, generator: torch.Generator
    ) -> Gradients | None:
        """Return the gradients for labels from a generator; None if the model has no distribution."""
        drawn = list[Tensor | None]()

        def labels_of(logits: Tensor) -> Tensor | None:
            drawn.append(drawn_labels(logits, generator))
            return drawn[0]

        rows = outer_rows(network, batch, logits_of, labels_of)
        if rows:
            return cls(network, batch, logits_of, rows)
        with torch.no_grad():
            logits, first = logits_of(batch)
        labels = drawn[0] if drawn else drawn_labels(logits, generator)
        if labels is None:
            return None
        return cls(network, Batch(batch.inputs, labels + first, batch.task_ids), logits_of, None)

    def diagonal(self) -> dict[str, Tensor]:
        """Return the mean of their squares, parameter -> tensor of its shape; 0 if the outputs do not depend on it.

        Parameters that are frozen are left out.
        """
        if self.rows:
            found = {name: total / len(self.batch.labels) for name, total in self.rows.squares().items()}
        else:
            found = fisher_diagonal(self.network, [self.batch], self.logits_of, "empirical", torch.Generator())
        trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        return {name: found.get(name, torch.zeros_like(p)) for name, p in trained.items()}

    def products(self) -> dict[str, Tensor]:
        """Return their inner products by layer, as `gradient_gram` does."""
        return self.rows.grams() if self.rows else gradient_gram(self.network, self.batch, self.logits_of)


def non_negligible(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which parameters are above `NEGLIGIBLE` times the mean of all, parameter -> bool of its shape."""
    n = sum(values.numel() for values in fisher.values())
    mean = sum(float(values.double().sum()) for values in fisher.values()) / max(n, 1)
    return {name: values > NEGLIGIBLE * mean for name, values in fisher.items()}


def merged(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which parameters were non-negligible in any Fisher so far; those that are new were in none."""
    return {
        **before,
        **{name: own | before[name] if name in before else own for name, own in now.items()},
    }


def shares(name: str, masks: Mapping[str, Tensor], by_layer: bool) -> Found:
    """Yield the share of the parameters that are True, in all and for each layer.

    Args:
        name: of the quantity.
        masks: parameter -> bool.
        by_layer: whether to yield those of layers too.
    """
    counts: dict[str, list[int]] = {"": [0, 0]}
    for parameter, mask in masks.items():
        n_true = int(mask.sum())
        for part in ("", layer_of(parameter)) if by_layer else ("",):
            own = counts.setdefault(part, [0, 0])
            own[0], own[1] = own[0] + n_true, own[1] + mask.numel()
    yield from ((name, part, n_true / n) for part, (n_true, n) in counts.items() if n)


def spectrum(products: Mapping[str, Tensor]) -> Found:
    """Yield trace, effective rank, the largest eigenvalues, and the share of each layer in their eigenvectors.

    The effective rank is exp(-Σ p log p) with p the eigenvalues divided by their sum.
    Source: Roy & Vetterli 2007, 'The effective rank', definition 1. Differs: exact eigenvalues, from the inner products
    of the examples' gradients, so it is at most the number of examples.

    Args:
        products: the inner products by layer, as `gradient_gram` returns them.
    """
    by_layer: dict[str, Tensor] = {}
    for module, product in products.items():
        part = layer_of(f"{module}.")
        by_layer[part] = by_layer[part] + product if part in by_layer else product
    if not by_layer:
        return
    whole = torch.stack(list(by_layer.values())).sum(0).cpu()
    n = len(whole)
    values, vectors = torch.linalg.eigh(whole / n)
    values = values.clamp_min(0.0).flip(0)
    total = float(values.sum())
    yield "fisher_trace", "", total
    if total <= 0.0:
        return
    yield "fisher_effective_rank", "", effective_rank(values)
    top = vectors.flip(1)[:, :N_TOP]
    top = top[:, values[: top.shape[1]] > 1e-9 * values[0]]
    yield from (("fisher_eigenvalue", str(k + 1), float(values[k])) for k in range(min(N_TOP, n)))
    lengths = (top * (whole @ top)).sum(0)
    for part, product in by_layer.items():
        own = (top * (product.cpu() @ top)).sum(0)
        yield "fisher_top_share", part, float((own / lengths).mean())


def effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of non-negative values divided by their sum."""
    shares_of = values / values.sum()
    shares_of = shares_of[shares_of > 0]
    return float(torch.exp(-(shares_of * shares_of.log()).sum()))


def fisher_rows(
    network: nn.Module,
    seen: Batch,
    own: Batch,
    logits_of: LogitsOf,
    fresh: Callable[[str], torch.Generator],
    ever: Mapping[str, Tensor],
) -> tuple[list[tuple[str, str, float]], dict[str, Tensor]]:
    """Return what is measured of the Fisher, and which parameters were non-negligible in that of any task so far.

    Args:
        network: in evaluation mode.
        seen: examples of the tasks seen so far.
        own: examples of the task that was just learned.
        logits_of: runs the network on a batch.
        fresh: returns a new generator for a purpose.
        ever: the second part of what was returned after the task before.
    """
    drawn = Gradients.drawn(network, seen, logits_of, fresh("diagnostics/labels/seen"))
    drawn_own = drawn
    if seen is not own:
        drawn_own = Gradients.drawn(network, own, logits_of, fresh("diagnostics/labels/own"))
    if drawn is None or drawn_own is None:
        return [], dict(ever)
    present = non_negligible(drawn.diagonal())
    of_task = present if seen is own else non_negligible(drawn_own.diagonal())
    so_far = merged(ever, of_task)
    trained = {name: mask for name, mask in so_far.items() if name in present}
    return [
        *shares("fisher_share", present, by_layer=True),
        *shares("fisher_share_ever", trained, by_layer=True),
        *spectrum(drawn.products()),
    ], so_far
