"""A copy of the studies in an Optuna storage, for optuna-dashboard; nothing is ever read back from it."""

from __future__ import annotations

import re
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote

import optuna

from orchestrator.core.errors import StorageError
from orchestrator.storage.uris import is_secret, shown_query

if TYPE_CHECKING:
    from orchestrator.search.cell_search import CellSearch
    from orchestrator.spec.sweep_spec import SweepSpec

_Direction = Literal["minimize", "maximize"]
_Copy = tuple[str, _Direction, optuna.trial.FrozenTrial]


class StudyMirror:
    """Writes every told suggestion to a storage, in a thread of its own, off the sweep's path.

    The thread keeps no process alive: one that ends before `close` leaves what is queued to the next run.

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
                f"--mirror-studies: expected an Optuna storage, got '{_shown(url)}' ({_reason(error, url)}); "
                "for example sqlite:///studies.db"
            ) from None  # its text may hold the password
        self._url, self._spec = url, spec
        self._studies: dict[str, tuple[optuna.Study, int]] = {}
        self._failure: Exception | None = None
        self._abandoned = False
        self._queue: SimpleQueue[_Copy | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="study-mirror", daemon=True)
        self._thread.start()

    def told(self, search: CellSearch, trial: optuna.trial.FrozenTrial) -> None:
        """Queue a copy of `trial`."""
        self._queue.put((search.cell.name, search.study_direction, trial))

    def close(self) -> None:
        """Wait until everything is copied.

        Raises:
            StorageError: where a copy failed; the sweep itself does not depend on it.
        """
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise StorageError(
                f"--mirror-studies: expected a storage that can be written, got '{_reason(self._failure, self._url)}'; "
                "the run folder is complete, run the same command again to copy the studies"
            )

    def abandon(self) -> None:
        """Copy nothing more and wait for nothing; the next run copies what is missing."""
        self._abandoned = True
        self._queue.put(None)

    def _work(self) -> None:
        while (copy := self._queue.get()) is not None and not self._abandoned:
            self._copy(*copy)

    def _copy(self, cell: str, direction: _Direction, trial: optuna.trial.FrozenTrial) -> None:
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


def _shown(url: str) -> str:
    """Return the URL of an Optuna storage as it may be printed: without user, password and secrets in its query."""
    scheme, _, rest = _parts(url)
    place, mark, query = rest.partition("?")
    return f"{scheme}{place}{mark}{shown_query(query)}"


def _reason(error: Exception, url: str) -> str:
    """Return an error's kind and first line as they may be printed: without the secrets of a storage's URL."""
    text = (str(error).splitlines() or [""])[0]
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text}"


def _secrets(url: str) -> list[str]:
    """Return what of a URL must not be printed, longest first: whole, decoded, quoted, and in the pieces of a URL."""
    password = _parts(url)[1].partition(":")[2]
    values = [item.partition("=")[2] for item in url.partition("?")[2].split("&") if is_secret(item.partition("=")[0])]
    values += [value for name, value in parse_qsl(url.partition("?")[2]) if is_secret(name)]
    whole = {form for text in (password, *values) for form in (text, unquote(text), repr(unquote(text))[1:-1])}
    pieces = {piece for text in whole for piece in re.split(r"[@:/?#]", text) if len(piece) > 2}
    return sorted((whole | pieces) - {""}, key=len, reverse=True)


def _parts(url: str) -> tuple[str, str, str]:
    """Return scheme with its slashes, user with password, and the rest of a URL.

    Drivers take a password with any sign in it, so everything in front of the last @ counts as one, but for SQLite,
    whose URLs are paths.
    """
    found = re.match(r"[\w+.-]+://+", url)
    scheme = found[0] if found else ""
    if scheme.startswith("sqlite"):
        return scheme, "", url.removeprefix(scheme)
    user, _, rest = url.removeprefix(scheme).rpartition("@")
    return scheme, user, rest
