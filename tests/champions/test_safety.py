"""A stranger's model folder is safe to open: nothing in it runs, and what is damaged or foreign is refused by name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import orchestrator
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.champions.tensors import from_bytes, same, to_bytes
from orchestrator.core.errors import RunFolderError
from tests.champions.conftest import QUARTERS, MakeRun


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch pwned",)


@pytest.fixture
def model(make_run: MakeRun, tmp_path: Path) -> Path:
    run = make_run(quarters=QUARTERS[:2])
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", suggestion=0))
    return tmp_path / "model"


def refused(place: Path) -> str:
    with pytest.raises(RunFolderError) as caught:
        orchestrator.load_model(place)
    return str(caught.value)


def edit(model: Path, change: Callable[[dict[str, object]], object]) -> None:
    card = json.loads((model / "card.json").read_text())
    change(card)
    (model / "card.json").write_text(json.dumps(card))


def test_nested_state_survives() -> None:
    state = {
        "a": torch.arange(6, dtype=torch.uint8).view(2, 3).T, "b": [None, True, 3, 2.5, "x", float("inf")],
        "c": {1: torch.tensor(3.0), "y": (1, [torch.zeros(0, dtype=torch.float64)])}, "d": torch.tensor([True, False]),
    }  # fmt: skip
    assert same(from_bytes(to_bytes(state), "here"), state)
    with pytest.raises(TypeError, match="holds a set at '/0'"):
        to_bytes({"a": {1}})


def test_a_pickle_is_no_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = next(model.glob("state-*.safetensors"))
    name.write_bytes(pickle.dumps(Evil()))
    assert f"{name.name} is not what was written" in refused(model)
    import hashlib

    edit(model, lambda card: card["files"].update({name.name: hashlib.sha256(name.read_bytes()).hexdigest()}))  # type: ignore[attr-defined]
    assert "expected the state of a model" in refused(model)
    assert not (tmp_path / "pwned").exists()


def test_code_that_the_card_names_is_not_imported(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("import pathlib; pathlib.Path('pwned').touch()\nclass Net: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    edit(model, lambda card: card["trial"].update(model={"name": "evil_module:Net"}))  # type: ignore[attr-defined]
    assert "pass --plugin evil_module:Net" in refused(model)
    own = {"model": {"name": "mlp", "hidden": [12]}, "method": "evil_module:Net"}
    edit(model, lambda card: card["trial"].update(own))  # type: ignore[attr-defined]
    assert "evil_module" in refused(model)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format="other"), "expected the card of a model of this package"),
        (lambda card: card.update(version=99), "expected version 1 of the card, got 99"),
        (lambda card: card.update(extra=1), "the card is damaged: extra"),
        (lambda card: card.update(members=[]), "members: expected one or more"),
        (lambda card: card["tasks"][0].update(classes=[0, 99]), "the classes of '2023Q1' are none of class_names"),
        (lambda card: card["inputs"].update(shape=[3]), "columns: they make"),
        (lambda card: card["files"].update({"../../etc/passwd": "0"}), "is no name of a file in it"),
        (lambda card: card["trial"]["model"].update(hidden=[13]), "its parts do not fit each other"),
        (lambda card: card["trial"].update(method="ewc"), "was trained by"),
        (lambda card: card["trial"].update(seed="x"), "the card is damaged: trial.seed"),
    ],
)
def test_a_damaged_card_is_refused(model: Path, change: Callable[[dict[str, object]], object], message: str) -> None:
    edit(model, change)
    assert message in refused(model)


def test_a_card_of_before_frozen_networks_is_read(model: Path) -> None:
    edit(model, lambda card: card.pop("frozen"))
    assert orchestrator.load_model(model).frozen is None


def test_damaged_files_are_all_named(model: Path, tmp_path: Path) -> None:
    network, state = (next(model.glob(f"{kind}-*.safetensors")) for kind in ("network", "state"))
    network.write_bytes(network.read_bytes()[:-1] + b"\xff")
    state.unlink()
    found = refused(model)
    assert f"{network.name} is not what was written" in found
    assert f"{state.name} is missing" in found
    assert "'nowhere' is no model: it has no card.json" in refused(Path("nowhere"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "card.json").write_text("[1, 2")
    assert "the card is damaged" in refused(tmp_path / "plain")


def test_a_link_is_no_file_of_a_model(model: Path, tmp_path: Path) -> None:
    file = next(model.glob("network-*.safetensors"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert f"{file.name} is missing" in refused(model)
