"""The jobs of GitHub Actions and GitLab in the docs, whose shell is run; and the commands as users give them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import orchestrator
from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.cli.main import main
from orchestrator.core.errors import DataError
from tests.champions.conftest import QUARTERS, MakeRun, rows
from tests.docs.pages import blocks_of

N = 3000


@pytest.fixture
def folder(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a champion of two quarters and the rows of a quarter called 2024Q2."""
    monkeypatch.setattr(
        "tests.champions.conftest.rows", lambda quarters=QUARTERS, kinds="domain": rows(quarters, N, kinds)
    )
    run = make_run(quarters=QUARTERS[:2], methods=("replay",), training={"epochs": 4, "batch_size": 16})
    wanted = Wanted(method="replay", suggestion=0, keep_evaluation=True)
    orchestrator.export_model(run, tmp_path / "champion", wanted)
    rows(QUARTERS[2:3], N).assign(quarter="2024Q2").to_parquet(tmp_path / "next.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs() -> dict[str, dict[str, Any]]:
    found = [yaml.safe_load(b.text) for b in blocks_of("docs/how-to/gate.md") if b.language == "yaml"]
    return {"github": found[0], "gitlab": found[1]}


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as both services do: bash that stops at the first failure, in a pipe too."""
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = os.environ | {"PATH": place, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


def test_the_jobs_run_and_fail_with_the_gate(folder: Path) -> None:
    (script,) = [step["run"] for step in jobs()["github"]["jobs"]["gate"]["steps"] if "gate" in step.get("run", "")]
    done = shell(script, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("## ")
    assert "PASS" in summary
    lines = [line for line in jobs()["gitlab"]["gate"]["script"] if not line.startswith("pip ")]
    done = shell("\n".join(lines), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "gate.json").read_text())["outcome"] == "PASS"
    spoilt = rows(QUARTERS[:1], N).assign(quarter="2024Q2")
    spoilt["outcome"] = spoilt["outcome"].map({"c0": "c1", "c1": "c0"})
    spoilt.to_parquet(folder / "next.parquet")
    assert [shell(text, folder).returncode for text in (script, "\n".join(lines))] == [6, 6]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["orchestrator", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_commands(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(quarters=QUARTERS[:2], kind="task")
    assert command(monkeypatch, "export", run.path, "--method", "replay", "-o", tmp_path / "model") == 0
    shown = capsys.readouterr().out
    assert "accuracy on the test split:" in shown
    assert "Model: " in shown
    table = rows(QUARTERS[:2], kinds="class")
    table.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out.csv"
    assert command(monkeypatch, "predict", tmp_path / "model", tmp_path / "new.csv", "-o", out) == 0
    found = pd.read_csv(out)
    in_task = found["class"].isin(["c0", "c1"]) == (found["quarter"] == QUARTERS[0])
    assert in_task.all()  # the task column says which head answers
    assert f"{len(table)} examples: " in capsys.readouterr().out
    table.drop(columns="quarter").to_csv(tmp_path / "new.csv", index=False)
    assert command(monkeypatch, "predict", tmp_path / "model", tmp_path / "new.csv", "-o", out) == 2
    assert "no column 'quarter', which says the task of each row" in capsys.readouterr().err
    arguments = ("predict", tmp_path / "model", tmp_path / "new.csv", "--task", QUARTERS[1], "-o", out)
    assert command(monkeypatch, *arguments) == 0
    assert set(pd.read_csv(out)["class"]) <= {"c2", "c3"}
    assert command(monkeypatch, "predict", tmp_path / "model", tmp_path / "new.csv", "--task", "x", "-o", out) == 2
    assert (
        command(monkeypatch, "predict", tmp_path / "model", tmp_path / "new.csv", "--task", QUARTERS[1], "-o", "a.txt")
        == 2
    )
    assert "expected a file ending in .parquet or .csv" in capsys.readouterr().err


def test_options_of_models_and_of_texts_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "export", "nowhere") == 2
    assert "name the folder of the model with -o FOLDER" in capsys.readouterr().err
    assert command(monkeypatch, "export", "nowhere", "--bibtex", "--seed", "3", "--onnx") == 2
    assert "--seed, --onnx: only a model has this" in capsys.readouterr().err
    assert command(monkeypatch, "export", "nowhere", "-o", "x", "--seed", "3", "--ensemble") == 2
    assert "--seed, --ensemble: expected one of them" in capsys.readouterr().err


def test_kinds_and_gaps_of_new_rows(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_gaps(quarters: list[str] = QUARTERS, kinds: str = "domain") -> pd.DataFrame:
        frame = rows(quarters, kinds=kinds)
        frame.loc[frame.index % 10 == 0, ["age", "shop"]] = None
        frame.loc[frame.index % 10 == 5, "pace"] = None
        return frame

    monkeypatch.setattr("tests.champions.conftest.rows", with_gaps)
    run = make_run(stream={"missing": {"age": "indicator", "shop": "indicator", "pace": "drop"}})
    orchestrator.export_model(run, tmp_path / "model", Wanted(method="replay", suggestion=0))
    model = orchestrator.load_model(tmp_path / "model")
    frame = with_gaps(QUARTERS[:1]).head(12).drop(columns="outcome")
    frame.loc[1, "shop"] = "moon"  # no training row had it
    found = model.predict(frame)
    assert found["class"].isna().tolist() == [row % 10 == 5 for row in range(12)]
    # a row alone is answered as among others
    for row in (0, 1, 7):
        assert model.predict(frame.iloc[[row]])["p.c1"].item() == pytest.approx(found["p.c1"][row], abs=1e-12)
    broken = frame.copy()
    broken.loc[1, "amount"] = None
    with pytest.raises(DataError, match="column 'amount' has no value in row 2"):
        model.predict(broken)  # training had no gap there, so nothing says what one means
