"""Models: out of a run, used on new data, and taught the next task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.placement import Placement
from orchestrator.storage.base import ignore

if TYPE_CHECKING:
    from orchestrator.champions.choosing import Wanted
    from orchestrator.champions.exporting import Exported
    from orchestrator.champions.model import Model
    from orchestrator.champions.updating import Updated
    from orchestrator.results.run import Run


def export_model(
    run: Run | str | Path,
    place: str | Path,
    wanted: Wanted | None = None,
    data_dir: str | Path = DATA_DIR,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = ignore,
) -> Exported:
    """Train the recommended configuration of a run again and write it as a model folder.

    Args:
        run: the run, or its folder.
        place: the folder that is written; a model that is there is replaced.
        wanted: another scenario, method, suggestion or seed, an ensemble, or training on the test split too.
        data_dir: where torchvision's data sets are.
        placement: where it is trained.
        say: called with a line as each network is trained.

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.champions.choosing import Wanted
    from orchestrator.champions.exporting import export_model as export
    from orchestrator.results.run import Run

    opened = run if isinstance(run, Run) else Run.open(run, cached=True)
    return export(opened, place, Path(data_dir), wanted or Wanted(), placement, say)


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

    Raises:
        OrchestratorError: for whatever the user can mend.
    """
    from orchestrator.champions.updating import update_model as update

    return update(place, data, task, out, Path(data_dir), test_data, keep_evaluation, plugins, placement, say)
