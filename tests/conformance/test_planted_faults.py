"""Known faults, planted one at a time: the rows of the cut catch each, and no check is without one that it catches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from matrix import in_the_cut, method_rows
from pydantic import ValidationError

from orchestrator.conformance import Case, checks, family_checks
from orchestrator.conformance.suite import CHECKS
from orchestrator.trial import setup as trial_setup
from search_spaces.space import FloatRange
from strategies import Learner, Network, StreamSizes, TaskData
from strategies.methods import der, ewc, gem, replay
from strategies.methods.der import Der
from strategies.methods.ewc import Ewc
from strategies.methods.packnet import Packnet
from strategies.methods.pnn import Pnn
from strategies.methods.replay import Replay
from strategies.methods.ridge import Ridge
from strategies.methods.supsup import Supsup
from strategies.parts.analytic import Analytic

Plant = Callable[[pytest.MonkeyPatch], None]


def fails(check: Callable[[Case], object], case: Case) -> bool:
    try:
        check(case)
    except (AssertionError, ValidationError):
        return True
    return False


def fisher_from_batch_means(patch: pytest.MonkeyPatch) -> None:
    """Square the gradient of a batch's mean in place of each example's."""

    def wrong(network: torch.nn.Module, batches: Any, logits_of: Any, kind: str, generator: Any, *_: Any) -> Any:
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
    patch.setattr(gem, "project", lambda gradients, margin: False)


def a_buffer_that_is_taken_for_full(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Replay, sizes: StreamSizes) -> int:
        return self.hyperparameters.buffer_size * (sizes.example_bytes + 16)  # type: ignore[no-any-return]

    patch.setattr(Replay, "bytes_to_keep", wrong)


def heads_that_are_not_foreseen(patch: pytest.MonkeyPatch) -> None:
    """Count the parameters that the network has when it is asked."""

    def wrong(self: Ewc, sizes: StreamSizes) -> int:
        return 2 * sum(parameter.nbytes for parameter in self.learner.network.parameters())

    patch.setattr(Ewc, "bytes_to_keep", wrong)


def an_anchor_from_before_the_task(patch: pytest.MonkeyPatch) -> None:
    end = Ewc.end_task

    def wrong(self: Ewc, task: TaskData) -> None:
        end(self, task)
        self.state.anchor = {name: anchor + 0.1 for name, anchor in self.state.anchor.items()}

    patch.setattr(Ewc, "end_task", wrong)


def a_draw_from_the_global_generator(patch: pytest.MonkeyPatch) -> None:
    draw = replay.draw
    patch.setattr(replay, "draw", lambda state, n, generator: draw(state, n, torch.default_generator))


def old_heads_changed_by_growth(patch: pytest.MonkeyPatch) -> None:
    add = Network.add_heads

    def wrong(self: Network, n_heads: int, device: torch.device, fresh: Any) -> list[torch.nn.Parameter]:
        new = add(self, n_heads, device, fresh)
        with torch.no_grad():
            for head in self.heads[: n_heads - 1]:
                head.weight.mul_(0.5)
        return new

    patch.setattr(Network, "add_heads", wrong)


def a_pull_that_is_never_zero(patch: pytest.MonkeyPatch) -> None:
    strength = Ewc.strength
    patch.setattr(Ewc, "strength", lambda self: strength(self) + 1e-3)


def a_report_that_is_not_json(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "report", lambda self: {"examples a task": {0: 4, 1: 5}})


def answers_of_the_newest_column(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Pnn, inputs: torch.Tensor, task: int) -> None:
        self._columns.active = self.state.n_columns - 1

    patch.setattr(Pnn, "logits", wrong)


def a_column_that_stays_in_place(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Pnn, inputs: torch.Tensor, task: int) -> None:
        self._columns.active = task

    patch.setattr(Pnn, "logits", wrong)


def a_mask_for_all_tasks(patch: pytest.MonkeyPatch) -> None:
    end = Supsup.end_task

    def wrong(self: Supsup, task: TaskData) -> None:
        end(self, task)
        self.state.masks = [self.state.masks[-1]] * len(self.state.masks)

    patch.setattr(Supsup, "end_task", wrong)


def a_search_beyond_the_range(patch: pytest.MonkeyPatch) -> None:
    wrong = FloatRange(0.5, 2.0)
    patch.setattr(checks, "default_space", lambda method: {"replay_ratio": wrong})


def a_spec_that_takes_every_type(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks, "parse_spec", lambda content: None)


def no_summary(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "summary", "")


def a_sum_that_fades(patch: pytest.MonkeyPatch) -> None:
    """Halve the sums at the start of a task, so that the last task counts most."""
    begin = Ridge.begin_task

    def wrong(self: Ridge, task: TaskData) -> None:
        begin(self, task)
        self.state.sums //= 2

    patch.setattr(Ridge, "begin_task", wrong)


def a_product_that_grows_with_each_portion(patch: pytest.MonkeyPatch) -> None:
    absorb = Analytic.absorb

    def wrong(self: Ridge, batch: Any) -> None:
        absorb(self, batch)
        self.state.products[0][0, 0] += 10_000

    patch.setattr(Ridge, "absorb", wrong)


def a_head_that_is_trained(patch: pytest.MonkeyPatch) -> None:
    end = Ridge.end_task

    def wrong(self: Ridge, task: TaskData) -> None:
        end(self, task)
        with torch.no_grad():
            self.learner.network.heads[0].bias.add_(1.0)  # type: ignore[operator, union-attr]

    patch.setattr(Ridge, "end_task", wrong)


PLANTED: list[tuple[Plant, Callable[[Case], object], str]] = [
    (no_summary, checks.declares_itself, "replay"),
    (a_search_beyond_the_range, checks.what_is_searched_can_be_trained_with, "replay"),
    (a_spec_that_takes_every_type, checks.unsupported_types_are_refused_with_the_reason, "packnet"),
    (a_spec_that_takes_every_type, checks.blurry_tasks_are_refused_with_the_reason, "packnet"),
    (a_batch_order_lost_on_resume, checks.it_learns_blurry_tasks, "naive"),
    (a_draw_from_the_global_generator, checks.is_repeatable, "replay"),
    (fisher_lost_on_resume, checks.a_stop_between_tasks_changes_nothing, "ewc"),
    (fisher_lost_on_resume, checks.a_stop_inside_a_task_changes_nothing, "ewc"),
    (a_batch_order_lost_on_resume, checks.a_stop_inside_a_task_changes_nothing, "naive"),
    (a_column_that_stays_in_place, checks.an_evaluation_inside_a_task_changes_nothing, "pnn"),
    (old_heads_changed_by_growth, checks.the_start_of_a_task_changes_no_answer, "naive"),
    (a_report_that_is_not_json, checks.its_state_is_plain, "replay"),
    (a_buffer_that_is_taken_for_full, checks.it_keeps_what_it_said, "replay"),
    (heads_that_are_not_foreseen, checks.it_keeps_what_it_said, "ewc"),
    (a_pull_that_is_never_zero, checks.strength_zero_is_naive, "ewc"),
    (a_method_that_does_nothing, checks.is_not_naive, "replay"),
    (a_buffer_over_capacity, family_checks.its_buffer_stays_within_capacity, "replay"),
    (reservoir_counts_epochs, family_checks.its_reservoir_counts_examples_once, "replay"),
    (stale_logits, family_checks.its_stored_logits_are_those_of_insertion, "der"),
    (logits_of_the_present_model, family_checks.its_stored_logits_are_those_of_insertion, "der"),
    (a_projection_that_is_left_out, family_checks.its_steps_oppose_no_memory, "gem"),
    (an_anchor_from_before_the_task, family_checks.its_pull_rests_at_the_anchor, "ewc"),
    (fisher_from_batch_means, family_checks.its_importance_is_that_of_single_examples, "ewc"),
    (weight_decay_on_frozen_weights, family_checks.old_logits_never_change, "packnet"),
    (answers_of_the_newest_column, family_checks.old_logits_never_change, "pnn"),
    (a_mask_for_all_tasks, family_checks.old_logits_never_change, "supsup"),
    (a_head_that_is_trained, family_checks.its_network_is_left_alone, "ridge"),
    (a_sum_that_fades, family_checks.it_learns_tasks_as_if_at_once, "ridge"),
    (a_product_that_grows_with_each_portion, family_checks.its_portions_do_not_matter, "ridge"),
    (a_sum_that_fades, family_checks.an_old_task_is_answered_as_a_new_one, "ridge"),
    (evaluation_before_pruning, checks.the_protocol_accepts_it, "packnet"),
]
"""A fault, the check that must fail for it, and the method in which it is planted."""


@pytest.mark.parametrize(
    ("plant", "check", "method"), PLANTED, ids=[f"{p.__name__}-{c.__name__}-{m}" for p, c, m in PLANTED]
)
def test_the_cut_catches_a_planted_fault(
    plant: Plant, check: Callable[[Case], object], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in method_rows(method, 0) if in_the_cut(row) and row.check.function is check]
    plant(monkeypatch)
    caught = [fails(check, row.case) for row in rows]
    assert any(caught), f"none of {len(rows)} rows"


def test_every_check_catches_a_planted_fault() -> None:
    assert {check for _, check, _ in PLANTED} == {check.function for check in CHECKS}
