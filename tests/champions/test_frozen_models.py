"""A model whose networks take features of a frozen network: its folder answers raw examples by itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image
from torch.nn import functional as F

import orchestrator
from orchestrator.champions.card import Card
from orchestrator.champions.evaluation import evaluation_sets
from orchestrator.champions.exporting.onnx_export import export_onnx
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.folder import read_card, read_folder
from orchestrator.champions.model import Model, as_examples
from orchestrator.champions.next_spec import next_spec
from orchestrator.champions.next_stream import load_next
from orchestrator.champions.tensors import from_bytes, same
from orchestrator.cli.main import main
from orchestrator.core.errors import DataError, RunFolderError
from orchestrator.core.scores import ACCURACY
from orchestrator.models.frozen_network import FrozenNetwork
from orchestrator.results.run import Run
from orchestrator.spec.loading import load_spec, parse_spec
from orchestrator.streams.sources.builtin import load_dataset
from tests.champions.conftest import fields, finished, rows
from tests.conftest import without_finals

CODE = '''
import torch
from torch import nn

class Net(nn.Module):
    """A small CNN with a batch normalisation: (N, 1, H, W) -> (N, 16)."""
    def __init__(self, shape):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )

    def forward(self, inputs):
        return self.body(inputs)

class Wide(nn.Module):
    """Rows of a table: (N, D) -> (N, 8)."""
    def __init__(self, shape):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 8), nn.Tanh())

    def forward(self, inputs):
        return self.body(inputs)
'''
NET, WIDE = "deep_frozen:Net", "deep_frozen:Wide"
WANTED = Wanted(method="ridge", suggestion=0, seed=1000)


@pytest.fixture(autouse=True)
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep_frozen.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deep_frozen", raising=False)
    # Bytecode of before would pass for that of a file with as many characters that is written in the same second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder TASK/CLASS/IMAGE with 30 digits of each of six classes."""
    place, digits = tmp_path_factory.mktemp("pictures"), load_dataset("digits", Path("nowhere"))
    for label in range(6):
        folder = place / f"t{label // 2}" / f"c{label}"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(digits.train_inputs[digits.train_labels == label][:30]):
            Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{number}.png")
    return place


def weights(place: Path, seed: int = 1) -> str:
    """Write weights of `Net` that it does not draw by itself, and return their file."""
    from deep_frozen import Net  # type: ignore[import-not-found]

    torch.manual_seed(seed)
    network = Net((1, 8, 8))
    with torch.no_grad():
        network(torch.rand(50, 1, 10, 10))  # of the running mean of its normalisation
    safetensors.torch.save_file(network.state_dict(), place / f"w{seed}.safetensors")
    return str(place / f"w{seed}.safetensors")


def make(folder: Path, place: Path, seed: int = 1, method: str = "ridge", image_size: int = 9, **more: Any) -> Run:
    """Return the run of a small sweep over pictures as features of `Net` with the weights of a seed."""
    features = {"module": NET, "weights": weights(place.parent, seed), "image_size": image_size}
    stream = {"folder": str(folder), "padding": 1, "normalisation": "standard", "features": features} | more
    spec = fields(Path("no"), "class", [method]) | {"scenarios": ["pics/class"], "streams": {"pics": stream}}
    if method == "ridge":
        spec["spaces"] = {"ridge": {"features": 50}}
    return finished(parse_spec(spec), place)


def export(run: Run, place: Path, **more: Any) -> Card:
    wanted = Wanted(method=run.spec.methods[0], suggestion=0, seed=1000, **more)
    return orchestrator.export_model(run, place, wanted, plugins=[NET, WIDE]).card


def load(place: Path, module: str = NET) -> Model:
    return orchestrator.load_model(place, [module])


def first_two(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "first", ignore=shutil.ignore_patterns("t2"))
    return tmp_path / "first"


def test_a_folder_answers_by_itself_as_the_trial_did(pictures: Path, tmp_path: Path) -> None:
    run = make(pictures, tmp_path / "run")
    card = export(run, tmp_path / "model", keep_evaluation=True)
    assert card.members[0].equals_recorded is True
    network = safetensors.torch.load_file(tmp_path / "w1.safetensors")
    for name in ("w1.safetensors", "run"):
        place = tmp_path / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    model = load(tmp_path / "elsewhere")
    pixels = np.stack([np.array(Image.open(pictures / "t1" / "c2" / f"{n}.png")) for n in range(30)])
    from deep_frozen import Net

    by_hand = Net((1, 9, 9)).eval()
    by_hand.load_state_dict(network)
    padded = F.pad(torch.from_numpy(pixels)[:, None] / 255, [1] * 4)
    resized = F.interpolate(padded, size=(9, 9), mode="bilinear", align_corners=False, antialias=True)
    with torch.no_grad():
        features = by_hand(resized)
    mean, std = (torch.tensor(value) for value in (card.inputs.mean, card.inputs.std))
    inputs = model.to_inputs(pixels)
    torch.testing.assert_close(inputs, (features - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.from_examples(as_examples(card, pixels)), inputs)
    result = card.members[0].trial_result
    assert result is not None
    sets = [model.taken(task) for task in evaluation_sets(model.card, model.files, tmp_path, "model")]
    right = [int((torch.from_numpy(model.answers(one.inputs, t)) == one.labels).sum()) for t, one in enumerate(sets)]
    assert right == result.n_correct[-1]
    out = model.predict(pictures / "t1" / "c2")
    assert (out["class"] == "c2").mean() > 0.5
    assert model.predict(np.zeros((0, 8, 8), np.uint8)).empty


def test_its_card_says_what_is_in_front(pictures: Path, tmp_path: Path) -> None:
    run = make(pictures, tmp_path / "run")
    card = export(run, tmp_path / "model")
    assert card.frozen is not None
    assert (card.frozen.shape, card.frozen.maximum, card.inputs.shape) == ((1, 8, 8), 255, (16,))
    assert "frozen.safetensors" in read_card(tmp_path / "model").files
    text = (tmp_path / "model" / "README.md").read_text()
    assert (
        "- Takes: grey images of 8 × 8 pixels\n- Frozen network in front: `deep_frozen:Net`, on images resized to "
        "9 × 9 pixels, whose 16 features the networks take; no task trains it\n"
    ) in text
    assert "- Training of each task: one pass, without optimizer steps\n" in text


def test_a_run_keeps_the_features_that_export_takes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"module": NET, "weights": weights(tmp_path)}
    streams = {"pics": {"folder": str(pictures), "features": features}}
    base = fields(Path("no"), "class", ["ncm"]) | {"scenarios": ["pics/class"], "streams": streams}
    run = Run.create(tmp_path / "run", parse_spec(base))
    from orchestrator.execution.session import Session

    Session(run.spec, run, tmp_path).begin()
    done = finished(run.spec, tmp_path / "run")
    asked: list[int] = []
    real = FrozenNetwork.features

    def counting(self: FrozenNetwork, batches: Any) -> Any:
        found = real(self, batches)
        asked.append(len(found))
        return found

    monkeypatch.setattr(FrozenNetwork, "features", counting)
    export(done, tmp_path / "model")
    assert asked == [2], "of the two examples that tell the network apart, and of none of the run's"


@pytest.mark.parametrize("method", ["ridge", "replay"])
def test_an_update_learns_raw_images(pictures: Path, tmp_path: Path, method: str) -> None:
    """As the sweep over the longer data, up to the last bits of features."""
    unit = {"method": method, "normalisation": "unit"}
    export(make(first_two(pictures, tmp_path), tmp_path / "short", **unit), tmp_path / "champion")
    found = orchestrator.update_model(
        tmp_path / "champion", pictures / "t2", "t2", tmp_path / "new", keep_evaluation=True, plugins=[NET]
    )
    longer = export(make(pictures, tmp_path / "long", **unit), tmp_path / "longer", keep_evaluation=True)
    assert found.card.tasks == longer.tasks, "the held-out examples are the same, whatever is in front"
    before, after, wanted = (read_folder(tmp_path / name)[1] for name in ("champion", "new", "longer"))
    assert after["frozen.safetensors"] == before["frozen.safetensors"]
    assert same(*(from_bytes(files["evaluation.safetensors"], "") for files in (after, wanted)))
    learned, others = (from_bytes(files["network-1000.safetensors"], "") for files in (after, wanted))
    assert learned.keys() == others.keys()
    for name, value in learned.items():
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=1e-4)
    one = found.card.members[0].trial_result
    assert one is not None
    again = load(tmp_path / "new")
    sets = [again.taken(task) for task in evaluation_sets(again.card, again.files, tmp_path, "new")]
    right = [int((torch.from_numpy(again.answers(o.inputs, t)) == o.labels).sum()) for t, o in enumerate(sets)]
    assert right == one.n_correct[-1]


def test_a_sweep_begins_from_it(pictures: Path, tmp_path: Path) -> None:
    champion = tmp_path / "champion"
    export(make(first_two(pictures, tmp_path), tmp_path / "short"), champion)
    small = {"seeds.search": 1, "seeds.finals": 0, "seeds.confirm": 1, "search.suggestions": 1, "search.batch": 1}
    spec = load_spec(base=next_spec(str(champion), str(pictures / "t2"), "t2"), overrides=small | {"limits": []})
    run, model = finished(spec, tmp_path / "run"), load(champion)
    (confirmed,) = run.trials().query("phase == 'confirm'").to_dict("records")
    assert confirmed["status"] == "completed"
    matrix = run.matrix(confirmed["key"])
    dataset = load_next("next", str(champion), pictures / "t2", "t2", None, tmp_path)
    assert dataset.facts.shape == (16,)
    assert "examples are 16 features of deep_frozen:Net in place of 1x10x10 inputs" in " ".join(dataset.notes)
    data = dataset.phase("confirm", 0.0)
    assert data.evaluation_tasks is not None
    for task in range(2):
        rows = data.evaluation_tasks == task
        answers = model.answers(torch.from_numpy(data.evaluation_inputs[rows]), task)
        assert float(np.mean(answers == data.evaluation_labels[rows])) == matrix.loc[f"t{task}", 1]
    # the same examples by another weights file are other data
    other = load_next("next", str(champion), pictures / "t2", "t2", None, tmp_path)
    assert other.fingerprint() == dataset.fingerprint()
    export(make(first_two(pictures, tmp_path / "again"), tmp_path / "again" / "run", seed=2), tmp_path / "second")
    second = load_next("next", str(tmp_path / "second"), pictures / "t2", "t2", None, tmp_path)
    assert second.fingerprint() != dataset.fingerprint()


def test_models_with_other_frozen_networks_are_compared(pictures: Path, tmp_path: Path) -> None:
    """Each gives the same raw examples to its own network; so does a model without one, also with a new task."""
    spec = {"spaces": {"ridge": {"features": 50}}}
    for seed in (1, 2):
        export(make(pictures, tmp_path / f"run-{seed}", seed=seed), tmp_path / f"model-{seed}")
    plain = fields(Path("no"), "class", ["ridge"]) | spec | {"scenarios": ["pics/class"]}
    for name, folder in (("0", pictures), ("few", first_two(pictures, tmp_path))):
        plain["streams"] = {"pics": {"folder": str(folder), "padding": 1}}
        export(finished(parse_spec(plain), tmp_path / f"run-{name}"), tmp_path / f"model-{name}")
    for first in (0, 1):
        champion, challenger = tmp_path / f"model-{first}", tmp_path / "model-2"
        report = orchestrator.gate(champion, challenger, plugins=[NET])
        scores = []
        for place in (champion, challenger):
            result = read_card(place).members[0].trial_result
            assert result is not None
            scores.append(result.scores(ACCURACY)[-1])
        found = {line.task: line.estimate for line in report.lines if line.task is not None}
        assert list(found) == ["t0", "t1", "t2"]
        assert list(found.values()) == pytest.approx((scores[1] - scores[0]).tolist(), abs=1e-12)
    report = orchestrator.gate(tmp_path / "model-few", tmp_path / "model-2", plugins=[NET])
    (new,) = [line for line in report.lines if line.kind == "new_task"]
    assert new.estimate == pytest.approx(scores[1][2], abs=1e-12), "a model that has no such class is never right"


def test_rows_of_a_table_go_through_it_too(tmp_path: Path) -> None:
    rows(["2023Q1", "2023Q2"]).to_parquet(tmp_path / "table.parquet")
    base = fields(tmp_path / "table.parquet", "domain", ["ridge"], stream={"features": {"module": WIDE}})
    run = finished(parse_spec(base | {"spaces": {"ridge": {"features": 0}}}), tmp_path / "run")
    card = export(run, tmp_path / "model")
    assert [column.name for column in card.columns] == ["amount", "pace", "age", "shop", "present"]
    assert card.inputs.shape == (8,)
    new = rows(["2023Q3"])
    with pytest.raises(DataError, match="needs the column 'pace'"):
        load(tmp_path / "model", WIDE).predict(new.drop(columns="pace"))
    out = load(tmp_path / "model", WIDE).predict(new)
    assert (out["class"] == out["outcome"]).mean() > 0.7
    orchestrator.update_model(tmp_path / "model", new, "2023Q3", tmp_path / "new", plugins=[WIDE])
    assert read_card(tmp_path / "new").task_names == ["2023Q1", "2023Q2", "2023Q3"]
    table = tmp_path / "new.parquet"
    new.to_parquet(table)
    report = orchestrator.gate(tmp_path / "model", tmp_path / "new", data=str(table), plugins=[WIDE])
    (line,) = [one for one in report.lines if one.task == "2023Q3"]
    assert line.n == len(new)


def onnx_gap(model: Model, place: Path, pixels: Any) -> float:
    """Return how far the answers of `model.onnx` to raw pixels are from the model's."""
    import onnxruntime

    (file,) = export_onnx(model, place)
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run(None, {"inputs": as_examples(model.card, pixels).numpy()})
    task = len(model.card.tasks) - 1
    return float(np.abs(found - model.probabilities(model.to_inputs(pixels), task)).max())


def test_onnx_takes_raw_pixels(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(make(pictures, tmp_path / "run", image_size=12), tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8), dtype=np.uint8)
    assert onnx_gap(load(tmp_path / "model"), tmp_path / "model", pixels) < 1e-5


def test_an_operation_that_onnx_has_not_is_said(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pooling 9 x 9 pixels to 2 x 2."""
    pytest.importorskip("onnxruntime")
    export(make(pictures, tmp_path / "run"), tmp_path / "model")
    said = r"--onnx: PyTorch cannot write the network as ONNX \(.*adaptive_avg_pool2d.*; the model itself is written"
    with pytest.raises(RunFolderError, match=said):
        export_onnx(load(tmp_path / "model"), tmp_path / "model")
    assert capfd.readouterr().out == ""


def test_a_network_of_torchvision_goes_all_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands, on built-in digits: export with ONNX, and answers to a folder of images."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = torchvision.models.get_model("resnet18", weights=None, num_classes=3)
    safetensors.torch.save_file(network.state_dict(), "resnet18.safetensors")
    features = {
        "module": "torchvision:resnet18", "weights": "resnet18.safetensors", "options": {"num_classes": 3},
        "image_size": 16,
    }  # fmt: skip
    spec = {
        "scenarios": ["split-digits/class"], "methods": ["ncm"], "limits": [], "spaces": {"ncm": {"features": 0}},
        "seeds": {"search": 1, "confirm": 1}, "search": {"suggestions": 1, "batch": 1},
        "streams": {"split-digits": {"features": features, "normalisation": "standard", "n_tasks": 2}},
    }  # fmt: skip
    finished(parse_spec(without_finals(spec)), tmp_path / "run")
    Path("resnet18.safetensors").rename("moved.safetensors")

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    export_it = ["export", "run", "-o", "model", "--onnx", "--method", "ncm", "--suggestion", "0"]
    assert call(*export_it) != 0
    assert "weights: there is no file 'resnet18.safetensors'; correct the path" in capsys.readouterr().err
    Path("moved.safetensors").rename("resnet18.safetensors")
    assert call(*export_it) == 0
    assert "on 512 features of torchvision:resnet18, which is in the folder" in capsys.readouterr().out
    assert Path("model/model.onnx").stat().st_size > 4e7
    Path("resnet18.safetensors").unlink()
    digits = load_dataset("digits", Path("nowhere"))
    Path("new").mkdir()
    for number in range(8):
        pixels = np.round(digits.test_inputs[digits.test_labels < 4][number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(f"new/{number}.png")
    assert call("predict", "model", "new", "-o", "out.csv") == 0
    out = pd.read_csv("out.csv")
    right = digits.test_labels[digits.test_labels < 4][:8]
    assert (out["class"].to_numpy() == right).mean() > 0.6
    card = read_card("model")
    assert card.versions["torchvision"] == torchvision.__version__


def test_code_in_front_is_not_imported_unasked(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(first_two(pictures, tmp_path), tmp_path / "run")
    place = tmp_path / "model"
    export(run, place)
    (tmp_path / "deep_frozen.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.delitem(sys.modules, "deep_frozen")
    again, new = orchestrator.open_run(run.path), pictures / "t2"
    calls: list[Callable[[], object]] = [
        lambda: orchestrator.export_model(again, tmp_path / "other", WANTED),
        lambda: orchestrator.load_model(place),
        lambda: orchestrator.update_model(place, new, "t2", tmp_path / "new"),
        lambda: orchestrator.update_model(place, new, "t2", tmp_path / "new", from_run=again),
        lambda: orchestrator.gate(place, place),
    ]
    for call in calls:
        with pytest.raises(RunFolderError, match=f"pass --plugin {NET}"):
            call()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (CODE.replace("nn.ReLU()", "nn.Sigmoid()"), "gives other features than when it was exported; use the code"),
        (
            CODE.replace("(4)", "(5)").replace(" 4, 3", " 5, 3"),
            "were kept are of another network: it has 'body.0.weight' of",
        ),
        ("class Net: pass", r"features.module: 'deep_frozen:Net' is a type and no subclass of torch.nn.Module"),
        (CODE.replace("class Net(", "class Other("), r"features.module: cannot import 'deep_frozen:Net'"),
    ],
)
def test_a_network_that_has_changed_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    export(make(first_two(pictures, tmp_path), tmp_path / "run"), tmp_path / "model")
    (tmp_path / "deep_frozen.py").write_text(code)
    monkeypatch.delitem(sys.modules, "deep_frozen")
    with pytest.raises(RunFolderError, match=message):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(frozen=None), "frozen: expected it with data.features"),
        (lambda card: card["data"].update(features=None), "frozen: expected it with data.features"),
        (lambda card: card["frozen"].update(n_features=9), "frozen: it gives 9 features, and the networks take [16]"),
        (
            lambda card: card["frozen"].update(shape=[3, 8, 8]),
            "features: the weights that were kept are of another network",
        ),
        (lambda card: card["files"].pop("frozen.safetensors"), "frozen.safetensors is not listed in its card"),
    ],
)
def test_a_damaged_front_is_refused(
    pictures: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    place = tmp_path / "model"
    export(make(first_two(pictures, tmp_path), tmp_path / "run"), place)
    card = json.loads((place / "card.json").read_text())
    change(card)
    (place / "card.json").write_text(json.dumps(card))
    with pytest.raises(RunFolderError) as caught:
        load(place)
    assert message in str(caught.value)
