"""Backends for the expensive steps of clustering: this CPU, or a GPU with cuML.

Both provide the same three operations; all other code is shared. cuML is imported only if it is configured, or if torch sees a
GPU and cuML is installed. The result and the log record the backend. A warning is logged if a GPU is unused because cuML is
missing.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal, Protocol

import numpy as np

from compass_ray.clustering import spanning_tree as cpu_tree
from compass_ray.clustering.protocol import Float32, Float64
from compass_ray.models.errors import ModelError

logger = logging.getLogger(__name__)


class ClusteringBackend(Protocol):
    """The expensive steps of clustering."""

    @property
    def name(self) -> str:
        """``cpu`` or ``gpu``."""

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """float64[n, k + 1] distances to the nearest points, the point itself first."""

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """float64[n - 1, 3] edges of the minimum spanning tree of mutual reachability, ascending."""

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """float32[k, r] centres."""


class CpuBackend:
    """numpy and scikit-learn."""

    name = "cpu"

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """See `ClusteringBackend`."""
        return cpu_tree.neighbour_distances(points, k)

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """See `ClusteringBackend`."""
        return cpu_tree.spanning_tree(points, core)

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """See `ClusteringBackend`."""
        from sklearn.cluster import KMeans

        fitted = KMeans(k, n_init=n_init, random_state=seed).fit(points)
        return np.asarray(fitted.cluster_centers_, dtype=np.float32)


def choose_backend(setting: Literal["auto", "cpu", "gpu"]) -> ClusteringBackend:
    """The configured backend; ``auto`` takes the GPU if torch sees one and cuML is installed.

    Raises:
        ModelError: ``gpu`` is configured but not available.
    """
    backend = _select_backend(setting)
    logger.info("cluster: backend=%s, clustering on the %s", setting, backend.name.upper())
    return backend


def _select_backend(setting: Literal["auto", "cpu", "gpu"]) -> ClusteringBackend:
    if setting == "cpu":
        return CpuBackend()
    has_gpu, has_cuml = _sees_gpu(), importlib.util.find_spec("cuml") is not None
    if has_gpu and has_cuml:
        from compass_ray.clustering.cuml_backend import CumlBackend

        return CumlBackend()
    if setting == "gpu":
        raise ModelError(
            "cluster.backend is gpu, but torch sees no GPU or cuML is not installed; install compass-ray[gpu] on a "
            "machine with a GPU, or set cluster.backend=cpu"
        )
    if has_gpu:
        logger.warning(
            "cluster: a GPU is available but cuML is not installed, clustering on the CPU. Install compass-ray[gpu] to use the "
            "GPU, or set cluster.backend=cpu"
        )
    return CpuBackend()


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
