"""A sweep in MLflow: a parent run, and below it a run for each suggestion, with its trials by task boundary."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from orchestrator.core.version import __version__
from orchestrator.execution.monitoring.trackers.records import EndRecord, SweepRecord, TrialRecord

_MARK = "continual_sweep."
_MOST_METRICS = 1000
"""Of one call, as MLflow's server takes them."""
_MOST_LETTERS = 5000
_OTHER = re.compile(r"[^\w\-. :/]|^[./]+|(?<=/)[./]+|/$")


class MlflowTracker:
    """Writes to an MLflow server or folder.

    A run is found again by its tags, so that the same command goes on with it. Each trial is such a tag.

    Args:
        uri: of the tracking server.
    """

    def __init__(self, uri: str) -> None:
        # Its own defaults wait for minutes for a server that is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = self._parent = ""
        self._children: dict[str, str] = {}

    def begin(self, sweep: SweepRecord) -> set[str]:
        """Begin the parent run or go on with it; return the keys of the trials that its runs have."""
        found = self._client.get_experiment_by_name(sweep.name)
        if found is not None and found.lifecycle_stage != "active":
            raise ValueError(f"its experiment '{sweep.name}' was deleted; restore it there, or rename the sweep")
        self._experiment = self._client.create_experiment(sweep.name) if found is None else found.experiment_id
        parents = list(self._runs(f"tags.`{_MARK}id` = '{sweep.id}'"))
        tags = {f"{_MARK}{name}": value[:_MOST_LETTERS] for name, value in sweep.tags.items()}
        if parents:
            self._parent = parents[0].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
            self._tag(self._parent, tags)
        else:
            tags |= {f"{_MARK}id": sweep.id, "mlflow.source.name": f"continual-sweep {__version__}"}
            self._parent = self._client.create_run(self._experiment, tags=tags, run_name=sweep.name).info.run_id
        known: set[str] = set()
        for run in self._runs(f"tags.`mlflow.parentRunId` = '{self._parent}'"):
            self._children[run.data.tags.get(f"{_MARK}group", "")] = run.info.run_id
            trials = {name.removeprefix(f"{_MARK}trial."): value for name, value in run.data.tags.items()}
            known |= {key for key, status in trials.items() if len(key) == 16 and not status.startswith("error")}
        return known

    def log(self, trial: TrialRecord, means: Mapping[str, float], n_seeds: int) -> None:
        """Add a trial to the run of its suggestion; the step of a metric is the number of tasks learned."""
        run_id = self._child(trial)
        now, place = int(time.time() * 1000), f"{trial.split}/seed {trial.seed}"
        metrics = [
            Metric(_name(f"{place}/{name}"), value, now, n_learned)
            for n_learned, values in enumerate(trial.boundaries)
            for name, value in values.items()
        ]
        metrics += [Metric(_name(f"{trial.split}/{name}"), value, now, n_seeds) for name, value in means.items()]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(run_id, metrics[first : first + _MOST_METRICS])
        said = f"{trial.status}: {trial.phase} seed {trial.seed}{f': {trial.reason}' if trial.reason else ''}"
        self._tag(run_id, {f"{_MARK}trial.{trial.key}": said})  # last: it says that the trial is here
        self._client.set_terminated(run_id)

    def end(self, end: EndRecord | None) -> None:
        """Add the answer and the files to the parent run, and mark what was chosen."""
        if end is None:
            self._client.set_terminated(self._parent, "KILLED")
            return
        answers = {f"{_MARK}answer {scenario}": words for scenario, words in end.answers.items()}
        self._tag(self._parent, answers | {f"{_MARK}is_complete": str(end.is_complete).lower()})
        with tempfile.TemporaryDirectory() as folder:
            for name, content in end.files.items():
                Path(folder, name).write_bytes(content)
            self._client.log_artifacts(self._parent, folder)
        for run in self._runs(f"tags.`mlflow.parentRunId` = '{self._parent}'"):
            place = tuple(run.data.tags.get(f"{_MARK}{name}", "") for name in ("scenario", "method", "suggestion"))
            is_chosen = str(place in {(s, m, str(n)) for s, m, n in end.chosen}).lower()
            if run.data.tags.get(f"{_MARK}is_chosen", "false") != is_chosen:
                self._tag(run.info.run_id, {f"{_MARK}is_chosen": is_chosen})
        self._client.set_terminated(self._parent, "FINISHED")

    def _child(self, trial: TrialRecord) -> str:
        """Return the run of a trial's suggestion."""
        if trial.group not in self._children:
            place = {"scenario": trial.scenario, "method": trial.method, "suggestion": str(trial.suggestion)}
            tags = {f"{_MARK}{name}": value for name, value in place.items()}
            tags |= {f"{_MARK}group": trial.group, "mlflow.parentRunId": self._parent}
            name = f"{trial.cell} #{trial.suggestion}"
            run_id = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
            values = {"scenario": trial.scenario, "method": trial.method, **trial.hyperparameters}
            self._client.log_batch(run_id, params=[Param(_name(n), str(v)[:_MOST_LETTERS]) for n, v in values.items()])
            self._children[trial.group] = run_id
        return self._children[trial.group]

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(_name(n), v[:_MOST_LETTERS]) for n, v in tags.items()])

    def _runs(self, query: str) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _name(text: str) -> str:
    """Return a text as MLflow takes it for a name: letters, digits, some signs, and no path that leads elsewhere."""
    return _OTHER.sub("_", text)[:250]
