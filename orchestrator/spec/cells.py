"""The cells of a sweep: each scenario with each method, and what is searched in it."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import SearchSpace
from strategies import IncrementalType, Method, find_method


@dataclass(frozen=True)
class Cell:
    """One scenario × method with what is searched in it.

    Args:
        stream: name of the stream.
        incremental_type: what is known at inference.
        method: the method as the sweep names it.
        space: what is searched.
        variant_of: the method behind a variant; empty if `method` is one.
    """

    stream: str
    incremental_type: IncrementalType
    method: str
    space: SearchSpace
    variant_of: str = ""

    @property
    def scenario(self) -> str:
        """Return `STREAM/TYPE`."""
        return f"{self.stream}/{self.incremental_type}"

    @property
    def name(self) -> str:
        """Return `STREAM/TYPE METHOD`, the cell's name in the tables."""
        return f"{self.scenario} {self.method}"

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that entries for it may have, of which the last wins: its method's, then its own."""
        return tuple(dict.fromkeys([self.variant_of or self.method, self.method]))

    @property
    def found(self) -> Method:
        """Return the method itself."""
        return find_method(self.names[0])

    @property
    def is_searched(self) -> bool:
        """Return whether there is anything to search."""
        return bool(self.space.distributions)


def split_scenario(scenario: str) -> tuple[str, IncrementalType]:
    """Return stream and incremental type of a valid scenario."""
    stream, _, kind = scenario.partition("/")
    return stream, kind  # type: ignore[return-value]
