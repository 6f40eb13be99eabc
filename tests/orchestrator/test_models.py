"""Models: shapes, sizes and first weights."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from orchestrator.models import ModelSettings, build_network
from strategies import Generators, Network, OutputLayout

LAYOUT = OutputLayout("class", ((0, 2), (2, 5)))


def network(seed: int = 0, hidden: tuple[int, ...] = (7, 3)) -> Network:
    return build_network(ModelSettings(hidden=hidden), (1, 4, 5), LAYOUT, torch.Generator().manual_seed(seed))


def test_mlp_has_the_asked_shapes_and_no_heads() -> None:
    built = network()
    assert [tuple(p.shape) for p in built.parameters()] == [(7, 20), (7,), (3, 7), (3,)]
    assert built.n_features == 3
    assert len(built.heads) == 0
    assert built.backbone(torch.ones(6, 1, 4, 5)).shape == (6, 3)


def test_mlp_counted_by_hand() -> None:
    built = network()
    built.add_heads(2, torch.device("cpu"), Generators(0).fresh)
    expected = (20 * 7 + 7) + (7 * 3 + 3) + (3 * 2 + 2) + (3 * 3 + 3)
    assert sum(p.numel() for p in built.parameters()) == expected
    assert built(torch.ones(6, 1, 4, 5), 0, 1).shape == (6, 2)
    assert built(torch.ones(6, 1, 4, 5), 0, 2).shape == (6, 5)


def test_mlp_is_relu_of_affine_maps() -> None:
    built = network()
    inputs = torch.randn(6, 1, 4, 5, generator=torch.Generator().manual_seed(1))
    first, first_bias, second, second_bias = built.parameters()
    hidden = torch.relu(inputs.flatten(1) @ first.T + first_bias)
    torch.testing.assert_close(built.backbone(inputs), torch.relu(hidden @ second.T + second_bias))


def test_first_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = network()
    torch.manual_seed(2)
    again, other = network(), network(seed=1)
    for one, same, different in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_first_weights_lie_within_pytorchs_default_bound() -> None:
    weight = next(network(hidden=(500,)).parameters())
    bound = 20**-0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_settings_refuse_what_cannot_be_built() -> None:
    for fields in ({"hidden": ()}, {"name": "transformer"}, {"depth": 3}):
        with pytest.raises(ValidationError):
            ModelSettings.model_validate(fields)
