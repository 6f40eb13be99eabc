"""The fields of a sweep's spec: seeds, search settings, resources, and the cells that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestrator.core.text import nearest as nearest
from orchestrator.streams.facts import Phase
from search_spaces import Range, SearchSpace, Value
from strategies import IncrementalType

FIRST_CONFIRM_SEED = 1000
"""A count of confirm seeds starts here, a count of search seeds at 0, so that counts never overlap below 1000."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seeds(_Frozen):
    """Seeds of the two phases, as counts or lists; never overlapping."""

    search: int | tuple[int, ...] = Field(3, description="seeds of every suggestion, on the validation split")
    confirm: int | tuple[int, ...] = Field(5, description="seeds of each chosen suggestion, on the test split")

    def of(self, phase: Phase) -> tuple[int, ...]:
        """Return the seeds of `phase`."""
        if phase == "search":
            return self.search if isinstance(self.search, tuple) else tuple(range(self.search))
        if isinstance(self.confirm, tuple):
            return self.confirm
        return tuple(range(FIRST_CONFIRM_SEED, FIRST_CONFIRM_SEED + self.confirm))


class SearchSettings(_Frozen):
    """How each cell is searched."""

    suggestions: int = Field(
        24, ge=1, le=100_000, description="suggestions of each searched cell; the same for every method"
    )
    batch: int = Field(4, ge=1, le=1_000, description="suggestions that are asked at once, before any of them is told")
    sampler: Literal["tpe", "random", "gp"] = Field("tpe", description="Optuna sampler; random ignores limits")
    seed: int = Field(0, ge=0, description="seed of the sampler")
    limits_hold_for: Literal["mean", "every_seed"] = Field(
        "mean",
        description="a suggestion is feasible where its mean over seeds is, or where each of its seeds is",
    )


class Request(_Frozen):
    """What one trial asks of the cluster; a field left out falls back to the general one."""

    cpus: float | None = Field(None, ge=0, description="CPUs a trial; 1 by default")
    gpus: float | None = Field(None, ge=0, description="GPUs a trial, fractions too; 0 by default")
    threads: int | None = Field(None, ge=1, description="CPU threads a trial; 1 by default")
    device: Literal["cpu", "cuda"] | None = Field(None, description="cuda where gpus > 0, else cpu, by default")


class Resources(Request):
    """What trials ask of the cluster: in general, by scenario, and by method (which wins)."""

    cpus: float = Field(1.0, ge=0, description="CPUs a trial")
    gpus: float = Field(0.0, ge=0, description="GPUs a trial, fractions too")
    threads: int = Field(1, ge=1, description="CPU threads a trial")
    methods: dict[str, Request] = Field(default_factory=dict, description="requests by method")
    scenarios: dict[str, Request] = Field(default_factory=dict, description="requests by scenario")

    def of(self, scenario: str, method: str) -> ResolvedRequest:
        """Return what a trial of this cell asks for."""
        merged: dict[str, Any] = {name: getattr(self, name) for name in Request.model_fields}
        for request in (self.scenarios.get(scenario), self.methods.get(method)):
            if request is not None:
                fields = request.model_dump(include=set(merged), exclude_none=True)
                merged.update(fields)
        device = merged["device"] or ("cuda" if merged["gpus"] > 0 else "cpu")
        return ResolvedRequest(merged["cpus"], merged["gpus"], merged["threads"], device)


@dataclass(frozen=True)
class ResolvedRequest:
    """What a trial asks for, with nothing left out."""

    cpus: float
    gpus: float
    threads: int
    device: str


def _kind_of_space(value: Any) -> str:
    if isinstance(value, Mapping | Range):
        return "range"
    return "choices" if isinstance(value, list | tuple) else "value"


SpaceEntry = Annotated[
    Annotated[Range, Tag("range")] | Annotated[list[Value], Tag("choices")] | Annotated[Value, Tag("value")],
    Discriminator(_kind_of_space),
]


@dataclass(frozen=True)
class Cell:
    """One scenario × method with what is searched in it."""

    stream: str
    incremental_type: IncrementalType
    method: str
    space: SearchSpace

    @property
    def scenario(self) -> str:
        """Return stream and incremental type as they are written."""
        return f"{self.stream}/{self.incremental_type}"

    @property
    def name(self) -> str:
        """Return the cell's name in tables."""
        return f"{self.scenario} {self.method}"

    @property
    def is_searched(self) -> bool:
        """Return whether there is anything to search."""
        return bool(self.space.distributions)


def split_scenario(scenario: str) -> tuple[str, IncrementalType]:
    """Return stream and incremental type of a scenario without faults."""
    stream, _, kind = scenario.partition("/")
    return stream, kind  # type: ignore[return-value]
