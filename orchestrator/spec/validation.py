"""What can be wrong between the fields of a spec, and what is worth a note."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

from orchestrator.core.metrics import DERIVED, METRICS, METRICS_AND_COSTS
from orchestrator.core.text import nearest
from orchestrator.spec.fields import Cell, Request, split_scenario
from orchestrator.streams.settings import (
    INCREMENTAL_TYPES,
    STREAMS,
    known_streams,
    number_of_tasks,
    refused_type,
    stream_faults,
)
from search_spaces import Constraint, SpaceError, default_space, space_of
from strategies import STRATEGIES, MethodError, UnknownMethodError, find_method

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec

MOST_SEEDS = 10_000
"""Of a phase, as a count or as a list."""

MOST_CELLS = 10_000
MOST_TRIALS = 1_000_000
MOST_TRIALS_AT_ONCE = 100_000
"""Of a sweep, the last before any result is known: more would take long to plan and to show."""


def faults_of(spec: SweepSpec) -> list[str]:
    """Return everything that is wrong with a spec whose single fields have the right types."""
    if len(spec.scenarios) * len(spec.methods) > MOST_CELLS:
        return [_too_many("scenarios", len(spec.scenarios) * len(spec.methods), MOST_CELLS, "scenarios times methods")]
    faults = [*_names(spec), *_seeds(spec), *_resources(spec), *_limits(spec)]
    spaces = list(_spaces(spec))
    cells_are_known = not any(fault.startswith(("scenarios", "methods", "seeds")) for fault in faults)
    faults += [*spaces, *_streams(spec), *_refused(spec)]
    if cells_are_known and not spaces:
        faults += _cells(spec)
    return faults


def notes_of(spec: SweepSpec) -> list[str]:
    """Return what a user should know about a valid spec before it runs."""
    notes = []
    for scenario, method in _pairs(spec):
        kind = split_scenario(scenario)[1]
        found = find_method(method)
        if kind in found.unsupported:
            notes.append(f"{scenario} {method} is left out: {found.unsupported[kind]}")
        elif kind in found.notes:
            notes.append(f"{scenario} {method}: {found.notes[kind]}")
    notes += [
        f"{metric} is measured, so the search is repeatable from its tables but not from the spec alone"
        for metric in dict.fromkeys([spec.objective, *(c.metric for c in spec.constraints)])
        if METRICS_AND_COSTS[metric].is_measured
    ]
    used = {cell.stream for cell in spec.cells}
    notes += [f"streams.{name} is not used: no scenario is cut from it" for name in spec.streams if name not in used]
    if spec.search.sampler == "random" and spec.limits:
        notes.append("search.sampler random ignores limits; tpe and gp search under them")
    return notes


def _pairs(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    for scenario in spec.scenarios:
        for method in spec.methods:
            yield scenario, method


def _names(spec: SweepSpec) -> Iterator[str]:
    streams = known_streams(spec.streams)
    for index, scenario in enumerate(spec.scenarios):
        where = f"scenarios.{index}"
        stream, kind = split_scenario(scenario)
        if "/" not in scenario:
            yield f"{where}: expected STREAM/TYPE, got '{scenario}'; for example split-digits/class"
            continue
        if stream not in streams:
            yield f"{where}: expected a known stream, got '{stream}'; {nearest(stream, streams)}"
        if kind not in INCREMENTAL_TYPES:
            way_out = nearest(kind, INCREMENTAL_TYPES)
            yield f"{where}: expected the incremental type task, domain or class, got '{kind}'; {way_out}"
        elif stream in streams and (reason := refused_type(stream, kind, spec.stream_settings(stream))):
            yield f"{where}: expected a type that {stream} has, got '{kind}'; {reason}"
    for index, method in enumerate(spec.methods):
        if fault := method_fault(method):
            yield f"methods.{index}: {fault}"
    same: dict[tuple[str, ...], str] = {}
    for index, method in enumerate(spec.methods):
        parts = () if method_fault(method) else tuple(find_method(method).parts)
        first = same.setdefault(parts, method) if parts else method
        if first != method:
            yield f"methods.{index}: expected each combination once, got '{first}' and '{method}'; drop one of the two"
    for field in ("scenarios", "methods"):
        values = getattr(spec, field)
        for value in dict.fromkeys(v for v in values if values.count(v) > 1):
            yield f"{field}: expected each once, got '{value}' {values.count(value)} times; drop the repeats"


def _seeds(spec: SweepSpec) -> Iterator[str]:
    seeds, wrong = spec.seeds, False
    for phase in ("search", "confirm"):
        value = getattr(seeds, phase)
        if isinstance(value, int) and not 0 <= value <= MOST_SEEDS:
            yield f"seeds.{phase}: expected a count in 0 … {MOST_SEEDS}, got {_number(value)}; change it"
            wrong = True
        elif isinstance(value, tuple) and len(value) > MOST_SEEDS:
            yield _too_many(f"seeds.{phase}", len(value), MOST_SEEDS, "seeds")
            wrong = True
        elif isinstance(value, tuple) and not (len(set(value)) == len(value) and all(0 <= v < 2**63 for v in value)):
            shown = ", ".join(map(_number, value))
            yield f"seeds.{phase}: expected distinct seeds in 0 … 2^63 - 1, got [{shown}]; mend the list"
            wrong = True
    if wrong:
        return
    if not seeds.of("confirm"):
        yield "seeds.confirm: expected at least 1 seed, got none; results come from the confirm phase"
    shared = sorted(set(seeds.of("search")) & set(seeds.of("confirm")))
    if shared:
        yield (
            f"seeds: expected search and confirm seeds without overlap, got {_first(shared)} in both; "
            "a suggestion must be confirmed on seeds that did not choose it"
        )


def _resources(spec: SweepSpec) -> Iterator[str]:
    resources = spec.resources
    for field, known, whose in (
        ("methods", {*STRATEGIES, *spec.methods}, "one of the"),
        ("scenarios", spec.scenarios, "one of the sweep's"),
    ):
        for name in getattr(resources, field):
            if name not in known:
                yield (f"resources.{field}.{name}: expected {whose} {field}, got '{name}'; {nearest(name, known)}")
    requests: list[tuple[str, Request]] = [("resources", resources)]
    requests += [(f"resources.methods.{name}", r) for name, r in resources.methods.items()]
    requests += [(f"resources.scenarios.{name}", r) for name, r in resources.scenarios.items()]
    for where, request in requests:
        if request.gpus is not None and request.gpus > 1 and not request.gpus.is_integer():
            yield f"{where}.gpus: expected a fraction up to 1 or a whole number, got {request.gpus:g}; round it"
    idle = []
    for scenario, method in _pairs(spec):
        resolved = resources.of(scenario, method)
        if resolved.cpus == 0 and resolved.gpus == 0:
            by_scenario = f"resources.scenarios.{scenario}" if scenario in resources.scenarios else "resources"
            idle.append(f"resources.methods.{method}" if method in resources.methods else by_scenario)
    for where in dict.fromkeys(idle):
        yield f"{where}.cpus: expected more than 0 where no GPU is asked for, got 0; use 1"


def _limits(spec: SweepSpec) -> Iterator[str]:
    if spec.objective not in METRICS_AND_COSTS:
        yield f"objective: expected a metric or a cost, got '{spec.objective}'; {_way_out(spec.objective)}"
    constraints: list[tuple[int, Constraint]] = []
    for index, text in enumerate(spec.limits):
        where = f"limits.{index}"
        try:
            constraint = Constraint.parse(text)
        except SpaceError as error:
            yield f"{where}: {error}"
            continue
        if constraint.metric not in METRICS_AND_COSTS:
            yield (f"{where}: expected a metric or a cost, got '{constraint.metric}'; {_way_out(constraint.metric)}")
            continue
        constraints.append((index, constraint))
        low, high = METRICS_AND_COSTS[constraint.metric].low, METRICS_AND_COSTS[constraint.metric].high
        limit = constraint.limit
        if (limit < low and constraint.operator == "<=") or (limit > high and constraint.operator == ">="):
            yield (
                f"{where}: expected a limit that can be met, got '{constraint.name}'; "
                f"{constraint.metric} lies in {low:g} … {high:g}"
            )
    for (_, one), (index, other) in combinations(constraints, 2):
        if one.metric != other.metric:
            continue
        if one.operator == other.operator:
            yield f"limits.{index}: expected one '{one.operator}' limit a metric, got '{other.name}' too; keep one"
        elif other.margin(one.limit) < 0 and one.margin(other.limit) < 0:
            yield f"limits.{index}: expected limits that can both hold, got '{one.name}' and '{other.name}'; widen one"


def method_fault(name: str) -> str | None:
    """Return why `name` is no method, or None."""
    try:
        default_space(find_method(name))
    except UnknownMethodError as error:
        return f"{error}; {nearest(error.part, STRATEGIES)}"
    except (MethodError, SpaceError) as error:
        return str(error)
    return None


def _way_out(metric: str) -> str:
    if metric in DERIVED:
        return "it is known only after the search; read it in the tables"
    return nearest(metric, METRICS_AND_COSTS)


def _spaces(spec: SweepSpec) -> Iterator[str]:
    known = known_streams(spec.streams)
    for key, entries in spec.spaces.items():
        scenario, _, target = key.rpartition(" ")
        stream, kind = split_scenario(scenario)
        if scenario and (stream not in known or kind not in INCREMENTAL_TYPES):
            yield f"spaces.{key}: expected METHOD, all, or STREAM/TYPE METHOD, got '{key}'; mend '{scenario}'"
            continue
        if key != "all" and (fault := method_fault(target)):
            yield f"spaces.{key}: {fault}"
            continue
        for method in spec.methods if key == "all" else [target]:
            for name, entry in entries.items() if method_fault(method) is None else ():
                try:
                    space_of(find_method(method), {name: entry}, spec.training)
                except SpaceError as error:
                    yield f"spaces.{key}.{name}: {error}"
                    if key == "all":
                        return


def _streams(spec: SweepSpec) -> Iterator[str]:
    for stream, settings in spec.streams.items():
        if stream not in known_streams(spec.streams):
            yield (
                f"streams.{stream}: expected a known stream, or own data with folder or table, got '{stream}'; "
                f"{nearest(stream, STREAMS)}"
            )
            continue
        for fault in stream_faults(stream, settings):
            yield f"streams.{stream}.{fault}"


def _refused(spec: SweepSpec) -> Iterator[str]:
    for scenario, method in _pairs(spec):
        kind = split_scenario(scenario)[1]
        reason = None if method_fault(method) else find_method(method).unsupported.get(kind)
        if reason and spec.unsupported_cells == "refuse":
            yield (
                f"methods.{method}: expected a method that can do {scenario}, got {method}: {reason}; drop one of the "
                "two, or set unsupported_cells: skip"
            )
    for method in spec.methods:
        reason = None if method_fault(method) else find_method(method).unsupported_models.get(spec.model.name)
        if reason:
            yield (
                f"methods.{method}: expected a method that can train {spec.model.name}, got {method}: {reason}; "
                "drop it or choose another model"
            )


def _cells(spec: SweepSpec) -> Iterator[str]:
    cells = spec.cells
    if not cells and spec.unsupported_cells == "skip":
        yield "methods: expected at least one that can do one of the scenarios, got none; add one"
    if spec.seeds.of("search") and spec.validation_share == 0:
        yield "validation_share: expected more than 0 with search seeds, got 0; raise it or set seeds.search to 0"
    if not spec.seeds.of("search"):
        for method in dict.fromkeys(cell.method for cell in cells if cell.is_searched):
            searched = ", ".join(next(c for c in cells if c.method == method).space.distributions)
            yield (
                f"spaces.{method}: expected nothing to search without a search phase, got {searched}; "
                "fix each to a value, or give seeds.search more than 0"
            )
    yield from _trials(spec)
    for cell in {cell.scenario: cell for cell in cells}.values():
        if cell.stream in STREAMS:  # how many tasks a user's own data have is known when they are read
            yield from metric_faults(spec, cell, number_of_tasks(cell.stream, spec.stream_settings(cell.stream)))


def _trials(spec: SweepSpec) -> Iterator[str]:
    n_seeds, n_confirm = len(spec.seeds.of("search")), len(spec.seeds.of("confirm"))
    n_searched = sum(cell.is_searched for cell in spec.cells)
    n_at_once = n_searched * min(spec.search.batch, spec.search.suggestions) * n_seeds
    n_searching = n_searched * spec.search.suggestions * n_seeds
    n_rest = (len(spec.cells) - n_searched) * n_seeds + len(spec.cells) * n_confirm
    if n_searching + n_rest > MOST_TRIALS:
        yield _too_many("search.suggestions", n_searching + n_rest, MOST_TRIALS, "trials in the sweep")
    if n_at_once + n_rest > MOST_TRIALS_AT_ONCE:
        yield _too_many("search.batch", n_at_once + n_rest, MOST_TRIALS_AT_ONCE, "trials before any result")


def metric_faults(spec: SweepSpec, cell: Cell, n_tasks: int) -> Iterator[str]:
    """Yield the metrics that the spec asks for and that a cell of so many tasks does not have."""
    wanted = {"objective": spec.objective} | {
        f"limits.{i}": text.split()[0] for i, text in enumerate(spec.limits) if text.split()
    }
    for where, metric in wanted.items():
        needs_past = metric in METRICS and metric not in ("average_accuracy", "learning_accuracy")
        if metric == "forward_transfer" and cell.incremental_type != "domain":
            yield f"{where}: expected a metric that {cell.scenario} has, got {metric}; it needs domain"
        elif needs_past and n_tasks == 1:
            yield f"{where}: expected a metric that {cell.scenario} has, got {metric}; it needs 2 tasks or more"


def _too_many(where: str, n: int, most: int, what: str) -> str:
    return f"{where}: expected at most {most} {what}, got {n}; ask for fewer, or make several sweeps of it"


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"


def _first(values: list[int], n: int = 5) -> str:
    return ", ".join(map(str, values[:n])) + (" …" if len(values) > n else "")
