"""The spec of a sweep: what a user writes, frozen, pure, and validated whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from orchestrator.core.canonical import short_hash
from orchestrator.core.errors import SpecError
from orchestrator.core.metrics import quantity
from orchestrator.core.scores import ACCURACY, Score
from orchestrator.models.settings import ModelSettings
from orchestrator.spec.cells import Cell, split_scenario
from orchestrator.spec.fields import Frozen, Resources, SearchSettings, Seeds, SpaceEntry
from orchestrator.spec.limits import asked_within_tasks, is_measured_at_boundaries, never_recovers
from orchestrator.spec.safe_yaml import dump_yaml
from orchestrator.spec.trial_spec import TrialSpec, without_added
from orchestrator.spec.validation import faults_of
from orchestrator.spec.variants import VARIANT_SCHEMA
from orchestrator.streams.facts import Phase
from orchestrator.streams.settings import StreamSettings, data_of
from search_spaces import Constraint, SearchSpace, Value, space_of
from strategies import Method, TrainingSettings, find_method


def _or_defaults(schema: dict[str, Any]) -> None:
    """Let a schema of search settings allow the word `defaults` too."""
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "defaults"}]


def _or_variants(schema: dict[str, Any]) -> None:
    """Let a schema of methods allow variants too."""
    schema["items"] = {"anyOf": [schema.pop("items"), VARIANT_SCHEMA]}


class SweepSpec(Frozen):
    """A whole sweep. Every field has a default, and an instance has no faults.

    Raises:
        SpecError: if anything is wrong, with every fault at once.
    """

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the run folder")
    scenarios: tuple[str, ...] = Field(
        ("split-digits/task",), min_length=1, max_length=1_000, description="stream/incremental type"
    )
    methods: tuple[str, ...] = Field(
        ("naive", "joint", "ewc", "replay"),
        min_length=1,
        max_length=100,
        description="what is compared; an entry may be a variant of a method, {name, method, spaces}",
        json_schema_extra=_or_variants,
    )
    variants: dict[str, str] = Field(
        default_factory=dict,
        max_length=100,
        description="further name -> method, for one method several times with spaces of its own; or write an entry of "
        "methods as {name, method, spaces}",
        examples=[{"replay-500": "replay"}],
    )
    limits: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="bounds on metrics and costs, such as worst_forgetting <= 0.05",
        examples=[["worst_forgetting <= 0.05"]],
    )
    score: str | dict[str, str] = Field(
        "accuracy",
        description="what R holds: accuracy, balanced_accuracy, macro_f1, recall(CLASS), precision(CLASS), f1(CLASS), "
        "auroc or average_precision; or scenario -> score",
        examples=["auroc"],
    )
    scores: tuple[str, ...] = Field(
        (), max_length=100, description="further scores that are measured", examples=[["recall(fraud)"]]
    )
    objective: str = Field("average", description="metric or cost that decides among what meets the limits")
    seeds: Seeds = Field(default_factory=Seeds, description="seeds of the three phases")
    search: SearchSettings = Field(
        default_factory=SearchSettings,
        description="how each cell is searched; or the word defaults, for no search",
        json_schema_extra=_or_defaults,
    )
    confirm: Literal["chosen", "all"] = Field(
        "chosen", description="whether what meets the limits is measured on test, or the best of every cell"
    )
    spaces: dict[str, dict[str, SpaceEntry]] = Field(
        default_factory=dict,
        max_length=1_000,
        description="method, all, or SCENARIO METHOD -> hyper-parameter -> a value, choices or {low, high, log}",
        examples=[{"ewc": {"penalty_weight": {"low": 1, "high": 1000, "log": True}}}],
    )
    model: ModelSettings = Field(default_factory=ModelSettings, description="which model is trained")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="how each task is trained")
    streams: dict[str, StreamSettings] = Field(
        default_factory=dict, max_length=1_000, description="stream -> how it is cut, and where your own data are"
    )
    validation_share: float = Field(
        0.1, ge=0, le=0.9, description="share of the training data held out in search; 0 only if seeds.search is 0"
    )
    validation_split: Literal["seed", "fixed"] = Field(
        "seed", description="whether each seed has a validation split of its own, or all seeds share one"
    )
    unsupported_cells: Literal["refuse", "skip"] = Field(
        "refuse", description="whether a method that cannot learn a scenario is an error, or left out there"
    )
    diagnostics: bool = Field(
        False,
        description="whether trials also measure what goes on inside: Fisher information, plasticity, buffers; results "
        "are the same, trials take up to 1.3 times as long, and those that have run stay without",
    )
    resources: Resources = Field(default_factory=Resources, description="what trials ask of the cluster")

    @model_validator(mode="before")
    @classmethod
    def _no_search(cls, content: Any) -> Any:
        """Read `search: defaults`; then only the test split is used, unless search seeds are given."""
        if not (isinstance(content, Mapping) and content.get("search") == "defaults"):
            return content
        seeds = content.get("seeds", {})
        if isinstance(seeds, Mapping):
            seeds = {"search": 0, **seeds}
        return {**content, "search": {"mode": "defaults"}, "seeds": seeds}

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        faults = faults_of(self, bool(context.get("is_recorded")), context.get("written"))
        if faults:
            raise SpecError(faults)
        return self

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """Return the limits in the order written."""
        parsed = (Constraint.parse(limit) for limit in self.limits)
        return tuple(replace(each, metric=str(quantity(each.metric))) for each in parsed)

    @property
    def is_of_before(self) -> bool:
        """Return whether its search is that of before there were finals: all seeds for all, and the best mean wins."""
        return self.search.seeds == "all" and not self.seeds.of("finals")

    def score_of(self, scenario: str) -> Score:
        """Return the score that R holds in a scenario."""
        return Score.parse(self.score if isinstance(self.score, str) else self.score.get(scenario, "accuracy"))

    @cached_property
    def quantities(self) -> tuple[str, ...]:
        """Return what the objective and the limits name that is no column of the trials table."""
        names = dict.fromkeys([self.objective, *(constraint.metric for constraint in self.constraints)])
        return tuple(name for name in names if not quantity(name).is_plain)

    @cached_property
    def stoppable(self) -> tuple[str, ...]:
        """Return what the limits name that may stop a trial at a task boundary."""
        if self.search.stop == "none" or self.is_of_before:
            return ()
        may = never_recovers if self.search.stop == "proven" else is_measured_at_boundaries
        return tuple(dict.fromkeys(constraint.metric for constraint in self.constraints if may(constraint)))

    def scores_of(self, scenario: str) -> tuple[Score, ...]:
        """Return every score that a scenario is asked for, the one that R holds first."""
        named = (quantity(name).score_in(ACCURACY) for name in self.quantities)
        further = (Score.parse(text) for text in self.scores)
        own = self.score_of(scenario)
        return tuple(dict.fromkeys([own, *further, *(score for score in named if score is not None)]))

    @cached_property
    def ranked_scores(self) -> dict[str, tuple[str, ...]]:
        """Return scenario -> the kinds of scores that are measured only because they are asked for."""
        kinds = {s: {score.kind for score in self.scores_of(s) if score.is_ranked} for s in self.scenarios}
        return {scenario: tuple(sorted(found)) for scenario, found in kinds.items()}

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Return every cell that runs, scenario by scenario."""
        return tuple(
            Cell(stream, kind, method, self._space(scenario, method), self.variants.get(method, ""))
            for scenario in self.scenarios
            for stream, kind in [split_scenario(scenario)]
            for method in self.methods
            if not self.refusal(scenario, method)
        )

    def refusal(self, scenario: str, method: str) -> str:
        """Return why a method cannot learn a scenario; empty if it can."""
        stream, kind = split_scenario(scenario)
        found = self.method_of(method)
        learned = self.training.learned_as(kind)
        if reason := found.unsupported.get(learned, ""):
            return reason if learned == kind else f"with training.evaluate masked it is trained as {learned}: {reason}"
        if found.needs_whole_tasks and self.stream_settings(stream).blurry:
            return f"{found.needs_whole_tasks}, and streams.{stream}.blurry mixes in examples of its neighbours"
        if found.starts_anew and not found.is_reference and (asked := asked_within_tasks(self)):
            return f"each task begins with an untrained network, and {asked[0]} looks within tasks (evaluate_every)"
        return ""

    @property
    def known_methods(self) -> tuple[str, ...]:
        """Return the methods that are compared, each once, whatever their variants are called."""
        return tuple(dict.fromkeys(self.variants.get(name, name) for name in self.methods))

    @property
    def own_networks(self) -> tuple[str, ...]:
        """Return the networks that are classes of the user's own, the model and those of frozen features, by name."""
        frozen = [settings.features for settings in self.streams.values()]
        names = [one.module for one in frozen if one is not None and one.is_own_class]
        return (self.model.name, *names) if self.model.is_own_class else tuple(names)

    def method_of(self, name: str) -> Method:
        """Return the method behind one of `methods`: itself, or that which it is a variant of."""
        return find_method(self.variants.get(name, name))

    def _space(self, scenario: str, method: str) -> SearchSpace:
        space = space_of(self.method_of(method), self.overrides(scenario, method), self.training)
        return space if self.search.mode == "search" else SearchSpace({}, space.fixed, {})

    def overrides(self, scenario: str, method: str) -> dict[str, Any]:
        """Return the entries of `spaces` for a cell: those of `all`, of the method and of the cell; the last wins.

        A variant has those of its method below its own.
        """
        names = dict.fromkeys([self.variants.get(method, method), method])
        keys = ["all", *(key for name in names for key in (name, f"{scenario} {name}"))]
        return {name: entry for key in keys for name, entry in self.spaces.get(key, {}).items()}

    def stream_settings(self, stream: str) -> StreamSettings:
        """Return the settings of `stream`, or the defaults."""
        return self.streams.get(stream, StreamSettings())

    def data_of(self, stream: str) -> str:
        """Return the name under which the sweep holds the data of a stream."""
        return data_of(stream, self.stream_settings(stream))

    @cached_property
    def _plain_settings(self) -> dict[str, StreamSettings]:
        """Return stream -> its settings as trials have them."""
        return {cell.stream: self.stream_settings(cell.stream).without_paths() for cell in self.cells}

    def trial(
        self, cell: Cell, hyperparameters: Mapping[str, Value], seed: int, phase: Phase, fingerprint: str
    ) -> TrialSpec:
        """Return the fully resolved trial for one suggestion, seed and phase of `cell`."""
        method = cell.found
        values = method.hyperparameter_class().model_dump() | dict(cell.space.fixed) | dict(hyperparameters)
        return TrialSpec(
            stream=cell.stream,
            incremental_type=cell.incremental_type,
            stream_settings=self._plain_settings[cell.stream],
            method=cell.variant_of or cell.method,
            variant=cell.method if cell.variant_of else "",
            hyperparameters=without_added(method.hyperparameter_class, values),
            model=self.model,
            training=self.training,
            seed=seed,
            phase=phase,
            validation_share=self.validation_share,
            data_fingerprint=fingerprint,
            strategy_versions=method.versions,
            ranked_scores=self.ranked_scores[cell.scenario],
            validation_seed=seed if self.validation_split == "seed" and phase != "confirm" else None,
        )

    def content_hash(self) -> str:
        """Return a hash of the whole spec, 16 hexadecimal digits."""
        return short_hash(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """Return the resolved spec as YAML, which `parse_spec` reads back to an equal spec."""
        return dump_yaml(self.model_dump(mode="json", exclude_unset=False))
