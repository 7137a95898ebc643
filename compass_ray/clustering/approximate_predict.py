"""Approximate prediction: assign new rows to a fitted density clustering (COMPASS, section 3.3.1).

The fit does not change, and a row's cluster does not depend on other new rows. A row takes the cluster of its nearest
neighbour in mutual reachability, as far up the condensed tree as its own density reaches.
"""

from __future__ import annotations

import numpy as np

from compass_ray.clustering.condensed_tree import CondensedTree
from compass_ray.clustering.protocol import Float32, Float64, Int32, Int64

_BLOCK = 4096


class ApproximatePredictor:
    """Assigns new points to a fitted tree."""

    def __init__(self, points: Float32, core: Float64, min_samples: int, tree: CondensedTree) -> None:
        """``points`` float32[f, r] and ``core`` float64[f] are those of the tree."""
        from sklearn.neighbors import NearestNeighbors

        self.core, self.tree, self.min_samples = core, tree, min_samples
        neighbours = min(max(2 * min_samples, min_samples + 1), len(points))
        self.search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points.astype(np.float64))

    def predict(self, points: Float32) -> tuple[Int32, Float32]:
        """Cluster int32[n] and strength float32[n] of reduced points float32[n, r]."""
        labels, strength = np.full(len(points), -1, np.int32), np.zeros(len(points), np.float32)
        for start in range(0, len(points), _BLOCK):
            part = slice(start, start + _BLOCK)
            labels[part], strength[part] = self._predict_block(points[part].astype(np.float64))
        return labels, strength

    def _predict_block(self, points: Float64) -> tuple[Int32, Float32]:
        distance, index = self.search.kneighbors(points)
        own = distance[:, min(self.min_samples, distance.shape[1] - 1), None]
        reach = np.maximum(np.maximum(distance, own), self.core[index])
        nearest = reach.argmin(1)
        rows = np.arange(len(points))
        density = 1 / np.maximum(reach[rows, nearest], 1e-12)
        branch = self._climb_tree(index[rows, nearest], density)
        labels = self.tree.cluster[branch]
        return labels, self.tree.strength(labels, density)

    def _climb_tree(self, neighbour: Int64, density: Float64) -> Int64:
        """The branch that reaches down to each point's density, from its neighbour's branch upwards."""
        tree = self.tree
        branch: Int64 = tree.branch[neighbour]
        climbs = tree.density[neighbour] > density
        while (moving := climbs & (tree.parent[branch] >= 0) & (tree.birth[branch] >= density)).any():
            branch = np.where(moving, tree.parent[branch], branch)
        return branch
