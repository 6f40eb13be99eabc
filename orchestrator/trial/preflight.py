"""Faults of a spec that show only once the user's own data are read; checked before any worker starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from orchestrator.core.errors import DataError, SpecError
from orchestrator.core.text import nearest
from orchestrator.models.building import model_faults
from orchestrator.models.frozen import load_with_features
from orchestrator.spec.cells import Cell, split_scenario
from orchestrator.spec.limits import class_faults, metric_faults
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.checking import blurry_faults, split_faults
from orchestrator.streams.datasets import Dataset, PhaseData, Start
from orchestrator.streams.naming import task_names
from orchestrator.streams.settings import StreamSettings, family_of, is_user_data
from orchestrator.streams.stream import class_lists, given_classes, layout_of, padded_shape
from orchestrator.trial.setup import set_up
from search_spaces import extremes
from strategies import IncrementalType, find_method

LoadStream = Callable[[str, StreamSettings, Path], Dataset]
"""Returns the data of a stream: its name, its settings, and where torchvision's data sets are."""


def load_datasets(spec: SweepSpec, data_dir: Path, load: LoadStream = load_with_features) -> dict[str, Dataset]:
    """Return every data set of the sweep by name; `load` reads each.

    Raises:
        DataError: if any are missing or damaged, with every fault of all of them.
        SpecError: if the spec asks for something that the user's own data do not have, with every fault.
    """
    found: dict[str, Dataset] = {}
    faults: list[str] = []
    for stream in dict.fromkeys(cell.stream for cell in spec.cells):
        if spec.data_of(stream) not in found:
            try:
                found[spec.data_of(stream)] = load(stream, spec.stream_settings(stream), data_dir)
            except DataError as error:
                faults += error.faults
    asked = data_faults(spec, found)
    if faults:
        raise DataError(*faults, *asked)
    if asked:
        raise SpecError(asked)
    return found


def data_faults(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> list[str]:
    """Return the faults of a valid spec, given the data that could be read."""
    faults: list[str] = []
    sound = set()
    for stream, settings in spec.streams.items():
        if is_user_data(settings) and stream in datasets:
            cut = list(_cut_faults(settings, datasets[stream]))
            cut = cut or blurry_faults(stream, settings, datasets[stream].facts)
            own = [f"streams.{stream}.{fault}" for fault in cut]
            if not own:
                sound.add(stream)
                own = list(_validation_faults(spec, stream, datasets[stream]))
            faults += own
    for index, scenario in enumerate(spec.scenarios):
        stream, kind = split_scenario(scenario)
        if stream in sound:
            kinds = dict.fromkeys([kind, spec.training.learned_as(kind)])
            refused = (_refused(spec.stream_settings(stream), each, datasets[stream]) for each in kinds)
            reason = next(filter(None, refused), None)
            if reason:
                faults.append(f"scenarios.{index}: {scenario} is impossible: {reason}")
        if stream in sound and (start := datasets[stream].start) is not None:
            faults += _start_faults(spec, index, start)
    faults += _weight_faults(spec, datasets)
    shapes = {
        padded_shape(datasets[spec.data_of(stream)].facts.shape, spec.stream_settings(stream).padding): stream
        for stream in dict.fromkeys(cell.stream for cell in spec.cells)
        if spec.data_of(stream) in datasets
    }
    for shape, stream in shapes.items():
        faults += [f"{fault} (for {stream})" for fault in model_faults(spec.model, shape)]
    if not faults:
        faults += _method_faults(spec, datasets)
    for cell in {cell.scenario: cell for cell in spec.cells}.values():
        dataset = datasets.get(spec.data_of(cell.stream))
        if dataset is None or (is_user_data(spec.stream_settings(cell.stream)) and cell.stream not in sound):
            continue
        names = task_names(cell.stream, spec.stream_settings(cell.stream), dataset.facts)
        faults += metric_faults(spec, cell, names) if cell.stream in sound else []
        faults += class_faults(spec, cell, names, classes_held_out(spec, cell, dataset))
    return faults


def _start_faults(spec: SweepSpec, index: int, start: Start) -> Iterator[str]:
    """Yield what trials of a scenario do not share with the model that they begin from."""
    scenario, made_of = spec.scenarios[index], start.made_of
    stream, kind = split_scenario(scenario)
    own, learned = made_of["method"], made_of["incremental_type"]
    if kind != learned:
        yield f"scenarios.{index}: expected {stream}/{learned}, as the model has learned, got {scenario}; correct it"
    for method in spec.methods:
        if method != own:
            yield f"methods: expected {own}, which the model of {scenario} was trained by, got {method}; drop it"
    if spec.model.model_dump(mode="json") != made_of["model"]:
        yield f"model: expected {made_of['model']}, which {scenario} begins from; write the same"
    if own not in spec.methods:
        return
    cell = next(c for c in spec.cells if c.scenario == scenario and c.method == own)
    for name in sorted(find_method(own).fixed_by_state):
        value = made_of["hyperparameters"].get(name)
        if cell.space.fixed.get(name) != value:
            yield (
                f"spaces.{own}.{name}: what the model keeps was made with {value}; fix it to that, because the next "
                "task cannot change it"
            )


def _weight_faults(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Yield why classes cannot be weighted by name."""
    weights = spec.training.class_weight
    if not isinstance(weights, dict):
        return
    for cell in {cell.scenario: cell for cell in spec.cells}.values():
        dataset = datasets.get(spec.data_of(cell.stream))
        for name in weights if dataset is not None else ():
            known = dataset.facts.class_names if dataset is not None else ()
            if name not in known:
                yield f"training.class_weight: {cell.scenario} has no class '{name}'; {nearest(name, known)}"
        family = family_of(cell.stream, spec.stream_settings(cell.stream))
        if cell.incremental_type == "domain" and family == "split":
            yield (
                f"training.class_weight: an output of {cell.scenario} stands for another class in each task; use "
                "balanced"
            )


def classes_held_out(spec: SweepSpec, cell: Cell, dataset: Dataset) -> dict[str, list[str]]:
    """Return task -> the names of the classes that its held-out examples have, in a cell of the scenario.

    If the trial's seed shuffles the classes, that is all of them.
    """
    settings, facts = spec.stream_settings(cell.stream), dataset.facts
    names = task_names(cell.stream, settings, facts)
    if facts.task_names:
        codes = [np.unique(dataset.test_labels[dataset.test_tasks == task]).tolist() for task in range(len(names))]
    elif settings.class_order == "shuffled":
        codes = [list(range(facts.n_classes))] * len(names)
    else:
        codes = class_lists(settings, family_of(cell.stream, settings), facts, len(names), 0)
    return {name: [facts.class_names[c] for c in own] for name, own in zip(names, codes, strict=True)}


def _method_faults(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Yield why methods cannot be set up with their stream and the model, tried at each end of every range."""
    for cell in spec.cells:
        dataset = datasets.get(spec.data_of(cell.stream))
        if dataset is None:
            continue
        method, space = cell.found, cell.space
        own = {name: values for name, values in space.distributions.items() if name in method.names}
        tried = [{name: value} for name, values in own.items() for value in extremes(values)]
        faults = (
            _set_up_fault(spec.trial(cell, {**space.start, **each}, 0, "confirm", ""), dataset) for each in ({}, *tried)
        )
        if fault := next(filter(None, faults), None):
            yield f"methods.{cell.method}: {fault} (for {cell.scenario})"


def _set_up_fault(trial: TrialSpec, dataset: Dataset) -> str | None:
    """Return why the method refuses to be set up, or None."""
    arrays = (dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels)
    data = PhaseData(*arrays, dataset.facts, 0.0, 1.0, start=dataset.start)
    with torch.random.fork_rng(devices=[]):
        try:
            set_up(trial, data, torch.device("cpu"))
        except ValueError as error:
            return str(error)
    return None


def _cut_faults(settings: StreamSettings, dataset: Dataset) -> Iterator[str]:
    """Yield what is wrong with how the data are cut into tasks, without the stream."""
    facts, fields = dataset.facts, StreamSettings.model_fields
    if not facts.task_names:
        yield from split_faults(settings, facts)
        return
    if settings.folder is None:
        return  # the spec itself refuses these fields beside a task column
    for name in ("n_tasks", "classes_per_task", "class_order", "leftover"):
        value = getattr(settings, name)
        if value != fields[name].default:
            yield (
                f"{name}: drop it (it is {value!r}): '{settings.folder}' has a folder for each task, and these folders "
                "are the tasks"
            )


def _refused(settings: StreamSettings, kind: IncrementalType, dataset: Dataset) -> str | None:
    """Return why the data do not fit an incremental type, or None if they do."""
    facts = dataset.facts
    if not facts.task_names:
        return None
    if kind == "class" and not facts.tasks_share_no_class:
        pairs = ((a, b) for b in range(len(facts.task_names)) for a in range(b))
        one, other = next((a, b) for a, b in pairs if set(facts.task_classes[a]) & set(facts.task_classes[b]))
        shared = facts.class_names[min(set(facts.task_classes[one]) & set(facts.task_classes[other]))]
        return (
            f"tasks '{facts.task_names[one]}' and '{facts.task_names[other]}' both have class '{shared}', so not every "
            "task brings new classes; use domain or task"
        )
    ranges = layout_of(given_classes(facts, kind), kind).ranges
    single = next((task for task, (start, stop) in enumerate(ranges) if stop - start == 1), None)
    if kind == "class" or single is None:
        return None
    name = facts.class_names[facts.task_classes[single][0]]
    return (
        f"task '{facts.task_names[single]}' has the one class '{name}', which its head could not miss; use "
        f"{'class, ' if facts.tasks_share_no_class else 'domain, '}or cut the tasks otherwise"
    )


def _validation_faults(spec: SweepSpec, stream: str, dataset: Dataset) -> Iterator[str]:
    """Yield each task without a validation example; each class, if the tasks are made of classes."""
    if not spec.seeds.of("search") or not spec.validation_share:
        return
    facts, chosen = dataset.facts, dataset.validation_rows(spec.validation_share)
    order = spec.stream_settings(stream).class_order
    if dataset.train_tasks is None:
        numbers, names, rule = dataset.train_labels, facts.class_names, "of each class"
        used = order if isinstance(order, tuple) else range(facts.n_classes)
        what = "class"
    else:
        numbers, names, rule = dataset.train_tasks, facts.task_names, "of a class in each task"
        used, what = range(dataset.start.n_learned if dataset.start is not None else 0, len(names)), "task"
    held_out = np.bincount(numbers[chosen], minlength=len(names))
    for index in used:
        if not held_out[index]:
            yield (
                f"streams.{stream}: expected 2 training examples or more {rule}, for training and validation, got 1 in "
                f"{what} '{names[index]}'; add examples or set seeds.search to 0"
            )
