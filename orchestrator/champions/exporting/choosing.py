"""Which model of a run is exported: the configuration, and the confirm seeds that it is trained with."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.core.errors import UsageError
from orchestrator.core.text import nearest
from orchestrator.results.rows import recorded_spec
from orchestrator.results.run import Run
from orchestrator.search.answers.full_answer import Answer, ScenarioAnswer
from orchestrator.search.cell_search import CellSearch
from orchestrator.spec.trial_spec import TrialSpec


@dataclass(frozen=True)
class Choice:
    """The trials that a model is made of.

    Args:
        specs: a trial for each network.
        recorded: keys of the trials that the run has completed.
        notes: sentences that the user of the model should know.
    """

    specs: list[TrialSpec]
    recorded: frozenset[str]
    notes: list[str]


def choose(run: Run, wanted: Wanted) -> Choice:
    """Return the trials that the wanted model is made of.

    Raises:
        UsageError: if the run has no such model.
    """
    scenario = _scenario(run.answer(), wanted)
    return _choice(run, scenario, _suggested(run, scenario, wanted), wanted)


def searched_update(run: Run, fingerprint: str) -> TrialSpec:
    """Return a confirm trial of what a run of `sweep --from` recommends for the update of a model.

    Args:
        run: the run.
        fingerprint: hash of the model and the data of the update.

    Raises:
        UsageError: if the run is of another kind, has no answer, or is of another model or other data.
    """
    if all(run.spec.stream_settings(cell.stream).from_model is None for cell in run.spec.cells):
        raise UsageError(f"--from-run: '{run.where}' is no run of sweep --from; leave it out, or name one")
    for scenario in run.answer().scenarios:
        if scenario.recommended is None:
            raise UsageError(
                f"--from-run: '{run.where}' recommends nothing ({scenario.status}); run it with other limits, or "
                "leave it out to learn as the model did"
            )
    found = choose(run, Wanted()).specs[0]
    if found.data_fingerprint != fingerprint:
        raise UsageError(
            f"--from-run: '{run.where}' searched the update of another model, or on other data; give those, or run "
            "sweep --from on these"
        )
    return found


def _scenario(answer: Answer, wanted: Wanted) -> ScenarioAnswer:
    names = [one.scenario for one in answer.scenarios]
    if wanted.scenario is None and len(names) > 1:
        raise UsageError(f"--scenario: the run has {', '.join(names)}; name one")
    name = wanted.scenario if wanted.scenario is not None else names[0]
    if name not in names:
        raise UsageError(f"--scenario: the run has no scenario '{name}'; {nearest(name, names)}")
    return answer.scenario(name)


def _suggested(run: Run, scenario: ScenarioAnswer, wanted: Wanted) -> tuple[CellSearch, int]:
    """Return the cell and the number of the suggestion that is wanted.

    Raises:
        UsageError: if there is none.
    """
    methods = {one.method: one for one in scenario.methods}
    name = wanted.method if wanted.method is not None else scenario.recommended
    if name is None:
        raise UsageError(
            f"export: {scenario.scenario} has no recommendation ({scenario.status}); name a method all the same with "
            "--method"
        )
    if name not in methods:
        raise UsageError(f"--method: {scenario.scenario} has no method '{name}'; {nearest(name, methods)}")
    search = next(
        cell
        for cell in run.search(run.spec).cells
        if cell.cell.scenario == scenario.scenario and cell.cell.method == name
    )
    number = wanted.suggestion if wanted.suggestion is not None else methods[name].suggestion
    if number is None or not 0 <= number < len(search.suggestions):
        known = f"0 to {len(search.suggestions) - 1}" if search.suggestions else "none yet"
        raise UsageError(f"--suggestion: {search.cell.name} has the suggestions {known}; name one")
    return search, number


def _choice(run: Run, scenario: ScenarioAnswer, place: tuple[CellSearch, int], wanted: Wanted) -> Choice:
    """Return the confirm trials that the model is made of: the median one by the objective, one seed's, or all."""
    search, number = place
    spec, suggestion = run.spec, search.suggestions[number]
    fingerprint = _fingerprint(run, search)
    specs = {
        seed: spec.trial(search.cell, suggestion.hyperparameters, seed, "confirm", fingerprint)
        for seed in spec.seeds.of("confirm")
    }
    trials = run.tables.trials.read()
    rows = set(trials.loc[trials["status"] == "completed", "key"])
    recorded = [seed for seed, one in specs.items() if one.key in rows]
    notes = []
    if not recorded:
        notes.append(f"{search.cell.name} #{number} was not measured on the test split by the run")
    if wanted.seed is not None:
        if wanted.seed not in specs:
            raise UsageError(f"--seed: the confirm seeds are {', '.join(map(str, specs))}; name one of them")
        seeds = [wanted.seed]
    elif wanted.ensemble:
        seeds = recorded or list(specs)
        notes.append(f"an ensemble of {len(seeds)} networks, one for each confirm seed; probabilities are averaged")
    else:
        seeds = [_median(suggestion.by_seed("test", spec.objective), recorded, list(specs))]
        if len(recorded) > 1:
            notes.append(f"seed {seeds[0]} is the median of {len(recorded)} confirm seeds by {spec.objective}")
    if scenario.recommended != search.cell.method:
        notes.append(f"{search.cell.method} is not what the run recommends ({scenario.recommended or scenario.status})")
    chosen = [specs[seed] for seed in seeds]
    return Choice(chosen, frozenset(rows), notes)


def _median(values: dict[int, float], recorded: list[int], seeds: list[int]) -> int:
    """Return the seed with the median value, of two in the middle the lower; the first if nothing is recorded."""
    known = sorted((values[seed], seed) for seed in recorded if seed in values)
    return known[(len(known) - 1) // 2][1] if known else seeds[0]


def _fingerprint(run: Run, search: CellSearch) -> str:
    trials = run.tables.trials.read()
    own = trials[(trials["scenario"] == search.cell.scenario) & trials["trial_spec"].notna()]
    if own.empty:
        raise UsageError(f"export: '{run.where}' has no trial of {search.cell.scenario} yet; run the sweep first")
    newest = own.sort_values("started_at", na_position="first").iloc[-1]
    return recorded_spec(run.tables.trials, newest["key"], newest["trial_spec"]).data_fingerprint
