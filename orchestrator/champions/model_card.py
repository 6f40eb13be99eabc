"""The card of a model as Markdown, for people: `README.md` of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from orchestrator.champions.card import Card
from orchestrator.core.scores import Score
from orchestrator.core.text import visible
from orchestrator.spec.trial_spec import TrialSpec
from strategies import find_method


def model_card(card: Card) -> str:
    """Return the card as Markdown; names from data and specs cannot change its form."""
    trial, scenario = card.trial, _code(card.trial.scenario)
    lines = [
        f"# {_text(trial.method)} for {_text(trial.scenario)}",
        "",
        f"A model that learned {len(card.tasks)} tasks one after the other with {_code(trial.method)} ({scenario}), "
        "and can learn further ones. Open it with `orchestrator.load_model(FOLDER)`; no code of this folder runs.",
        "",
        "## What it answers",
        "",
        f"- Classes: {', '.join(_code(name) for name in card.class_names[:50])}"
        + (" …" if len(card.class_names) > 50 else ""),
        f"- Incremental type: {trial.incremental_type}"
        + (": the task of an example must be known" if trial.incremental_type == "task" else ""),
        f"- Takes: {_takes(card)}",
        *_in_front(card),
        f"- Networks: {len(card.members)} ({_code(trial.model.name)}), seed "
        + ", ".join(str(member.seed) for member in card.members),
        "",
        "## How well",
        "",
        *_measured(card),
        "",
        "## How it was made",
        "",
        f"- Hyper-parameters: {_values(trial.hyperparameters) or 'none'}",
        f"- Training of each task: {_training(trial)}",
        f"- Chosen by {_code(card.objective)}"
        + (f" under {', '.join(_code(limit) for limit in card.limits)}" if card.limits else ", without limits"),
        f"- Data: hash {_code(trial.data_fingerprint)}",
        f"- Software: {_values(card.versions)}",
        *(f"- {event.at}: {event.what} {_text(event.task)} from {_code(event.source)}" for event in card.history),
    ]
    return "\n".join(lines) + "\n"


def _training(trial: TrialSpec) -> str:
    if not find_method(trial.method).trains_network:
        return "one pass, without optimizer steps"
    return _values(trial.resolved_training().model_dump(mode="json", exclude_none=True))


def _takes(card: Card) -> str:
    if card.columns:
        return "rows of a table with the columns " + ", ".join(_code(column.name) for column in card.columns)
    channels, height, width = card.example_shape
    return f"{'grey' if channels == 1 else 'colour'} images of {height} × {width} pixels"


def _in_front(card: Card) -> list[str]:
    asked = card.data.features
    if asked is None or card.frozen is None:
        return []
    options = f", with {_values(asked.options)}" if asked.options else ""
    size = f", on images resized to {asked.image_size} × {asked.image_size} pixels" if asked.image_size else ""
    return [
        f"- Frozen network in front: {_code(asked.module)}{options}{size}, whose {card.frozen.n_features} features the "
        "networks take; no task trains it"
    ]


def _measured(card: Card) -> list[str]:
    results = [result for member in card.members if (result := member.trial_result) is not None]
    if not results:
        return ["It was trained on the test split too, so it was not measured."]
    score = Score.parse(card.score)
    matrices = [result.scores(score) for result in results]
    rows = ["| task | held-out examples | right after it was learned | now |", "|---|---|---|---|"]
    for index, task in enumerate(card.tasks):
        learned, now = (fmean(float(m[row, index]) for m in matrices) for row in (index + 1, -1))
        rows.append(f"| {_text(task.name)} | {task.n_evaluation} | {learned:.4f} | {now:.4f} |")
    what = "mean over its networks, each by itself" if len(results) > 1 else "of its network"
    return [f"{_text(card.score)} on the test split, {what}:", "", *rows]


def _values(values: Mapping[str, object]) -> str:
    return ", ".join(f"{_code(name)} {_code(value)}" for name, value in values.items())


def _code(value: object) -> str:
    text = " ".join(visible(str(value)).split())
    ticks = "`" * (max((len(run) for run in _runs(text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


def _runs(text: str) -> list[str]:
    return [part for part in "".join(c if c == "`" else " " for c in text).split(" ") if part]


def _text(value: object) -> str:
    """Return a text with everything escaped that means something in Markdown or HTML."""
    text = " ".join(visible(str(value)).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~" else "&amp;" if c == "&" else c for c in text)
