"""The suite bites: known faults of others, planted one at a time, and the check that must fail for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.conformance import Case, checks
from orchestrator.trial import setup as trial_setup
from strategies import Learner, TaskData
from strategies.methods import ewc
from strategies.methods.der import Der
from strategies.methods.ewc import Ewc
from strategies.methods.packnet import Packnet
from strategies.methods.replay import Replay

Plant = Callable[[pytest.MonkeyPatch], None]


def fails(check: Callable[[Case], Any], case: Case) -> bool:
    try:
        check(case)
    except AssertionError:
        return True
    return False


def fisher_from_batch_means(patch: pytest.MonkeyPatch) -> None:
    """Square the gradient of a batch's mean in place of each example's."""

    def wrong(network: torch.nn.Module, batches: Any, logits_of: Any, kind: str, generator: Any) -> Any:
        sums: dict[str, torch.Tensor] = {}
        for batch in batches:
            logits, first = logits_of(batch)
            loss = torch.nn.functional.cross_entropy(logits, batch.labels - first)
            names = [name for name, _ in network.named_parameters()]
            found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    sums[name] = sums.get(name, torch.zeros_like(gradient)) + gradient.square() / len(batches)
        return sums

    patch.setattr(ewc, "fisher_diagonal", wrong)


def weight_decay_on_frozen_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Packnet, "after_step", lambda self, batch, forward: None)


def reservoir_counts_epochs(patch: pytest.MonkeyPatch) -> None:
    offer = Replay.end_task

    def wrong(self: Replay, task: TaskData) -> None:
        for _ in range(self.learner.settings.epochs):
            offer(self, task)

    patch.setattr(Replay, "end_task", wrong)


def fisher_lost_on_resume(patch: pytest.MonkeyPatch) -> None:
    load = Ewc.load_state_dict

    def wrong(self: Ewc, state: dict[str, Any]) -> None:
        load(self, state | {"importance": {}, "anchor": {}})

    patch.setattr(Ewc, "load_state_dict", wrong)


def evaluation_before_pruning(patch: pytest.MonkeyPatch) -> None:
    """Measure a task before it is consolidated, and consolidate it at the start of the next."""

    class Late(Learner):
        waiting: TaskData | None = None

        def learn(self, task: TaskData, between_steps: Callable[[], None] | None = None) -> None:
            packnet = self.strategies[0]
            if self.waiting is not None:
                Packnet.end_task(packnet, self.waiting)  # type: ignore[arg-type]
            self.waiting = task
            packnet.end_task = lambda task: None  # type: ignore[method-assign]
            super().learn(task, between_steps)

        def logits(self, inputs: torch.Tensor, task: int) -> torch.Tensor:
            if self.waiting is not None and self.waiting.index == task:
                return self.network(inputs, task, max(self.n_seen, 1))  # type: ignore[no-any-return]
            return super().logits(inputs, task)

    patch.setattr(trial_setup, "Learner", Late)


def a_batch_order_lost_on_resume(patch: pytest.MonkeyPatch) -> None:
    load = Learner.load_state_dict

    def wrong(self: Learner, state: dict[str, Any]) -> None:
        progress = state["progress"]
        fresh = progress | {"order": self.generators.fresh("batches").get_state()} if progress else None
        load(self, state | {"progress": fresh})

    patch.setattr(Learner, "load_state_dict", wrong)


def a_method_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "extend_batch", lambda self, batch: batch)


def a_buffer_over_capacity(patch: pytest.MonkeyPatch) -> None:
    offer = Replay.end_task

    def wrong(self: Replay, task: TaskData) -> None:
        own = self.hyperparameters
        self.hyperparameters = own.model_copy(update={"buffer_size": own.buffer_size + 1})
        offer(self, task)
        self.hyperparameters = own

    patch.setattr(Replay, "end_task", wrong)


def stale_logits(patch: pytest.MonkeyPatch) -> None:
    """Leave the logits of a slot as they were when another example takes it."""
    from strategies.methods import der

    put = der.put

    def wrong(old: torch.Tensor | None, slots: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        before = None if old is None else old.clone()
        result = put(old, slots, new)
        if before is not None:
            result[: len(before)] = before
        return result

    patch.setattr(der, "put", wrong)


def logits_of_the_present_model(patch: pytest.MonkeyPatch) -> None:
    """Renew the stored logits at the end of a task."""

    def wrong(self: Der, task: TaskData) -> None:
        with torch.no_grad():
            self.state.logits += 0.01

    patch.setattr(Der, "end_task", wrong)


def a_projection_that_is_left_out(patch: pytest.MonkeyPatch) -> None:
    from strategies.methods import gem

    patch.setattr(gem, "project", lambda gradients, margin: False)


def an_anchor_from_before_the_task(patch: pytest.MonkeyPatch) -> None:
    end = Ewc.end_task

    def wrong(self: Ewc, task: TaskData) -> None:
        end(self, task)
        self.state.anchor = {name: anchor + 0.1 for name, anchor in self.state.anchor.items()}

    patch.setattr(Ewc, "end_task", wrong)


SMALL = {"buffer_size": 9}
PACKNET = Case("packnet", "task", {"pruning_rate": 0.5, "post_prune_epochs": 1})
PLANTED: list[tuple[Plant, Callable[[Case], Any], Case]] = [
    (fisher_from_batch_means, checks.its_importance_is_that_of_single_examples, Case("ewc", "class")),
    (weight_decay_on_frozen_weights, checks.old_logits_never_change, PACKNET),
    (reservoir_counts_epochs, checks.its_reservoir_counts_examples_once, Case("replay", "class", SMALL)),
    (fisher_lost_on_resume, checks.a_stop_between_tasks_changes_nothing, Case("ewc", "domain")),
    (fisher_lost_on_resume, checks.a_stop_inside_a_task_changes_nothing, Case("ewc", "domain")),
    (evaluation_before_pruning, checks.the_protocol_accepts_it, PACKNET),
    (a_batch_order_lost_on_resume, checks.a_stop_inside_a_task_changes_nothing, Case("naive", "task")),
    (a_method_that_does_nothing, checks.is_not_naive, Case("replay", "class", SMALL)),
    (a_buffer_over_capacity, checks.its_buffer_stays_within_capacity, Case("replay", "class", SMALL)),
    (stale_logits, checks.its_stored_logits_are_those_of_insertion, Case("der", "class", SMALL)),
    (logits_of_the_present_model, checks.its_stored_logits_are_those_of_insertion, Case("der", "task", SMALL)),
    (a_projection_that_is_left_out, checks.its_steps_oppose_no_memory, Case("gem", "class", {"buffer_size": 30})),
    (an_anchor_from_before_the_task, checks.its_pull_rests_at_the_anchor, Case("ewc", "task")),
]


@pytest.mark.parametrize(("plant", "check", "case"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_fails_its_check(
    plant: Plant, check: Callable[[Case], Any], case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(case)
    plant(monkeypatch)
    assert fails(check, case)


def test_each_check_of_a_case_runs_on_some_method() -> None:
    assert dataclasses.is_dataclass(Case)
    assert len({check for _, check, _ in PLANTED}) >= 8
