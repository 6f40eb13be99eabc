"""Sphinx's settings. `make docs` builds the site into `build/docs`; a warning, such as a broken link, is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import generate  # noqa: E402

generate.write(ROOT / "docs" / "reference")

project = "continual-sweep"
author = "The continual-sweep maintainers"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
exclude_patterns = ["_static"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
default_role = "code"
"""Docstrings write code between single backticks."""


_MARKUP = re.compile(r"(?<!\*)\*(?!\*)|\||_(?=\W|$)")


def _short_signature(
    app: Any, what: str, name: str, found: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Replace the constructor of a pydantic model: its fields have a page of their own."""
    return ("(**fields)", None) if what == "class" and hasattr(found, "model_fields") else None


def _plain_text(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Escape what docstrings mean as plain text and reStructuredText does not: `(B, *shape)`, `|θ|`, `name_`."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[number] = "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\g<0>", part) for part in parts)


def setup(app: Any) -> None:
    """Register what changes signatures."""
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("autodoc-process-docstring", _plain_text, priority=400)
