"""The reference pages, written from the code: spec fields, streams and metrics, methods, tables, command line, API."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo, ParameterInfo

import orchestrator
from orchestrator.cli import main as cli
from orchestrator.core.metrics import COSTS, DERIVED, METRICS_AND_COSTS, Metric
from orchestrator.core.scores import SCORES
from orchestrator.results.schema import SCHEMA_VERSION, SCHEMAS
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.streams.checking import refused_type
from orchestrator.streams.facts import DATASETS
from orchestrator.streams.settings import INCREMENTAL_TYPES, STREAMS, StreamSettings, number_of_tasks
from orchestrator.trial.diagnostics.quantities import QUANTITIES
from search_spaces import default_space
from strategies import STRATEGIES, find_method

COLUMNS = {
    "key": "hash of everything that the trial's result depends on, 16 hexadecimal digits; joins the tables",
    "scenario": "stream/incremental type",
    "stream": "the stream",
    "incremental_type": "task, domain or class",
    "method": "the method or combination",
    "phase": "search or finals (validation split), or confirm (test split)",
    "suggestion": "number of the suggestion in its cell, from 0",
    "seed": "the trial's seed",
    "hyperparameters": "JSON: every hyper-parameter of the method",
    "status": "completed; stopped by a rule before the last task, or failed by its own doing: both are results; "
    "error: the machine's, tried again by the next run",
    "stopped_after": "the task, from 0, after which a rule stopped it; empty if none did",
    "stop_rule": "JSON: the rule that travelled with it, by which it is stopped, or run on as a control",
    "reason": "why it did not complete; else empty",
    "n_attempts": "how often it was started",
    "started_at": "when it started",
    "device": "cpu or cuda",
    "device_name": "the processor or GPU",
    "threads": "CPU threads",
    "host": "name of the machine",
    "node_id": "Ray's id of the node",
    "process_id": "process of the worker",
    "code_revision": "git revision, or a hash of the code",
    "package_version": "version of this package",
    "python_version": "version of Python",
    "torch_version": "version of PyTorch",
    "ray_version": "version of Ray",
    "optuna_version": "version of Optuna",
    "spec_hash": "hash of the sweep's whole spec",
    "data_hash": "hash of the data set",
    "details": "JSON: what the method reports of itself",
    "trial_spec": "JSON: the resolved trial; `trial --from RUN KEY` repeats it",
    "after_task": "the matrix's row: measured after this task was learned; -1 is before any training",
    "during_task": "the task that was being trained; its last evaluation is that at its end",
    "n_given": "examples of tasks' training data that had been given since the trial began, each as often as it was "
    "given; icarl, joint and gdumb train on those that they keep in the same way, which then count too",
    "task": "the matrix's column: the task that was measured",
    "score": "accuracy table: what R holds, the scenario's score on the task; trials table: the score's name",
    "task_name": "the task by the name that you know it by",
    "classes": "the classes that compete for the task; the lists below have an entry for each",
    "n_true": "held-out examples of each class",
    "n_predicted": "answers that name each class",
    "n_right": "right answers of each class",
    **{name: f"{kind.meaning}, 0 to 1" for name, kind in SCORES.items() if not kind.of_class},
    "name": "the quantity that was measured, see below",
    "part": "the layer, task or class that it is of; empty for the whole",
    "value": "what was measured",
    "n_correct": "held-out examples that were right",
    "n_examples": "held-out examples of the task",
    "right": "a bit for each held-out example, in the order of the test split, 1 if it was answered rightly: as packed "
    "by `numpy.packbits`, so that the first example is the highest bit of the first byte",
    "examples": "hash of the held-out examples and the names of their classes, in order, 16 hexadecimal digits: rows "
    "are of the same examples if it is equal",
    **{name: metric.meaning for name, metric in METRICS_AND_COSTS.items()},
    **DERIVED,
}
"""Column of a table -> its meaning. A column that is missing here fails the build."""


def write(folder: Path) -> None:
    """Write every reference page into `folder`, and nothing where a page has not changed."""
    folder.mkdir(exist_ok=True)
    pages = {
        "spec": spec_page(),
        "streams": streams_page(),
        "methods": methods_page(),
        "tables": tables_page(),
        "command-line": command_line_page(),
        "exit-codes": exit_codes_page(),
        "python": python_page(),
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Return plain text for Markdown: characters with a meaning there are escaped, but for code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts)


def code(value: object) -> str:
    """Return a value as code."""
    return f"`{value}`"


# The spec.


def spec_page() -> str:
    """Return the fields of a spec, from the JSON Schema of its models."""
    schema = SweepSpec.model_json_schema()
    titles = {"SweepSpec": "The sweep"}
    sections = [
        "# Spec fields\n\nEvery field has a default. `python -m orchestrator schema` prints the same as a JSON Schema, "
        "for editors; `python -m orchestrator spec` prints a spec with comments to start from.\n"
    ]
    places = _places(schema)
    for name, part in {"SweepSpec": schema, **schema["$defs"]}.items():
        if "properties" not in part:
            continue
        head = titles.get(name) or " and ".join(code(place) for place in places[name])
        rows = [
            [code(field), _kind(facts), _default(facts), _prose(facts.get("description", ""))]
            for field, facts in part["properties"].items()
        ]
        sections.append(f"## {head}\n\n{table(['field', 'values', 'default', 'meaning'], rows)}")
    return "\n".join(sections)


def _places(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return where each definition is used: `search`, `resources.methods.NAME`, …"""
    places: dict[str, list[str]] = {}

    def walk(part: Mapping[str, Any], path: str) -> None:
        for field, facts in part.get("properties", {}).items():
            here = f"{path}{field}"
            for name, suffix in _references(facts):
                if f"{here}{suffix}" not in places.setdefault(name, []):
                    places[name].append(f"{here}{suffix}")
                    walk(schema["$defs"][name], f"{here}{suffix}.")

    walk(schema, "")
    return places


def _references(facts: Any, suffix: str = "") -> list[tuple[str, str]]:
    found = []
    if isinstance(facts, Mapping):
        if "$ref" in facts:
            found.append((facts["$ref"].rsplit("/", 1)[1], suffix))
        for key, value in facts.items():
            if key != "discriminator":
                found += _references(value, suffix + (".NAME" if key == "additionalProperties" else ""))
    elif isinstance(facts, list):
        for value in facts:
            found += _references(value, suffix)
    return found


def _kind(facts: Mapping[str, Any]) -> str:
    """Return the values that a field may have, in words."""
    options = [*facts.get("anyOf", ()), *facts.get("oneOf", ())]
    if options:
        return ", or ".join(dict.fromkeys(part for option in options for part in _kind(option).split(", or ")))
    if "$ref" in facts:
        return "any" if facts["$ref"].endswith("JsonValue") else "a mapping, see below"
    if "enum" in facts:
        return ", ".join(code(value) for value in facts["enum"])
    if "const" in facts:
        return code(facts["const"])
    kind = facts.get("type", "any")
    if kind == "array":
        return f"a list: {_kind(facts.get('items', {}))}" if facts.get("items") else "a list"
    if kind == "object":
        inner = facts.get("additionalProperties")
        return f"NAME: {_kind(inner)}" if isinstance(inner, Mapping) else "a mapping"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = " and ".join(f"{sign} {facts[key]:,}" for key, sign in signs.items() if key in facts)
    return f"{names.get(kind, kind)} {bounds}".strip()


def _default(facts: Mapping[str, Any]) -> str:
    if "default" not in facts:
        return "see below" if "$ref" in facts else ""
    value = facts["default"]
    if isinstance(value, Mapping):
        return ""
    if isinstance(value, list):
        return code("[" + ", ".join(map(str, value)) + "]")
    return code(value if isinstance(value, str) else json.dumps(value))


# Streams, metrics, methods.


def streams_page() -> str:
    """Return the streams, metrics and costs."""
    streams = [
        [
            code(name),
            str(number_of_tasks(name, StreamSettings())),
            ", ".join(kind for kind in INCREMENTAL_TYPES if refused_type(name, kind) is None),
            _prose(DATASETS[dataset].source),
        ]
        for name, (_, dataset) in STREAMS.items()
    ]
    facts = [[code(name), *_metric(metric)] for name, metric in METRICS_AND_COSTS.items()]
    derived = [[code(name), _prose(text)] for name, text in DERIVED.items()]
    scores = [[code(f"{n}(CLASS)" if kind.of_class else n), _prose(kind.meaning)] for n, kind in SCORES.items()]
    measured = ", ".join(code(name) for name, cost in COSTS.items() if cost.is_measured)
    return (
        "# Streams, metrics and costs\n\nA scenario is STREAM/TYPE, such as `split-mnist/class`.\n\n## Streams\n\n"
        + table(["stream", "tasks", "incremental types", "data set"], streams)
        + "\nThe number of tasks is the default. `rotated` and `noisy` streams have no `class` type: an image keeps "
        "its class, so no task brings new ones. [Your own images](../how-to/own-data.md) and "
        "[tables](../tutorials/own-table.md) are streams too.\n\n## Scores\n\nWhat a cell of R holds: accuracy by "
        "default. Values equal scikit-learn's; a score that a task cannot have is missing.\n\n"
        + table(["score", "meaning"], scores)
        + "\n## Metrics and costs\n\nA limit or an objective may name any of these; a metric also of another score or "
        f"of some tasks, as in `auroc.worst_forgetting[2023Q1]`. {measured} are measured, so they differ from run to "
        "run.\n\n"
        + table(["name", "better", "range", "meaning"], facts)
        + "\n## Columns that nothing is searched under\n\n"
        + table(["name", "meaning"], derived)
    )


def _metric(metric: Metric) -> list[str]:
    high = "∞" if math.isinf(metric.high) else f"{metric.high:g}"
    return ["less" if metric.lower_is_better else "more", f"{metric.low:g} to {high}", _prose(metric.meaning)]


def methods_page() -> str:
    """Return every method with its paper, hyper-parameters, ranges and abilities."""
    sections = [
        "# Methods and their search spaces\n\n`python -m orchestrator methods NAME` prints the same for one method, a "
        "combination such as `replay+ewc`, or a class of your own.\n"
    ]
    for name, strategy in STRATEGIES.items():
        lines = [f"## {name}", _prose(f"{strategy.summary[0].upper()}{strategy.summary[1:]}.")]
        if strategy.paper:
            lines.append(_prose(f"{strategy.paper}."))
        abilities = []
        for kind in INCREMENTAL_TYPES:
            if kind in strategy.unsupported:
                abilities.append([kind, "no", _prose(strategy.unsupported[kind])])
            else:
                abilities.append([kind, "yes", _prose(strategy.notes.get(kind, ""))])
        if strategy.needs_whole_tasks:
            abilities.append(["any, with `blurry`", "no", _prose(strategy.needs_whole_tasks)])
        lines.append(table(["incremental type", "runs", "but"], abilities))
        fields, space = strategy.hyperparameter_class.model_fields, default_space(find_method(name))
        if fields:
            rows = [
                [code(field), code("null" if facts.default is None else facts.default), _allowed(facts),
                 _searched(space.get(field)), _prose(facts.description or "")]
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


# Tables.


def tables_page() -> str:
    """Return the columns of the tables, from their Parquet schemas."""
    sections = [
        f"# Tables\n\nA run folder holds tables of Parquet files, schema version {SCHEMA_VERSION}. Every older "
        "version stays readable. [How to read them](../how-to/tables.md).\n"
    ]
    heads = {
        "trials": "One row a trial. Metrics are missing if the trial did not complete.",
        "accuracy": "One row a measured cell of the accuracy matrix. A cell that is missing was not measured.",
        "outcomes": "One row for those cells of completed trials of the phase `confirm` that say which examples "
        "were right: each task right after it was learned, and all tasks after the last one. Runs of earlier versions "
        "have none.",
        "evaluations": "One row a task that was seen and an evaluation, of trials that ran with "
        "`training.evaluate_every`: within tasks, and at the end of each, where the rows are those of the accuracy "
        "matrix too. [What they tell](../how-to/single-pass.md).",
        "diagnostics": "One row a quantity, part and task, of trials that ran with `diagnostics: true`. "
        "[What they tell](../how-to/diagnostics.md).",
    }
    for name, schema in SCHEMAS.items():
        rows = [
            [code(field.name), _arrow(field.type), "no" if not field.nullable else "yes", _prose(COLUMNS[field.name])]
            for field in schema
        ]
        sections.append(f"## {name}\n\n{heads[name]}\n\n{table(['column', 'type', 'may be missing', 'meaning'], rows)}")
    meanings = [[code(name), _prose(meaning)] for name, meaning in QUANTITIES.items()]
    sections.append(f"### Quantities\n\n{table(['name', 'meaning'], meanings)}")
    unknown = COLUMNS.keys() - {field.name for schema in SCHEMAS.values() for field in schema}
    if unknown:
        raise ValueError(f"COLUMNS: these are in no table: {sorted(unknown)}")
    return "\n".join(sections)


def _arrow(kind: pa.DataType) -> str:
    return (
        "time, UTC"
        if pa.types.is_timestamp(kind)
        else {"string": "text", "double": "float64"}.get(str(kind), str(kind))
    )


# The command line.


def command_line_page() -> str:
    """Return every command with its arguments and options, from what typer reads: the functions' annotations."""
    sections = [
        "# Command line\n\n`python -m orchestrator` and `continual-sweep` are the same. "
        "[Exit codes](exit-codes.md) say how a command ended. Every command has `--help`.\n"
    ]
    main = cli.app.registered_callback
    if main is not None and main.callback is not None:
        sections.append(table(["option", "default", "meaning"], _options(main.callback)))
    for command in cli.app.registered_commands:
        assert command.callback is not None
        rows = _options(command.callback)
        lines = [
            f"## {command.name or command.callback.__name__}",
            _prose(inspect.cleandoc(command.callback.__doc__ or "")),
        ]
        lines += [table(["argument or option", "default", "meaning"], rows)] if rows else []
        sections.append("\n\n".join(lines) + "\n")
    return "\n".join(sections)


def _options(command: Callable[..., Any]) -> list[list[str]]:
    """Return the names, the default and the meaning of each parameter of a command."""
    hints = get_type_hints(command, include_extras=True)
    rows = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *extras = (
            get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name], parameter.default)
        )
        info = next(extra for extra in extras if isinstance(extra, ParameterInfo))
        if not getattr(info, "hidden", False):
            rows.append(
                _option(name, info, kind, None if isinstance(parameter.default, ParameterInfo) else parameter.default)
            )
    return rows


def _option(name: str, info: ParameterInfo, kind: Any, default: Any) -> list[str]:
    words = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
    plain = [
        part
        for part in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))
        if part is not type(None)
    ]
    inner = get_args(plain[0])[0] if get_origin(plain[0]) is list else plain[0]
    value = info.metavar or ("|".join(get_args(inner)) if get_origin(inner) is Literal else words.get(inner, ""))
    if isinstance(info, ArgumentInfo):
        names = info.metavar or f"[{name.upper()}]"
    else:
        first = (info.default,) if isinstance(info.default, str) and info.default.startswith("-") else ()
        names = f"{', '.join([*first, *(info.param_decls or ())]) or '--' + name.replace('_', '-')} {value}".strip()
    meaning = info.help or ""
    if info.envvar:
        meaning += f" Environment variable: `{info.envvar}`."
    if get_origin(plain[0]) is list:
        meaning += " May be given several times."
    bare = default is None or default is False or default is inspect.Parameter.empty
    return [code(names), "" if bare else code(default), _prose(meaning)]


def exit_codes_page() -> str:
    """Return what the exit codes mean, from the command line's own epilog."""
    found = re.findall(r"(\d+) (.*?)(?=, \d|\.?$)", str(cli.app.info.epilog).partition(": ")[2])
    if len(found) < 5:
        raise ValueError(f"expected the exit codes in the epilog of the command line, got {cli.app.info.epilog!r}")
    rows = [[code(number), re.sub(r"--[a-z-]+", lambda option: code(option[0]), meaning)] for number, meaning in found]
    return f"# Exit codes\n\n{table(['code', 'meaning'], rows)}\nThe same for every command.\n"


# Python.


def python_page() -> str:
    """Return directives for autodoc: what `orchestrator` exports, the method contract and the conformance suite."""
    functions = [name for name in orchestrator.__all__ if inspect.isfunction(getattr(orchestrator, name))]
    classes = [name for name in orchestrator.__all__ if inspect.isclass(getattr(orchestrator, name))]
    parts = ["# Python API", "## orchestrator", "What a script or a notebook imports."]
    parts += [_directive("autofunction", f"orchestrator.{name}") for name in functions]
    parts += [_autoclass(f"orchestrator.{name}", getattr(orchestrator, name)) for name in classes]
    parts += ["## strategies", "What [a method of your own](../your-own-method.md) is written against."]
    contract = ("Strategy", "TaskData", "Batch", "StreamSizes")
    parts += [_directive("autoclass", f"strategies.{name}", ":members:") for name in contract]
    parts += ["## orchestrator.conformance", _directive("autoclass", "orchestrator.conformance.MethodConformance")]
    return "\n\n".join(parts) + "\n"


def _directive(kind: str, name: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {kind}:: {name}", *(f"   {option}" for option in options), "```"])


def _autoclass(name: str, found: type) -> str:
    """Return a class with the members that it documents itself, less pydantic's machinery."""
    fields = set(getattr(found, "model_fields", {}))
    members = [
        member
        for member, value in vars(found).items()
        if not member.startswith(("_", "model_")) and member not in fields and inspect.getdoc(value)
    ]
    return _directive("autoclass", name, f":members: {', '.join(members)}")
