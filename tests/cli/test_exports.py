"""The commands `export`, `compare` and `ls`."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from orchestrator.cli.shared.exits import EXIT_INCOMPLETE
from tests.cli.conftest import Mistake, RunCli, RunFolder

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = ("latex", "markdown", "csv", "json")


@pytest.mark.parametrize("format", FORMATS)
def test_export_prints_a_table(cli: RunCli, run_folder: RunFolder, format: str) -> None:
    code, out, err = cli("export", run_folder[0], "--format", format)
    assert (code, err) == (0, "")
    assert "naive" in out
    assert "split-digits/task" in out


def test_export_needs_one_thing_to_export(mistake: Mistake, run_folder: RunFolder) -> None:
    path, _ = run_folder
    said = "expected one of --format latex|markdown|csv|xlsx|json, --methods-paragraph or --bibtex"
    assert "name the folder of the model with -o FOLDER; or ask for --format latex" in mistake("export", path)
    assert f"{said}, got 2 of them" in mistake("export", path, "--bibtex", "--format", "csv")
    assert "name a file with -o FILE" in mistake("export", path, "--format", "xlsx")
    assert "--metric: it chooses what a table shows" in mistake("export", path, "--bibtex", "--metric", "seconds")


def test_export_other_metrics(cli: RunCli, mistake: Mistake, run_folder: RunFolder) -> None:
    path, _ = run_folder
    code, out, _ = cli("export", path, "--format", "csv", "--metric", "kept_bytes", "--metric", "average_accuracy")
    assert code == 0
    assert [row["metric"] for row in csv.DictReader(io.StringIO(out))] == ["kept_bytes", "average_accuracy"]
    message = mistake("export", path, "--format", "csv", "--metric", "accurcy")
    assert "--metric: expected a metric that this answer has, got 'accurcy'; choose from: average, " in message
    assert "worst_forgetting" in message
    assert "seconds" in message


def test_export_to_a_file_replaces_it(cli: RunCli, run_folder: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.md"
    for _ in range(2):
        code, out, _ = cli("export", run_folder[0], "--format", "markdown", "-o", file)
        assert (code, out) == (0, f"written to {file}\n")
        assert file.read_text(encoding="utf-8").startswith("**split-digits/task**")
    assert os.listdir(file.parent) == ["table.md"]
    (tmp_path / "link.md").symlink_to(file)
    file.write_text("old")
    assert cli("export", run_folder[0], "--bibtex", "-o", tmp_path / "link.md")[0] == 0
    assert file.read_text() == "% without a source: naive\n"
    assert (tmp_path / "link.md").is_symlink()


def test_export_a_workbook(cli: RunCli, mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    assert cli("export", run_folder[0], "--format", "xlsx", "-o", tmp_path / "a.xlsx")[0] == 0
    assert openpyxl.load_workbook(tmp_path / "a.xlsx").sheetnames == ["table", "numbers", "notes"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openpyxl", None)
        message = mistake("export", run_folder[0], "--format", "xlsx", "-o", tmp_path / "b.xlsx")
    assert "pip install 'continual-sweep[report]'" in message
    assert not (tmp_path / "b.xlsx").exists()


@pytest.mark.parametrize("place", ["{tmp}", "{tmp}/file/below.md", "/dev/full", "/proc/nope/x.md", ""])
def test_export_where_nothing_can_be_written(
    mistake: Mistake, run_folder: RunFolder, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    message = mistake("export", run_folder[0], "--format", "markdown", "-o", place.format(tmp=tmp_path))
    assert "-o" in message
    assert os.listdir(tmp_path) == ["file"]
    assert Path("/dev/full").is_char_device()


def test_export_an_incomplete_and_an_empty_run(cli: RunCli, run_folder: RunFolder, tmp_path: Path) -> None:
    part = shutil.copytree(run_folder[0], tmp_path / "part")
    (part / "trials" / f"{run_folder[1]['confirm']}.parquet").unlink()
    code, out, err = cli("export", part, "--format", "markdown")
    assert code == EXIT_INCOMPLETE
    assert "- Not final: 1 trial of this sweep is missing, at most." in out
    assert err == "note: 1 trial is missing, so this table is not final\n"
    (tmp_path / "spec.yaml").write_text("{limits: ['worst_forgetting <= 0.05']}")
    for format in FORMATS:
        code, out, _ = cli("export", tmp_path, "--format", format)
        assert code == EXIT_INCOMPLETE
        assert "replay" in out
    assert cli("export", tmp_path, "--methods-paragraph")[0] == 0
    assert "Nothing was measured on the test split." in cli("export", tmp_path, "--format", "json")[1]
    assert cli("export", tmp_path, "--format", "xlsx", "-o", tmp_path / "a.xlsx")[0] == EXIT_INCOMPLETE


@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_of_older_versions(cli: RunCli, version: int) -> None:
    run = FIXTURES / f"run-schema-{version}"
    for format in FORMATS:
        code, out, _ = cli("export", run, "--format", format)
        assert code == 0
        assert "replay" in out
    assert "1 seed, so there is no interval" in cli("export", run, "--format", "markdown")[1]
    assert "Every suggestion ran on all search seeds." in cli("export", run, "--methods-paragraph")[1]
    assert "robins1995rehearsal" in cli("export", run, "--bibtex")[1]
    code, out, _ = cli("compare", run, FIXTURES / "run-schema-3")
    assert code == 0
    assert "none: too few seeds" in out


def test_compare(cli: RunCli, mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    path, _ = run_folder
    code, out, _ = cli("compare", path, path)
    assert code == 0
    assert "spec: the specs are equal" in out
    assert "paired, 2 seeds" in out
    read = json.loads(cli("compare", path, FIXTURES / "run-schema-1", "--json")[1])
    assert read["version"] == 1
    assert [cell["method"] for cell in read["cells"]] == ["naive"]
    assert read["only_second"] == ["split-digits/task joint", "split-digits/task replay"]
    assert "expected a run folder with spec.yaml" in mistake("compare", path, tmp_path)


def test_list(cli: RunCli, mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run_folder[0], tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "mine" / "spec.yaml").write_text("methods: [ewcc]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        code, out, _ = cli("ls")
        assert code == 0
        assert "runs/mine" in out
        assert "unreadable: runs/mine/spec.yaml: expected the spec of a run" in out
        (run,) = json.loads(cli("ls", "--json")[1])
        assert (run["state"], run["answers"]) == ("unreadable", {})
        assert "which does not exist" in mistake("ls", "nope")
        shutil.rmtree("runs")
        Path("runs").mkdir()
        assert cli("ls") == (0, "no runs below runs\n", "")
    code, out, _ = cli("ls", FIXTURES)
    assert (code, out.count("not summarised")) == (0, 4)
