"""Ray Serve accepts its file, and the service is the same on Kubernetes."""

from __future__ import annotations

import importlib

import yaml

from .reading import load


def test_ray_serve_accepts_the_serve_file_and_finds_its_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema(**load("serve.yaml")).applications
    module, name = application.import_path.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_service_is_the_same_on_kubernetes() -> None:
    assert yaml.safe_load(load("kuberay/rayservice.yaml")["spec"]["serveConfigV2"]) == load("serve.yaml")
