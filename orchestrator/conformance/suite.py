"""The checks as a pytest class: inherit it and name a method. It runs every check that this method could fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

from orchestrator.conformance import checks, family_checks
from orchestrator.conformance.world import Case
from orchestrator.spec.loading import load_plugins
from orchestrator.streams.settings import INCREMENTAL_TYPES
from search_spaces import default_space
from strategies import Exclusive, Method, Strategy, find_method
from strategies.parts.quadratic import QuadraticState

TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam-kept": {"optimizer": "adam", "keep_optimizer": True},
    "adam-all": {"optimizer": "adam", "active_outputs": "all"},
}
"""Training settings of the cases, by name."""


@dataclass(frozen=True)
class Check:
    """A check and the cases that it is run on.

    Args:
        function: raises AssertionError if a case does not pass.
        applies: whether a method could fail it; no other method gets a case.
        trainings: names in `TRAININGS`; a case for each.
        once: one case a method, not one an incremental type.
    """

    function: Callable[[Case], object]
    applies: Callable[[Method], bool] = lambda method: True
    trainings: tuple[str, ...] = ("sgd",)
    once: bool = False

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", "check"))


def _keeps_fields(*names: str) -> Callable[[Method], bool]:
    """Return whether some part's state has all these fields."""

    def applies(method: Method) -> bool:
        states = [{f.name for f in dataclasses.fields(part.state_class)} for part in method.parts.values()]
        return any(state.issuperset(names) for state in states)

    return applies


def _keeps_or_reports(method: Method) -> bool:
    """Return whether some part has a state, or says something of itself."""
    own = ("state_dict", "report", "kept_bytes")
    return any(
        dataclasses.fields(part.state_class) or any(getattr(part, n) is not getattr(Strategy, n) for n in own)
        for part in method.parts.values()
    )


def _has_buffer_size(method: Method) -> bool:
    return any(own == "buffer_size" for _, own in method.names.values())


def _is_quadratic(method: Method) -> bool:
    return any(issubclass(part.state_class, QuadraticState) for part in method.parts.values())


def _samples_importance(method: Method) -> bool:
    """Return whether an importance is measured on samples of a task, and not along the training as SI does."""
    return _is_quadratic(method) and any(name.endswith("_samples") for name in method.names)


def _can_be_naive(method: Method) -> bool:
    return all(part.naive_at for part in method.parts.values())


def _trains_no_network(method: Method) -> bool:
    return not method.trains_network


def _keeps_its_network(method: Method) -> bool:
    return not method.starts_anew


def _projects(method: Method) -> bool:
    return any(part.owns is Exclusive.GRADIENT_DIRECTION for part in method.parts.values())


CHECKS: tuple[Check, ...] = (
    Check(checks.declares_itself, once=True),
    Check(checks.what_is_searched_can_be_trained_with, lambda method: bool(default_space(method)), once=True),
    Check(checks.unsupported_types_are_refused_with_the_reason, lambda method: bool(method.unsupported), once=True),
    Check(checks.blurry_tasks_are_refused_with_the_reason, lambda method: bool(method.needs_whole_tasks), once=True),
    Check(checks.it_learns_blurry_tasks, lambda method: not method.needs_whole_tasks),
    Check(checks.is_repeatable),
    Check(checks.a_stop_between_tasks_changes_nothing, trainings=("sgd", "adam-kept")),
    Check(checks.a_stop_inside_a_task_changes_nothing, trainings=("sgd", "adam-kept")),
    Check(checks.an_evaluation_inside_a_task_changes_nothing),
    Check(checks.the_start_of_a_task_changes_no_answer, _keeps_its_network),
    Check(checks.its_state_is_plain, _keeps_or_reports),
    Check(checks.it_keeps_what_it_said, lambda method: method.knows_kept_bytes, trainings=("sgd", "adam-all")),
    Check(checks.strength_zero_is_naive, _can_be_naive, trainings=("sgd", "adam-all")),
    Check(checks.is_not_naive, lambda method: method.name != "naive"),
    Check(family_checks.its_buffer_stays_within_capacity, _has_buffer_size),
    Check(family_checks.its_reservoir_counts_examples_once, _keeps_fields("n_offered")),
    Check(family_checks.its_stored_logits_are_those_of_insertion, _keeps_fields("inputs", "logits")),
    Check(family_checks.its_steps_oppose_no_memory, _projects),
    Check(family_checks.its_pull_rests_at_the_anchor, _is_quadratic),
    Check(family_checks.its_importance_is_that_of_single_examples, _samples_importance),
    Check(family_checks.old_logits_never_change, checks.never_forgets),
    Check(family_checks.its_network_is_left_alone, _trains_no_network),
    Check(family_checks.it_learns_tasks_as_if_at_once, _trains_no_network),
    Check(family_checks.its_portions_do_not_matter, _trains_no_network),
    Check(family_checks.an_old_task_is_answered_as_a_new_one, _trains_no_network),
    Check(checks.the_protocol_accepts_it),
)


class Row(NamedTuple):
    """A check on one case."""

    check: Check
    case: Case
    training: str

    @property
    def id(self) -> str:
        """Return what pytest shows between brackets."""
        parts = [self.check.name]
        parts += [] if self.check.once else [self.case.kind]
        parts += [self.training] if len(self.check.trainings) > 1 else []
        return "-".join(parts)


def rows_of(base: Case) -> Iterator[Row]:
    """Yield every check that the method of `base` could fail, on every incremental type that it can do.

    Args:
        base: method, hyper-parameters, training and model of the rows. Its type is not used.
    """
    method = find_method(base.method)
    kinds = [kind for kind in INCREMENTAL_TYPES if kind not in method.unsupported]
    cases = {
        (kind, name): dataclasses.replace(base, kind=kind, training={**base.training, **settings})
        for kind in kinds
        for name, settings in TRAININGS.items()
    }
    for check in CHECKS:
        if check.applies(method):
            for kind in kinds[-1:] if check.once else kinds:
                yield from (Row(check, cases[kind, name], name) for name in check.trainings)


class MethodConformance:
    """Inherit as `class TestMine(MethodConformance)` and set `method`.

    Attributes:
        method: the method's name as in a spec, `module:Class` included.
        hyperparameters: values to test with, if the defaults would do nothing on tasks of 20 examples.
    """

    method: ClassVar[str]
    hyperparameters: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Compute on one thread: faster on tensors this small, and the same sums on every machine."""
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(n_threads)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of every row."""
        if "row" in metafunc.fixturenames:
            load_plugins([self.method])
            rows = list(rows_of(Case(self.method, hyperparameters=self.hyperparameters)))
            metafunc.parametrize("row", rows, ids=[row.id for row in rows])

    def test_it_holds(self, row: Row) -> None:
        row.check.function(row.case)
