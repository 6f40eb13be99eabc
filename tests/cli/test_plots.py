"""The command `plot`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Mistake, RunCli, RunFolder


def test_plot_writes_a_file_and_prints_its_caption(
    cli: RunCli, run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = run_folder
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("plot", path, "matrix")
    assert (code, err) == (0, "")
    assert out.startswith("matrix.pdf: Score on each task (column) after training on each task (row)")
    assert (tmp_path / "matrix.pdf").read_bytes().startswith(b"%PDF")
    assert cli("plot", path, "curves", "--format", "svg", "--width", "column")[0] == 0
    assert (tmp_path / "curves.svg").read_bytes().startswith(b"<?xml")


def test_the_file_name_says_the_format(cli: RunCli, run_folder: RunFolder, tmp_path: Path) -> None:
    path, _ = run_folder
    assert cli("plot", path, "bars", "-o", tmp_path / "a.PNG")[0] == 0
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert cli("plot", path, "bars", "-o", tmp_path / "b", "--format", "png")[0] == 0
    assert (tmp_path / "b").read_bytes().startswith(b"\x89PNG")


def test_plot_refuses_what_it_cannot_draw(mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    path, _ = run_folder
    assert "KIND: expected one of matrix, curves" in mistake("plot", path, "pie")
    assert "--format: expected one of pdf, svg, png, got 'jpg'" in mistake(
        "plot", path, "bars", "-o", tmp_path / "a.jpg"
    )
    assert "--format: expected one of pdf, svg, png, got 'gif'" in mistake("plot", path, "bars", "--format", "gif")
    both = mistake("plot", path, "bars", "--format", "pdf", "-o", tmp_path / "a.png")
    assert "got 'pdf'; drop one of the two" in both
    assert "choose from: split-digits/task" in mistake("plot", path, "bars", "--scenario", "nope")
    assert "expected a sweep with limits" in mistake("plot", path, "frontier")
    assert "got 1 scenario and 1 method in all of them" in mistake("plot", path, "critical-difference")
    assert "expected a run folder with spec.yaml" in mistake("plot", tmp_path, "bars")


def test_plot_cannot_write(mistake: Mistake, run_folder: RunFolder, tmp_path: Path) -> None:
    path, _ = run_folder
    (tmp_path / "file").touch()
    said = mistake("plot", path, "bars", "-o", tmp_path / "file" / "a.pdf")
    assert "Cannot write to" in said
    assert "Choose another -o." in said
    assert "got a folder" in mistake("plot", path, "bars", "-o", tmp_path, "--format", "pdf")


def test_a_run_without_rows(mistake: Mistake, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("{}")
    assert "expected completed trials" in mistake("plot", tmp_path, "bars")
