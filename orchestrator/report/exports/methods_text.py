"""The protocol of a sweep in words, for the methods section of a paper; all of it from the spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orchestrator.core.scores import ACCURACY
from orchestrator.core.text import counted, visible
from orchestrator.report.catalogue_view import distribution_text
from orchestrator.report.numbers import value_text
from orchestrator.search.evidence import RULES
from orchestrator.spec.fields import Chance
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.settings import STREAMS, StreamSettings, dataset_of, family_of, number_of_tasks

_KNOWN = {
    "task": "the task is known at inference",
    "domain": "all tasks share their outputs, and the task is not needed at inference",
    "class": "the classes of all tasks so far compete at inference",
}
_SAMPLERS = {"tpe": "TPE", "random": "random", "gp": "Gaussian-process"}
_PATHS = ("folder", "table", "test_table")
_OF_FAMILY = {
    "split": ("classes_per_task", "class_order"),
    "permuted": ("permutation_seed",),
    "rotated": ("max_rotation",),
    "noisy": ("max_noise", "noise_seed"),
    "clean-rotated-noisy": ("rotation", "max_noise", "noise_seed"),
}
"""Family of streams -> the settings that are said even at their defaults."""

_OUTPUTS = {"seen": "the classes seen so far", "all": "all classes", "current": "the task's own classes"}


def methods_paragraph(spec: SweepSpec) -> str:
    """Return the protocol in words: data, training, seeds and splits, search, limits, and hyper-parameters."""
    parts = (_data(spec), _training(spec), _seeds(spec), _search(spec), _decision(spec), _hyperparameters(spec))
    return visible_paragraphs(" ".join(sentences) for sentences in map(list, parts))


def visible_paragraphs(paragraphs: Iterable[str]) -> str:
    """Return paragraphs with an empty line between them; names in them cannot begin new ones."""
    return "\n\n".join(visible(paragraph) for paragraph in paragraphs if paragraph) + "\n"


def _data(spec: SweepSpec) -> Iterator[str]:
    scenarios = dict.fromkeys(cell.scenario for cell in spec.cells)
    yield f"We compared {_listed(spec.methods)} in {counted(len(scenarios), 'scenario')}: {_listed(scenarios)}."
    if spec.variants:
        yield f"{_listed([f'{name} is {method}' for name, method in spec.variants.items()])}, with settings of its own."
    for stream in dict.fromkeys(cell.stream for cell in spec.cells):
        yield _stream(stream, spec.stream_settings(stream))
    for kind in dict.fromkeys(cell.incremental_type for cell in spec.cells):
        yield f"Incremental type {kind}: {_KNOWN[kind]}."
    for method in spec.methods:
        there = {cell.scenario for cell in spec.cells if cell.method == method}
        if left_out := [scenario for scenario in scenarios if scenario not in there]:
            yield f"{method} cannot learn {_listed(left_out)} and was left out there."


def _stream(stream: str, settings: StreamSettings) -> str:
    given = settings.model_dump(mode="json", exclude_defaults=True, exclude={*_PATHS})
    if stream in STREAMS:
        given.pop("n_tasks", None)
        n_tasks = number_of_tasks(stream, settings)
        lead = f"{stream} makes {counted(n_tasks, 'task')} of {dataset_of(stream)}"
    else:
        lead = f"{stream} is our own {family_of(stream, settings)}"
        given["test_share"] = settings.test_share
    own = _OF_FAMILY.get(family_of(stream, settings), ())
    given |= settings.model_dump(mode="json", include={"normalisation", *own})
    found, share = settings.boundaries, given.pop("blurry", None)
    given.pop("boundaries", None)
    lead = f"{lead}, with {_settings(given)}."
    if share is not None:
        lead += f" Neighbouring tasks exchange training examples: {share:g} of a task's are of those before and after."
    if found is None:
        return lead
    lengths = {"minimal_length": found.minimal_length, "maximal_length": found.maximal_length}
    cut = _settings({**found.parameters(), **{name: n for name, n in lengths.items() if n is not None}})
    return f"{lead} Its tasks begin where {found.words} finds drift ({cut})."


def _training(spec: SweepSpec) -> Iterator[str]:
    training, model = spec.training, spec.model.model_dump(mode="json")
    trains = {method: spec.method_of(method).trains_network for method in spec.methods}
    if sums := [method for method, is_training in trains.items() if not is_training]:
        verb = "has no network: it answers" if len(sums) == 1 else "have no network: they answer"
        yield f"{_listed(sums)} {verb} in closed form, from sums over fixed features of the inputs."
    if len(sums) == len(trains):
        return
    name = model.pop("name")
    who = "Every other method" if sums else "Every method"
    yield f"{who} trained the same model, {name}{f' with {_settings(model)}' if model else ''}."
    length = counted(training.iterations, "step") if training.iterations else counted(training.epochs, "epoch")
    momentum = f", momentum {training.momentum:g}" if training.optimizer in ("sgd", "rmsprop") else ""
    yield (
        f"Each task was trained for {length} with {training.optimizer} (learning rate {training.learning_rate:g}"
        f"{momentum}, weight decay {training.weight_decay:g}) on batches of {training.batch_size} new examples."
    )
    yield f"The optimizer's state was {'kept' if training.keep_optimizer else 'reset'} from task to task."
    clip = training.clip_gradient_norm
    yield "Gradients were not clipped." if clip is None else f"Gradients were clipped to a norm of {clip:g}."
    if training.evaluate_every is not None:
        yield (
            f"Within a task, the tasks seen so far were evaluated after every {training.evaluate_every:,} new examples."
        )
    if training.output_layer == "single":
        yield "Outputs that a step did not reach had a gradient of zero, as rows of a single layer."
    kinds = {cell.incremental_type for cell in spec.cells}
    if training.evaluate == "masked" and "task" in kinds:
        yield (
            "In task scenarios the network was trained as in class scenarios, and outputs of other tasks were left out "
            "at evaluation."
        )
        kinds.add("class")
    if "class" in kinds:
        yield f"In class scenarios the loss has the outputs of {_OUTPUTS[training.active_outputs]}."
    if training.class_weight is not None:
        weights = training.class_weight
        yield f"Examples were weighted by class: {weights if isinstance(weights, str) else _settings(weights)}."


def _seeds(spec: SweepSpec) -> Iterator[str]:
    seeds = spec.seeds
    if seeds.of("search"):
        how = "drawn anew for each seed" if spec.validation_split == "seed" else "the same for all seeds"
        yield (
            f"Hyper-parameters were chosen on a validation split, {spec.validation_share:.0%} of the training data, "
            f"{how}."
        )
        yield f"Search seeds: {_numbers(seeds.of('search'))}."
        if seeds.of("finals"):
            yield f"Further validation seeds of the finalists: {_numbers(seeds.of('finals'))}."
    yield f"Results are on the test split, which the search never saw, with test seeds {_numbers(seeds.of('confirm'))}."
    if seeds.more and seeds.of("search"):
        yield f"Further test seeds while a limit was undecided, at most: {_numbers(seeds.more)}."


def _search(spec: SweepSpec) -> Iterator[str]:
    search = spec.search
    searched = dict.fromkeys(cell.method for cell in spec.cells if cell.is_searched)
    if search.mode == "defaults":
        yield "Nothing was searched: every method ran with its default hyper-parameters, or those given below."
        return
    if not searched or not spec.seeds.of("search"):
        yield "Nothing was searched: all hyper-parameters were given."
        return
    yield (
        f"In each scenario, each of {_listed(searched)} got {counted(search.suggestions, 'suggestion')}, "
        f"{search.batch} at a time, from Optuna's {_SAMPLERS[search.sampler]} sampler with seed {search.seed}; the "
        "first has the defaults."
    )
    if rest := [method for method in spec.methods if method not in searched]:
        yield f"{_listed(rest)} {'has' if len(rest) == 1 else 'have'} nothing to search."
    if search.seeds == "race":
        yield (
            "Suggestions raced: one got its next search seed only while it met the limits with a probability of "
            f"{RULES.hopeless:g} or more and was better than the best so far with {RULES.behind:g} or more."
        )
    else:
        yield "Every suggestion ran on all search seeds."
    if spec.stoppable:
        yield (
            f"Trials were stopped at a task boundary once a limit on {_listed(spec.stoppable)} was broken for good"
            f"{', or by more than any completed trial had recovered from' if search.stop == 'calibrated' else ''}."
        )
    if spec.seeds.of("finals"):
        yield (
            f"At most {counted(search.finalists, 'finalist')} of each method at a time ran on the further validation "
            "seeds, until it was clear whether they meet the limits."
        )


def _decision(spec: SweepSpec) -> Iterator[str]:
    own = {spec.score_of(scenario): scenario for scenario in spec.scenarios}
    for score in own:
        if score != ACCURACY:
            where = [scenario for scenario in spec.scenarios if spec.score_of(scenario) == score]
            yield f"The score of {_listed(where)} is {score}."
    yield f"The objective is {spec.objective}, its mean over seeds."
    rule = spec.search.limits_hold_for
    if not spec.limits:
        yield "There were no limits."
    elif isinstance(rule, Chance):
        chance = f"with probability {rule.probability:g}"
        yield f"Limits: {', '.join(spec.limits)}; a single new run had to meet each {chance}."
    else:
        who = "the mean over seeds" if rule == "mean" else "every seed"
        yield f"Limits: {', '.join(spec.limits)}; {who} had to meet each."
    if not spec.seeds.of("search"):
        yield "The recommended method is the best that meets the limits on the test split."
        return
    n = RULES.n_confirmed if spec.seeds.of("finals") else 1
    tried = f"; if it broke a limit there, the next, {n} at most" if n > 1 and spec.limits else ""
    what = "suggestion that met the limits" if spec.confirm == "chosen" and spec.limits else "suggestion"
    yield f"Of each method, the best {what} on validation was measured on test{tried}."
    sure = ""
    if spec.limits and rule == "mean" and not spec.is_of_before:
        sure = f", with a probability of {RULES.confirmed:g} or more by the seeds of both splits"
    met = f" that meets the limits on test{sure}" if spec.limits else ""
    yield f"The recommended method is the best on validation{met}; upper bounds are never recommended."


def _hyperparameters(spec: SweepSpec) -> Iterator[str]:
    """Yield what is searched and what is given, once for scenarios that share it."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in spec.cells:
        parts = [f"{name} in {distribution_text(space)}" for name, space in cell.space.distributions.items()]
        parts += [f"{name} = {value_text(value)}" for name, value in cell.space.fixed.items()]
        if parts:
            found.setdefault((cell.method, ", ".join(parts)), []).append(cell.scenario)
    for (method, text), scenarios in found.items():
        everywhere = len(scenarios) == len([cell for cell in spec.cells if cell.method == method])
        yield f"{method}{'' if everywhere else ' on ' + _listed(scenarios)}: {text}."
    if any(spec.method_of(method).names for method in spec.methods):
        yield "Hyper-parameters that are not named have their defaults."


def _listed(names: Iterable[Any]) -> str:
    """Return names as a sentence lists them."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def _settings(values: dict[str, Any]) -> str:
    return _listed(f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_value(one)}" for name, one in value.items()) + "}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value_text(value)


def _numbers(seeds: Sequence[int]) -> str:
    """Return seeds, such as `3 (0 to 2)` or `2 (7, 11)`."""
    if not seeds:
        return "none"
    in_a_row = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{len(seeds)} ({f'{seeds[0]} to {seeds[-1]}' if in_a_row else ', '.join(map(str, seeds))})"
