"""`cluster.yaml` against Ray's own schema and checks, and against what the README says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it_with_its_own_defaults_filled_in(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    filled = fillout_defaults(config)
    filled["cluster_synced_files"] = []
    validate_config(filled)
    assert set(filled["available_node_types"]) == {"head", "cpu_worker", "gpu_spot_worker"}


def test_ray_refuses_it_with_a_misspelt_field(config: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    filled = fillout_defaults(config | {"max_worker": 3})
    filled["cluster_synced_files"] = []
    with pytest.raises(jsonschema.ValidationError):
        validate_config(filled)


def test_gpu_workers_are_spot_and_cpu_workers_are_not(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    assert kinds["gpu_spot_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in kinds["cpu_worker"]["node_config"]
    assert kinds["gpu_spot_worker"]["resources"]["GPU"] == 1
    assert kinds["head"]["resources"]["CPU"] == 0


def test_every_node_needs_the_token_and_the_dashboard_stays_on_loopback(config: dict[str, Any]) -> None:
    starts = [
        line
        for command in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in config[command]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line and "RAY_USAGE_STATS_ENABLED=0" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_it_says_three_places_to_edit() -> None:
    assert (ROOT / "cluster.yaml").read_text().count("# EDIT ") == 3
