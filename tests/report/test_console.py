"""The console: untrusted text stays text, and no output fails to be encoded."""

from __future__ import annotations

import re
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any

import pytest
from rich import box
from rich.console import RenderableType
from rich.control import Control
from rich.table import Table
from rich.text import Text

from orchestrator.report.console import PlainConsole, make_console

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[1A\x1b[2K\x9b31m\x7f\r\b\u202e\u2066\u200f\u061c"
SPELLED = r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[1A\x1b[2K\x9b31m\x7f\r\x08\u202e\u2066\u200f\u061c"
"""`ESCAPES` as the screen shows it."""


def screen(*contents: RenderableType, **options: Any) -> str:
    """Return what a terminal receives."""
    console = PlainConsole(file=StringIO(), width=260, force_terminal=True, color_system="standard")
    console.print(*contents, **options)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def raw(shown: str) -> set[str]:
    """Return the control characters in a text, without line breaks and Rich's colours."""
    return {character for character in re.sub(r"\x1b\[[0-9;]*m", "", shown) if not character.isprintable()} - {"\n"}


def test_a_file_gets_wide_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    assert not console.is_terminal
    console.print("x" * 180, style="bold red")
    assert capsys.readouterr().out == "x" * 180 + "\n"


@pytest.mark.parametrize("text", ["[bold]x[/foo]", "[/]", "[link=https://evil.example]replay[/link]", ":smile:"])
def test_a_string_is_never_markup(text: str) -> None:
    table = Table("head [/b]", title=f"title {text}")
    table.add_row(text)
    for options in ({}, {"markup": True, "emoji": True, "highlight": True}):
        assert screen(text, **options) == f"{text}\n"
        assert screen(table, **options).count(text) == 2


def test_control_characters_are_spelled_out() -> None:
    table = Table(f"head {ESCAPES}", title=f"title {ESCAPES}")
    table.add_row(f"cell {ESCAPES}\nnext")
    shown = screen(f"line {ESCAPES}\nnext\tone") + screen(table, width=250)
    for place in ("line", "head", "title", "cell"):
        assert f"{place} {SPELLED}" in shown
    assert shown.count(r"\nnext") == 2
    assert r"next\tone" in shown
    assert raw(shown) == set()


def test_our_own_styles_lines_and_controls_stay() -> None:
    assert screen(Text("one\ntwo", style="red")) == "\x1b[31mone\x1b[0m\n\x1b[31mtwo\x1b[0m\n"
    assert screen(Text("a\x1b[2Jb")) == "a\\x1b[2Jb\n"
    assert "\x1b[2J" in screen(Control.clear())
    assert screen("für 😀 – 日本") == "für 😀 – 日本\n"


def test_spelled_out_text_keeps_columns_aligned() -> None:
    table = Table("a", "b")
    table.add_row("\x1b" * 40, "beside")
    table.add_row("x", "below")
    found = re.sub(r"\x1b\[[0-9;]*m", "", screen(table)).splitlines()
    assert len({len(line) for line in found[1:]}) == 1
    assert sum(line.count(r"\x1b") for line in found) == 40


@pytest.mark.parametrize(
    ("encoding", "spelled"),
    [
        ("ascii", r"0.9 +/- 0.1 - >= 2 lambdaSigma^2 ... \u65e5 caf\xe9"),
        ("latin-1", r"0.9 ± 0.1 - >= 2 lambdaSigma² ... \u65e5 café"),
        ("utf-8", "0.9 ± 0.1 – ≥ 2 λΣ² … 日 café"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(encoding: str, spelled: str) -> None:
    file = BytesIO()
    text = "0.9 ± 0.1 – ≥ 2 λΣ² … 日 café"
    console = PlainConsole(file=TextIOWrapper(file, encoding=encoding), width=120)
    table = Table(text, "next", box=box.SIMPLE_HEAD)
    table.add_row(text, "x")
    table.add_row(Text(text), "x")
    console.print(text)
    console.print(table)
    console.file.flush()
    first, *rows = file.getvalue().decode(encoding).splitlines()
    assert first == spelled
    assert sum(spelled in row for row in rows) == 3


def test_piped_output_follows_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, width in (("50", 50), ("0", 200), ("wide", 200)):
        monkeypatch.setenv("COLUMNS", asked)
        make_console().print("word " * 60)
        assert max(map(len, capsys.readouterr().out.splitlines())) in range(width - 5, width + 1)
