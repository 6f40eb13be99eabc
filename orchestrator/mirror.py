"""A copy of the studies in an Optuna storage, for optuna-dashboard; nothing is ever read back from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import optuna

from orchestrator.errors import StorageError

if TYPE_CHECKING:
    from orchestrator.search import CellSearch
    from orchestrator.spec import SweepSpec


class StudyMirror:
    """Writes every told suggestion to a storage, in a thread of its own, off the sweep's path.

    Args:
        url: an Optuna storage, such as `sqlite:///studies.db`.
        spec: the sweep.

    Raises:
        StorageError: where the storage cannot be opened.
    """

    def __init__(self, url: str, spec: SweepSpec) -> None:
        try:
            self._storage = optuna.storages.get_storage(url)
        except Exception as error:
            raise StorageError(
                f"--mirror-studies: expected an Optuna storage, got '{url}' ({str(error).splitlines()[0]}); "
                "for example sqlite:///studies.db"
            ) from error
        self._spec = spec
        self._studies: dict[str, tuple[optuna.Study, int]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="study-mirror")
        self._failure: Exception | None = None

    def told(self, search: CellSearch, trial: optuna.trial.FrozenTrial) -> None:
        """Queue a copy of `trial`."""
        self._thread.submit(self._copy, search.cell.name, search.study_direction, trial)

    def close(self) -> None:
        """Wait until everything is copied.

        Raises:
            StorageError: where a copy failed; the sweep itself does not depend on it.
        """
        self._thread.shutdown(wait=True)
        if self._failure is not None:
            raise StorageError(
                f"--mirror-studies: expected a storage that can be written, got {self._failure!r}; the run folder is "
                "complete, run the same command again to copy the studies"
            )

    def _copy(self, cell: str, direction: Literal["minimize", "maximize"], trial: optuna.trial.FrozenTrial) -> None:
        if self._failure is not None:
            return  # a gap would shift the numbers of what follows
        try:
            if cell not in self._studies:
                study = optuna.create_study(
                    storage=self._storage,
                    study_name=f"{self._spec.name} {self._spec.content_hash()[:8]} {cell}",
                    direction=direction,
                    load_if_exists=True,
                )
                self._studies[cell] = study, len(study.get_trials(deepcopy=False))
            study, n_present = self._studies[cell]
            if trial.number >= n_present:
                study.add_trial(trial)
        except Exception as error:
            self._failure = error
