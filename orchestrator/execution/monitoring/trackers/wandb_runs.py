"""A sweep in Weights & Biases: a group, with a run for each suggestion; offline unless WANDB_MODE says otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import wandb

from orchestrator.core.canonical import short_hash
from orchestrator.execution.monitoring.trackers.records import EndRecord, SweepRecord, TrialRecord

_INDEX = "continual-sweep.json"


class WandbTracker:
    """Writes a run for each suggestion at the end of a sweep: an offline run cannot be continued.

    A suggestion whose trials are those of an earlier time is not written again. `wandb sync` uploads what was written.
    """

    def __init__(self) -> None:
        self._settings = wandb.Settings(silent=True, console="off", mode=os.environ.get("WANDB_MODE", "offline"))
        self._folder = Path(os.environ.get("WANDB_DIR", ".")) / "wandb"
        self._groups: dict[str, list[TrialRecord]] = {}
        self._means: dict[str, dict[str, float]] = {}
        self._sweep = SweepRecord("", "", {})

    def begin(self, sweep: SweepRecord) -> set[str]:
        """Remember the sweep; every trial is to be told, since a suggestion is written as a whole."""
        self._sweep = sweep
        self._folder.mkdir(parents=True, exist_ok=True)
        return set()

    def log(self, trial: TrialRecord, means: Mapping[str, float], n_seeds: int) -> None:
        """Remember a trial."""
        self._groups.setdefault(trial.group, []).append(trial)
        own = self._means.setdefault(trial.group, {})
        own |= {f"{trial.split}/{name}": value for name, value in means.items()} | {f"{trial.split}/n_seeds": n_seeds}

    def end(self, end: EndRecord | None) -> None:
        """Write the suggestions, and a run for the sweep with its answer and page."""
        if end is None:
            return  # the next command has all of it in its tables
        written = self._read_index()
        for group, trials in self._groups.items():
            state = short_hash(sorted([trial.key, trial.status] for trial in trials))
            if written.get(self._id(group)) != state:
                self._write(group, trials)
                written[self._id(group)] = state
        state = short_hash([dict(end.answers), [written[self._id(group)] for group in sorted(self._groups)]])
        if written.get(self._sweep.id) == state:
            return
        self._write_sweep(end)
        written[self._sweep.id] = state
        draft = self._folder / f"{_INDEX}.draft"
        draft.write_text(json.dumps(written), encoding="utf-8")
        os.replace(draft, self._folder / _INDEX)

    def _write_sweep(self, end: EndRecord) -> None:
        with self._run(self._sweep.id, self._sweep.name, "sweep", dict(self._sweep.tags)) as run:
            run.summary.update({f"answer {scenario}": words for scenario, words in end.answers.items()})
            for name, content in end.files.items():
                file = Path(run.dir) / name
                file.write_bytes(content)
                run.save(str(file), base_path=run.dir, policy="now")

    def _write(self, group: str, trials: list[TrialRecord]) -> None:
        first = trials[0]
        place = {"scenario": first.scenario, "method": first.method, "suggestion": first.suggestion}
        name = f"{first.cell} #{first.suggestion}"
        with self._run(self._id(group), name, "suggestion", {**place, **first.hyperparameters}) as run:
            for n_learned in range(max((len(trial.boundaries) for trial in trials), default=0)):
                row = {"tasks_learned": float(n_learned)}
                for trial in trials:
                    values = trial.boundaries[n_learned] if n_learned < len(trial.boundaries) else {}
                    row |= {f"{trial.split}/seed {trial.seed}/{name}": value for name, value in values.items()}
                run.log(row, step=n_learned)
            run.summary.update(self._means[group])
            run.summary.update({f"trial {t.key}": f"{t.status} {t.reason}".strip() for t in trials})

    def _run(self, run_id: str, name: str, kind: str, config: dict[str, object]) -> wandb.Run:
        return wandb.init(
            project=self._sweep.name,
            group=self._sweep.id,
            id=run_id,
            name=name,
            job_type=kind,
            config=config,
            dir=self._folder.parent,
            settings=self._settings,
            reinit="create_new",
        )

    def _id(self, group: str) -> str:
        return short_hash([self._sweep.id, group])

    def _read_index(self) -> dict[str, str]:
        """Return group -> hash of the trials that were written of it."""
        try:
            found = json.loads((self._folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
