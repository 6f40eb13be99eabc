"""Models: out of a run, used on new data, and taught the next task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import UsageError
from orchestrator.core.placement import Placement
from orchestrator.storage.base import ignore

if TYPE_CHECKING:
    from orchestrator.champions.exporting.training import Exported
    from orchestrator.champions.exporting.wanted import Wanted
    from orchestrator.champions.model import Model
    from orchestrator.champions.updating import Updated
    from orchestrator.gating.deciding import GateReport
    from orchestrator.results.run import Run


def export_model(
    run: Run | str | Path,
    place: str | Path,
    wanted: Wanted | None = None,
    data_dir: str | Path = DATA_DIR,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = ignore,
    plugins: Collection[str] = (),
) -> Exported:
    """Train the recommended configuration of a run again and write it as a model folder.

    Args:
        run: the run, or its folder.
        place: the folder that is written; a model that is there is replaced.
        wanted: another scenario, method, suggestion or seed, an ensemble, or training on the test split too.
        data_dir: where torchvision's data sets are.
        placement: where it is trained.
        say: called with a line as each network is trained.
        plugins: each `module:Class` that may be imported, since the run names it.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.champions.exporting.training import export_model as export
    from orchestrator.champions.exporting.wanted import Wanted
    from orchestrator.results.run import Run

    opened = run if isinstance(run, Run) else Run.open(run, cached=True)
    return export(opened, place, Path(data_dir), wanted or Wanted(), placement, say, plugins)


def load_model(place: str | Path, plugins: Iterable[str] = ()) -> Model:
    """Return the model in a folder. No code of the folder's runs, and no pickle is read.

    Args:
        place: the folder.
        plugins: each `module:Class` that may be imported: a network or method of one's own that it was made of.

    Raises:
        RunFolderError: if it is no model, damaged, or made of what this version has not.
    """
    from orchestrator.champions.model import load_model as load

    return load(place, plugins)


def update_model(
    place: str | Path,
    data: Any,
    task: str,
    out: str | Path,
    data_dir: str | Path = DATA_DIR,
    test_data: Any = None,
    keep_evaluation: bool = False,
    plugins: Iterable[str] = (),
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = ignore,
    from_run: Run | str | Path | None = None,
) -> Updated:
    """Teach a model a new task and write the result as a new model folder.

    Args:
        place: the folder of the model.
        data: a table, a data frame or a folder of images with the examples of the new task.
        task: its name.
        out: the folder of the new model.
        data_dir: where torchvision's data sets are.
        test_data: held-out examples of the new task; by default a share of `data`, as in a sweep.
        keep_evaluation: keep all held-out examples in the folder.
        plugins: code of one's own that may be imported.
        placement: where it is trained.
        say: called with a line as it goes on.
        from_run: a run of a sweep over this update, whose recommendation is taken; by default the model's own.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.champions.updating import update_model as update

    searched, own = None, list(plugins)
    if from_run is not None:
        from orchestrator.champions.exporting.choosing import searched_update
        from orchestrator.champions.next_stream import load_next
        from orchestrator.results.run import Run

        opened = from_run if isinstance(from_run, Run) else Run.open(from_run, cached=True)
        here = load_next("next", str(place), data, task, test_data, Path(data_dir), plugins=own).fingerprint()
        searched = searched_update(opened, here)
    return update(place, data, task, out, Path(data_dir), test_data, keep_evaluation, own, placement, say, searched)


def gate(
    champion: str | Path,
    challenger: str | Path,
    policy: Path | None = None,
    data: str | None = None,
    scenario: str | None = None,
    method: str | None = None,
    data_dir: str | Path = DATA_DIR,
    plugins: Iterable[str] = (),
    by: Literal["seeds", "examples"] = "seeds",
) -> GateReport:
    """Return whether a challenger may replace the champion, by a policy.

    Args:
        champion: a model folder or a run.
        challenger: of the same kind.
        policy: file with what must hold; the default policy without.
        data: models: a labelled table that both answer, instead of the challenger's held-out examples.
        scenario: runs: the one that is looked at, if they share several.
        method: runs: of both; by default what each recommends.
        data_dir: where torchvision's data sets are.
        plugins: code of one's own that may be imported.
        by: runs: pair the seeds of all confirm trials, or the examples of the median ones.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.champions.folder import is_model, read_card
    from orchestrator.champions.gating.models import model_evidence
    from orchestrator.champions.gating.runs import example_evidence, run_evidence
    from orchestrator.gating.deciding import decide
    from orchestrator.gating.policy import load_policy
    from orchestrator.results.run import Run
    from orchestrator.spec.loading import load_plugins

    rules, plugins = load_policy(policy), list(plugins)
    kinds = [is_model(place) for place in (champion, challenger)]
    if kinds[0] != kinds[1]:
        names = ["a model" if kind else "no model" for kind in kinds]
        raise UsageError(f"gate: the champion is {names[0]} and the challenger {names[1]}; give two models or two runs")
    if kinds[0]:
        if scenario is not None or method is not None:
            raise UsageError("--scenario, --method: these choose from runs, and two models were given; leave them out")
        networks = [read_card(place).own_networks for place in (champion, challenger)]
        shared = [name for name in plugins if name not in (*networks[0], *networks[1])]
        allowed = [[*shared, *(name for name in plugins if name in own)] for own in networks]
        models = [load_model(place, own) for place, own in zip((champion, challenger), allowed, strict=True)]
        places = (str(champion), str(challenger))
        return decide(model_evidence(models[0], models[1], rules, Path(data_dir), places, data), rules)
    if data is not None:
        raise UsageError("--data: two runs are compared by what they measured; leave it out, or export models")
    load_plugins(plugins)
    runs = [Run.open(place, cached=True) for place in (champion, challenger)]
    evidence = run_evidence if by == "seeds" else example_evidence
    return decide(evidence(runs[0], runs[1], rules, scenario, method), rules)
