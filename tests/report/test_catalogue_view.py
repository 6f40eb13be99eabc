"""What `methods` and `scenarios` list: everything that exists, and nothing else."""

from __future__ import annotations

from importlib import metadata
from io import StringIO

import pytest
import yaml
from rich.console import Console, RenderableType

from orchestrator.core.errors import UsageError
from orchestrator.core.metrics import COSTS, METRICS, METRICS_AND_COSTS, lower_is_better
from orchestrator.report.catalogue_view import EXAMPLE, render_methods, render_scenarios
from orchestrator.spec.loading import parse_spec
from orchestrator.streams.settings import INCREMENTAL_TYPES, STREAMS, StreamSettings
from search_spaces import SPACES, Choices
from strategies import STRATEGIES
from strategies.registry import ENTRY_POINTS


def text_of(content: RenderableType, width: int = 240) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(content)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def methods() -> dict[str, str]:
    """Return the text about each method."""
    text = text_of(render_methods())
    starts = {name: text.index(f"{name}: {strategy.summary}") for name, strategy in STRATEGIES.items()}
    ends = [*list(starts.values())[1:], len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts.items(), ends, strict=True)}


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_method_is_listed_with_its_settings(name: str, methods: dict[str, str]) -> None:
    strategy, text = STRATEGIES[name], methods[name]
    assert strategy.paper in text
    for field_name, field in strategy.hyperparameter_class.model_fields.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [field_name])
        assert line.split()[1] == ("null" if field.default is None else str(field.default))
        assert field.description
        assert field.description.split()[0] in line
    for searched, values in SPACES[name].items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [searched])
        shown = f"searched {', '.join(map(str, values.choices))}" if isinstance(values, Choices) else "…"
        assert shown in line


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", INCREMENTAL_TYPES)
def test_each_method_says_what_it_can_do(name: str, kind: str, methods: dict[str, str]) -> None:
    strategy = STRATEGIES[name]
    told = [line.strip().partition(": ") for line in methods[name].splitlines()]
    (ability,) = [said for kinds, _, said in told if kind in kinds.split(", ")]
    if kind in strategy.unsupported:
        assert ability == f"no: {strategy.unsupported[kind]}"  # type: ignore[index]
    elif kind in strategy.notes:
        assert ability == f"yes, but {strategy.notes[kind]}"  # type: ignore[index]
    else:
        assert ability == "yes"


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_method_says_if_it_is_evaluated_at_the_ends_alone(name: str, methods: dict[str, str]) -> None:
    assert ("evaluate_every: at the ends of tasks alone" in methods[name]) == STRATEGIES[name].starts_anew


def test_one_method_or_a_combination_is_listed_alone() -> None:
    assert "ewc: " not in text_of(render_methods("der++"))
    both = text_of(render_methods("ewc+replay"))
    assert [line.split(":")[0] for line in both.splitlines() if ": " in line and line[0] != " "] == ["replay", "ewc"]
    for name, said in (("ecw", "did you mean 'ewc'"), ("packnet+replay", "drop it")):
        with pytest.raises(UsageError, match=said):
            render_methods(name)


def test_installed_methods_are_named_without_import(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("tether", "no_such_module:Tether", ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: (point,))
    assert text_of(render_methods()).splitlines()[-1].endswith(": tether")
    assert "tether" not in text_of(render_methods("ewc"))


def test_names_are_whole_in_a_narrow_terminal() -> None:
    methods, scenarios = text_of(render_methods(), 80), text_of(render_scenarios(), 80)
    fields = {name for strategy in STRATEGIES.values() for name in strategy.hyperparameter_class.model_fields}
    words = set(methods.split())
    assert fields <= words
    assert {*STREAMS, *METRICS, *COSTS, *StreamSettings.model_fields} <= set(scenarios.split())
    assert all(len(line) <= 80 for line in [*methods.splitlines(), *scenarios.splitlines()])


def test_ranges_and_choices_are_listed(methods: dict[str, str]) -> None:
    ewc = {line.split()[0]: line for line in methods["ewc"].splitlines() if line.split()}
    assert "≥ 0" in ewc["penalty_weight"]
    assert "0.1 … 1e+10, log scale" in ewc["penalty_weight"]
    assert "> 0 and ≤ 1" in ewc["penalty_decay"]
    assert "separate, online" in ewc["variant"]
    packnet = {line.split()[0]: line for line in methods["packnet"].splitlines() if line.split()}
    assert "0.4 … 0.95" in packnet["pruning_rate"]
    assert "1 … 6" in packnet["post_prune_epochs"]


def test_each_stream_is_listed_with_its_tasks_and_types() -> None:
    lines = {line.split()[0]: line for line in text_of(render_scenarios()).splitlines() if line.split()}
    for stream, (family, _) in STREAMS.items():
        n_tasks = {"split": 5, "permuted": 10, "rotated": 5, "noisy": 5, "clean-rotated-noisy": 3}[family]
        assert lines[stream].split()[1] == str(50 if stream == "split-cifar100" else n_tasks)
        assert ("task, domain, class" in lines[stream]) == (family in ("split", "permuted"))
    assert "scikit-learn" in lines["split-digits"]


def test_the_example_of_own_data_is_valid() -> None:
    text = text_of(render_scenarios())
    for line in EXAMPLE.splitlines():
        assert line in text
    spec = parse_spec(yaml.safe_load(EXAMPLE) | {"methods": ["naive"]})
    assert [s.folder or s.table for s in spec.streams.values()] == ["data/photos", "data/churn.csv"]


def test_settings_metrics_and_costs_have_a_meaning() -> None:
    text = text_of(render_scenarios())
    facts = {name: field.description or "" for name, field in StreamSettings.model_fields.items()}
    facts |= {name: metric.meaning for name, metric in METRICS_AND_COSTS.items()}
    for name, meaning in facts.items():
        assert any(name in line and meaning in line for line in text.splitlines()), name


def test_every_cost_and_every_forgetting_is_better_low() -> None:
    lower = {name for name in METRICS_AND_COSTS if lower_is_better(name)}
    assert set(METRICS) - lower == {
        "average_accuracy",
        "learning_accuracy",
        "average",
        "learning_average",
        "worst_score",
        "backward_transfer",
        "forward_transfer",
        "anytime_average",
        "worst_case_average",
    }
    assert set(COSTS) <= lower
    assert lower_is_better("auroc.forgetting[2023Q1]")
    assert not lower_is_better("recall(fraud).average")
