"""LaTeX, Markdown, CSV, JSON and xlsx: what they hold, and that no name in them is a command."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.report.exports.exporting import export_table
from orchestrator.report.exports.latex import latex
from orchestrator.report.exports.markdown import markdown
from orchestrator.report.exports.sheets import INSTALL
from orchestrator.search.answers.full_answer import Answer
from tests.report.exports.answers import answer, five_methods, renamed

HOSTILE = (
    "der++", "\\input{x}", "a_b%c&d#e$f~g^h", "[x]", "*", "=cmd|' /C calc'!A0", "@SUM(1)", "--", "中文 é ł ß", "<b>|x",
    "`code`", "\x1b[2J\n\\end{table}", '"q"',
)  # fmt: skip
DOCUMENT = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer(five_methods())


def text(found: Answer, format: str) -> str:
    shown = export_table(found, format)  # type: ignore[arg-type]
    assert isinstance(shown, str)
    return shown


def test_latex_escapes_what_it_would_read() -> None:
    assert latex("der++ a_b 5% #&$") == r"der++ a\_b 5\% \#\&\$"
    assert latex("\\input{x}") == r"\textbackslash{}input$\lbrace$x$\rbrace$"
    assert latex("--[*]") == "-{}-{[}{*}{]}"
    assert latex("é 中 ß") == r"{\'{e}} U+4E2D {\ss}"
    assert latex("a\nb") == r"a\textbackslash{}nb"


def test_latex_of_a_table(found: Answer) -> None:
    lines = text(found, "latex").splitlines()
    assert r"joint{*} & 0.990 & 0.000 \\" in lines
    assert r"replay & \textbf{0.920 $\pm$ 0.050} & 0.020 \\" in lines
    assert r"si & 0.900 $\pm$ 0.124$^{\dagger}$ & 0.020 \\" in lines
    assert r"naive & 0.700$^{\ddagger}$ & 0.300$^{\ddagger}$ \\" in lines
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\label{tab:sweep}" in lines


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed: texlive-latex-recommended")
def test_latex_compiles_whatever_names_are(found: Answer, tmp_path: Path) -> None:
    tables = [text(found, "latex")]
    tables += [text(renamed(found, name, f"{name}/class"), "latex") for name in HOSTILE]
    # Each on a page of its own: LaTeX holds few floats back.
    (tmp_path / "paper.tex").write_text(DOCUMENT % "\\clearpage\n".join(tables), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"({len(tables)} pages" in done.stdout
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")


def test_markdown_escapes_what_it_would_read(found: Answer) -> None:
    assert markdown("a|b_c*<b>[x](y)`z`") == "a\\|b\\_c\\*&lt;b&gt;\\[x\\](y)\\`z\\`"
    for name in HOSTILE:
        lines = text(renamed(found, name, "s_t/task"), "markdown").splitlines()
        rows = [line for line in lines if line.startswith("|")]
        assert {line.replace("\\|", "").count("|") for line in rows} == {4}, name


def test_csv_holds_all_digits(found: Answer) -> None:
    rows = {(row["method"], row["metric"]): row for row in csv.DictReader(io.StringIO(text(found, "csv")))}
    assert len(rows) == 10
    si = rows["si", "average"]
    assert float(si["mean"]) == pytest.approx(0.9, abs=1e-15)
    assert float(si["half_width"]) == pytest.approx(0.1242068, abs=1e-6)
    assert (si["n_seeds"], si["is_told_apart_from_best"], si["limits"]) == ("3", "false", "met")
    assert rows["replay", "average"]["is_best"] == "true"
    assert rows["ewc", "average"]["is_told_apart_from_best"] == "true"
    assert rows["naive", "average"]["violated_limits"] == "worst_forgetting <= 0.1"
    assert rows["joint", "average"]["is_upper_bound"] == "true"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1"])
def test_csv_cells_are_no_formulas(found: Answer, name: str) -> None:
    cells = [row["method"] for row in csv.DictReader(io.StringIO(text(renamed(found, name, f"{name}/x"), "csv")))]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert any(cell.startswith("'") for cell in cells)


def test_json_is_plain(found: Answer) -> None:
    read = json.loads(text(found, "json"))
    assert (read["version"], read["objective"], len(read["rows"])) == (1, "average", 10)
    joint = next(row for row in read["rows"] if row["method"] == "joint")
    assert (joint["p_holm"], joint["is_told_apart_from_best"]) == (None, None)
    assert joint["mean"] == pytest.approx(0.99, abs=1e-15)
    assert read["notes"]


def test_a_workbook(found: Answer, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    content = export_table(renamed(found, "=1+1", "@x/task"), "xlsx")
    assert isinstance(content, bytes)
    book = openpyxl.load_workbook(io.BytesIO(content))
    assert book.sheetnames == ["table", "numbers", "notes"]
    rows = {row[0].value: row for row in book["table"].iter_rows()}
    assert rows["=1+1"][0].data_type == "s"
    assert rows["=1+1"][1].value == pytest.approx(0.92)
    assert rows["=1+1"][2].value == pytest.approx(0.049683, abs=1e-6)
    assert rows["=1+1"][1].font.bold
    assert not rows["si"][1].font.bold
    assert rows["si"][3].value == "†"
    numbers = list(book["numbers"].iter_rows(values_only=True))
    assert (len(numbers), numbers[0][:2]) == (11, ("scenario", "method"))
    assert not [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]


def test_a_workbook_without_openpyxl_says_what_installs_it(found: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UsageError, match="openpyxl is not installed") as raised:
        export_table(found, "xlsx")
    assert INSTALL in str(raised.value)
