"""What runs in a worker process: one trial after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune import PlacementGroupFactory

from orchestrator.core.placement import Placement
from orchestrator.execution.monitoring.trial_log import TrialLog
from orchestrator.execution.tune_internals import show_as
from orchestrator.spec.trial_spec import TrialSpec
from orchestrator.storage.base import StoredFile
from orchestrator.storage.opening import stored_file
from orchestrator.storage.uris import is_uri
from orchestrator.trial.protocol import run_trial
from orchestrator.trial.result import TrialResult
from orchestrator.trial.setup import warm_up
from orchestrator.trial.stopping import StopRule
from strategies import STRATEGIES

TrialFunction = Callable[..., TrialResult]
"""Like `run_trial`; `stop` is passed where there is a rule, and `diagnostics` where they are asked for."""

DAMAGED = "is_damaged"
"""Field of a result: an error, as of a GPU, may have damaged the worker's process, which runs no more trials."""


class SweepWorker(tune.Trainable):
    """A worker process: imports once, runs many trials, one a step."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Return what a trial asks for."""
        return PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(
        self,
        config: dict[str, Any],
        data: Mapping[str, ray.ObjectRef[Any]] | None = None,
        function: Any = run_trial,
    ) -> None:
        """Remember where the data are; nothing of a trial stays for the next."""
        self._data = data or {}
        self._function = function
        warm_up()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept another trial: `step` reads everything from the config."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole trial and return its result as JSON text."""
        spec = TrialSpec.model_validate_json(self.config["trial"])
        STRATEGIES.load_plugin(spec.method)  # the driver's user named it
        placement = Placement(self.config["device"], self.config["threads"])
        torch.set_num_threads(placement.threads)
        if spec.phase == "confirm":
            data = ray.get(self._data[f"{spec.dataset}/test"])
        else:
            data = ray.get(self._data[f"{spec.dataset}/validation"]).split(spec.validation_share, spec.validation_seed)
        more: dict[str, Any] = {"stop": StopRule.from_json(self.config["stop"])} if self.config["stop"] else {}
        if self.config["diagnostics"]:
            more["diagnostics"] = True
        show_as(f"{self!r} {self.config['name']}")
        with TrialLog(spec) as log:
            checkpoint = checkpoint_of(self.config["checkpoint"])
            result = self._function(spec, data, placement, log.report, checkpoint, **more)
            said = log.end(result)
        result.provenance["node_id"] = ray.get_runtime_context().get_node_id()
        return {"result": result.to_json(), "done": True, DAMAGED: result.status == "error", "log": said}

    def __repr__(self) -> str:
        return f"SweepWorker({self.config['device']})"


def checkpoint_of(address: str) -> Path | StoredFile | None:
    """Return the checkpoint file at an address, or None if its store cannot be opened: a checkpoint only saves time."""
    try:
        return stored_file(address) if is_uri(address) else Path(address)
    except Exception:  # each store's library raises its own
        return None
