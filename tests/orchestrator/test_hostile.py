"""Input from strangers: specs that would run code, names that would leave the run folder, tables that are no data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.errors import OrchestratorError, RunFolderError, SpecError
from orchestrator.run import Run
from orchestrator.spec import SweepSpec, parse_spec, parse_yaml
from orchestrator.tables import accuracy_rows, trial_row
from orchestrator.trial import TrialResult
from orchestrator.trialspec import TrialSpec

MakeSpec = Callable[..., SweepSpec]


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:os.system", "!!python/name:os.system"],
)
def test_a_spec_is_read_as_safe_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"evil\.yaml: expected YAML"):
        parse_yaml(f"name: {tag} ['touch owned']\n".encode(), "evil.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../up", "..", ".", "/etc/cron.d/x", "a/b", "a\\b", "~", ".hidden", "a\n", "a\x00b", "", "x" * 65, "s3://b"],
)
def test_a_name_cannot_leave_the_run_folder(name: str) -> None:
    with pytest.raises(SpecError, match="name"):
        parse_spec({"name": name})


def test_a_strangers_table_leads_no_file_out_of_its_folder(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """Whatever keys the rows hold, what ends a sweep touches nothing beside the run."""
    trial, joint = make_trial(), make_trial(method="joint")
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    run.write_trial(joint.key, trial_row(joint, 0, make_result(joint), {}), accuracy_rows(joint, 0, make_result(joint)))
    row: dict[str, Any] = trial_row(trial, 0, make_result(trial), {})
    rows = accuracy_rows(trial, 0, make_result(trial))
    places = {
        "../../outside": tmp_path / "outside",
        str(tmp_path / "outside"): tmp_path / "outside",
        "../spec": run.path / "spec",
        "a/../../../outside": tmp_path / "outside",
    }
    for folder in ("a", ".a", "..."):  # so that a temporary file beside the place has one too
        (run.path / "trials" / folder).mkdir()
    (run.path / "checkpoints").mkdir()
    for key, place in places.items():
        run.write_trial(trial.key, row | {"key": key}, [each | {"key": key} for each in rows])
        victims = {place.with_suffix(".pt"): b"years of work"}
        victims[place.with_suffix(".parquet")] = (run.path / "trials" / f"{trial.key}.parquet").read_bytes()
        for path, content in victims.items():
            path.write_bytes(content)
        with pytest.raises(OrchestratorError):
            api.recorded_trial(Run.open(tmp_path / "run"), "unknown")
        with run.locked():
            for what in (run.fill_intransigence, run.delete_used_checkpoints, lambda: api.compact(run.path)):
                with suppress(OrchestratorError):
                    what()
        assert {path: path.read_bytes() for path in victims} == victims
        with pytest.raises(RunFolderError, match="expected keys of 16 hexadecimal digits"):
            run.trials()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.parquet", "outside.pt", "run"]


def test_the_row_that_a_strangers_key_spoils_would_be_filled(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_trial: Callable[..., TrialSpec],
    make_result: Callable[..., TrialResult],
) -> None:
    """The test above would hold by itself where nothing is written."""
    run = Run.create(tmp_path / "run", make_spec(methods=["naive", "joint"]))
    for trial in (make_trial(method="joint"), make_trial()):
        result = make_result(trial)
        run.write_trial(trial.key, trial_row(trial, 0, result, {}), accuracy_rows(trial, 0, result))
    before = (run.path / "trials" / f"{trial.key}.parquet").read_bytes()
    run.fill_intransigence()
    assert (run.path / "trials" / f"{trial.key}.parquet").read_bytes() != before
