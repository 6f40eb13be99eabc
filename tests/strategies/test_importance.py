from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_worlds import KINDS, make_layout, make_network, make_task, same
from torch import Tensor, nn
from torch.nn import functional as F

from strategies import Batch, Generators, IncrementalType, Network, TrialDivergedError
from strategies.gradients.objectives import FisherKind
from strategies.parts import importance
from strategies.parts.importance import fisher_diagonal, output_sensitivity

FISHER_KINDS: tuple[FisherKind, ...] = ("true", "empirical", "predicted")


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(network: Network, n_seen: int = 2) -> Callable[[Batch], tuple[Tensor, int]]:
    return lambda batch: network.training_logits(batch.inputs, batch.task_ids, n_seen, "seen")


def plain(network: nn.Module) -> Callable[[Batch], tuple[Tensor, int]]:
    return lambda batch: (network(batch.inputs), 0)


def chosen_labels(logits: Tensor, labels: Tensor, kind: FisherKind) -> Tensor:
    if kind == "true":
        return torch.multinomial(logits.detach().softmax(1), 1, generator=generator())[:, 0]
    return labels if kind == "empirical" else logits.argmax(1)


def one_example_at_a_time(network: Network, batch: Batch, first: int, kind: FisherKind) -> dict[str, Tensor]:
    """Return the mean of the squared gradients, one backward pass an example."""
    logits, _ = logits_of(network)(batch)
    labels = chosen_labels(logits, batch.labels - first, kind)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in range(len(labels)):
        one = Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], batch.task_ids)
        loss = F.cross_entropy(logits_of(network)(one)[0], labels[row : row + 1])
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(sums, gradients, strict=True):
            sums[name] += 0 if gradient is None else gradient.square()
    return {name: total / len(labels) for name, total in sums.items()}


@pytest.mark.parametrize("fisher", FISHER_KINDS)
@pytest.mark.parametrize(("kind", "first"), [("task", 2), ("class", 0), ("domain", 0)])
def test_fisher_is_the_mean_of_each_examples_squared_gradient(fisher: FisherKind, kind: str, first: int) -> None:
    network = make_network(kind, n_heads=1 if kind == "domain" else 2)  # type: ignore[arg-type]
    batch = make_task(1, kind).take(torch.arange(20))  # type: ignore[arg-type]
    found = fisher_diagonal(network, [batch], logits_of(network), fisher, generator())
    expected = one_example_at_a_time(network, batch, first, fisher)

    for name, values in expected.items():
        if name in found:
            torch.testing.assert_close(found[name], values)
        else:
            assert bool((values == 0).all())
    assert sum(float(values.sum()) for values in found.values()) > 0


def test_fisher_is_not_the_square_of_the_mean_gradient() -> None:
    network = make_network("class", n_heads=2)
    batch = make_task(1, "class").take(torch.arange(20))
    loss = F.cross_entropy(logits_of(network)(batch)[0], batch.labels)
    mean_gradients = torch.autograd.grad(loss, list(network.parameters()))
    found = fisher_diagonal(network, [batch], logits_of(network), "empirical", generator())

    squared_means = sum(float(gradient.square().sum()) for gradient in mean_gradients)
    assert sum(float(values.sum()) for values in found.values()) > 2 * squared_means


def test_fisher_of_one_layer_equals_the_numbers_by_hand() -> None:
    """With all weights 0 and x = 2, p = (½, ½), the gradients are ±½·2 for weights and ±½ for biases."""
    layer = nn.Linear(1, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    network = nn.Sequential(layer)
    batch = Batch(torch.tensor([[2.0], [4.0]]), torch.tensor([0, 1]), 0)
    found = fisher_diagonal(network, [batch], lambda b: (network(b.inputs), 0), "empirical", generator())

    assert found["0.weight"].tolist() == [[2.5], [2.5]]  # (1² + 2²) / 2
    assert found["0.bias"].tolist() == [0.25, 0.25]


def test_fisher_does_not_depend_on_how_examples_are_batched() -> None:
    network = make_network("task", n_heads=2)
    task = make_task(1)
    whole = fisher_diagonal(network, list(task.batches(20)), logits_of(network), "empirical", generator())
    parts = fisher_diagonal(network, list(task.batches(7)), logits_of(network), "empirical", generator())

    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        torch.testing.assert_close(values, parts[name])


def test_true_fisher_averages_to_the_expectation_over_labels() -> None:
    network = make_network("task", n_heads=1)
    x = make_task(0).inputs[:1]
    repeats = 20_000
    batch = Batch(x.expand(repeats, -1), torch.zeros(repeats, dtype=torch.int64), 0)
    found = fisher_diagonal(network, [batch], logits_of(network, 1), "true", generator())

    log_p = network.heads[0](network.backbone(x)).log_softmax(1)[0]
    used = dict(network.named_parameters())
    for label in range(2):
        gradients = torch.autograd.grad(-log_p[label], list(used.values()), retain_graph=True)
        probability = float(log_p[label].detach().exp())
        for name, gradient in zip(used, gradients, strict=True):
            found[name] = found[name] - probability * gradient.square()
    scale = max(float(g.square().max()) for g in gradients)
    assert all(float(rest.abs().max()) < 0.03 * scale for rest in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_fisher_weighs_each_label_by_its_probability(kind: IncrementalType) -> None:
    """Against autograd, one example and one label at a time; outputs that do not compete add nothing."""
    network, batch = make_network(kind, n_heads=1 if kind == "domain" else 2), make_task(1, kind).take(torch.arange(6))
    found = fisher_diagonal(network, [batch], logits_of(network), "exact", generator())
    expected = {name: torch.zeros_like(value) for name, value in found.items()}
    parameters = dict(network.named_parameters())
    for row in range(6):
        one = Batch(batch.inputs[row : row + 1], batch.labels[row : row + 1], batch.task_ids)
        log_p = logits_of(network)(one)[0].log_softmax(1)[0]
        for label in log_p.isfinite().nonzero()[:, 0].tolist():
            probability = float(log_p[label].detach().exp())
            for name in expected:
                (gradient,) = torch.autograd.grad(log_p[label], parameters[name], retain_graph=True)
                expected[name] += probability * gradient.square() / 6
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert same(
        fisher_diagonal(network, [batch], logits_of(network), "sampled", generator(3)),
        fisher_diagonal(network, [batch], logits_of(network), "true", generator(3)),
    )


def test_true_fisher_draws_only_from_its_own_generator() -> None:
    network = make_network("task", n_heads=1)
    batch = make_task(0).take(torch.arange(20))

    def fisher(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        found = fisher_diagonal(network, [batch], logits_of(network, 1), "true", generator(seed))
        return found["heads.0.weight"]

    assert torch.equal(fisher(1, 1), fisher(1, 2))
    assert not torch.equal(fisher(1, 1), fisher(2, 1))


def test_layers_without_a_bias_have_no_importance_for_one() -> None:
    network = nn.Sequential(nn.Linear(4, 2, bias=False))
    found = fisher_diagonal(network, [make_task(0).take(torch.arange(4))], plain(network), "empirical", generator())

    assert found.keys() == {"0.weight"}


def test_hooks_leave_with_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 2))

    def fails(batch: Batch) -> tuple[Tensor, int]:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fisher_diagonal(network, [make_task(0).take(torch.arange(4))], fails, "empirical", generator())
    assert not network[0]._forward_hooks


def test_output_sensitivity_of_one_layer_equals_the_numbers_by_hand() -> None:
    """f = wx + b with w = (1, -2), b = 0: |f x| for weights and |f| for biases, averaged over x = 1 and x = -3."""
    network = nn.Sequential(nn.Linear(1, 2))
    network[0].weight.data = torch.tensor([[1.0], [-2.0]])
    nn.init.zeros_(network[0].bias)
    batch = Batch(torch.tensor([[1.0], [-3.0]]), torch.tensor([0, 0]), 0)
    found = output_sensitivity(network, [batch], plain(network))

    assert found["0.weight"].tolist() == [[5.0], [10.0]]  # (1·1 + 3·3) / 2, (2·1 + 6·3) / 2
    assert found["0.bias"].tolist() == [2.0, 4.0]  # (1 + 3) / 2, (2 + 6) / 2


def test_output_sensitivity_leaves_out_what_takes_no_part() -> None:
    """Rows of two tasks: outputs of the other task are -inf, and neither they nor the labels count."""
    network = make_network("task", n_heads=2)
    one, other = make_task(0), make_task(1)
    together = Batch(
        torch.cat([one.inputs, other.inputs]), torch.zeros(40, dtype=torch.int64), torch.arange(2).repeat_interleave(20)
    )
    found = output_sensitivity(network, [together], logits_of(network))
    apart = [output_sensitivity(network, list(task.batches(20)), logits_of(network)) for task in (one, other)]

    for name, values in found.items():
        torch.testing.assert_close(values, sum(part.get(name, torch.zeros(())) for part in apart) / 2)


def test_output_sensitivity_refuses_logits_that_overflow() -> None:
    network = nn.Sequential(nn.Linear(4, 2))
    nn.init.constant_(network[0].bias, torch.inf)
    with pytest.raises(TrialDivergedError, match="overflow"):
        output_sensitivity(network, [make_task(0).take(torch.arange(4))], plain(network))


class Twice(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs).tanh())  # type: ignore[no-any-return]


class Patches(nn.Module):
    """A layer that sees two rows an example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs.reshape(-1, 2)).tanh().reshape(len(inputs), 6)  # type: ignore[no-any-return]


class Borrowed(nn.Module):
    """A layer whose weight is used beside its own call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) @ self.layer.weight  # type: ignore[no-any-return]


class Fixed(nn.Module):
    """A branch by value, which cannot be vectorised, to layers of which only some are used."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(1, 2, 2) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        chosen = self.layers[0 if float(inputs.sum()) > 0 else 1]
        return chosen(inputs[:, None]).flatten(1)  # type: ignore[no-any-return]


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )


def norm_net() -> nn.Module:
    """A net whose running statistics are not the first ones."""
    net = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()
    )
    net(torch.randn(50, 4, generator=generator(9)) * 3 + 1)
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "conv": conv_net,
    "norm": norm_net,
    "linear": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU()),
    "in place": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True)),
    "twice": Twice,
    "patches": Patches,
    "borrowed": Borrowed,
    "branches": Fixed,
    "one frozen": lambda: nn.Sequential(nn.Linear(4, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 5), nn.ReLU()),
}
FAST = {"linear"}
LOOPS = {"branches"}


def network_of(backbone: Callable[[], nn.Module], n_heads: int = 2) -> Network:
    torch.manual_seed(5)
    net = backbone()
    network = Network(net, net.eval()(torch.zeros(1, 4)).shape[1], make_layout("task", 3))
    network.add_heads(n_heads, torch.device("cpu"), Generators(1).fresh)
    return network.eval()


@pytest.mark.parametrize("fisher", FISHER_KINDS)
@pytest.mark.parametrize("net", NETS)
def test_fisher_of_any_network_equals_a_loop_over_examples(net: str, fisher: FisherKind) -> None:
    network = network_of(NETS[net])
    batch = make_task(1).take(torch.arange(20))
    expected = one_example_at_a_time(network, batch, 2, fisher)
    found = fisher_diagonal(network, [batch], logits_of(network), fisher, generator())

    assert found.keys() == {name for name, values in expected.items() if bool((values != 0).any())}
    assert "heads.1.weight" in found
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name])


@pytest.mark.parametrize("net", NETS)
def test_output_sensitivity_of_any_network_equals_a_loop_over_examples(net: str) -> None:
    network = network_of(NETS[net])
    task = make_task(1)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in range(20):
        logits, _ = logits_of(network)(task.take(torch.tensor([row])))
        gradients = torch.autograd.grad(0.5 * logits.square().sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(sums, gradients, strict=True):
            sums[name] += 0 if gradient is None else gradient.abs()
    found = output_sensitivity(network, list(task.batches(7)), logits_of(network))

    assert found.keys() == {name for name, values in sums.items() if bool((values != 0).any())}
    for name, values in found.items():
        torch.testing.assert_close(values, sums[name] / 20)


@pytest.mark.parametrize("net", NETS)
def test_each_network_goes_the_fastest_way_that_is_right_for_it(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[str] = []

    def note(name: str) -> None:
        way = getattr(importance, name)

        def noting(*args: Any) -> Any:
            found = way(*args)
            ways.append(name if found is not None else f"not {name}")
            return found

        monkeypatch.setattr(importance, name, noting)

    note("_vectorised_sums")
    note("_linear_sums")
    network = network_of(NETS[net])
    fisher_diagonal(network, list(make_task(1).batches(10)), logits_of(network), "empirical", generator())

    assert (ways == ["_linear_sums"] * 2) == (net in FAST)
    assert ("_vectorised_sums" not in ways) == (net in FAST | LOOPS)


def test_both_ways_agree_on_an_mlp_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone and one head have 77 parameters, 308 bytes an example: 3 examples a chunk."""
    network = make_network("task", n_heads=2)
    batches = list(make_task(1).batches(16))

    def both() -> list[dict[str, Tensor]]:
        mas = output_sensitivity(network, batches, logits_of(network))
        return [fisher_diagonal(network, batches, logits_of(network), "true", generator()), mas]

    fast = both()
    monkeypatch.setattr(importance, "only_linear", lambda network: False)
    monkeypatch.setattr(importance, "CHUNK_BYTES", {"cpu": 1000})
    for one, other in zip(fast, both(), strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            torch.testing.assert_close(values, other[name])


def test_rows_of_different_tasks_go_through_their_own_heads_on_a_convolution() -> None:
    network = network_of(conv_net)
    tasks = [make_task(0), make_task(1)]
    together = Batch(
        torch.cat([task.inputs for task in tasks]),
        torch.cat([task.labels for task in tasks]),
        torch.arange(2).repeat_interleave(20),
    )
    found = fisher_diagonal(network, [together], logits_of(network), "empirical", generator())
    apart = [one_example_at_a_time(network, task.take(torch.arange(20)), 2 * task.index, "empirical") for task in tasks]

    assert found.keys() == apart[0].keys()
    for name, values in found.items():
        torch.testing.assert_close(values, (apart[0][name] + apart[1][name]) / 2)


def test_importances_leave_the_network_as_it_was() -> None:
    network = network_of(norm_net)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fisher_diagonal(network, list(make_task(1).batches(8)), logits_of(network), "true", generator())

    assert same(before, dict(network.state_dict()))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("fisher", ["empirical", "sampled"])
def test_of_batches_it_is_the_mean_of_the_squared_gradients_of_batch_means(fisher: FisherKind) -> None:
    network = make_network("task", n_heads=2)
    batches = [make_task(1).take(rows) for rows in torch.split(torch.arange(20), 8)]
    found = fisher_diagonal(network, batches, logits_of(network), fisher, generator(), of_batches=True)

    draws = generator()
    expected = torch.zeros(5, 6)
    for batch in batches:
        logits, first = logits_of(network)(batch)
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=draws)[:, 0]
        labels = drawn if fisher == "sampled" else batch.labels - first
        loss = F.cross_entropy(logits, labels)
        expected += torch.autograd.grad(loss, network.get_parameter("backbone.2.weight"))[0].square() / 3
    torch.testing.assert_close(found["backbone.2.weight"], expected)
    assert "heads.0.weight" not in found


def test_gradients_of_a_batch_cancel_where_those_of_examples_do_not() -> None:
    signed = Batch(torch.tensor([[1.0], [1.0]]), torch.tensor([0, 1]), 0)
    two = nn.Sequential(nn.Linear(1, 2, bias=False))
    nn.init.zeros_(two[0].weight)  # type: ignore[arg-type]
    kind: FisherKind = "empirical"
    own, mean = (fisher_diagonal(two, [signed], plain(two), kind, generator(), of)["0.weight"] for of in (False, True))
    assert own.flatten().tolist() == [0.25, 0.25], "gradients of (-0.5, 0.5) and (0.5, -0.5)"
    assert mean.flatten().tolist() == [0.0, 0.0]
