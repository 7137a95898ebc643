"""The fields of KubeRay's objects that our files use, as a JSON schema that refuses any other.

Names and types as in KubeRay's API reference (``docs/reference/api.md``, version 1.6); those of pods and policies as in
Kubernetes' own (core/v1, networking.k8s.io/v1). Only what is used: a field that comes to a file is to be looked up there
and added here.
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
_SECURITY = _object(
    {"allowPrivilegeEscalation": {"type": "boolean"}}, capabilities=_object({"drop": {"type": "array", "items": _STRING}})
)
_POD_SECURITY = _object(
    {"runAsNonRoot": {"type": "boolean"}},
    runAsUser=_COUNT,
    seccompProfile=_object({"type": {"enum": ["RuntimeDefault", "Unconfined", "Localhost"]}}),
)
_CONTAINER = _object(
    {"name": _STRING, "image": _STRING},
    securityContext=_SECURITY,
    env={"type": "array", "items": _object({"name": _STRING, "value": _STRING})},
    ports={"type": "array", "items": _PORT},
    resources=_object({"requests": _QUANTITIES, "limits": _QUANTITIES}),
)
_POD = _object(
    {"containers": {"type": "array", "items": _CONTAINER, "minItems": 1}},
    serviceAccountName=_STRING,
    securityContext=_POD_SECURITY,
    nodeSelector=_STRINGS,
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
)
_TEMPLATE = _object({"spec": _POD}, metadata=_object({"labels": _STRINGS}))
_GROUP = {"rayStartParams": _STRINGS, "template": _TEMPLATE}
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
    authOptions=_object({"mode": {"enum": ["disabled", "token"]}}),
    autoscalerOptions=_object({}, version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=_COUNT, securityContext=_SECURITY),
)
_JOB = _object(
    {"entrypoint": _STRING, "rayClusterSpec": _CLUSTER},
    runtimeEnvYAML=_STRING,
    backoffLimit=_COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    submitterPodTemplate=_TEMPLATE,
)
_SERVICE = _object({"serveConfigV2": _STRING, "rayClusterConfig": _CLUSTER})

_LABELS = _object({"matchLabels": _STRINGS})
_SOURCE = {"anyOf": [_object({"podSelector": _LABELS}), _object({"namespaceSelector": _LABELS}, podSelector=_LABELS)]}
_OPEN_PORT = _object({"protocol": {"enum": ["TCP", "UDP"]}, "port": {"type": "integer", "minimum": 1, "maximum": 65535}})
_RULE = _object(
    {"from": {"type": "array", "items": _SOURCE, "minItems": 1}}, ports={"type": "array", "items": _OPEN_PORT, "minItems": 1}
)
_POLICY = _object(
    {"podSelector": _LABELS, "policyTypes": {"type": "array", "items": {"enum": ["Ingress", "Egress"]}}},
    ingress={"type": "array", "items": _RULE},
)


def _custom_resource(kind: str, spec: dict[str, Any], version: str = "ray.io/v1") -> dict[str, Any]:
    metadata = _object({"name": _STRING | {"pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 50}})
    return _object({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


SCHEMAS = {
    "RayCluster": _custom_resource("RayCluster", _CLUSTER),
    "RayJob": _custom_resource("RayJob", _JOB),
    "RayService": _custom_resource("RayService", _SERVICE),
    "NetworkPolicy": _custom_resource("NetworkPolicy", _POLICY, "networking.k8s.io/v1"),
}
"""By the kind of object."""
