"""Naive selection for one language with numpy and pandas (COMPASS, section 3.2.3).

It loads all vectors, scores the candidates of a cluster, and recomputes every score of the cluster for each draw. Quotas come
from the selection that it is compared with, so both draw the same number of rows from the same clusters.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from compass_ray.artifacts import RunDir
from compass_ray.core.array_checks import Float32Array
from compass_ray.core.sampling import DELTA, TAU


def select_naively(run: RunDir, method: str, language: str) -> tuple[float, float]:
    """Return the CPU seconds of loading and of drawing."""
    started = time.process_time()
    rows = pd.read_feather(f"{run.clusters.path}/assignments.arrow")
    vectors = np.load(f"{run.clusters.path}/vectors.npy").astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centroids = np.load(f"{run.clusters.path}/centroids.npy")
    loaded = time.process_time()
    rng = np.random.default_rng(0)
    for cluster in run.selection(method, language).read_json("allocation.json")["clusters"]:
        members = np.flatnonzero((rows["cluster"] == cluster["cluster"]) & (rows["language"] != language))
        if cluster["quota"]:
            _draw(vectors[members], centroids, cluster["cluster"], cluster["quota"], rng)
    return loaded - started, time.process_time() - loaded


def _draw(rows: Float32Array, centroids: Float32Array, own: int, quota: int, rng: np.random.Generator) -> None:
    distance = 1.0 - rows @ centroids.T
    proto = 1.0 / (1.0 + distance[:, own])
    margin = np.delete(distance, own, axis=1).min(axis=1) - distance[:, own]
    boundary = 1.0 - (margin - margin.min()) / max(float(np.ptp(margin)), 1e-12)
    near, left = np.zeros(len(rows)), np.ones(len(rows))
    for drawn in range(quota):
        late = (drawn / quota) ** 2
        score = left * np.maximum((1.0 - late) * proto + late * boundary - DELTA * near, 0.0)
        score = score if score.any() else left
        row = int(rng.choice(len(rows), p=score / score.sum()))
        near += rows @ rows[row] > TAU
        left[row] = 0.0
