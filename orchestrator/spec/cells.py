"""The cells of a sweep: each scenario with each method, and what is searched in it."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import SearchSpace
from strategies import IncrementalType


@dataclass(frozen=True)
class Cell:
    """One scenario × method with what is searched in it."""

    stream: str
    incremental_type: IncrementalType
    method: str
    space: SearchSpace

    @property
    def scenario(self) -> str:
        """Return `STREAM/TYPE`."""
        return f"{self.stream}/{self.incremental_type}"

    @property
    def name(self) -> str:
        """Return `STREAM/TYPE METHOD`, the cell's name in the tables."""
        return f"{self.scenario} {self.method}"

    @property
    def is_searched(self) -> bool:
        """Return whether there is anything to search."""
        return bool(self.space.distributions)


def split_scenario(scenario: str) -> tuple[str, IncrementalType]:
    """Return stream and incremental type of a valid scenario."""
    stream, _, kind = scenario.partition("/")
    return stream, kind  # type: ignore[return-value]
