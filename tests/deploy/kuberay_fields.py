"""What KubeRay 1.6 and Kubernetes accept, as far as our manifests use it: JSON schemas that refuse every other field.

Written from the API's description, not copied. A cluster judges by itself: `kubectl apply --dry-run=server`.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def a(kind: str, **more: Any) -> Schema:
    """Return the schema of a plain value."""
    return {"type": kind, **more}


def one_of(*values: str) -> Schema:
    """Return the schema of a word."""
    return {"enum": list(values)}


def list_of(item: Schema) -> Schema:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "items": item, "minItems": 1}


def map_of(value: Schema) -> Schema:
    """Return the schema of a map with keys of the user's."""
    return {"type": "object", "additionalProperties": value}


def fields(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return the schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


COUNT = a("integer", minimum=0, maximum=2**31 - 1)
NAME = a("string", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", maxLength=47)
"""KubeRay adds to names; the whole must fit into 63 characters."""
TEXT = a("string", minLength=1)
QUANTITY = a("string", pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGT]i?)?$")
FLAGS = map_of(a("string"))
"""Of `ray start`: all values are strings."""

CONTAINER_SECURITY = fields(
    runAsNonRoot=a("boolean"),
    runAsUser=COUNT,
    allowPrivilegeEscalation=a("boolean"),
    readOnlyRootFilesystem=a("boolean"),
    capabilities=fields(drop=list_of(TEXT), add=list_of(TEXT)),
    seccompProfile=fields(("type",), type=one_of("RuntimeDefault", "Localhost", "Unconfined"), localhostProfile=TEXT),
)
POD_SECURITY = fields(
    runAsNonRoot=a("boolean"),
    runAsUser=COUNT,
    runAsGroup=COUNT,
    fsGroup=COUNT,
    seccompProfile=CONTAINER_SECURITY["properties"]["seccompProfile"],
)
SELECTOR = fields(("name", "key"), name=NAME, key=TEXT, optional=a("boolean"))
CONTAINER = fields(
    ("name", "image"),
    name=NAME,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    env=list_of(fields(("name",), name=TEXT, value=a("string"), valueFrom=fields(secretKeyRef=SELECTOR))),
    envFrom=list_of(fields(secretRef=fields(("name",), name=NAME), configMapRef=fields(("name",), name=NAME))),
    volumeMounts=list_of(fields(("name", "mountPath"), name=NAME, mountPath=TEXT, readOnly=a("boolean"))),
    resources=fields(requests=map_of(QUANTITY), limits=map_of(QUANTITY)),
    securityContext=CONTAINER_SECURITY,
)
POD = fields(
    ("spec",),
    spec=fields(
        ("containers",),
        restartPolicy=one_of("Never", "OnFailure", "Always"),
        serviceAccountName=NAME,
        automountServiceAccountToken=a("boolean"),
        securityContext=POD_SECURITY,
        tolerations=list_of(
            fields(
                key=TEXT,
                operator=one_of("Exists", "Equal"),
                value=a("string"),
                effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            )
        ),
        nodeSelector=FLAGS,
        containers=list_of(CONTAINER),
        volumes=list_of(fields(("name",), name=NAME, configMap=fields(("name",), name=NAME), emptyDir=a("object"))),
    ),
)
CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion=a("string", pattern=r"^\d+\.\d+\.\d+$"),
    authOptions=fields(mode=one_of("disabled", "token")),
    enableInTreeAutoscaling=a("boolean"),
    autoscalerOptions=fields(
        idleTimeoutSeconds=COUNT,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        resources=CONTAINER["properties"]["resources"],
        securityContext=CONTAINER_SECURITY,
    ),
    headGroupSpec=fields(("rayStartParams", "template"), rayStartParams=FLAGS, template=POD),
    workerGroupSpecs=list_of(
        fields(
            ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=FLAGS,
            template=POD,
        )
    ),
)
JOB = fields(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    backoffLimit=COUNT,
    activeDeadlineSeconds=a("integer", minimum=1),
    shutdownAfterJobFinishes=a("boolean"),
    ttlSecondsAfterFinished=COUNT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterPodTemplate=POD,
    runtimeEnvYAML=a("string"),
    suspend=a("boolean"),
    rayClusterSpec=CLUSTER,
)
CRON_FIELD = r"(\*|\d+)([-,/]\d+)*"


def manifest(kind: str, spec: Schema) -> Schema:
    """Return the schema of a whole manifest."""
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=fields(("name",), name=NAME),
        spec=spec,
    )


RAY_JOB = manifest("RayJob", JOB)
RAY_CRON_JOB = manifest(
    "RayCronJob",
    fields(
        ("schedule", "jobTemplate"),
        schedule=a("string", pattern=rf"^{CRON_FIELD}( {CRON_FIELD}){{4}}$"),
        suspend=a("boolean"),
        jobTemplate=JOB,
    ),
)
