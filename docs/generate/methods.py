"""Methods and their search spaces."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic.fields import FieldInfo

from generate.markdown import code, prose, table
from orchestrator.streams.settings import INCREMENTAL_TYPES
from search_spaces import default_space
from strategies import STRATEGIES, find_method


def methods_page() -> str:
    """Return every method with its paper, hyper-parameters, ranges and abilities."""
    sections = [
        "# Methods and their search spaces\n\n`python -m orchestrator methods NAME` prints the same for one method, a "
        "combination such as `replay+ewc`, or a class of your own.\n"
    ]
    for name, strategy in STRATEGIES.items():
        lines = [f"## {name}", prose(f"{strategy.summary[0].upper()}{strategy.summary[1:]}.")]
        if strategy.paper:
            lines.append(prose(f"{strategy.paper}."))
        abilities = []
        for kind in INCREMENTAL_TYPES:
            if kind in strategy.unsupported:
                abilities.append([kind, "no", prose(strategy.unsupported[kind])])
            else:
                abilities.append([kind, "yes", prose(strategy.notes.get(kind, ""))])
        if strategy.needs_whole_tasks:
            abilities.append(["any, with `blurry`", "no", prose(strategy.needs_whole_tasks)])
        lines.append(table(["incremental type", "runs", "but"], abilities))
        fields, space = strategy.hyperparameter_class.model_fields, default_space(find_method(name))
        if fields:
            rows = [
                [code(field), code("null" if facts.default is None else facts.default), _allowed(facts),
                 _searched(space.get(field)), prose(facts.description or "")]
                for field, facts in fields.items()
            ]  # fmt: skip
            lines.append(table(["hyper-parameter", "default", "values", "searched by default", "meaning"], rows))
        sections.append("\n\n".join(lines) + "\n")
    return "\n".join(sections)


def _allowed(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if hasattr(rule, name)
    ]
    choices = [code(choice) for choice in getattr(field.annotation, "__args__", ()) if isinstance(choice, str)]
    return " and ".join(bounds) or ", ".join(choices) or "any"


def _searched(distribution: BaseDistribution | None) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(code(choice) for choice in distribution.choices)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return f"{distribution.low:g} to {distribution.high:g}" + (", log scale" if distribution.log else "")
    return "no"
