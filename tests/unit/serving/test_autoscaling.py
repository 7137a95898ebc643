"""The number of replicas: the settings determine Serve's options, and Serve accepts them."""

from __future__ import annotations

from typing import Any

from compass_ray.config import load_run_config
from compass_ray.serving import autoscaling


def test_the_number_is_fixed_without_a_larger_maximum() -> None:
    for settings in (["resources.replicas=3"], ["resources.replicas=3", "resources.max_replicas=3"]):
        assert autoscaling.scaling_options(load_run_config("atlas-test", overrides=settings)) == {"num_replicas": 3}


def test_serve_accepts_the_bounds_and_a_replica_s_resources() -> None:
    from ray import serve

    settings = ["resources.max_replicas=4", "resources.replica_gpus=1", "resources.replica_resources={serving: 1}"]
    config = load_run_config("atlas-test", overrides=[*settings, "serve.max_num_seqs=24"])
    options = autoscaling.scaling_options(config) | {"ray_actor_options": autoscaling.actor_options(config.resources)}
    deployed = serve.deployment(name="adapters", **options)(object)
    bounds = deployed._deployment_config.autoscaling_config
    assert bounds is not None
    assert (bounds.min_replicas, bounds.max_replicas, bounds.target_ongoing_requests) == (1, 4, 12.0)
    assert deployed.ray_actor_options == {"num_cpus": 0.2, "num_gpus": 1.0, "resources": {"serving": 1.0}}


def test_a_batch_of_one_still_gives_a_target() -> None:
    config = load_run_config("atlas-test", overrides=["resources.max_replicas=2", "serve.max_num_seqs=1"])
    assert autoscaling.scaling_options(config)["autoscaling_config"]["target_ongoing_requests"] == 1.0


def _vllm_options(*changes: str) -> dict[str, Any]:
    return autoscaling.replica_options(load_run_config("atlas-test", overrides=["serve.engine=vllm", *changes]))


def test_a_replica_with_vllm_runs_in_its_own_python() -> None:
    options = _vllm_options("serve.vllm.python=/opt/vllm/bin/python", "resources.replica_gpus=2", "serve.vllm.tensor_parallel=2")
    actor = options["ray_actor_options"]
    assert actor["runtime_env"] == {"py_executable": "/opt/vllm/bin/python"}
    assert actor["num_gpus"] == 2, "all GPUs of a replica are on one machine"
    assert "placement_group_bundles" not in options


def test_a_python_in_a_folder_with_spaces_is_one_word_of_the_shell() -> None:
    options = _vllm_options("serve.vllm.python='/opt/my $env/bin/python'")
    assert options["ray_actor_options"]["runtime_env"] == {"py_executable": "'/opt/my $env/bin/python'"}


def test_serve_accepts_a_placement_group_for_tensor_parallelism_over_machines() -> None:
    from ray import serve

    changes = ["serve.vllm.tensor_parallel=4", "resources.replica_gpus=4", "resources.replica_resources={serving: 1}"]
    options = _vllm_options(*changes, "serve.vllm.arguments={distributed_executor_backend: ray}")
    deployed = serve.deployment(name="adapters", **options)(object)
    bundles = options["placement_group_bundles"]
    assert sum(bundle["GPU"] for bundle in bundles) == 4
    assert all(bundle["serving"] == 1 for bundle in bundles)
    assert deployed.ray_actor_options["num_gpus"] == 0


def test_our_engine_runs_in_the_python_of_ray() -> None:
    config = load_run_config("atlas-test", overrides=["serve.vllm.python=/opt/vllm/bin/python"])
    assert "runtime_env" not in autoscaling.replica_options(config)["ray_actor_options"]
