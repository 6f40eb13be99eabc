"""Checkpoints: what is loaded, what is refused, and that no code in them runs."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.core.placement import Placement
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.streams.datasets import Dataset
from orchestrator.trial import checkpoint as checkpoint_module
from orchestrator.trial import protocol as trial_module
from orchestrator.trial.checkpoint import Identity, identity_of, load_checkpoint, save_checkpoint
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.provenance import source_hash
from orchestrator.trial.result import TrialResult
from strategies import Learner
from strategies.methods.naive import Naive

CPU = torch.device("cpu")
ID = identity_of("k", CPU, [Naive])
PAYLOAD = {"next_task": 2, "n_correct": [[None, 3], [4, 5]], "weights": {"a": torch.arange(6.0)}, "text": "x"}


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "c.pt"
    save_checkpoint(path, ID, PAYLOAD)
    loaded = load_checkpoint(path, ID)
    assert loaded is not None
    assert torch.equal(loaded.pop("weights")["a"], PAYLOAD["weights"]["a"])  # type: ignore[index]
    assert loaded == {name: value for name, value in PAYLOAD.items() if name != "weights"}
    assert [p.name for p in path.parent.iterdir()] == ["c.pt"], "no temporary file is left"


def test_a_checkpoint_loads_without_unpickling_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", ID, PAYLOAD)
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    assert loaded["identity"] == ID
    assert torch.equal(loaded["payload"]["weights"]["a"], PAYLOAD["weights"]["a"])  # type: ignore[index]


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_file_is_ignored_and_not_executed(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "c.pt", tmp_path / "executed"
    content = {"magic": checkpoint_module._MAGIC, "identity": ID, "payload": Attack(trace)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    assert load_checkpoint(path, ID) is None
    assert not trace.exists()
    if how == "torch":
        torch.load(path, weights_only=False)
        assert trace.exists(), "the attack would have worked"


def test_an_absent_file_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "c.pt", ID) is None


@pytest.mark.parametrize("what", sorted(ID))
def test_a_checkpoint_of_another_identity_is_not_used(tmp_path: Path, what: str) -> None:
    save_checkpoint(tmp_path / "c.pt", ID, PAYLOAD)
    assert load_checkpoint(tmp_path / "c.pt", ID | {what: "other"}) is None
    assert load_checkpoint(tmp_path / "c.pt", ID) is not None


def test_an_identity_has_code_versions_and_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {
        "key": "k",
        "source": source_hash(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": "cpu",
    }.items() <= ID.items()
    assert identity_of("k", torch.device("cuda", 1), [Naive])["device"] == "cuda"
    (tmp_path / "method_of_a_user.py").write_text("from strategies import Replay\nclass Mine(Replay):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for addition in ("", "# mended\n"):
        with (tmp_path / "method_of_a_user.py").open("a") as file:
            file.write(addition)
        sys.modules.pop("method_of_a_user", None)
        found.append(identity_of("k", CPU, [importlib.import_module("method_of_a_user").Mine]))
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"method_of_a_user:Mine"}
    assert {"strategies.methods.replay:Replay", "strategies.contract:Strategy"} <= found[0].keys()
    unreadable = type("Typed", (Naive,), {"__module__": "nowhere"})
    assert identity_of("k", CPU, [unreadable])["nowhere:Typed"] == ""


def test_cpu_tensors_of_a_gpu_trial_stay_on_the_cpu(tmp_path: Path) -> None:
    """Such as the positions of random generators."""
    identity = ID | {"device": "cuda"}
    save_checkpoint(tmp_path / "c.pt", identity, {"progress": {"order": torch.Generator().get_state()}})
    loaded = load_checkpoint(tmp_path / "c.pt", identity)
    assert loaded is not None
    torch.Generator().set_state(loaded["progress"]["order"])


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"identity": ID},
        {"magic": "something else", "identity": ID, "payload": {}},
        {"magic": checkpoint_module._MAGIC, "identity": ID},
        {"magic": checkpoint_module._MAGIC, "key": "k", "payload": {}},
    ],
)
def test_a_foreign_file_is_none(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt", ID) is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_none(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, ID, PAYLOAD)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert load_checkpoint(path, ID) is None


def test_a_folder_in_its_place_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, ID) is None


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, full_device: Callable[[str], None]) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, ID, PAYLOAD)
    before = path.read_bytes()
    full_device(".c.pt")
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(path, ID, PAYLOAD | {"next_task": 3})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_crash_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, ID, PAYLOAD)

    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, ID, PAYLOAD | {"next_task": 3})
    loaded = load_checkpoint(path, ID)
    assert loaded is not None
    assert loaded["next_task"] == 2


# In a trial.


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def change_content(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def with_another_trial(path: Path) -> None:
    change_content(path, lambda content: content["identity"].update(key="f" * 16))


def with_other_code(path: Path) -> None:
    change_content(path, lambda content: content["identity"].update(source="f" * 12))


def with_other_device(path: Path) -> None:
    change_content(path, lambda content: content["identity"].update(device="cuda"))


def without_payload(path: Path) -> None:
    change_content(path, lambda content: content.pop("payload"))


def with_an_odd_payload(path: Path) -> None:
    change_content(path, lambda content: content.update(payload=[1, 2]))


def with_other_layout(path: Path) -> None:
    change_content(path, lambda content: content["payload"].pop("measured"))


def with_half_of_the_learner(path: Path) -> None:
    """Fail after counts, strategies and network are loaded, and random numbers were drawn for its heads."""
    change_content(path, lambda content: content["payload"]["learner"].pop("generators"))


DAMAGES = (
    remove,
    cut,
    with_another_trial,
    with_other_code,
    with_other_device,
    without_payload,
    with_an_odd_payload,
    with_other_layout,
    with_half_of_the_learner,
)


@pytest.fixture(scope="module")
def stopped(make_trial: Callable[..., TrialSpec], digits: Dataset) -> tuple[TrialSpec, bytes, TrialResult]:
    """Return a trial, its checkpoint from a stop after task 3, and its result without a stop."""
    spec, data = make_trial(method="replay"), digits.phase("confirm", 0.1)

    def stop(after: int, row: object, stream: object) -> None:
        if after == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        path = Path(folder) / "c.pt"
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec, data, report=stop, checkpoint=path)
        return spec, path.read_bytes(), run_trial(spec, data)


def test_a_trial_continues_from_its_checkpoint(
    stopped: tuple[TrialSpec, bytes, TrialResult], digits: Dataset, tmp_path: Path
) -> None:
    spec, content, expected = stopped
    (tmp_path / "c.pt").write_bytes(content)
    rows: list[int] = []
    data = digits.phase("confirm", 0.1)
    result = run_trial(spec, data, report=lambda after, row, stream: rows.append(after), checkpoint=tmp_path / "c.pt")
    assert rows == [3, 4]
    assert result.n_correct == expected.n_correct


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_trial_starts_over_from_a_bad_checkpoint(
    stopped: tuple[TrialSpec, bytes, TrialResult], digits: Dataset, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    spec, content, expected = stopped
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    damage(path)
    rows: list[int] = []
    data = digits.phase("confirm", 0.1)
    result = run_trial(spec, data, report=lambda after, row, stream: rows.append(after), checkpoint=path)
    assert result.status == "completed"
    assert rows == [-1, 0, 1, 2, 3, 4]
    assert result.n_correct == expected.n_correct
    assert not path.exists()


@pytest.mark.parametrize("fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_checkpoint_too_large_for_memory_is_kept(
    make_trial: Callable[..., TrialSpec],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
) -> None:
    def refuse(self: Learner, state: dict[str, Any]) -> None:
        raise fault

    spec, data, path = make_trial(), digits.phase("confirm", 0.1), tmp_path / "c.pt"
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        patch.setattr(trial_module, "delete_checkpoint", lambda path: None)
        run_trial(spec, data, checkpoint=path)
    before = path.read_bytes()
    monkeypatch.setattr(Learner, "load_state_dict", refuse)
    assert run_trial(spec, data, checkpoint=path).status == "error"
    assert path.read_bytes() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_stop_inside_a_task_resumes_on_a_gpu(
    make_trial: Callable[..., TrialSpec], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    spec, data = make_trial(method="replay"), digits.phase("confirm", 0.1)
    save = trial_module.save_checkpoint

    def stop(path: Path, identity: Identity, payload: dict[str, Any]) -> None:
        save(path, identity, payload)
        if payload["next_task"] == 2 and payload["learner"]["progress"]["n_steps"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trial_module, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, data, Placement("cuda"), checkpoint=tmp_path / "c.pt")
    monkeypatch.setattr(trial_module, "save_checkpoint", save)
    rows: list[int] = []
    result = run_trial(
        spec, data, Placement("cuda"), lambda after, row, stream: rows.append(after), checkpoint=tmp_path / "c.pt"
    )
    assert result.status == "completed", result.reason
    assert rows == [2, 3, 4]
    assert result.n_correct == run_trial(spec, data, Placement("cuda")).n_correct


def test_a_trial_goes_on_without_a_refused_checkpoint(
    make_trial: Callable[..., TrialSpec],
    digits: Dataset,
    tmp_path: Path,
    full_device: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    refused: list[OSError] = []
    save = trial_module.save_checkpoint

    def note(path: Path | StoredFile, identity: Identity, payload: dict[str, Any]) -> None:
        full_device(".c.pt")
        try:
            save(path, identity, payload)
        except OSError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(trial_module, "save_checkpoint", note)
    spec, data = make_trial(), digits.phase("confirm", 0.1)
    result = run_trial(spec, data, checkpoint=tmp_path / "c.pt")
    assert len(refused) > 4
    assert {error.errno for error in refused} == {errno.ENOSPC}
    assert result.status == "completed"
    assert result.n_correct == run_trial(spec, data).n_correct
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_written_as_often_as_asked(
    make_trial: Callable[..., TrialSpec], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int | None]] = []

    def note(path: Path, identity: Identity, payload: dict[str, Any]) -> None:
        progress = payload["learner"]["progress"]
        written.append((payload["next_task"], progress["n_steps"] if progress else None))

    monkeypatch.setattr(trial_module, "save_checkpoint", note)
    spec, data = make_trial(training={"iterations": 2}), digits.phase("confirm", 0.1)
    run_trial(spec, data, checkpoint=tmp_path / "c.pt")
    assert written == []
    monkeypatch.setattr(trial_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    run_trial(spec, data, checkpoint=tmp_path / "c.pt")
    inside = [(task, step) for task in range(5) for step in (1, 2)]
    between = [(task, None) for task in range(1, 5)]  # none after the last task
    assert sorted(written, key=str) == sorted(inside + between, key=str)
