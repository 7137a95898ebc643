"""No cluster file starts an open cluster: token authentication, closed ports, and pods without privileges."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cluster_configs.config_files import CONFIGS

LAUNCHER = ("local.yaml", "aws-gpu.yaml", "gcp-gpu.yaml")
GATEWAY = {"app": "compass-ray-gateway"}
"""The labels of the proxy's pods, which the service admits."""
TOKEN = "~/.ray/auth_token"
"""Where Ray reads the token if no variable names another file."""


def _documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text("utf-8")) if isinstance(each, dict)]


FILES = {str(path.relative_to(CONFIGS)): _documents(path) for path in sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.yml")])}


def _mappings(tree: Any) -> list[dict[str, Any]]:
    """Every mapping of a document, at any depth."""
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [*([tree] if isinstance(tree, dict) else []), *(found for child in children for found in _mappings(child))]


def _pods() -> list[tuple[str, dict[str, Any]]]:
    return [(name, each) for name, documents in FILES.items() for each in _mappings(documents) if "containers" in each]


def _containers() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{name}:{container['name']}", container) for name, pod in _pods() for container in pod["containers"]]


def _start_commands() -> list[tuple[str, str]]:
    """Every command of any file that starts Ray."""
    texts = [(name, text) for name, documents in FILES.items() for each in _mappings(documents) for text in _strings(each)]
    return [(name, text) for name, text in texts if re.search(r"\bray start\b", text)]


def _strings(mapping: dict[str, Any]) -> list[str]:
    values = [each for value in mapping.values() for each in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, str)]


def test_the_files_with_a_cluster_are_found() -> None:
    assert {name for name, _ in _start_commands()} == set(LAUNCHER)
    assert {name for name, _ in _pods()} >= {"kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "kuberay/rayservice.yaml"}


@pytest.mark.parametrize(("name", "command"), _start_commands())
def test_ray_starts_in_token_mode(name: str, command: str) -> None:
    before = command.partition("ray start")[0]
    words = shlex.split(before.replace(";", " ; "))
    assert "RAY_AUTH_MODE=token" in words, f"{name}: {command}"
    assert words[words.index("RAY_AUTH_MODE=token") - 1] == "export"  # so that Ray's own children have it too


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_token_is_copied_to_every_machine_and_is_never_in_the_file(name: str) -> None:
    [document] = FILES[name]
    assert document["file_mounts"] == {TOKEN: TOKEN}
    assert "RAY_AUTH_TOKEN=" not in (CONFIGS / name).read_text("utf-8")
    assert "umask 077; ray get-auth-token --generate" in (CONFIGS / name).read_text("utf-8")


def test_every_ray_cluster_on_kubernetes_has_a_token() -> None:
    clusters = [(name, each) for name, documents in FILES.items() for each in _mappings(documents) if "headGroupSpec" in each]
    assert len(clusters) == 4
    assert {name: each["authOptions"] for name, each in clusters} == {name: {"mode": "token"} for name, _ in clusters}


@pytest.mark.parametrize(("name", "pod"), _pods())
def test_a_pod_does_not_run_as_root(name: str, pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize(("name", "container"), _containers())
def test_a_container_has_no_privileges(name: str, container: dict[str, Any]) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not context.get("privileged")


def test_the_autoscaler_beside_the_head_has_none_either() -> None:
    found = [
        each["autoscalerOptions"] for documents in FILES.values() for each in _mappings(documents) if "autoscalerOptions" in each
    ]
    assert len(found) == 4
    for options in found:
        assert options["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _policy() -> dict[str, Any]:
    [policy] = [each for documents in FILES.values() for each in documents if each.get("kind") == "NetworkPolicy"]
    spec: dict[str, Any] = policy["spec"]
    return spec


def test_the_network_policy_selects_every_pod_of_a_cluster() -> None:
    selected = _policy()["podSelector"]["matchLabels"]
    assert selected
    templates = [each for documents in FILES.values() for each in _mappings(documents) if "containers" in each.get("spec", {})]
    assert len(templates) == len(_pods())
    for template in templates:
        if template["metadata"]["labels"].items() == GATEWAY.items():
            continue
        assert selected.items() <= template["metadata"]["labels"].items()


def _sources(port: int) -> list[dict[str, Any]]:
    """Who may connect to a port."""
    rules = [rule for rule in _policy()["ingress"] if port in {each["port"] for each in rule.get("ports", [{"port": port}])}]
    assert all(rule.get("from") for rule in rules)  # a rule without a source allows everybody
    return [source for rule in rules for source in rule["from"]]


def test_only_the_cluster_s_own_pods_reach_ray_and_only_the_gateway_the_service() -> None:
    own = {"podSelector": _policy()["podSelector"]}
    assert _policy()["policyTypes"] == ["Ingress"]
    assert _sources(6379) == _sources(10001) == [own]
    operator = [source for source in _sources(8265) if source != own]
    assert [each["namespaceSelector"]["matchLabels"] for each in operator] == [
        {"kubernetes.io/metadata.name": "OPERATOR_NAMESPACE"}
    ]
    others = [source["namespaceSelector"]["matchLabels"] for source in _sources(8000) if source != own]
    names = [labels["kubernetes.io/metadata.name"] for labels in others]
    assert GATEWAY in [source["podSelector"].get("matchLabels") for source in _sources(8000)]
    assert names == ["GATEWAY_NAMESPACE", "OPERATOR_NAMESPACE"]


def test_the_commands_of_the_service_send_the_token() -> None:
    header = (CONFIGS / "serve.yaml").read_text("utf-8").split("\n\n", 1)[0]
    assert header.index("RAY_AUTH_MODE=token") < header.index("serve deploy")
    readme = (CONFIGS / "README.md").read_text("utf-8")
    assert readme.index("export RAY_AUTH_MODE=token") < readme.index("ray job submit")
