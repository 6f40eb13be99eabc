"""What can be wrong between the fields of a spec."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

from orchestrator.core.text import nearest
from orchestrator.spec.cells import split_scenario
from orchestrator.spec.fields import MOST_CONFIRMED, Request, SearchSettings, Seeds
from orchestrator.spec.limits import limit_faults, metric_faults, score_faults
from orchestrator.spec.variants import Written, as_it_is, variant_faults
from orchestrator.streams.checking import refused_type, stream_faults
from orchestrator.streams.facts import DATASETS, PHASES
from orchestrator.streams.naming import task_names
from orchestrator.streams.settings import INCREMENTAL_TYPES, STREAMS, dataset_of, known_streams
from search_spaces import TRAINING_KNOBS, SpaceError, default_space, space_of
from strategies import STRATEGIES, IncrementalType, MethodError, UnknownMethodError, find_method

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import SweepSpec

MOST_SEEDS = 10_000
"""Largest number of seeds of a phase."""

MOST_CELLS = 10_000
"""Largest number of cells of a sweep."""

MOST_TRIALS = 1_000_000
"""Largest number of trials of a sweep."""

MOST_TRIALS_AT_ONCE = 100_000
"""Largest number of trials before any result is known. More would take long to plan and to show."""


def faults_of(spec: SweepSpec, is_recorded: bool = False, written: Written | None = None) -> list[str]:
    """Return everything that is wrong with a spec whose single fields have the right types.

    Args:
        spec: the spec.
        is_recorded: whether it is that of an existing run; what earlier versions accepted is then none.
        written: how it was written, if that is known.
    """
    written = written or as_it_is(spec)
    n_cells = len(spec.scenarios) * len(spec.methods)
    if n_cells > MOST_CELLS:
        return [_too_many("scenarios", n_cells, MOST_CELLS, "cells (scenarios times methods)")]
    of_cells = [*_names(spec, written), *_seeds(spec)]
    of_spaces = list(_spaces(spec, written, is_recorded))
    of_scores = [*score_faults(spec), *limit_faults(spec, is_recorded)]
    faults = [*of_cells, *_resources(spec), *of_scores, *of_spaces, *_streams(spec, is_recorded), *_refused(spec)]
    if not of_cells and not of_spaces:
        faults += _cells(spec)
    return faults


def pairs(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """Yield every scenario with every method, those that are left out too."""
    for scenario in spec.scenarios:
        for method in spec.methods:
            yield scenario, method


def _names(spec: SweepSpec, written: Written) -> Iterator[str]:
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
        elif stream in streams and (reason := _refused_type(spec, stream, kind)):
            yield f"{where}: {scenario} is impossible: {reason}"
    known = []
    for index, method in enumerate(spec.methods):
        if method in spec.variants:
            continue
        if fault := method_fault(method, spec):
            yield f"{written.place('methods', index)}: {fault}"
        else:
            known.append((index, method))
    yield from variant_faults(spec, written, method_fault)
    first: dict[tuple[str, ...], str] = {}
    for index, method in known:
        other = first.setdefault(tuple(find_method(method).parts), method)
        if other != method:
            where = written.place("methods", index)
            yield f"{where}: '{method}' is the same method as '{other}'; drop one of the two"
    for field in ("scenarios", "methods"):
        values = getattr(spec, field)
        for value in dict.fromkeys(v for v in values if values.count(v) > 1):
            yield f"{field}: '{value}' is listed {values.count(value)} times; list it once"


def _refused_type(spec: SweepSpec, stream: str, kind: IncrementalType) -> str | None:
    """Return why a scenario is impossible as it is evaluated, or as it is trained; or None."""
    learned = spec.training.learned_as(kind)
    if reason := refused_type(stream, kind, spec.stream_settings(stream)):
        return reason
    if learned != kind and (reason := refused_type(stream, learned, spec.stream_settings(stream))):
        return f"with training.evaluate masked it is trained as {stream}/{learned}: {reason}, or leave evaluate out"
    return None


def _seeds(spec: SweepSpec) -> Iterator[str]:
    seeds, wrong = spec.seeds, False
    for phase in (*PHASES, "confirm_more"):
        value = getattr(seeds, phase)
        where = f"seeds.{phase}"
        if isinstance(value, int) and not 0 <= value <= MOST_SEEDS:
            yield f"{where}: expected 0 to {MOST_SEEDS} seeds, got {_number(value)}; change the number"
            wrong = True
        elif isinstance(value, tuple) and len(value) > MOST_SEEDS:
            yield _too_many(where, len(value), MOST_SEEDS, "seeds")
            wrong = True
        elif isinstance(value, tuple) and not (len(set(value)) == len(value) and all(0 <= v < 2**63 for v in value)):
            shown = ", ".join(map(_number, value))
            yield f"{where}: expected different seeds from 0 to 2^63 - 1, got [{shown}]; correct the list"
            wrong = True
    if wrong:
        return
    if not seeds.of("confirm"):
        yield "seeds.confirm: the confirm phase needs at least 1 seed, because all results come from it; raise it"
    found = {**{str(phase): seeds.of(phase) for phase in PHASES}, "confirm_more": seeds.more}
    for one, other in combinations(found, 2):
        if shared := sorted(set(found[one]) & set(found[other])):
            yield (
                f"seeds: {one} and {other} share {_first(shared)}; choose other {other} seeds, because the seeds that "
                "chose a suggestion would flatter it"
            )
    if seeds.finals not in (0, (), Seeds().finals) and not seeds.of("search"):
        yield "seeds.finals: there are no finals without search seeds; leave it out, or raise seeds.search"


def _resources(spec: SweepSpec) -> Iterator[str]:
    resources = spec.resources
    for name in resources.methods:
        if name not in (known := {*STRATEGIES, *spec.methods}):
            yield f"resources.methods.{name}: expected a known method, got '{name}'; {nearest(name, known)}"
    for name in resources.scenarios:
        if name not in spec.scenarios:
            way_out = nearest(name, spec.scenarios)
            yield f"resources.scenarios.{name}: expected a scenario of this sweep, got '{name}'; {way_out}"
    requests: list[tuple[str, Request]] = [("resources", resources)]
    requests += [(f"resources.methods.{name}", r) for name, r in resources.methods.items()]
    requests += [(f"resources.scenarios.{name}", r) for name, r in resources.scenarios.items()]
    for where, request in requests:
        if request.gpus is not None and request.gpus > 1 and not request.gpus.is_integer():
            yield f"{where}.gpus: expected a fraction up to 1 or a whole number, got {request.gpus:g}; round it"
    idle = []
    for scenario, method in pairs(spec):
        resolved = resources.of(scenario, spec.variants.get(method, method), method)
        if resolved.cpus == 0 and resolved.gpus == 0:
            by_scenario = f"resources.scenarios.{scenario}" if scenario in resources.scenarios else "resources"
            idle.append(f"resources.methods.{method}" if method in resources.methods else by_scenario)
    for where in dict.fromkeys(idle):
        yield f"{where}.cpus: a trial without a GPU needs more than 0 CPUs; use 1"


def method_fault(name: str, spec: SweepSpec | None = None) -> str | None:
    """Return why `name` is no method, nor a variant of one in `spec`; or None."""
    variants = spec.variants if spec is not None else {}
    try:
        default_space(find_method(variants.get(name, name)))
    except UnknownMethodError as error:
        return f"{error}; {nearest(error.part, [*STRATEGIES, *variants])}"
    except (MethodError, SpaceError) as error:
        return str(error)
    return None


def _spaces(spec: SweepSpec, written: Written, is_recorded: bool) -> Iterator[str]:
    known = known_streams(spec.streams)
    for key, entries in spec.spaces.items():
        scenario, _, target = key.rpartition(" ")
        stream, kind = split_scenario(scenario)
        if scenario and (stream not in known or kind not in INCREMENTAL_TYPES):
            yield f"spaces.{key}: there is no scenario '{scenario}'; write METHOD, all, or STREAM/TYPE METHOD"
            continue
        if key != "all" and (fault := method_fault(target, spec)):
            if target not in spec.variants:  # else it is a fault of the variant
                yield f"spaces.{key}: {fault}"
            continue
        for method in spec.methods if key == "all" else [target]:
            for name, entry in entries.items() if method_fault(method, spec) is None else ():
                try:
                    space_of(spec.method_of(method), {name: entry}, spec.training)
                except SpaceError as error:
                    yield f"{written.place('spaces', key, name)}: {error}"
                    if key == "all":
                        return
                    continue
                reason = _without_effect(spec, key, method, name) if key != "all" else ""
                if reason and not (is_recorded and spec.method_of(method).trains_network):
                    where = written.place("spaces", key, name)
                    yield f"{where}: {method} {reason}, so {name} changes nothing; drop it"


def _without_effect(spec: SweepSpec, key: str, method: str, name: str) -> str:
    """Return why an entry of a method's space about its training has no effect; empty if it has one."""
    found = spec.method_of(method)
    if not found.trains_network:
        return "takes no training steps" if name in TRAINING_KNOBS else ""
    if name == "epochs" and found.epochs_as:
        return f"makes {found.epochs_as} in place of epochs"
    entries = [spec.spaces.get(other, {}) for other in (key, method, spec.variants.get(method, method), "all")]
    iterations = next((own["iterations"] for own in entries if "iterations" in own), spec.training.iterations)
    if iterations is not None and name in ("epochs", found.epochs_as):
        return "takes as many steps as iterations says"
    return ""


def _streams(spec: SweepSpec, is_recorded: bool) -> Iterator[str]:
    for stream, settings in spec.streams.items():
        if stream not in known_streams(spec.streams):
            yield (
                f"streams.{stream}: expected a known stream, or your own data with folder or table, got '{stream}'; "
                f"{nearest(stream, STREAMS)}"
            )
            continue
        for fault in stream_faults(stream, settings, may_leave_over=is_recorded):
            yield f"streams.{stream}.{fault}"


def _refused(spec: SweepSpec) -> Iterator[str]:
    """Yield each method that cannot learn a scenario or train the model, with its reason.

    With `unsupported_cells: skip` such cells are left out, so they are at fault only if nothing is left to run.
    """
    known = [method for method in dict.fromkeys(spec.methods) if method_fault(method, spec) is None]
    refused = {
        (scenario, method): reason
        for scenario in dict.fromkeys(spec.scenarios)
        for method in known
        if (reason := spec.refusal(scenario, method))
    }
    if spec.unsupported_cells == "refuse":
        way_out = "drop one of the two, or set unsupported_cells: skip"
    elif len(refused) == len(set(pairs(spec))):
        way_out = "choose another method or another scenario"
    else:
        refused = {}
        way_out = ""
    for (scenario, method), reason in refused.items():
        yield f"methods.{method}: {method} cannot learn {scenario}: {reason}; {way_out}"
    for method in known:
        reason = spec.method_of(method).unsupported_models.get(spec.model.name, "")
        if reason:
            name = spec.model.name
            yield f"methods.{method}: {method} cannot train {name}: {reason}; drop it or choose another model"


def _cells(spec: SweepSpec) -> Iterator[str]:
    cells = spec.cells
    if spec.seeds.of("search") and spec.validation_share == 0:
        yield "validation_share: the search phase needs validation data, got 0; raise it, or set seeds.search to 0"
    if not spec.seeds.of("search"):
        for method in dict.fromkeys(cell.method for cell in cells if cell.is_searched):
            searched = ", ".join(next(c for c in cells if c.method == method).space.distributions)
            yield (
                f"spaces.{method}: {searched} cannot be searched without search seeds; fix each to a value, or raise "
                "seeds.search"
            )
    if spec.search.finalists != SearchSettings().finalists and not spec.seeds.of("finals"):
        yield "search.finalists: finalists need finals seeds, got 0; raise seeds.finals, or leave finalists out"
    yield from _trials(spec)
    for cell in {cell.scenario: cell for cell in cells}.values():
        if cell.stream in STREAMS:  # a user's own data say how many tasks they have only when they are read
            settings = spec.stream_settings(cell.stream)
            yield from metric_faults(spec, cell, task_names(cell.stream, settings, DATASETS[dataset_of(cell.stream)]))


def _trials(spec: SweepSpec) -> Iterator[str]:
    n_seeds, n_finals, n_confirm = (len(spec.seeds.of(phase)) for phase in PHASES)
    n_searched = sum(cell.is_searched for cell in spec.cells)
    n_at_once = n_searched * min(spec.search.batch, spec.search.suggestions) * n_seeds
    n_tried, n_more = (MOST_CONFIRMED, len(spec.seeds.more)) if n_finals else (1, 0)
    n_chosen = n_tried * (n_finals + n_confirm + n_more)
    n_rest = (len(spec.cells) - n_searched) * (n_seeds + n_confirm)
    n_in_all = n_searched * (spec.search.suggestions * n_seeds + n_chosen) + n_rest
    if n_in_all > MOST_TRIALS:
        yield _too_many("search.suggestions", n_in_all, MOST_TRIALS, "trials in the sweep")
    if n_at_once + n_rest > MOST_TRIALS_AT_ONCE:
        yield _too_many("search.batch", n_at_once + n_rest, MOST_TRIALS_AT_ONCE, "trials before any result")


def _too_many(where: str, n: int, most: int, what: str) -> str:
    return f"{where}: expected at most {most} {what}, got {n}; ask for fewer, or split the sweep"


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"


def _first(values: list[int], n: int = 5) -> str:
    return ", ".join(map(str, values[:n])) + (" …" if len(values) > n else "")
