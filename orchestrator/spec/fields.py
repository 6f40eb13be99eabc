"""The fields of a sweep's spec that have fields of their own: seeds, search settings, resources and spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestrator.streams.facts import Phase
from search_spaces import Range, Value

FIRST_CONFIRM_SEED = 1000
"""Counted search seeds start at 0, confirm seeds here, so counts of 1000 or fewer never overlap."""

FIRST_FINALS_SEED = 2000
"""Counted finals seeds start here."""

FIRST_MORE_SEED = 3000
"""Counted further test seeds start here."""

MOST_CONFIRMED = 10
"""Suggestions of a cell that may be measured on the test split, one after the other."""


class Frozen(BaseModel):
    """Base of a spec's parts: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seeds(Frozen):
    """Seeds of the phases, as counts or lists, without overlap."""

    search: int | tuple[int, ...] = Field(3, description="seeds of a suggestion, on the validation split")
    finals: int | tuple[int, ...] = Field(
        8, description="further seeds of each of a cell's best suggestions, on the validation split"
    )
    confirm: int | tuple[int, ...] = Field(5, description="seeds of each chosen suggestion, on the test split")

    confirm_more: int | tuple[int, ...] = Field(
        10,
        description="further test seeds of a chosen suggestion, some at a time, while it is not decided whether it "
        "meets the limits",
    )

    @property
    def more(self) -> tuple[int, ...]:
        """Return the further test seeds."""
        stated = self.confirm_more
        return stated if isinstance(stated, tuple) else tuple(range(FIRST_MORE_SEED, FIRST_MORE_SEED + stated))

    def of(self, phase: Phase) -> tuple[int, ...]:
        """Return the seeds of `phase`; none of the finals without a search."""
        if phase == "finals" and not self.of("search"):
            return ()
        firsts = {"search": 0, "finals": FIRST_FINALS_SEED, "confirm": FIRST_CONFIRM_SEED}
        stated = getattr(self, phase)
        return stated if isinstance(stated, tuple) else tuple(range(firsts[phase], firsts[phase] + stated))


class Chance(Frozen):
    """That a single new run meets the limits with a probability."""

    probability: float = Field(gt=0, lt=1, description="with which a new run must meet each limit", examples=[0.9])


def _kind_of_rule(value: Any) -> str:
    return "chance" if isinstance(value, Mapping | Chance) else "word"


HoldsFor = Annotated[
    Annotated[Literal["mean", "every_seed"], Tag("word")] | Annotated[Chance, Tag("chance")],
    Discriminator(_kind_of_rule),
]


class SearchSettings(Frozen):
    """How each cell is searched."""

    mode: Literal["search", "defaults"] = Field(
        "search", description="whether hyper-parameters are searched, or every method runs at its defaults"
    )
    suggestions: int = Field(
        24, ge=1, le=100_000, description="suggestions of each searched cell; the same for every method"
    )
    batch: int = Field(4, ge=1, le=1_000, description="suggestions that run at once, before any result is used")
    sampler: Literal["tpe", "random", "gp"] = Field("tpe", description="Optuna sampler; random ignores limits")
    seed: int = Field(0, ge=0, description="seed of the sampler")
    seeds: Literal["race", "all"] = Field(
        "race", description="whether a suggestion gets its next seed only while it may be chosen, or all seeds"
    )
    stop: Literal["none", "proven", "calibrated"] = Field(
        "proven",
        description="whether a trial stops at a task boundary: never, where a limit is broken for good, or also "
        "where no trial of its cell has recovered from so much",
    )
    finalists: int = Field(3, ge=1, le=100, description="suggestions of a cell that run on finals seeds at a time")
    limits_hold_for: HoldsFor = Field(
        "mean",
        description="whether the mean over seeds must meet the limits, or every seed, or a new run with a "
        "{probability: 0.9}",
        examples=["mean"],
    )


class Request(Frozen):
    """What one trial asks of the cluster. A field that is left out takes the general value."""

    cpus: float | None = Field(None, examples=[2], ge=0, description="CPUs per trial; 1 by default")
    gpus: float | None = Field(
        None, examples=[0.5], ge=0, description="GPUs per trial, fractions allowed; 0 by default"
    )
    threads: int | None = Field(None, examples=[2], ge=1, description="CPU threads per trial; 1 by default")
    device: Literal["cpu", "cuda"] | None = Field(
        None, examples=["cuda"], description="cpu or cuda; cuda if gpus > 0, else cpu, by default"
    )


class Resources(Request):
    """What trials ask of the cluster: in general, by scenario and by method. A method wins over a scenario."""

    cpus: float = Field(1.0, ge=0, description="CPUs per trial")
    gpus: float = Field(0.0, ge=0, description="GPUs per trial, fractions allowed")
    threads: int = Field(1, ge=1, description="CPU threads per trial")
    methods: dict[str, Request] = Field(default_factory=dict, description="requests by method")
    scenarios: dict[str, Request] = Field(default_factory=dict, description="requests by scenario")

    def of(self, scenario: str, *methods: str) -> ResolvedRequest:
        """Return what a trial of a cell asks for, which has these names; the last wins."""
        merged: dict[str, Any] = {name: getattr(self, name) for name in Request.model_fields}
        for request in (self.scenarios.get(scenario), *map(self.methods.get, methods)):
            if request is not None:
                fields = request.model_dump(include=set(merged), exclude_none=True)
                merged.update(fields)
        device = merged["device"] or ("cuda" if merged["gpus"] > 0 else "cpu")
        return ResolvedRequest(merged["cpus"], merged["gpus"], merged["threads"], device)


@dataclass(frozen=True)
class ResolvedRequest:
    """What one trial asks for, every field resolved."""

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
