"""The manifests for KubeRay: fields that it knows, versions that are ours, and pods that may do little."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.core.version import __version__
from tests.deploy.kuberay_fields import RAY_CRON_JOB, RAY_JOB

FOLDER = Path(__file__).parents[2] / "deploy" / "kuberay"
JOB = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
CRON = yaml.safe_load((FOLDER / "raycronjob.yaml").read_text(encoding="utf-8"))
CLUSTER = JOB["spec"]["rayClusterSpec"]
CONSTRAINTS = (FOLDER.parents[1] / "constraints.txt").read_text(encoding="utf-8")
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}


PODS = {
    "submitter": JOB["spec"]["submitterPodTemplate"]["spec"],
    "head": CLUSTER["headGroupSpec"]["template"]["spec"],
    **{name: group["template"]["spec"] for name, group in GROUPS.items()},
}


def test_kuberay_knows_every_field() -> None:
    jsonschema.validate(JOB, RAY_JOB)
    jsonschema.validate(CRON, RAY_CRON_JOB)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backOffLimit"), 3),
        (("spec", "ttlSecondsAfterFinished"), "300"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "on"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "securityContext", "runAsNonroot"), True),
    ],
)
def test_a_mistake_is_seen(path: tuple[str, ...], value: object) -> None:
    wrong = copy.deepcopy(JOB)
    place = wrong
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, RAY_JOB)


def test_the_scheduled_job_is_the_job() -> None:
    assert CRON["spec"]["jobTemplate"] == JOB["spec"]


def test_versions_are_ours() -> None:
    assert f"\nray=={CLUSTER['rayVersion']}\n" in CONSTRAINTS
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert images == {f"continual-sweep:{__version__}"}


def test_the_command_is_one_that_we_have() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "orchestrator", "sweep"]
    shown = CliRunner().invoke(app, ["sweep", "--help"], env={"COLUMNS": "200"}).output
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", shown))


def test_two_shells_leave_the_command_as_it_is() -> None:
    """KubeRay writes it into a script for bash, and Ray's job agent gives it to sh."""
    assert re.fullmatch(r"[\w ./:=-]+", JOB["spec"]["entrypoint"])


def test_the_spec_is_where_the_command_reads_it() -> None:
    pod = CLUSTER["headGroupSpec"]["template"]["spec"]
    (mount,), (volume,) = pod["containers"][0]["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    assert f" {mount['mountPath']}/sweep.yaml " in JOB["spec"]["entrypoint"]
    text = (FOLDER / "rayjob.yaml").read_text(encoding="utf-8")
    assert f"create configmap {volume['configMap']['name']} --from-file sweep.yaml=" in text


def test_a_token_guards_the_cluster() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_nothing_is_left_running() -> None:
    spec = JOB["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert all(group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"] for group in GROUPS.values())


@pytest.mark.parametrize(("name", "pod"), PODS.items())
def test_no_pod_may_more_than_it_needs(name: str, pod: Any) -> None:
    """The rules of Kubernetes' 'restricted' pods."""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 1000, "that of the image"
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    if name != "head":  # the autoscaler, in the head's pod, asks Kubernetes for pods
        assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], CLUSTER["autoscalerOptions"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(("name", "pod"), PODS.items())
def test_every_container_says_what_it_takes(name: str, pod: Any) -> None:
    for container in pod["containers"]:
        resources = container["resources"]
        assert resources["requests"].keys() == resources["limits"].keys()
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert ("nvidia.com/gpu" in resources["limits"]) == (name == "gpu")


def test_head_and_workers_reach_the_bucket() -> None:
    for name, pod in PODS.items():
        reaches = [source["secretRef"]["name"] for source in pod["containers"][0].get("envFrom", [])]
        assert reaches == ([] if name == "submitter" else ["continual-sweep-storage"])


def test_trials_run_on_workers() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
