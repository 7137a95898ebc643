"""The fields of KubeRay's objects that our files use, as a JSON schema that refuses any other.

Names and types as in KubeRay's API reference (``docs/reference/api.md``, version 1.6); those of pods as in Kubernetes' own
(core/v1). Only what is used: a field that comes to a file is to be looked up there and added here.
"""

from __future__ import annotations

from typing import Any

_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_STRINGS = {"type": "object", "additionalProperties": _STRING}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_PORT = _object({"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}}, name=_STRING | {"maxLength": 15})
_QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(m|Ki|Mi|Gi)?$"}}
_CONTAINER = _object(
    {"name": _STRING, "image": _STRING},
    ports={"type": "array", "items": _PORT},
    resources=_object({"requests": _QUANTITIES, "limits": _QUANTITIES}),
)
_POD = _object(
    {"containers": {"type": "array", "items": _CONTAINER, "minItems": 1}},
    serviceAccountName=_STRING,
    nodeSelector=_STRINGS,
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
)
_GROUP = {"rayStartParams": _STRINGS, "template": _object({"spec": _POD})}
_HEAD = _object(_GROUP)
_WORKERS = _object(
    _GROUP | {"groupName": _STRING, "minReplicas": _COUNT, "maxReplicas": _COUNT},
    replicas=_COUNT,
    resources=_STRINGS,
    labels=_STRINGS,
)
_CLUSTER = _object(
    {"headGroupSpec": _HEAD},
    workerGroupSpecs={"type": "array", "items": _WORKERS},
    rayVersion=_STRING,
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_object({}, version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=_COUNT),
)
_JOB = _object(
    {"entrypoint": _STRING, "rayClusterSpec": _CLUSTER},
    runtimeEnvYAML=_STRING,
    backoffLimit=_COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
)
_SERVICE = _object({"serveConfigV2": _STRING, "rayClusterConfig": _CLUSTER})


def _custom_resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object({"name": _STRING | {"pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 50}})
    return _object({"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


SCHEMAS = {
    "RayCluster": _custom_resource("RayCluster", _CLUSTER),
    "RayJob": _custom_resource("RayJob", _JOB),
    "RayService": _custom_resource("RayService", _SERVICE),
}
"""By the kind of object."""
