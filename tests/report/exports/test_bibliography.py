"""The literature of methods as BibTeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.report.exports import bibliography
from orchestrator.report.exports.bibliography import cited, entry_of, render_bibtex
from orchestrator.report.exports.papers import PAPERS
from strategies import STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES.own)
def test_every_source_of_our_methods_has_an_entry(name: str) -> None:
    """A new method brings its entry along, in `papers.py`."""
    for part in cited(STRATEGIES[name].paper):
        known = entry_of(part)
        assert known is not None, f"'{part}' of {name} has no entry in papers.py"
        first = part.split()[0].removesuffix(",")
        assert known[1].authors.startswith(first), f"'{part}' of {name} names another first author than its entry"


def test_every_entry_is_used_and_has_a_key_of_its_own() -> None:
    used = {part for strategy in STRATEGIES.own for part in cited(STRATEGIES[strategy].paper)}
    assert {entry[1].key for part in used if (entry := entry_of(part))} == {paper.key for paper in PAPERS.values()}
    assert len({paper.key for paper in PAPERS.values()}) == len(PAPERS)


def test_entries_of_a_run() -> None:
    text = render_bibtex(["naive", "ewc", "replay+lwf", "ewc"])
    assert re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE) == [
        "kirkpatrick2017ewc",
        "schwarz2018progress",
        "ritter2018kronecker",
        "robins1995rehearsal",
        "chaudhry2019tiny",
        "li2018lwf",
    ]
    assert text.startswith("% without a source: naive\n")
    assert "  title = {Overcoming Catastrophic Forgetting in Neural Networks},\n" in text
    assert "  eprint = {1612.00796},\n  archiveprefix = {arXiv},\n" in text
    assert render_bibtex(["naive"]) == "% without a source: naive\n"


class Plugin:
    paper = "Doe & Roe 2031, arXiv 3101.00001; Doe 2031: } @evil{x, \\input{y}"


def test_a_source_that_is_not_known_is_an_entry_of_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bibliography, "find_method", lambda name: Plugin)
    text = render_bibtex(["mine:Method"])
    assert "@misc{doe2031,\n  title = {{Doe \\& Roe 2031, arXiv 3101.00001}},\n  year = {2031},\n" in text
    assert "  eprint = {3101.00001}" in text
    assert text.count("@misc{") == 2
    body = re.sub(r"\\lbrace|\\rbrace", "", text)
    assert body.count("{") == body.count("}")


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="bibtex is not installed: texlive-binaries")
def test_bibtex_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = render_bibtex([name for name in STRATEGIES.own if not STRATEGIES[name].alone] + ["der++"])
    monkeypatch.setattr(bibliography, "find_method", lambda name: Plugin)
    (tmp_path / "all.bib").write_text(text + "\n" + render_bibtex(["mine:Method"]), encoding="utf-8")
    (tmp_path / "a.aux").write_text("\\citation{*}\n\\bibdata{all}\n\\bibstyle{plain}\n", encoding="utf-8")
    done = subprocess.run(["bibtex", "a"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "error" not in done.stdout.lower()
    n_entries = len(re.findall(r"^@", text, re.MULTILINE))
    assert (tmp_path / "a.bbl").read_text().count("\\bibitem") == n_entries + 2
