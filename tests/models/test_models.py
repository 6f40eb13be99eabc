"""Models: shapes, sizes, first weights, a user's own class, and the messages if one does not fit."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from orchestrator.core.errors import ModelError
from orchestrator.models.backbones import SlimResNet18
from orchestrator.models.building import build_network, input_shape_fault, load_model_class, model_faults
from orchestrator.models.settings import ModelSettings
from orchestrator.spec.loading import parse_spec
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from strategies import (
    STRATEGIES,
    Generators,
    IncrementalType,
    Learner,
    Network,
    OutputLayout,
    TaskData,
    TrainingSettings,
)

LAYOUT = OutputLayout("class", ((0, 2), (2, 5)))
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (7, 3)},
    "cnn": {"channels": (3, 4), "hidden": (5,)},
    "resnet18": {"width": 2},
}
OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, n_features=3, scale=1.0):
        super().__init__()
        self.n_features = n_features
        self.layer = nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], n_features)
        self.scale = scale

    def forward(self, inputs):
        return self.layer(inputs.flatten(1)) * self.scale

class NoFeatures(nn.Module):
    def __init__(self, input_shape, n_features=None):
        super().__init__()
        self.n_features = n_features

class Wide(Net):
    def forward(self, inputs):
        return super().forward(inputs).repeat(1, 2)

class Double(Net):
    def forward(self, inputs):
        return super().forward(inputs).double()

class Pair(Net):
    def forward(self, inputs):
        return super().forward(inputs), 0

class Broken(Net):
    def forward(self, inputs):
        raise KeyError("no such layer")

class Plain:
    pass

def build(input_shape):
    return nn.Identity()
"""


def network(seed: int = 0, name: str = "mlp", shape: tuple[int, ...] = (1, 4, 5), **fields: Any) -> Network:
    settings = ModelSettings(name=name, **(fields or SMALL.get(name, {})))
    return build_network(settings, shape, LAYOUT, torch.Generator().manual_seed(seed))


def shapes_of(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in module.parameters()]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a user's module that can be imported."""
    (tmp_path / "my_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return "my_models"


def test_mlp_has_the_given_shapes_and_no_heads() -> None:
    built = network()
    assert shapes_of(built) == [(7, 20), (7,), (3, 7), (3,)]
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


@pytest.mark.parametrize("name", SMALL)
def test_only_the_generator_decides_first_weights(name: str) -> None:
    torch.manual_seed(1)
    first = network(0, name, shape=(1, 9, 9))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again, other = (network(seed, name, shape=(1, 9, 9)) for seed in (0, 1))
    norms = {id(p) for m in first.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    for one, same, different in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)
        assert torch.equal(one, different) == (id(one) in norms)
    assert not torch.equal(state, torch.get_rng_state())


def test_the_order_of_the_draws_of_an_mlp_is_fixed() -> None:
    """Layer by layer, weight before bias. Another order would change every recorded result."""
    generator = torch.Generator().manual_seed(0)
    for parameter, fan_in in zip(network().parameters(), (20, 20, 7, 7), strict=True):
        bound = fan_in**-0.5
        assert torch.equal(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


@pytest.mark.parametrize(("name", "fan_in"), [("mlp", 81), ("cnn", 9), ("resnet18", 9)])
def test_first_weights_lie_within_pytorchs_bound(name: str, fan_in: int) -> None:
    fields: dict[str, Any] = {"mlp": {"hidden": (500,)}, "cnn": {"channels": (500,)}, "resnet18": {"width": 64}}[name]
    weight = next(network(name=name, shape=(1, 9, 9), **fields).parameters())
    bound = fan_in**-0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_cnn_counted_by_hand() -> None:
    """8 x 9 pixels become 4 x 4 and 2 x 2."""
    built = network(name="cnn", channels=(3, 4), hidden=(5, 6), shape=(2, 8, 9))
    assert shapes_of(built) == [(3, 2, 3, 3), (3,), (4, 3, 3, 3), (4,), (5, 16), (5,), (6, 5), (6,)]
    assert built.n_features == 6
    assert [type(layer).__name__ for layer in built.backbone.children()] == [
        *("Conv2d", "ReLU", "MaxPool2d") * 2,
        *("Flatten", "Linear", "ReLU", "Linear", "ReLU"),
    ]
    assert built.backbone(torch.ones(7, 2, 8, 9)).shape == (7, 6)


def test_cnn_computes_by_hand() -> None:
    """A kernel of ones sums 3 x 3 pixels with a border of 0: 4 everywhere; the pool keeps 4, and 2 · 4 - 1 = 7."""
    built = network(name="cnn", channels=(1,), hidden=(1,), shape=(1, 2, 2))
    for parameter, value in zip(built.parameters(), (1.0, 0.0, 2.0, -1.0), strict=True):
        nn.init.constant_(parameter, value)
    assert built.backbone(torch.ones(1, 1, 2, 2)).tolist() == [[7.0]]


def test_the_slim_resnet_counted_by_hand() -> None:
    """A stage of w channels has convolutions of 9w², but for its first, and a 1x1 shortcut if the width changes."""
    built = network(name="resnet18", shape=(3, 32, 32), width=20)
    convolutions, norms = 9 * 3 * 20 + 4 * 9 * 20 * 20, 2 * 5 * 20
    for width in (40, 80, 160):
        convolutions += 9 * width * width // 2 + 3 * 9 * width * width + width * width // 2
        norms += 2 * 5 * width
    assert sum(p.numel() for p in built.parameters()) == convolutions + norms == 1_093_140
    assert built.n_features == 160
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in built.modules()) == 17
    assert not any(m.bias is not None for m in built.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("shape", "last"), [((3, 32, 32), 4), ((1, 28, 28), 4), ((1, 9, 9), 2)])
def test_the_slim_resnet_takes_any_number_of_channels(shape: tuple[int, ...], last: int) -> None:
    backbone = SlimResNet18(shape[0], 2, torch.Generator())
    maps = backbone.blocks(backbone.stem(torch.ones(2, *shape)))

    assert maps.shape == (2, 16, last, last)
    assert backbone.train()(torch.ones(1, *shape)).shape == (1, 16)
    inputs = torch.randn(2, *shape)
    torch.testing.assert_close(
        backbone.eval()(inputs), backbone.blocks(backbone.stem(inputs)).flatten(2).sum(2) / last**2
    )


def test_a_residual_block_adds_its_input() -> None:
    """With all weights 0 the last norm yields 0, so a block is ReLU of its shortcut."""
    block = SlimResNet18(1, 2, torch.Generator()).blocks[1].eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.randn(1, 2, 3, 3)

    assert torch.equal(block(inputs), inputs.relu())


def test_settings_fill_in_what_belongs_to_the_model() -> None:
    filled = {name: ModelSettings(name=name).model_dump(mode="json") for name in ("mlp", "cnn", "resnet18", "a.b:C")}

    assert filled["mlp"] == {"name": "mlp", "hidden": [256, 256]}
    assert filled["cnn"] == {"name": "cnn", "channels": [32, 64], "hidden": [256]}
    assert filled["resnet18"] == {"name": "resnet18", "width": 20}
    assert filled["a.b:C"] == {"name": "a.b:C", "options": {}}
    for name, fields in filled.items():
        assert ModelSettings.model_validate(fields) == ModelSettings(name=name)
        assert "None" not in repr(ModelSettings(name=name))


REFUSED: list[dict[str, Any]] = [
    {"hidden": ()},
    {"name": "transformer"},
    {"depth": 3},
    {"channels": (3,)},
    {"width": 20},
    {"options": {}},
    {"name": "cnn", "channels": ()},
    {"name": "cnn", "channels": (0,)},
    {"name": "cnn", "options": {"a": 1}},
    {"name": "resnet18", "hidden": (3,)},
    {"name": "resnet18", "width": 0},
    {"name": "a:B", "hidden": (3,)},
    {"name": "a:B", "options": {"a": float("nan")}},
    {"name": "a:B", "options": [1]},
    *({"name": name} for name in ("a:B\n", "a b:C", "a:", ":B", "a:B.c", "a:B:C", ".a:B", "../a:B", "os", "")),
]


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_settings_refuse_what_cannot_be_built(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSettings.model_validate(fields)


def test_the_schema_takes_what_the_settings_take() -> None:
    validator = jsonschema.Draft202012Validator(SweepSpec.model_json_schema())
    models: list[dict[str, Any]] = [
        *({"name": name, **fields} for name, fields in SMALL.items()),
        {"name": "a.b:C", "options": {"depth": 3, "kinds": ["x", None], "inner": {"y": True}}},
    ]
    for model in models:
        plain = {field: list(value) if isinstance(value, tuple) else value for field, value in model.items()}
        assert validator.is_valid({"model": plain})
        assert parse_spec({"model": plain}).model == ModelSettings.model_validate(model)
    for wrong in ({"name": "transformer"}, {"hidden": []}, {"options": [1]}, {"width": 0}):
        assert not validator.is_valid({"model": wrong})


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("cnn", (64,), "cnn needs examples of shape (channels, height, width), and these are 64. Use mlp"),
        ("resnet18", (2, 3), "resnet18 needs examples of shape (channels, height, width), and these are 2x3. Use mlp"),
        ("cnn", (1, 3, 8), "cnn needs images of 4x4 pixels or more, and these are 1x3x8. Use streams.STREAM.padding"),
        ("resnet18", (1, 8, 8), "resnet18 needs images of 9x9 pixels or more, and these are 1x8x8. Use"),
    ],
)
def test_a_wrong_shape_is_named_before_and_when_built(name: str, shape: tuple[int, ...], message: str) -> None:
    fault = input_shape_fault(ModelSettings(name=name), shape)
    assert fault is not None
    assert fault.startswith("model.name: " + message)
    assert model_faults(ModelSettings(name=name), shape) == [fault]
    with pytest.raises(ModelError, match=re.escape(message)):
        network(name=name, shape=shape)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp", (64,)), ("mlp", (1, 2, 2)), ("cnn", (3, 4, 4)), ("resnet18", (3, 9, 9)), ("a:B", (5,))],
)
def test_a_shape_that_fits_has_no_fault(name: str, shape: tuple[int, ...]) -> None:
    assert input_shape_fault(ModelSettings(name=name), shape) is None


def test_only_the_generator_decides_an_own_class(own_module: str) -> None:
    options = {"n_features": 4, "scale": 2.0}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = network(name=f"{own_module}:Net", options=options)
    assert torch.equal(torch.get_rng_state(), state), "PyTorch's generator is restored"
    torch.manual_seed(8)
    again, other = (network(seed, name=f"{own_module}:Net", options=options) for seed in (0, 1))

    assert first.n_features == 4
    assert first.backbone.scale == 2.0
    assert shapes_of(first) == [(4, 20), (4,)]
    for one, same, different in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)
    assert model_faults(ModelSettings(name=f"{own_module}:Net", options=options), (1, 4, 5)) == []


@pytest.mark.parametrize(
    "method", [method for method in STRATEGIES if method not in ("pnn", "redo", "cbp")]
)  # they want a Sequential
def test_every_method_learns_with_an_own_class(method: str, own_module: str) -> None:
    generators = Generators(0)
    kind: IncrementalType = "class" if "task" in STRATEGIES[method].unsupported else "task"
    layout = OutputLayout(kind, ((0, 2), (2, 4)))

    def task_data(index: int) -> TaskData:
        inputs = torch.randn(12, 1, 2, 2, generator=torch.Generator().manual_seed(index))
        return TaskData(index, inputs, torch.arange(12) % 2 + 2 * index, index)

    learner = Learner(
        lambda: build_network(
            ModelSettings(name=f"{own_module}:Net"), (1, 2, 2), layout, generators.fresh("init/backbone")
        ),
        task_data,
        [(STRATEGIES[method], STRATEGIES[method].hyperparameter_class())],
        TrainingSettings(epochs=1),
        generators,
        torch.device("cpu"),
    )
    for task in range(2):
        learner.learn(task_data(task))
    assert learner.logits(task_data(0).inputs, 0).shape == (12, 2 if kind == "task" else 4)


CLASS_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("no_such_module:Net", {}, "name: cannot import 'no_such_module:Net' (ModuleNotFoundError"),
    ("my_models:Missing", {}, "name: cannot import 'my_models:Missing' (AttributeError"),
    ("my_models:Plain", {}, "'my_models:Plain' is a type and no subclass of torch.nn.Module"),
    ("my_models:build", {}, "'my_models:build' is a function and no subclass of torch.nn.Module"),
    (
        "my_models:Net",
        {"depth": 3},
        "options: my_models:Net cannot be built for examples of shape (1, 4, 5) with {'depth",
    ),
    (
        "my_models:NoFeatures",
        {},
        "n_features of my_models:NoFeatures must be a whole number of 1 or more, and it is None",
    ),
    ("my_models:NoFeatures", {"n_features": 2.0}, "a whole number of 1 or more, and it is 2.0"),
    ("my_models:NoFeatures", {"n_features": True}, "a whole number of 1 or more, and it is True"),
    (
        "my_models:Wide",
        {},
        "must map (2, 1, 4, 5) float32 to (2, 3) float32, but it returns (2, 6) torch.float32. Correct",
    ),
    ("my_models:Double", {}, "to (2, 3) float32, but it returns (2, 3) torch.float64. Correct"),
    ("my_models:Pair", {}, "to (2, 3) float32, but it returns a tuple. Correct"),
    ("my_models:Broken", {}, "to (2, 3) float32, but it raises KeyError: 'no such layer'. Correct"),
]


@pytest.mark.parametrize(("name", "options", "message"), CLASS_FAULTS)
def test_a_message_says_what_is_wrong_with_a_class(
    name: str, options: dict[str, Any], message: str, own_module: str
) -> None:
    (fault,) = model_faults(ModelSettings(name=name, options=options), (1, 4, 5))
    assert message in fault
    assert re.fullmatch(r"model\.(name|options): .*\. (Correct|Name|Set) .*\.", fault), "the field, and a way out"


def test_an_error_on_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("class Net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModelError, match=r"cannot import 'half_written:Net' \(SyntaxError: .*\)\. Correct it, or put its folder"
    ):
        load_model_class("half_written:Net")


def test_reading_a_spec_never_imports_the_class(own_module: str) -> None:
    content = {"model": {"name": f"{own_module}:Net", "options": {"n_features": 4}}}
    spec = parse_spec(content)
    assert parse_spec(spec.model_dump(mode="json")) == spec
    trial = spec.trial(spec.cells[0], spec.cells[0].space.start, 0, "confirm", "")
    assert TrialSpec.model_validate_json(trial.model_dump_json()).key == trial.key
    assert input_shape_fault(spec.model, (1, 8, 8)) is None
    assert own_module not in sys.modules
    assert model_faults(spec.model) == []
    assert own_module in sys.modules


@pytest.mark.parametrize("name", SMALL)
def test_first_weights_may_be_drawn_otherwise(name: str) -> None:
    """The default by name is the default, in keys too; xavier draws the same numbers in other bounds, with biases 0."""
    networks = {
        init: build_network(
            ModelSettings(name=name, init=init, **SMALL[name]), (1, 9, 9), LAYOUT, torch.Generator().manual_seed(0)
        )
        for init in (None, "pytorch", "xavier")
    }
    plain, named, other = (dict(network.named_parameters()) for network in networks.values())
    assert all(torch.equal(plain[path], named[path]) for path in plain)
    assert ModelSettings(name=name, init="pytorch") == ModelSettings(name=name)
    weights = [path for path in plain if plain[path].ndim > 1]
    assert not any(torch.equal(plain[path], other[path]) for path in weights)
    assert not any(bool(v.any()) for path, v in other.items() if path.endswith("bias") and "norm" not in path)
    assert networks["xavier"].init == "xavier"
