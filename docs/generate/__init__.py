"""The reference pages, written from the code: spec fields, streams and metrics, methods, tables, command line, API."""

from __future__ import annotations

from pathlib import Path

from generate.command_line import command_line_page, exit_codes_page
from generate.methods import methods_page
from generate.python import python_page
from generate.spec import spec_page
from generate.streams import streams_page
from generate.tables import tables_page


def write(folder: Path) -> None:
    """Write every reference page into `folder`, and nothing where a page has not changed."""
    folder.mkdir(exist_ok=True)
    pages = {
        "spec": spec_page(),
        "streams": streams_page(),
        "methods": methods_page(),
        "tables": tables_page(),
        "command-line": command_line_page(),
        "exit-codes": exit_codes_page(),
        "python": python_page(),
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
