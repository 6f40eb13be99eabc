"""The sweep's specification: what a user writes, frozen, pure, and validated whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from orchestrator.boundedyaml import MOST_BYTES, TooLargeError, load_yaml
from orchestrator.errors import SpecError
from orchestrator.models import ModelSettings
from orchestrator.specfaults import nearest as nearest
from orchestrator.specfaults import remove_faulty, structural_faults
from orchestrator.streams import Phase, StreamSettings
from orchestrator.trialspec import TrialSpec, short_hash
from search_spaces import Constraint, Range, SearchSpace, Value, space_of
from strategies import IncrementalType, TrainingSettings, find_method

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


class SweepSpec(_Frozen):
    """A whole sweep. Every field has a default; an instance has no faults.

    Raises:
        SpecError: where anything is wrong, with every fault at once.
    """

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the run folder")
    scenarios: tuple[str, ...] = Field(
        ("split-digits/task",), min_length=1, max_length=1_000, description="stream/incremental type"
    )
    methods: tuple[str, ...] = Field(
        ("naive", "joint", "ewc", "replay"), min_length=1, max_length=100, description="what is compared"
    )
    limits: tuple[str, ...] = Field(
        (), max_length=100, description="such as worst_forgetting <= 0.05; any metric or cost of a trial"
    )
    objective: str = Field("average_accuracy", description="what is best among the feasible; a metric or a cost")
    seeds: Seeds = Field(default_factory=Seeds, description="seeds of the two phases")
    search: SearchSettings = Field(default_factory=SearchSettings, description="how each cell is searched")
    spaces: dict[str, dict[str, SpaceEntry]] = Field(
        default_factory=dict,
        max_length=1_000,
        description="method, all, or SCENARIO METHOD -> hyper-parameter -> a value, choices or {low, high, log}",
    )
    model: ModelSettings = Field(default_factory=ModelSettings, description="which model is trained")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="how each task is trained")
    streams: dict[str, StreamSettings] = Field(
        default_factory=dict, max_length=1_000, description="stream -> how it is cut into tasks; own data too"
    )
    validation_share: float = Field(
        0.1, ge=0, le=0.9, description="share of the training data held out in search; 0 only where seeds.search is 0"
    )
    unsupported_cells: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with a method on an incremental type that it cannot do"
    )
    resources: Resources = Field(default_factory=Resources, description="what trials ask of the cluster")

    @model_validator(mode="after")
    def _check(self) -> Self:
        from orchestrator.speccheck import faults_of

        faults = faults_of(self)
        if faults:
            raise SpecError(faults)
        return self

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """Return the limits, in the order in which they are written."""
        return tuple(Constraint.parse(limit) for limit in self.limits)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Return every cell that runs, scenario by scenario."""
        return tuple(
            Cell(stream, kind, method, space_of(find_method(method), self.overrides(scenario, method), self.training))
            for scenario in self.scenarios
            for stream, kind in [split_scenario(scenario)]
            for method in self.methods
            if kind not in find_method(method).unsupported
        )

    def overrides(self, scenario: str, method: str) -> dict[str, Any]:
        """Return the entries of `spaces` for a cell: those under `all`, under the method, and under the cell's name."""
        keys = ("all", method, f"{scenario} {method}")
        return {name: entry for key in keys for name, entry in self.spaces.get(key, {}).items()}

    def stream_settings(self, stream: str) -> StreamSettings:
        """Return how `stream` is cut."""
        return self.streams.get(stream, StreamSettings())

    def trial(
        self, cell: Cell, hyperparameters: Mapping[str, Value], seed: int, phase: Phase, fingerprint: str
    ) -> TrialSpec:
        """Return the fully resolved trial for one suggestion, seed and phase of `cell`."""
        method = find_method(cell.method)
        return TrialSpec(
            stream=cell.stream,
            incremental_type=cell.incremental_type,
            stream_settings=self.stream_settings(cell.stream).without_paths(),
            method=cell.method,
            hyperparameters=method.hyperparameter_class().model_dump() | dict(cell.space.fixed) | dict(hyperparameters),
            model=self.model,
            training=self.training,
            seed=seed,
            phase=phase,
            validation_share=self.validation_share,
            data_fingerprint=fingerprint,
            strategy_versions=method.versions,
        )

    def content_hash(self) -> str:
        """Return the hash of the whole spec, 16 hexadecimal digits."""
        return short_hash(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """Return the resolved spec as YAML that `parse_spec` reads back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_unset=False), sort_keys=False)


def split_scenario(scenario: str) -> tuple[str, IncrementalType]:
    """Return stream and incremental type of a scenario without faults."""
    stream, _, kind = scenario.partition("/")
    return stream, kind  # type: ignore[return-value]


def parse_spec(content: Mapping[str, Any]) -> SweepSpec:
    """Return the spec that `content` states.

    Raises:
        SpecError: with every fault, those of single fields and those between fields.
    """
    try:
        return _parse(copy.deepcopy(dict(content)))
    except RecursionError:
        raise SpecError(
            ["spec: expected mappings a few levels deep, got far more; see the README for the form"]
        ) from None


def _parse(rest: dict[str, Any]) -> SweepSpec:
    faults: list[str] = []
    while True:
        try:
            spec = SweepSpec.model_validate(rest)
        except SpecError as error:
            raise SpecError([*faults, *error.faults]) from None
        except ValidationError as error:
            # What is left without the broken entries is checked too, so that all faults are told at once.
            faults = faults or structural_faults(SweepSpec, error)
            if not remove_faulty(rest, error):
                raise SpecError(faults) from None
            continue
        if faults:
            raise SpecError(faults)
        return spec


def read_spec(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        SpecError: where the file is missing, no YAML, or no mapping.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error)) from error
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes, where: str) -> dict[str, Any]:
    """Return the mapping in the YAML file that is shown as `where`.

    Raises:
        SpecError: where it is no YAML, no mapping, or too large for a spec.
    """
    try:
        fields = load_yaml(content)
    except TooLargeError as error:
        raise SpecError([f"{where}: {error}; see the README for the form of a spec"]) from error
    except UnicodeDecodeError as error:
        raise _unreadable(where, str(error)) from error
    except Exception as error:  # beside its own errors, PyYAML lets through whatever a bad tag raises
        text = " ".join(str(error).split())
        raise SpecError([f"{where}: expected YAML, got {text}; mend that place"]) from error
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise SpecError(
            [f"{where}: expected a mapping of fields, got {type(fields).__name__}; see --preset quickstart"]
        )
    return fields


def _unreadable(where: str, reason: str) -> SpecError:
    return SpecError([f"{where}: expected a readable YAML file, got '{reason}'; check the path"])
