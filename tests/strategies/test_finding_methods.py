"""Methods by name: combinations, their hyper-parameters, refusals, and strategies from elsewhere."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError
from tiny_worlds import learn_tasks, make_learner, parameters_of, same

from strategies import (
    STRATEGIES,
    Exclusive,
    Hyperparameters,
    Method,
    MethodError,
    Strategy,
    TrainingSettings,
    UnknownMethodError,
    find_method,
)
from strategies.methods.ewc import Ewc
from strategies.methods.naive import Naive
from strategies.methods.packnet import Packnet
from strategies.methods.replay import Replay
from strategies.registry import ENTRY_POINTS, Registry, load_class, strategy_faults


class OtherHyperparameters(Hyperparameters):
    penalty_weight: float = Field(2.0, ge=0, description="of its own")
    size: int = Field(3, ge=1, description="another")

    def unused(self) -> frozenset[str]:
        return frozenset({"size"}) if self.penalty_weight == 0 else frozenset()


class Other(Strategy):
    name = "other++"
    summary = "for tests"
    version = 7
    hyperparameter_class = OtherHyperparameters
    notes: ClassVar[dict[Any, str]] = {"class": "weak"}
    unsupported: ClassVar[dict[Any, str]] = {"domain": "for tests"}
    unsupported_models: ClassVar[dict[str, str]] = {"mlp": "for tests"}
    owns = Exclusive.GRADIENT_DIRECTION


class Rival(Strategy):
    name = "rival"
    summary = "for tests"
    owns = Exclusive.GRADIENT_DIRECTION


@pytest.fixture
def registry() -> Registry:
    return Registry((Naive, Replay, Ewc, Other, Rival, Packnet))


def test_one_strategy_is_a_method() -> None:
    method = find_method("ewc")

    assert method.parts == {"ewc": Ewc}
    assert method.hyperparameter_class is Ewc.hyperparameter_class
    assert method.versions == {"ewc": Ewc.version}
    assert not method.is_combination


def test_a_combination_is_the_union_of_its_parts(registry: Registry) -> None:
    method = registry.method("replay+ewc+other++")

    assert list(method.parts) == ["replay", "ewc", "other++"]
    assert method.names["buffer_size"] == ("replay", "buffer_size")
    assert method.names["size"] == ("other++", "size")
    assert method.names["ewc_penalty_weight"] == ("ewc", "penalty_weight")
    assert method.names["other_plus_plus_penalty_weight"] == ("other++", "penalty_weight")
    assert "penalty_weight" not in method.names
    assert set(method.hyperparameter_class.model_fields) == set(method.names)
    assert method.versions == {"replay": Replay.version, "ewc": Ewc.version, "other++": 7}
    assert method.unsupported == {"domain": "for tests"}
    assert method.unsupported_models == {"mlp": "for tests"}


def test_each_part_gets_its_own_values(registry: Registry) -> None:
    method = registry.method("ewc+other++")
    parts = method.split({"ewc_penalty_weight": 5.0, "other_plus_plus_penalty_weight": 0.0, "size": 4})

    assert [cls for cls, _ in parts] == [Ewc, Other]
    assert [own.model_dump()["penalty_weight"] for _, own in parts] == [5.0, 0.0]
    assert parts[1][1].model_dump()["size"] == 4
    assert method.unused({"other_plus_plus_penalty_weight": 0.0, "variant": "online"}) == {
        "rank",
        "eigenvectors_in",
        "size",
    }
    assert method.unused({}) == {"fisher_decay", "rank", "eigenvectors_in"}
    with pytest.raises(ValidationError):
        method.split({"ewc_penalty_weight": -1.0})
    with pytest.raises(ValidationError):
        method.hyperparameter_class(ewc_penalty_weight=-1.0)
    assert method.hyperparameter_class().model_dump()["other_plus_plus_penalty_weight"] == 2.0


def test_a_note_stands_only_where_every_part_has_one(registry: Registry) -> None:
    assert "class" in registry.method("ewc+other++").notes
    assert registry.method("replay+other++").notes == {}


def test_parts_are_called_in_the_order_of_the_list_however_they_are_written(registry: Registry) -> None:
    assert list(registry.method("ewc+replay").parts) == ["replay", "ewc"]
    one = learn_tasks(make_learner("replay", "ewc", kind="class"), range(3))

    assert one.strategies[0].name == "replay"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ewc+ewc", "expected each part once, got 'ewc+ewc'; drop the repeats"),
        ("naive+ewc", "expected parts that can be combined, got 'naive' in 'naive+ewc': it adds nothing; drop it"),
        (
            "packnet+replay",
            "expected parts that can be combined, got 'packnet' in 'packnet+replay': it decides which weights each "
            "task may use, and no other part may move them; drop it",
        ),
        (
            "other+++rival",
            "expected at most one part that sets the direction of the gradient, got 'other++' and 'rival' in "
            "'other+++rival'; drop one of the two",
        ),
        ("a:B", "expected a plugin that was loaded, got 'a:B'; pass --plugin a:B"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(registry: Registry, name: str, message: str) -> None:
    with pytest.raises(MethodError) as caught:
        registry.method(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["ewd", "replay+ewd", "ewd+replay", "", "+", "ewc+", "ewc++", "../x", "a:B:C"])
def test_an_unknown_part_is_named(registry: Registry, name: str) -> None:
    with pytest.raises(UnknownMethodError) as caught:
        registry.method(name)
    assert caught.value.part in name


def test_a_combination_trains_as_its_parts_do() -> None:
    together = learn_tasks(make_learner("replay", "ewc", kind="class"), range(3))
    replay = learn_tasks(make_learner("replay", kind="class"), range(3))
    without = learn_tasks(make_learner("replay", "ewc", kind="class", hyperparameters={"penalty_weight": 0}), range(3))

    assert not same(parameters_of(together), parameters_of(replay))
    assert same(parameters_of(without), parameters_of(replay))


PLUGIN = """
from strategies import Strategy

class Mine(Strategy):
    name = "mine"
    summary = "from elsewhere"

class NoStrategy:
    pass

class Nameless(Strategy):
    summary = "x"
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that nobody has imported."""
    name = f"plugin_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('on purpose')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_class_is_imported_only_where_it_is_asked_for(registry: Registry, plugin: str) -> None:
    name = f"{plugin}:Mine"
    with pytest.raises(MethodError, match="--plugin"):
        registry.method(name)
    assert plugin not in sys.modules

    registry.load_plugin(f"replay+{name}")

    assert registry.method(name).summary == "from elsewhere"
    assert list(registry.method(f"{name}+replay").parts) == ["replay", name]
    assert name not in STRATEGIES


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_here:A", "expected a module that can be imported, got 'no_such_module_here'"),
        ("{plugin}:Missing", "expected a class of '{plugin}', got 'Missing'; check its spelling"),
        ("{plugin}:NoStrategy", "got '{plugin}:NoStrategy' with a type that is not a subclass of strategies.Strategy"),
        ("{plugin}:Nameless", "got '{plugin}:Nameless' with no name"),
        ("{plugin}_broken:A", "(RuntimeError: on purpose)"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused(registry: Registry, plugin: str, path: str, message: str) -> None:
    with pytest.raises(MethodError) as caught:
        registry.load_plugin(path.format(plugin=plugin))
    assert message.format(plugin=plugin) in str(caught.value)


def test_load_class_returns_what_is_named() -> None:
    assert load_class("strategies.methods.ewc:Ewc") is Ewc


def test_an_installed_package_names_its_methods_by_an_entry_point(
    registry: Registry, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        metadata.EntryPoint("mine", f"{plugin}:Mine", ENTRY_POINTS),
        metadata.EntryPoint("broken", f"{plugin}_broken:A", ENTRY_POINTS),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == ENTRY_POINTS else [])

    assert registry.method("mine").parts["mine"].name == "mine"
    assert list(registry.method("mine+replay").parts) == ["replay", "mine"]
    with pytest.raises(MethodError, match="RuntimeError: on purpose"):
        registry.method("broken")
    with pytest.raises(MethodError, match="broken"):
        registry.load_entry_points()


def test_a_name_that_is_taken_is_refused(registry: Registry) -> None:
    with pytest.raises(MethodError, match="expected a name that no other strategy has, got 'ewc'"):
        registry.add("ewc", Rival)
    registry.add("ewc", Ewc)


class BadSpace(Strategy):
    name = "bad"
    summary = "for tests"
    search_space: ClassVar[dict[str, Any]] = {"strength": [1, 2]}


class OwnsText(Strategy):
    name = "text"
    summary = "for tests"
    owns = "the direction of the gradient"  # type: ignore[assignment]


class NeedsValue(Strategy):
    name = "needs"
    summary = "for tests"

    class hyperparameter_class(Hyperparameters):
        strength: float


def test_faults_of_a_strategy_class() -> None:
    assert strategy_faults(Ewc) == []
    assert strategy_faults(Ewc.name) == ["a type that is not a subclass of strategies.Strategy"]
    assert strategy_faults(BadSpace) == ["a search space for 'strength', which is not a hyper-parameter"]
    assert strategy_faults(OwnsText) == ["an `owns` that is not a member of strategies.Exclusive"]
    assert strategy_faults(NeedsValue) == ["a hyper-parameter without a default"]


def test_a_method_is_resolved_once() -> None:
    assert find_method("replay+ewc") is find_method("replay+ewc")
    assert isinstance(find_method("replay+ewc"), Method)
    assert TrainingSettings().epochs == 5
