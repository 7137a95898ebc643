"""Who does the heavy arithmetic of clustering: this CPU, or a GPU through cuML.

Both give the same three things, and everything above them is shared. cuML is imported only when it is asked for, or when
torch sees a GPU and the package is there; which one did the work is on record in the result, and in the log. A GPU that
is left idle because cuML is missing is warned of.
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
    """The heavy steps of clustering."""

    @property
    def name(self) -> str:
        """``cpu`` or ``gpu``."""

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """float64[n, k + 1] distances to the nearest points, itself first."""

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """float64[n - 1, 3] edges of the minimum spanning tree of mutual reachability, ascending."""

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """float32[k, r] centres."""


class CpuBackend:
    """numpy and scikit-learn."""

    name = "cpu"

    def neighbour_distances(self, points: Float32, k: int) -> Float64:
        """See `Backend`."""
        return cpu_tree.neighbour_distances(points, k)

    def spanning_tree(self, points: Float32, core: Float64, min_samples: int) -> Float64:
        """See `Backend`."""
        return cpu_tree.spanning_tree(points, core)

    def kmeans(self, points: Float32, k: int, n_init: int, seed: int) -> Float32:
        """See `Backend`."""
        from sklearn.cluster import KMeans

        fitted = KMeans(k, n_init=n_init, random_state=seed).fit(points)
        return np.asarray(fitted.cluster_centers_, dtype=np.float32)


def choose_backend(asked: Literal["auto", "cpu", "gpu"]) -> ClusteringBackend:
    """The backend asked for; ``auto`` takes the GPU where torch sees one and cuML is installed.

    Raises:
        ModelError: ``gpu`` was asked for and cannot be had.
    """
    backend = _select_backend(asked)
    logger.info("cluster.backend is %s: clustering on the %s", asked, backend.name.upper())
    return backend


def _select_backend(asked: Literal["auto", "cpu", "gpu"]) -> ClusteringBackend:
    if asked == "cpu":
        return CpuBackend()
    gpu, cuml = _sees_gpu(), importlib.util.find_spec("cuml") is not None
    if gpu and cuml:
        from compass_ray.clustering.cuml_backend import CumlBackend

        return CumlBackend()
    if asked == "gpu":
        raise ModelError(
            "cluster.backend is gpu, but torch sees no GPU or cuML is not installed; install compass-ray[gpu] on a "
            "machine with one, or set cluster.backend=cpu"
        )
    if gpu:
        logger.warning(
            "There is a GPU, but cuML is not installed: clustering on the CPU. Install compass-ray[gpu] to use the GPU, or "
            "set cluster.backend=cpu to have it so"
        )
    return CpuBackend()


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
