"""Names of a run's detached actors. Equal for every spelling of a local path."""

from __future__ import annotations

from compass_ray.artifacts import RunDir, content_hash

NAMESPACE = "compass-ray"


def monitor_name(run_uri: str) -> str:
    """Name of the run's monitor."""
    return f"monitor-{content_hash(RunDir(run_uri).uri)}"


def controller_name(run_uri: str) -> str:
    """Name of the run's controller."""
    return f"controller-{content_hash(RunDir(run_uri).uri)}"
