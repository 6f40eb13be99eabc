"""Features of a frozen network: equal to the network by hand, computed once, and known by what they are made of."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.core.errors import DataError, SpecError
from orchestrator.execution.session import Session
from orchestrator.models import frozen
from orchestrator.models.frozen import FeatureStore, load_with_features
from orchestrator.models.frozen_network import FrozenNetwork, resizing
from orchestrator.results.run import Run
from orchestrator.spec.loading import parse_spec
from orchestrator.storage.local import LocalStorage
from orchestrator.streams.datasets import Dataset
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.builtin import load_dataset
from orchestrator.trial.preflight import load_datasets
from orchestrator.trial.protocol import run_trial

CODE = '''
import torch
from torch import nn

class Net(nn.Module):
    """A small CNN: (N, 1, H, W) -> (N, 4 · width)."""
    def __init__(self, input_shape, width=4):
        super().__init__()
        self.shape = input_shape
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten()
        )

    def forward(self, inputs):
        return self.body(inputs)

class Flat(nn.Module):
    def __init__(self, input_shape):
        super().__init__()

    def forward(self, inputs):
        return inputs.flatten(1)

class Maps(Flat):
    def forward(self, inputs):
        return inputs

class Endless(Flat):
    def forward(self, inputs):
        return inputs.flatten(1) / 0

class Failing(Flat):
    def forward(self, inputs):
        raise ValueError("no such size")

no_class = 3
'''


@pytest.fixture(autouse=True)
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frozen_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "frozen_net", raising=False)


def load(module: str = "frozen_net:Net", store: FeatureStore | None = None, **fields: Any) -> Dataset:
    """Return digits as features of `module`; fields of `features` begin with `own_`."""
    own = {name[4:]: fields.pop(name) for name in [*fields] if name.startswith("own_")}
    settings = StreamSettings.model_validate({"features": {"module": module, **own}, **fields})
    return load_with_features("split-digits", settings, Path("nowhere"), store)


def digits() -> Dataset:
    return load_dataset("digits", Path("nowhere"))


def net(width: int = 4) -> Any:
    """Return the network as it is built for digits, with the weights that it has without a file."""
    from frozen_net import Net  # type: ignore[import-not-found]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net((1, 8, 8), width)


def test_features_are_those_of_the_network() -> None:
    data, plain = load(), digits()
    with torch.no_grad():
        expected = net()(torch.from_numpy(plain.train_inputs)[:, None] / 16)
    assert data.train_inputs.shape == (len(plain.train_labels), 16)
    assert data.train_inputs.dtype == np.float32
    np.testing.assert_allclose(data.train_inputs, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert (data.facts.shape, data.facts.maximum, data.facts.n_numbers) == ((16,), 1, 16)
    assert np.array_equal(data.train_labels, plain.train_labels)
    assert data.notes == ("streams.split-digits: examples are 16 features of frozen_net:Net in place of 1x8x8 inputs",)


def test_padding_and_size_come_before_the_network() -> None:
    inputs = torch.from_numpy(digits().test_inputs)[:, None] / 16
    padded = load("frozen_net:Flat", padding=1).test_inputs
    np.testing.assert_array_equal(padded, F.pad(inputs, [1] * 4).flatten(1).numpy())
    resized = F.interpolate(inputs, size=(12, 12), mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(
        load("frozen_net:Flat", own_image_size=12).test_inputs, resized.flatten(1).numpy(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    network, path = net(), tmp_path / f"w{suffix}"
    with torch.no_grad():
        network.body[0].weight.mul_(-2)
    if suffix == ".pt":
        torch.save({"state_dict": network.state_dict()}, path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    with torch.no_grad():
        expected = network(torch.from_numpy(digits().test_inputs)[:, None] / 16).numpy()
    np.testing.assert_allclose(load(own_weights=str(path)).test_inputs, expected, rtol=1e-5, atol=1e-6)


def test_a_network_of_torchvision_loses_its_head_and_gets_images_as_imagenet_has_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model("mobilenet_v3_small", weights=None, num_classes=7)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    few = dataclasses.replace(digits(), train_inputs=digits().train_inputs[:6], test_inputs=digits().test_inputs[:5])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "load_stream", lambda *_: few)
        data = load(
            "torchvision:mobilenet_v3_small", own_weights=str(tmp_path / "w.safetensors"),
            own_options={"num_classes": 7}, own_image_size=32,
        )  # fmt: skip
    heard: list[Tensor] = []
    network.eval().classifier[-1].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    images = F.interpolate(
        torch.from_numpy(few.test_inputs)[:, None] / 16, size=(32, 32), mode="bilinear", align_corners=False,
        antialias=True,
    )  # fmt: skip
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        network((images.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None])
    np.testing.assert_allclose(data.test_inputs, heard[0].numpy(), rtol=1e-4, atol=1e-5)


class Distilled(nn.Module):
    """What timm's interface gives: a network with two classifiers, and what it was trained with."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
        self.head, self.head_dist = nn.Linear(5, 3), nn.Linear(5, 3)
        self.extra = nn.Linear(1, 1)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (std, std, std)}

    def reset_classifier(self, num_classes: int) -> None:
        assert num_classes == 0
        self.head, self.head_dist = nn.Identity(), nn.Identity()  # type: ignore[assignment]

    def forward(self, inputs: Tensor) -> Tensor:
        inside = self.body(inputs)
        found: Tensor = (self.head(inside) + self.head_dist(inside)) / 2
        return found


def test_a_network_of_timm_is_taken_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own mean and deviation, and its own way to lose classifiers; timm itself is no dependency of the tests."""
    timm = types.ModuleType("timm")
    timm.create_model = lambda name, pretrained, std: Distilled(std)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    torch.manual_seed(0)
    network = Distilled(0.5)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    own = {"own_weights": str(tmp_path / "w.safetensors"), "own_options": {"std": 0.5}}
    data = load("timm:odd", **own)
    images = (torch.from_numpy(digits().test_inputs)[:, None] / 16).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = network.body((images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.5)
    np.testing.assert_allclose(data.test_inputs, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [7, 30])
def test_resizing_is_a_product_with_two_matrices(n: int) -> None:
    """What a trace for ONNX has in its place, for more and for fewer pixels."""
    images = torch.rand((2, 3, n, 9), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(images, size=(12, 12), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(resizing(n, 12) @ images @ resizing(9, 12).T, expected, rtol=1e-5, atol=1e-6)


def test_the_hash_is_of_what_features_are_made_of(tmp_path: Path) -> None:
    network = net()
    for name in ("a", "b"):
        safetensors.torch.save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    with torch.no_grad():
        network.body[0].bias[0] += 1e-6
    safetensors.torch.save_file(network.state_dict(), tmp_path / "c.safetensors")
    same = {load().fingerprint(), *(load(own_weights=str(tmp_path / f"{n}.safetensors")).fingerprint() for n in "ab")}
    assert len(same) == 1
    assert load(normalisation="standard").fingerprint() in same  # of the features, which it does not change
    others = [
        load(own_weights=str(tmp_path / "c.safetensors")),
        load(own_options={"width": 5}),
        load(padding=1),
        load(own_image_size=9),
        load("frozen_net:Flat"),
        digits(),
    ]
    assert len({*same, *(data.fingerprint() for data in others)}) == 7
    (tmp_path / "frozen_net.py").write_text(CODE + "\n# another line\n")
    sys.modules.pop("frozen_net")
    assert load().fingerprint() not in same


def test_a_run_computes_features_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_spec(
        {
            "scenarios": ["split-digits/class"], "methods": ["naive"], "limits": [],
            "streams": {"split-digits": {"features": {"module": "frozen_net:Net"}}},
        }
    )  # fmt: skip
    run = Run.create(tmp_path / "run", spec)
    first = Session(spec, run, tmp_path)
    first.begin()
    (file,) = (tmp_path / "run" / "features").iterdir()
    content = file.read_bytes()

    def refuse(*_: object) -> Any:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(FrozenNetwork, "features", refuse)
        again = Session(spec, run, tmp_path)
        assert np.array_equal(again.datasets["split-digits"].train_inputs, first.datasets["split-digits"].train_inputs)
        file.write_bytes(content[:-100])
        with pytest.raises(AssertionError, match="computed again"):
            Session(spec, run, tmp_path)
    damaged = Session(spec, run, tmp_path)
    assert np.array_equal(damaged.datasets["split-digits"].test_inputs, first.datasets["split-digits"].test_inputs)
    damaged.begin()
    assert file.read_bytes() == content


def test_streams_of_one_data_set_with_and_without_features_are_apart() -> None:
    spec = parse_spec(
        {
            "scenarios": ["split-digits/class", "rotated-digits/domain"], "methods": ["naive"],
            "streams": {"split-digits": {"features": {"module": "frozen_net:Net"}}},
        }
    )  # fmt: skip
    data = load_datasets(spec, Path("nowhere"))
    assert {name: dataset.facts.shape for name, dataset in data.items()} == {
        "split-digits": (16,),
        "digits": (1, 8, 8),
    }


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"module": "nowhere:Net"}, r"module: cannot import 'nowhere:Net' \(ModuleNotFoundError.*\)\. Correct it"),
    ({"module": "frozen_net:no_class"}, "module: 'frozen_net:no_class' is a int and no subclass"),
    ({"own_options": {"depth": 3}}, r"module: frozen_net:Net cannot be built with \{'depth': 3\} \(TypeError"),
    (
        {"module": "torchvision:resnet1", "own_weights": "w"},
        r"module: torchvision:resnet1 cannot be built \(ValueError",
    ),
    ({"module": "timm:vit_tiny", "own_weights": "w"}, "module: timm is not installed; run: pip install timm"),
    ({"own_weights": "nowhere.pt"}, "weights: there is no file 'nowhere.pt'; correct the path"),
    ({"own_weights": "junk.pt"}, r"weights: 'junk.pt' cannot be read \(.*\); give a state dict"),
    (
        {"own_weights": "other.safetensors"},
        r"weights: 'other.safetensors' is of another network: it has no 'body.0.bias', 'more', which the network has "
        r"not, 'body.0.weight' of shape \(3, 1, 3, 3\) for \(4, 1, 3, 3\); give the file",
    ),
    ({"module": "frozen_net:Maps"}, r"module: expected features \(256, F\), got \(256, 1, 8, 8\); correct its forward"),
    ({"module": "frozen_net:Endless"}, "module: the features of example 0 are not finite; check its weights"),
    ({"module": "frozen_net:Failing"}, r"module: it fails on .* \(1, 8, 8\) \(ValueError: no such size\); correct it"),
]


@pytest.mark.parametrize(("fields", "message"), FAULTS)
def test_what_cannot_be_used_is_said(
    fields: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    Path("junk.pt").write_bytes(b"no weights")
    safetensors.torch.save_file({"body.0.weight": torch.zeros(3, 1, 3, 3), "more": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(DataError, match=rf"^streams\.split-digits\.features\.{message}"):
        load(**fields)


@pytest.mark.parametrize(
    ("stream", "features", "message"),
    [
        ("rotated-digits", {"module": "a:B"}, "features: only split and folder and table streams have this field"),
        ("split-digits", {"module": "torchvision:resnet18"}, "has no weights without a file; name the one"),
        ("split-digits", {"module": "a:B", "weights": ""}, "features.weights: the path is empty; write one"),
        ("split-digits", {"module": "resnet18"}, "features.module: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(stream: str, features: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"scenarios": [f"{stream}/task"], "streams": {stream: {"features": features}}})
    assert any(message in fault for fault in caught.value.faults), caught.value.faults


def test_a_pretrained_network_helps(tmp_path: Path) -> None:
    """A CNN trained on digits lying on their side answers upright ones better than the same CNN untrained.

    Nearest means over its features, in `class`; most of what is learned on other images of the same kind carries over.
    """
    data, network = digits(), net(16)
    images = torch.from_numpy(np.rot90(data.train_inputs, axes=(1, 2)).copy())[:, None] / 16
    labels = torch.from_numpy(data.train_labels)
    torch.manual_seed(0)
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(head(network(images)), labels).backward()
        optimizer.step()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    accuracy = {}
    for weights in (None, str(tmp_path / "w.safetensors")):
        features = {"module": "frozen_net:Net", "options": {"width": 16}, "weights": weights}
        spec = parse_spec(
            {
                "scenarios": ["split-digits/class"], "methods": ["ncm"], "spaces": {"ncm": {"features": 0}},
                "streams": {"split-digits": {"features": features}}, "limits": [],
                "seeds": {"search": 0, "confirm": 1},
            }
        )  # fmt: skip
        (dataset,) = load_datasets(spec, tmp_path).values()
        trial = spec.trial(spec.cells[0], {}, 0, "confirm", dataset.fingerprint())
        result = run_trial(trial, dataset.phase("confirm", 0.2))
        assert result.status == "completed", result.reason
        accuracy[weights is not None] = result.metrics()["average_accuracy"]
    assert accuracy[True] > accuracy[False] + 0.05


def test_a_store_without_files_has_nothing(tmp_path: Path) -> None:
    assert FeatureStore(LocalStorage(tmp_path / "none")).read("beef") is None
