"""Check the engine vLLM: settings that it does not support, and the Python environment that runs it.

The environment describes itself (`python -m compass_ray.vllm_plugin`), in a process of its own, since its packages have other
versions. Ray starts a replica in it only if both have the same Ray and the same Python.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from compass_ray.engine.vllm_backend.engine_arguments import list_unsupported_settings
from compass_ray.preflight.check_result import CheckContext, CheckResult

_NAME = "vLLM"
_MODULE = "compass_ray.vllm_plugin"
_SECONDS = 180.0
_BUILD = "build it with 'make vllm-env' and set serve.vllm.python=.venv-vllm/bin/python"
Versions = Mapping[str, str | bool | None]
"""What an environment says about itself; see `vllm_plugin.status.PluginStatus`."""


def check_vllm(context: CheckContext) -> list[CheckResult]:
    """Check settings and environment of vLLM, if it is the engine."""
    config = context.config
    if config.serve.engine != "vllm":
        return []
    refused = [_refuse_setting(each) for each in list_unsupported_settings(config)]
    if refused or not context.thorough:
        return refused
    return [*_check_reservation(context), *_find_environment(context)]


def _check_reservation(context: CheckContext) -> list[CheckResult]:
    """Note that replicas get no GPU although there is one."""
    config = context.config
    if config.resources.replica_gpus or not context.environment.capacity.fits({"GPU": 1}):
        return []
    remedy = f"set resources.replica_gpus={config.serve.vllm.tensor_parallel}, unless vLLM's environment is one for CPUs"
    return [CheckResult(_NAME, "there are GPUs, but resources.replica_gpus is 0, so no replica reserves one", remedy)]


def _find_environment(context: CheckContext) -> list[CheckResult]:
    config = context.config
    python = config.serve.vllm.python
    if context.environment.is_cluster:
        command = f"{python or 'python'} -m {_MODULE}"
        return [CheckResult(_NAME, "its environment is on the machines of the replicas", f"run '{command}' on one of them")]
    if python is None:
        return [CheckResult(_NAME, "serve.vllm.python is not set, so replicas run in this environment", _BUILD, blocking=True)]
    return check_environment(Path(python).expanduser(), dora=config.train.adapter.kind == "dora")


def _refuse_setting(text: str) -> CheckResult:
    found, _, remedy = text.partition("; ")
    return CheckResult(_NAME, found, remedy, blocking=True, by="settings")


def check_environment(python: Path, *, dora: bool) -> list[CheckResult]:
    """Check the environment of a Python on this machine. ``dora``: its adapters need the plugin."""
    found = read_environment(python)
    if isinstance(found, str):
        return [CheckResult(_NAME, f"serve.vllm.python {python}: {found}", _BUILD, blocking=True)]
    own = {"python": platform.python_version(), "ray": version("ray"), "compass_ray": version("compass-ray")}
    if problems := list(compare_environments(found, own, dora=dora)):
        return [CheckResult(_NAME, f"{python}: {problem}", remedy, blocking=True) for problem, remedy in problems]
    versions = ", ".join(f"{name} {found[key]}" for name, key in (("vLLM", "vllm"), ("torch", "torch"), ("Ray", "ray")))
    return [CheckResult(_NAME, f"{python} has {versions}{' and the DoRA plugin' if dora else ''}")]


def read_environment(python: Path) -> Versions | str:
    """What the environment says about itself, or why it says nothing. A checkout in the current folder does not count."""
    command = [str(python.absolute()), "-m", _MODULE]
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=_SECONDS, check=False)
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS:g} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    try:
        read: Versions = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return f"'-m {_MODULE}' printed no JSON"
    return read


def compare_environments(found: Versions, own: Versions, *, dora: bool) -> Iterator[tuple[str, str]]:
    """Problems of vLLM's environment, each with its remedy. ``own`` is the environment that starts Ray."""
    for name, label in (("python", "Python"), ("ray", "Ray"), ("compass_ray", "compass-ray")):
        if found[name] != own[name]:
            has = f"it has {label} {found[name]}" if found[name] else f"it has no {label}"
            yield f"{has}, and Ray starts with {label} {own[name]}", f"make both the same, or {_BUILD}"
    if not found["vllm"]:
        yield "it has no vLLM", _BUILD
    elif dora and not found["registered"]:
        yield "vLLM does not find the DoRA plugin", f"install compass-ray there with --no-deps, or {_BUILD}"
    elif dora and found["problem"]:
        yield str(found["problem"]), "install a version of vLLM that the plugin knows (requirements-vllm.txt)"
