"""Private names of Ray are in one module, and each may be missing."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from orchestrator.execution import tune_internals
from orchestrator.execution.scheduler import WorkerCache
from orchestrator.execution.tune_internals import INTERNALS

ROOT = Path(__file__).parents[2]
TABLE = "orchestrator/execution/tune_internals.py"


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield private names that a module which imports Ray takes from other objects than `self`."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    paths = [
        f"{getattr(node, 'module', None) or ''}.{alias.name}".strip(".") for node in imports for alias in node.names
    ]
    of_ray = [path for path in paths if path.split(".")[0] == "ray"]
    yield from (path for path in of_ray if any(map(is_private, path.split("."))))
    if not of_ray:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and getattr(node.value, "id", "") != "self":
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            yield from (
                str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant) and is_private(str(a.value))
            )


def test_the_walk_finds_private_names() -> None:
    text = (
        "import ray._private.worker\nfrom ray.tune import _cache\nfrom ray import tune\n"
        "x._y\nself._z\nx.__class__\ngetattr(x, '_w')\nhasattr(x, 'v')\n"
    )
    found = set(private_names(ast.parse(text)))
    assert found == {"ray._private.worker", "ray.tune._cache", "_y", "_w"}
    assert set(private_names(ast.parse("x._y"))) == set(), "of a module that does not know Ray"


def test_one_module_touches_private_names_of_ray() -> None:
    found = {}
    for package in ("orchestrator", "strategies", "search_spaces", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            if names := sorted(set(private_names(ast.parse(path.read_text(encoding="utf-8"))))):
                found[str(path.relative_to(ROOT))] = names
    assert set(found) == {TABLE}
    assert set(found[TABLE]) <= set(INTERNALS), "the table lacks a name"


def test_every_name_in_the_table_is_used() -> None:
    source = (ROOT / TABLE).read_text(encoding="utf-8")
    for name in INTERNALS:
        assert source.count(f'"{name}"') > 1 or f".{name}" in source, name


class TuneTrial(SimpleNamespace):
    """Stands for a trial of Tune."""

    __hash__ = object.__hash__


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_internals, "hide_all", True)
    monkeypatch.setattr(tune_internals, "_missing", {})


def test_without_any_name_nothing_breaks(hidden: None) -> None:
    controller: Any = SimpleNamespace(_actor_cache=object())
    assert tune_internals.controller_of(SimpleNamespace(_tune_controller=controller)) is None
    assert not tune_internals.replace_cache(controller, WorkerCache(lambda cpus, gpus: 1))
    tune_internals.watch_losses(controller, lambda trial, error: error, RayActorError)
    starting = tune_internals.StartingWorkers(controller)
    starting.keep(object(), lambda worker: True)
    starting.kill()
    assert tune_internals.worker_of(controller, object()) is None
    assert tune_internals.forget_trial(controller, TuneTrial(is_finished=lambda: True, trial_id="1"))
    tune_internals.kill_workers(controller)
    assert tune_internals.silent_progress() == ()
    assert tune_internals.can_add_nodes()
    tune_internals.show_as("a trial")
    tune_internals.silence_dead_workers()
    tune_internals.check(controller)
    of_workers = {"_tracked_actor", "_on_error"}  # looked up on what a controller hands out
    assert set(tune_internals.missing()) == set(INTERNALS) - of_workers


def test_the_note_names_what_is_lost_once(hidden: None) -> None:
    note = tune_internals.note_on(["_actor_cache", "_tune_controller"])
    assert "(_actor_cache, _tune_controller)" in note
    assert note.count("idle workers are stopped") == 1
    assert "\n" not in note


def test_a_cache_that_lacks_a_method_is_not_put_in_place(hidden: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_internals, "hide_all", False)
    controller: Any = SimpleNamespace(_actor_cache=SimpleNamespace(cache_object=print, of_a_later_version=print))
    assert not tune_internals.replace_cache(controller, WorkerCache(lambda cpus, gpus: 1))
    assert tune_internals.missing() == ["_actor_cache"]
    del controller._actor_cache.of_a_later_version
    assert tune_internals.replace_cache(controller, cache := WorkerCache(lambda cpus, gpus: 1))
    assert controller._actor_cache is cache


def test_only_ray_s_words_on_dead_workers_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import worker

    printed: list[str] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: printed.append(data["lines"][0]))
    for name in ("ray.tune.tune", "ray.tune.execution.tune_controller", "ray.tune.execution.experiment_state"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.getLogger(name).level)
    tune_internals.silence_dead_workers()
    tune_internals.silence_dead_workers()  # a second sweep in one process
    for pid, line in (("raylet", "A worker died or was killed"), ("raylet", "disk is full"), ("7", "A worker died")):
        worker.print_to_stdstream({"pid": pid, "lines": [line]}, ignore_prefix=True)
    assert printed == ["disk is full", "A worker died"]


def test_a_trial_is_forgotten_once_it_has_ended_and_has_no_worker() -> None:
    ended, other = TuneTrial(is_finished=lambda: True, trial_id="1"), TuneTrial(is_finished=lambda: False, trial_id="2")
    controller = SimpleNamespace(
        _trials=[ended, other],
        _stopped_trials=[ended],
        _trials_to_cache=[other],
        _trial_metadata={"1": "", "2": ""},
        _trial_to_actor=dict[Any, str](),
    )
    assert not tune_internals.forget_trial(controller, other)
    controller._trial_to_actor = {ended: "its worker"}
    assert not tune_internals.forget_trial(controller, ended)
    controller._trial_to_actor.clear()
    assert tune_internals.forget_trial(controller, ended)
    assert controller._trials == controller._trials_to_cache == [other]
    assert controller._stopped_trials == []
    assert controller._trial_metadata == {"2": ""}
