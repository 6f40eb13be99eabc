"""The tables of a run, and in which order a trial's rows are written.

`trials` has a row for each trial, `accuracy` a row for each measured cell of R, and `outcomes` a row for those cells of
trials on the test split of which it is known which examples were right. `evaluations`, which only runs with
`evaluate_every` have, says how scores went while trials were trained, and `diagnostics`, which only runs with
`diagnostics: true` have, what was measured inside of them. A trial's row in `trials` is written last: that one is the
commit. A run of an earlier version has no `outcomes`, and no trial is run again to have any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from orchestrator.core.fault_points import reached
from orchestrator.results.rows import intransigence_of
from orchestrator.results.tables import Table
from orchestrator.storage.base import OUTCOMES, Storage


class Tables:
    """The tables of one run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Storage) -> None:
        self.run = run
        self.trials = Table(run.folder("trials"), "trials")
        self.accuracy = Table(run.folder("accuracy"), "accuracy")
        self.outcomes = Table(run.folder(OUTCOMES), OUTCOMES)
        self.evaluations = Table(run.folder("evaluations"), "evaluations")
        self.diagnostics = Table(run.folder("diagnostics"), "diagnostics")

    def __iter__(self) -> Iterator[Table]:
        yield self.trials
        yield self.accuracy
        yield self.outcomes
        yield self.evaluations
        yield self.diagnostics

    @property
    def optional(self) -> tuple[Table, ...]:
        """Return the tables that only runs have whose spec asks for them."""
        return self.evaluations, self.diagnostics

    def start_cache(self, is_exclusive: bool = False) -> None:
        """From now on, read each table once until it is written to through this object."""
        for table in self:
            table.start_cache(is_exclusive)

    def state(self) -> tuple[int, ...] | None:
        """Return what differs once the results do; None if they are not cached, so that it may differ at any time.

        Results are the trials, their R and how it came about: a search depends on nothing else, and so `outcomes` is
        not read for it.
        """
        states = [table.state() for table in (self.trials, self.accuracy, self.evaluations)]
        return None if None in states else tuple(state for state in states if state is not None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Cache the tables inside the block: for the holder of the run's lock, who is the only one to write.

        Copies of rows are removed when they are found.
        """
        self.start_cache(is_exclusive=True)
        try:
            yield
        finally:
            for table in self:
                table.stop_cache()

    def forget(self) -> None:
        """Read each table at the next read, even if it is cached."""
        for table in self:
            table.forget()

    def ended(self) -> set[str]:
        """Return the keys of the trials that have all their rows and never go on: neither errors nor stopped ones."""
        trials, measured = self.trials.read(), set(self.accuracy.read()["key"])
        return {
            key
            for key, status in zip(trials["key"], trials["status"], strict=True)
            if status not in ("error", "stopped") and (status != "completed" or key in measured)
        }

    def fill_intransigence(self) -> None:
        """Write the intransigence of every row whose `joint` ended after the row was written.

        Raises:
            StorageError: if a file cannot be written; the others are complete.
        """
        trials = self.trials.read()
        if "joint" not in set(trials["method"]):
            return
        values = intransigence_of(trials, self.accuracy.read())
        new = np.isfinite(values) & trials["intransigence"].isna().to_numpy()
        self.trials.fill("intransigence", dict(zip(trials.loc[new, "key"], values[new], strict=True)))

    def write_trial(
        self,
        key: str,
        row: dict[str, Any],
        accuracy: Sequence[dict[str, Any]],
        outcomes: Sequence[dict[str, Any]] = (),
        inside: Sequence[dict[str, Any]] = (),
        evaluations: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write a trial's rows; the trials row is last and commits it."""
        for table, rows in (
            (self.diagnostics, inside),
            (self.outcomes, outcomes),
            (self.evaluations, evaluations),
            (self.accuracy, accuracy),
        ):
            if rows:
                table.write(key, list(rows))
        reached("trial.measured")
        self.trials.write(key, [row])
        reached("trial.committed")
