"""Input from strangers: specs that would run code, names that would leave the run folder, tables that are no data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.errors import OrchestratorError, SpecError
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
    spec, trial = make_spec(methods=["naive", "joint"]), make_trial()
    run = Run.create(tmp_path / "run", spec)
    outside = tmp_path / "outside.pt"
    outside.write_bytes(b"years of work")
    row: dict[str, Any] = trial_row(trial, 0, make_result(trial), {})
    rows = accuracy_rows(trial, 0, make_result(trial))
    for key in ("../../outside", str(tmp_path / "outside"), "../spec"):
        run.write_trial(trial.key, row | {"key": key}, [each | {"key": key} for each in rows])
        with pytest.raises(OrchestratorError):
            api.recorded_trial(Run.open(tmp_path / "run"), "unknown")
        (run.path / "checkpoints").mkdir(exist_ok=True)
        with run.locked():
            run.fill_intransigence()
            run.delete_used_checkpoints()
        assert outside.read_bytes() == b"years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.pt", "run"]
