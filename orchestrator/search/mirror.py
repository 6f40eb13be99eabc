"""Copies the studies to an Optuna storage, for optuna-dashboard. A sweep reads nothing back from it."""

from __future__ import annotations

import math
import re
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

import optuna
from optuna.trial import create_trial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.core.errors import StorageError
from orchestrator.search.study import direction_of
from orchestrator.storage.uris import shown_query

if TYPE_CHECKING:
    from orchestrator.search.cell_search import CellSearch
    from orchestrator.spec.sweep_spec import SweepSpec

_Direction = Literal["minimize", "maximize"]
_Copy = tuple[str, _Direction, optuna.trial.FrozenTrial]


class StudyMirror:
    """Copies every finished suggestion to a storage, in a thread of its own, so that the sweep never waits for it.

    The thread keeps no process alive. If one ends before `close`, the next run copies what was queued.

    Args:
        url: an Optuna storage, such as `sqlite:///studies.db`.
        spec: the sweep.

    Raises:
        StorageError: if the storage cannot be opened.
    """

    def __init__(self, url: str, spec: SweepSpec) -> None:
        try:
            self._storage = optuna.storages.get_storage(url)
        except Exception as error:
            raise StorageError(
                f"--mirror-studies: cannot open the Optuna storage '{_shown(url)}' ({_reason(error, url)}). Write a "
                "URL such as sqlite:///studies.db."
            ) from None  # its text may hold the password
        self._url, self._spec = url, spec
        self._studies: dict[str, tuple[optuna.Study, int]] = {}
        self._failure: Exception | None = None
        self._abandoned = False
        self._queue: SimpleQueue[_Copy | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="study-mirror", daemon=True)
        self._thread.start()

    def add(self, search: CellSearch, trial: optuna.trial.FrozenTrial) -> None:
        """Queue a copy of `trial`, with its metrics, seeds and keys of trials as user attributes.

        Optuna 5 keeps each constraint by itself; its dashboard reads them as one list, so both are written.
        """
        suggestion = search.suggestions[trial.number]
        named = dict.fromkeys([self._spec.objective, *(constraint.metric for constraint in self._spec.constraints)])
        means = {name: suggestion.mean("validation", name) for name in named}
        copy = create_trial(
            state=trial.state,
            value=trial.value,
            params=trial.params,
            distributions=trial.distributions,
            constraints=trial.constraints,
            system_attrs={"constraints": list(trial.constraints.values())} if trial.constraints else {},
            user_attrs={
                **{name: mean for name, mean in means.items() if math.isfinite(mean)},
                "seeds": list(suggestion.on("validation")),
                "keys": search.keys_on(suggestion, "validation"),
            },
        )
        copy.number = trial.number
        self._queue.put((search.cell.name, direction_of(self._spec), copy))

    def close(self) -> None:
        """Wait until everything is copied.

        Raises:
            StorageError: if a copy failed; the sweep itself does not depend on it.
        """
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise StorageError(
                f"--mirror-studies: cannot write to the Optuna storage '{_shown(self._url)}' "
                f"({_reason(self._failure, self._url)}). The run folder is complete: run the same command again to "
                "copy the studies."
            )

    def abandon(self) -> None:
        """Stop copying, without waiting; the next run copies what is missing."""
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
    parts = _parts(url)
    if parts is None:
        return url if re.fullmatch(r"[\w.-]*", url) else "***"
    place = url.partition("?")[0]
    if parts.username is not None or parts.password is not None:
        place = URL.create(parts.drivername, None, None, parts.host, parts.port, parts.database).render_as_string()
    query = shown_query("&".join(_items(parts)))
    return f"{place}?{query}" if query else place


def _reason(error: Exception, url: str) -> str:
    """Return an error's kind and first line as they may be printed: without the secrets of a storage's URL."""
    text = (str(error).splitlines() or [""])[0]
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return f"{type(error).__name__}: {text}"


def _secrets(url: str) -> list[str]:
    """Return what of a URL must not be printed, longest first: each secret whole, quoted, and in pieces.

    A driver may take a URL apart in its own way, and its error may then hold a piece of the password.
    """
    parts = _parts(url)
    if parts is None:
        texts = [url]
    else:
        texts = [unquote(item.partition("=")[2]) for item in _items(parts) if shown_query(item) != item]
        texts.append(str(parts.password or ""))
    forms = {form for text in texts for form in (text, unquote(text), quote(text, safe=""), repr(text)[1:-1])}
    pieces = {piece for text in forms for piece in re.split(r"\W+", text) if len(piece) > 2}
    return sorted((forms | pieces) - {""}, key=len, reverse=True)


def _parts(url: str) -> URL | None:
    """Return the parts of a database's URL; None if it is none, or one whose password may go on after an @."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: an odd port
        return None
    has_user = parts.username is not None or parts.password is not None
    is_path = parts.drivername.startswith("sqlite") and not has_user
    return parts if is_path or url.count("@") == has_user else None


def _items(parts: URL) -> list[str]:
    """Return each NAME=VALUE of a query, quoted."""
    pairs = [
        (name, value) for name, found in parts.query.items() for value in ([found] if isinstance(found, str) else found)
    ]
    return [f"{quote(name)}={quote(value, safe='/:')}" for name, value in pairs]
