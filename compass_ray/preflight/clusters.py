"""Check of a run's clusters, if it has them: degenerate results leave little for the selection to target."""

from __future__ import annotations

from compass_ray.artifacts import SHARED, ArtifactError, clustering_keys
from compass_ray.models.errors import ModelError
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.row_selection.clustering_findings import find_clustering_degeneracies


def check_clusters(context: CheckContext) -> list[CheckResult]:
    """Check each complete clustering for degenerate results; none of them blocks."""
    try:
        keys = [key for key in clustering_keys(context.config) if context.run.clustering(key).manifest() is not None]
    except OSError:  # the storage check reports it
        return []
    return [result for key in keys for result in _check_clustering(context, key)]


def _check_clustering(context: CheckContext, key: str) -> list[CheckResult]:
    name = "clusters" if key == SHARED else f"clusters of {key}"
    try:
        found = find_clustering_degeneracies(context.config, context.run, key)
    except (ArtifactError, ModelError) as error:
        return [CheckResult(name, str(error), "run the cluster stage again with --force cluster")]
    return [CheckResult(name, each.found, each.remedy) for each in found] or [CheckResult(name, "not degenerate")]
