"""The notebook of the documentation runs from top to bottom, and shows what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.mark.ray
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[dev]'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept in the repository"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [shown_by(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "notebook" in shown[0]["text/html"]
    assert "replay" in shown[1]["text/html"]
    assert "naive: " in shown[2]["stdout"]
    assert "average_accuracy" in shown[3]["text/html"]
    assert "<table" in shown[4]["text/html"]
    assert "image/png" in shown[5]
    assert "image/png" in shown[6]
    assert (tmp_path / "answer.html").stat().st_size > 500_000


def shown_by(cell: Any) -> dict[str, str]:
    """Return what a cell shows: kind of content -> content; what it prints is `stdout`."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        assert output.output_type != "error", output.get("evalue")
        found |= {output.name: output.text} if output.output_type == "stream" else dict(output.get("data", {}))
    return found
