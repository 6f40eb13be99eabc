"""Leaves out the rows that only a run before a release needs, and lets pytest say how many those are."""

from __future__ import annotations

import pytest
import torch
from matrix import in_the_cut

from orchestrator.conformance import world


def pytest_configure(config: pytest.Config) -> None:
    world.device = torch.device(config.getoption("--device"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--conformance") == "all":
        return
    left_out = [item for item in items if (row := _row_of(item)) is not None and not in_the_cut(row)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _row_of(item: pytest.Item) -> object:
    return item.callspec.params.get("row") if hasattr(item, "callspec") else None
