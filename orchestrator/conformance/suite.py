"""The checks as a pytest class: inherit it, name a method, and every check runs on every type that it can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from orchestrator.conformance import checks
from orchestrator.conformance.world import Case
from orchestrator.spec.loading import load_plugins
from orchestrator.streams.settings import INCREMENTAL_TYPES
from strategies import find_method


class MethodConformance:
    """Inherit as `class TestMine(MethodConformance)` and set `method`.

    Attributes:
        method: the method's name as in a spec, `module:Class` included.
        hyperparameters: values to test with, where the defaults would do nothing in a world of 20 examples a task.
    """

    method: ClassVar[str]
    hyperparameters: ClassVar[Mapping[str, Any]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test that takes a case on every incremental type that the method can do."""
        if "case" in metafunc.fixturenames:
            load_plugins([self.method])
            unsupported = find_method(self.method).unsupported
            cases = [
                Case(self.method, kind, self.hyperparameters) for kind in INCREMENTAL_TYPES if kind not in unsupported
            ]
            metafunc.parametrize("case", cases, ids=[case.kind for case in cases])

    def test_it_declares_itself(self) -> None:
        load_plugins([self.method])
        checks.declares_itself(Case(self.method))

    def test_what_is_searched_can_be_trained_with(self) -> None:
        load_plugins([self.method])
        checks.what_is_searched_can_be_trained_with(Case(self.method))

    def test_unsupported_types_are_refused_with_the_reason(self) -> None:
        load_plugins([self.method])
        checks.unsupported_types_are_refused_with_the_reason(Case(self.method))

    def test_it_is_repeatable(self, case: Case) -> None:
        checks.is_repeatable(case)

    @pytest.mark.parametrize("training", [{}, {"keep_optimizer": True, "optimizer": "adam"}], ids=["sgd", "adam-kept"])
    def test_a_stop_between_tasks_changes_nothing(self, case: Case, training: dict[str, Any]) -> None:
        checks.a_stop_between_tasks_changes_nothing(case.with_(training=training))

    @pytest.mark.parametrize("training", [{}, {"keep_optimizer": True, "optimizer": "adam"}], ids=["sgd", "adam-kept"])
    def test_a_stop_inside_a_task_changes_nothing(self, case: Case, training: dict[str, Any]) -> None:
        checks.a_stop_inside_a_task_changes_nothing(case.with_(training=training))

    def test_its_state_is_plain(self, case: Case) -> None:
        checks.its_state_is_plain(case)

    @pytest.mark.parametrize("training", [{}, {"optimizer": "adam", "active_outputs": "all"}], ids=["sgd", "adam-all"])
    def test_strength_zero_is_naive(self, case: Case, training: dict[str, Any]) -> None:
        checks.strength_zero_is_naive(case.with_(training=training))

    def test_it_is_not_naive(self, case: Case) -> None:
        checks.is_not_naive(case)

    def test_its_buffer_stays_within_capacity(self, case: Case) -> None:
        if "buffer_size" not in find_method(self.method).names:
            pytest.skip(f"{self.method} has no buffer_size")
        checks.its_buffer_stays_within_capacity(case)

    def test_its_reservoir_counts_examples_once(self, case: Case) -> None:
        checks.its_reservoir_counts_examples_once(case)

    def test_its_stored_logits_are_those_of_insertion(self, case: Case) -> None:
        checks.its_stored_logits_are_those_of_insertion(case)

    def test_its_steps_oppose_no_memory(self, case: Case) -> None:
        if "the direction of the gradient" not in {part.owns for part in find_method(self.method).parts.values()}:
            pytest.skip(f"{self.method} projects no gradients")
        checks.its_steps_oppose_no_memory(case)

    def test_its_pull_rests_at_the_anchor(self, case: Case) -> None:
        checks.its_pull_rests_at_the_anchor(case)

    def test_its_importance_is_that_of_single_examples(self, case: Case) -> None:
        if not any(name.endswith("_samples") for name in find_method(self.method).names):
            pytest.skip(f"{self.method} measures no importance on samples")
        checks.its_importance_is_that_of_single_examples(case)

    def test_old_logits_never_change_where_it_says_so(self, case: Case) -> None:
        if not any(part.never_forgets for part in find_method(self.method).parts.values()):
            pytest.skip(f"{self.method} does not say that it never forgets")
        checks.old_logits_never_change(case)

    def test_the_protocol_accepts_it(self, case: Case) -> None:
        checks.the_protocol_accepts_it(case)
