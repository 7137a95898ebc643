"""Ray Serve accepts its file, the service is the same on Kubernetes, and service and updates have separate machines."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType
from compass_ray.config import ConfigError, Resources, load_run_config, with_overrides
from compass_ray.engine.vllm_backend.engine_arguments import list_unsupported_settings
from compass_ray.models.model_resolver import model_identity
from compass_ray.serving.autoscaling import replica_options
from tests.unit.cluster_configs.config_files import CONFIGS
from tests.unit.cluster_configs.config_files import load as read

RESERVED = "resources.replica_resources={serving: 1}"
"""The setting that the service on Kubernetes adds, where pods are reserved for it."""


SERVICES = {"serve.yaml": "rayservice.yaml", "serve-vllm.yaml": "rayservice-vllm.yaml"}
"""Serve's file of each service, and the object of Kubernetes with the same content."""


def _on_kubernetes(name: str = "rayservice.yaml") -> dict[str, Any]:
    return dict(yaml.safe_load(read(f"kuberay/{name}")["spec"]["serveConfigV2"]))


def _application(name: str = "rayservice.yaml") -> dict[str, Any]:
    (application,) = _on_kubernetes(name)["applications"]
    return dict(application)


@pytest.mark.parametrize("name", SERVICES)
def test_ray_serve_accepts_the_serve_file_and_finds_its_application(name: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema(**read(name)).applications
    module, name = application.import_path.split(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", SERVICES)
def test_the_service_is_the_same_on_kubernetes(name: str) -> None:
    alike = _on_kubernetes(SERVICES[name])
    alike["applications"][0]["args"]["set"].remove(RESERVED)
    assert alike == read(name)


@pytest.mark.parametrize("name", SERVICES)
def test_the_proxy_timeout_exceeds_the_service_s_own(name: str) -> None:
    bounds = load_run_config("phi-4-mini").serve
    assert read(name)["http_options"]["request_timeout_s"] > bounds.body_timeout_s + bounds.request_timeout_s


def test_the_application_is_built_from_the_file_s_arguments(tmp_path: Path) -> None:
    from compass_ray.continual.deployment import app

    run = RunDir(str(tmp_path / "run"))
    args = {**_application()["args"], "run": run.uri}
    run.write_config(load_run_config("atlas-test"))
    with pytest.raises(ArtifactError, match="has no adapter to serve yet"):
        app(args)
    run.adapter("sw", "v0001").begin(Identity("train", {"base_model": model_identity("atlas")}, {})).publish()
    built: Any = app(args)
    assert (run.live("sw") or {})["version"] == "v0001", "the first version of a run that was never served is promoted"
    ingress = built._bound_deployment
    adapters = next(each for each in ingress.init_args if hasattr(each, "_bound_deployment"))._bound_deployment
    assert adapters._deployment_config.autoscaling_config.max_replicas == 4
    assert adapters.ray_actor_options["resources"] == ingress.ray_actor_options["resources"] == {"serving": 1}


@pytest.mark.parametrize("automatic", [True, False])
def test_a_deployed_service_starts_the_controller_if_updates_are_automatic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automatic: bool
) -> None:
    from compass_ray.continual import deployment
    from compass_ray.continual.controller import actor

    run, started = RunDir(str(tmp_path / "run")), []
    run.write_config(load_run_config("atlas-test"))
    run.adapter("sw", "v0001").begin(Identity("train", {"base_model": model_identity("atlas")}, {})).publish()
    monkeypatch.setattr(actor, "start_controller", lambda uri, config: started.append((uri, config.update.auto)))
    deployment.app({"run": run.uri, "set": [f"update.auto={str(automatic).lower()}", "serve.requests_per_minute=60"]})
    assert started == ([(run.uri, True)] if automatic else [])


@pytest.mark.parametrize("args", [{}, {"run": "x", "sets": []}, {"run": "x", "set": "seed=1"}])
def test_unknown_arguments_are_refused(args: dict[str, Any]) -> None:
    from compass_ray.continual.deployment import app

    with pytest.raises(ConfigError, match=r"Invalid application args .*Expected \{run: URI\}"):
        app(args)


def test_the_replicas_with_vllm_use_the_image_s_second_python_and_its_gpus() -> None:
    config = with_overrides(load_run_config("phi-4-mini"), _application("rayservice-vllm.yaml")["args"]["set"])
    assert not list_unsupported_settings(config)
    options = replica_options(config)["ray_actor_options"]
    python = options["runtime_env"]["py_executable"]
    assert f"python -m venv {python.removesuffix('/bin/python')}" in (CONFIGS / "Dockerfile").read_text("utf-8")
    assert options["num_gpus"] == config.serve.vllm.tensor_parallel
    (gpu, _) = read("kuberay/rayservice-vllm.yaml")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert gpu["template"]["spec"]["containers"][0]["image"].endswith(":vllm")


def _groups(name: str) -> ClusterCapacity:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = read(f"kuberay/{name}")["spec"]["rayClusterConfig"]
    derived = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    kinds = derived["available_node_types"].items()
    return ClusterCapacity((Node({}),), tuple(NodeType(name, kind["resources"], kind["max_workers"]) for name, kind in kinds))


@pytest.mark.parametrize("name", SERVICES.values())
def test_service_and_updates_fit_on_separate_machines(name: str) -> None:
    """The maximum number of replicas fits for any number of updates, and each update gets a pod without a replica."""
    served: Resources = with_overrides(load_run_config("phi-4-mini"), _application(name)["args"]["set"]).resources
    header = (CONFIGS / "kuberay" / name).read_text("utf-8").split("\n\n")[0].replace("# ", "")
    settings = [words.strip("'") for words in re.findall(r"--set ('[^']*'|\S+)", header)]
    updating = with_overrides(load_run_config("phi-4-mini"), settings).resources
    groups = _groups(name)
    assert groups.max_count(served.resources_per_replica()) == served.max_replicas == 4
    assert groups.max_count(updating.resources_per_worker()) == 2
    for kind in groups.types or ():
        assert not ("serving" in kind.resources and "updates" in kind.resources)
