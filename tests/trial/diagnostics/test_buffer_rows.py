"""What buffers hold, counted by hand and in real trials; and the capacity that is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.streams.datasets import Dataset
from orchestrator.trial.diagnostics.buffers import buffer_rows
from orchestrator.trial.protocol import run_trial

MakeTrial = Callable[..., TrialSpec]
Found = dict[tuple[int, str, str], float]


def test_counts_by_hand() -> None:
    labels, tasks = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1])
    found = {(name, part): value for name, part, value in buffer_rows(labels, tasks, 2, 4, (("A", "B"), "abcd"))}
    assert found == {
        ("buffer_examples", ""): 6.0,
        ("buffer_of_task", "A"): 4.0,
        ("buffer_of_task", "B"): 2.0,
        ("buffer_of_class", "a"): 3.0,
        ("buffer_of_class", "b"): 1.0,
        ("buffer_of_class", "c"): 2.0,
        ("buffer_of_class", "d"): 0.0,
        ("buffer_fairness", ""): 0.0,
    }
    fair = {name: value for name, part, value in buffer_rows(labels, tasks, 2, 3, (("A", "B"), "abcd")) if not part}
    assert fair["buffer_fairness"] == pytest.approx(1 / (6 / 3))


def test_outputs_of_one_class_are_counted_together() -> None:
    """Tasks with the same classes have outputs of their own for them in `task`."""
    labels, tasks = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1])
    found = {(name, part): value for name, part, value in buffer_rows(labels, tasks, 2, 4, (("A", "B"), "abab"))}
    assert (found["buffer_of_class", "a"], found["buffer_of_class", "b"]) == (3.0, 1.0)
    assert found["buffer_fairness", ""] == 0.5


def test_an_empty_buffer_is_shown_as_empty() -> None:
    none = torch.empty(0, dtype=torch.int64)
    found = {(name, part): value for name, part, value in buffer_rows(none, none, 1, 2, (("A",), "ab"))}
    assert found["buffer_examples", ""] == 0.0
    assert ("buffer_fairness", "") not in found


def diagnosed(make_trial: MakeTrial, digits: Dataset, *trial: Any, **fields: Any) -> Found:
    result = run_trial(make_trial(*trial, **fields), digits.phase("confirm", 0.1), diagnostics=True)
    assert result.status == "completed", result.reason
    assert "diagnostics" not in result.details
    return {(after, name, part): value for after, name, part, value in result.diagnostics}


@pytest.mark.parametrize(
    ("method", "values", "full"),
    [
        ("replay", {"buffer_size": 30, "buffer": "class_balanced"}, [30, 30, 30, 30, 30]),
        ("agem", {"buffer_size": 30}, [30, 30, 30, 30, 30]),
        ("gem", {"buffer_size": 30}, [6, 12, 18, 24, 30]),
        ("icarl", {"buffer_size": 30}, [30, 28, 30, 24, 30]),
        ("replay+lwf", {"buffer_size": 20}, [20, 20, 20, 20, 20]),
    ],
)
def test_every_kind_of_buffer_is_counted(
    make_trial: MakeTrial, digits: Dataset, method: str, values: dict[str, Any], full: list[int]
) -> None:
    found = diagnosed(make_trial, digits, "split-digits/class", method, values)
    for after, n in enumerate(full):
        assert found[after, "buffer_examples", ""] == n
        assert sum(v for (a, name, _), v in found.items() if a == after and name == "buffer_of_task") == n
        assert sum(v for (a, name, _), v in found.items() if a == after and name == "buffer_of_class") == n
    if method in ("icarl", "gem"):
        tasks = [v for (a, name, _), v in found.items() if a == 4 and name == "buffer_of_task"]
        assert tasks == [6] * 5
    if values.get("buffer") == "class_balanced":
        assert found[4, "buffer_fairness", ""] == 1.0


def test_a_method_without_examples_has_no_buffer(make_trial: MakeTrial, digits: Dataset) -> None:
    for method in ("naive", "generative-replay"):
        found = diagnosed(make_trial, digits, "split-digits/class", method)
        assert not [name for _, name, _ in found if name.startswith("buffer")]


# Capacity.


def test_packnet_follows_the_rule_and_says_how_many_tasks_are_left(make_trial: MakeTrial, digits: Dataset) -> None:
    """With p = ¼ a sixteenth is free after two tasks, and 1/256 after four: the last of five begins with too little."""
    found = diagnosed(
        make_trial, digits, "split-digits/task", "packnet", {"pruning_rate": 0.25, "post_prune_epochs": 0}
    )
    assert [found[after, "predicted_free_share", ""] for after in range(5)] == [0.25 ** (k + 1) for k in range(5)]
    for after in range(5):
        assert found[after, "free_share", ""] == pytest.approx(0.25 ** (after + 1), abs=0.005)
    assert [found[after, "tasks_left", ""] for after in range(5)] == [3, 2, 1, 0, 0]


def test_packnet_with_equal_shares_has_room_for_every_task(make_trial: MakeTrial, digits: Dataset) -> None:
    found = diagnosed(
        make_trial, digits, "split-digits/task", "packnet", {"pruning": "equal_share", "post_prune_epochs": 0}
    )
    assert [found[after, "tasks_left", ""] for after in range(5)] == [4, 3, 2, 1, 0]
    assert [found[a, "predicted_free_share", ""] for a in range(5)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_columns_of_pnn_grow_as_foretold(make_trial: MakeTrial, digits: Dataset) -> None:
    """A column of 64-8-6 has 520 + 54 parameters, and a lateral from each earlier one 48."""
    found = diagnosed(make_trial, digits, "split-digits/task", "pnn", model={"hidden": [8, 6]})
    assert [found[k, "column_bytes", ""] for k in range(5)] == [
        4 * ((k + 1) * 574 + 48 * (k + 1) * k // 2) for k in range(5)
    ]
    assert {found[k, "column_bytes_long_run", ""] for k in range(5)} == {4 * (20 * 574 + 48 * 190)}


def test_the_foretold_size_of_columns_is_their_size(make_trial: MakeTrial, digits: Dataset) -> None:
    trial = make_trial("split-digits/task", "pnn", model={"hidden": [8, 6]})
    result = run_trial(trial, digits.phase("confirm", 0.1), diagnostics=True)
    sizes = result.details["pnn"]["n_parameters"]
    found = {after: value for after, name, _, value in result.diagnostics if name == "column_bytes"}
    assert found[4] == 4 * sum(sizes.values())
