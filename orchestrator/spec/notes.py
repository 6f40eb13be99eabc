"""What a user should know about a valid spec before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from orchestrator.core.metrics import quantity
from orchestrator.spec.cells import split_scenario
from orchestrator.spec.limits import asked_within_tasks, score_notes
from orchestrator.spec.validation import pairs
from search_spaces import TRAINING_KNOBS, extremes

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec


def notes_of(spec: SweepSpec) -> list[str]:
    """Return what a user should know about a valid spec before it runs."""
    notes = [*score_notes(spec), *_over_time_notes(spec)]
    notes += [
        f"{name} is measured and differs between runs: the search can be repeated from its tables, not from the spec"
        for name in dict.fromkeys([spec.objective, *(c.metric for c in spec.constraints)])
        if quantity(name).definition.is_measured
    ]
    used = {cell.stream for cell in spec.cells}
    notes += [f"streams.{name} is not used: no scenario names it" for name in spec.streams if name not in used]
    if spec.search.sampler == "random" and spec.limits:
        notes.append("search.sampler random ignores limits; tpe and gp search under them")
    return [*cell_notes(spec), *notes]


def cell_notes(spec: SweepSpec, hyperparameters: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """Return what a user should know about the methods and hyper-parameters of a valid spec before a trial runs.

    Args:
        spec: the spec.
        hyperparameters: name -> value, which win over those of every cell.
    """
    notes = []
    for scenario, method in pairs(spec):
        kind = spec.training.learned_as(split_scenario(scenario)[1])
        found = spec.method_of(method)
        if reason := spec.refusal(scenario, method):
            notes.append(f"{scenario} {method} is left out: {reason}")
        elif kind in found.notes:
            notes.append(f"{scenario} {method}: {found.notes[kind]}")
    if spec.training.evaluate == "masked" and all(cell.incremental_type != "task" for cell in spec.cells):
        notes.append("training.evaluate: masked changes nothing: no scenario is task-incremental")
    return [*notes, *dict.fromkeys(_idle_notes(spec, hyperparameters))]


def _idle_notes(spec: SweepSpec, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield which hyper-parameters are given and have no effect, whatever is searched beside them."""
    for cell in spec.cells:
        own = cell.found.hyperparameter_class.model_fields.keys()
        given = own & {*spec.overrides(cell.scenario, cell.method), *values}
        fixed = {name: value for name, value in {**cell.space.fixed, **values}.items() if name not in TRAINING_KNOBS}
        others = fixed.keys() | set(TRAINING_KNOBS)
        searched = [(name, one) for name, one in cell.space.distributions.items() if name not in others]
        points = [fixed, *(fixed | {name: value} for name, one in searched for value in extremes(one))]
        if idle := given.intersection(*(cell.found.unused(point) for point in points)):
            names = ", ".join(sorted(idle))
            yield f"{cell.method}: {names}: no effect beside the other hyper-parameters; drop it, or change those"


def _over_time_notes(spec: SweepSpec) -> Iterator[str]:
    """Yield that some methods are evaluated at better moments than others, if what is asked for sees it."""
    methods = dict.fromkeys(cell.method for cell in spec.cells)
    anew = [method for method in methods if spec.method_of(method).starts_anew]
    if anew and len(anew) < len(methods) and (asked := asked_within_tasks(spec)):
        yield (
            f"{', '.join(anew)}: evaluated at the ends of tasks alone, because each task begins with an untrained "
            f"network; {', '.join(asked)} of the others looks within tasks too and does not compare with it"
        )
