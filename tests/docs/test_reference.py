"""The reference pages, as they are written from the code."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("generate")


@pytest.mark.parametrize(
    ("field", "default"),
    [("weight_decay", "0.0"), ("padding", "0"), ("epochs", "5"), ("diagnostics", "false"), ("iterations", "null")],
)
def test_defaults_are_those_of_a_spec(field: str, default: str, generate: ModuleType) -> None:
    """A default of 0 is not false, nor one of 1 true, though Python has them equal."""
    (line,) = [line for line in generate.spec_page().splitlines() if line.startswith(f"| `{field}` |")]
    assert f"| `{default}` |" in line


def test_every_table_has_its_columns(generate: ModuleType) -> None:
    page = generate.tables_page()
    for column in ("during_task", "n_given", "anytime_average", "worst_case_average"):
        assert f"| `{column}` |" in page
