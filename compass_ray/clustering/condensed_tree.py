"""Flat clusters from a spanning tree: condensed tree, excess of mass, membership (Campello et al. 2013).

Single linkage and condensing are compiled functions of the `hdbscan` package. The selection is implemented here, because new
points need the cluster of each branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compass_ray.clustering.protocol import Float32, Float64, Int32, Int64


@dataclass(frozen=True)
class CondensedTree:
    """Branches 0 .. m-1, the root first and children after their parents, over n fitted points.

    ``branch`` int64[n] is the branch that each point leaves, and ``density`` float64[n] the inverse distance at which it
    leaves. ``parent`` int64[m] and ``birth`` float64[m] describe the branches. ``cluster`` int32[m] is the flat cluster of a
    branch, -1 above all clusters. ``peak`` float64[K] is the density at which each cluster's own branch ends.
    """

    branch: Int64
    density: Float64
    parent: Int64
    birth: Float64
    cluster: Int32
    peak: Float64

    @property
    def n_clusters(self) -> int:
        """K, without noise."""
        return len(self.peak)

    @property
    def labels(self) -> Int32:
        """int32[n], -1 for noise."""
        return self.cluster[self.branch]

    def strength(self, labels: Int32, density: Float64) -> Float32:
        """float32[n] membership in [0, 1] of points in ``labels`` at ``density``; 0 for noise."""
        inside = labels >= 0
        strength = np.zeros(len(labels), np.float32)
        peak = self.peak[labels[inside]]
        strength[inside] = np.minimum(density[inside], peak) / peak
        return strength


def condense(edges: Float64, min_cluster_size: int) -> CondensedTree:
    """Condense a spanning tree ``edges`` float64[n - 1, 3], with clusters selected by excess of mass."""
    from hdbscan._hdbscan_linkage import label
    from hdbscan._hdbscan_tree import compute_stability, condense_tree

    n = len(edges) + 1
    raw = condense_tree(label(edges), min_cluster_size)
    stability = {int(k) - n: float(v) for k, v in compute_stability(raw).items()}
    points, branches = raw[raw["child"] < n], raw[raw["child"] >= n]
    branch, density = np.zeros(n, np.int64), np.zeros(n)
    branch[points["child"]] = points["parent"] - n
    density[points["child"]] = points["lambda_val"]
    m = len(branches) + 1
    parent, birth = np.full(m, -1, np.int64), np.zeros(m)
    parent[branches["child"] - n] = branches["parent"] - n
    birth[branches["child"] - n] = branches["lambda_val"]
    selected = _excess_of_mass(parent, stability)
    peak = _peaks(parent, birth, selected, branch, density)
    return CondensedTree(branch, density, parent, birth, _flat(parent, selected), peak)


def _excess_of_mass(parent: Int64, stability: dict[int, float]) -> list[int]:
    """Branches with a stability of at least that of their descendants; never the root."""
    m = len(parent)
    stabilities = np.array([stability.get(branch, 0.0) for branch in range(m)])
    below = np.zeros(m)
    chosen = np.zeros(m, bool)
    for branch in range(m - 1, 0, -1):
        chosen[branch] = stabilities[branch] >= below[branch]
        below[parent[branch]] += max(stabilities[branch], below[branch])
    covered = np.zeros(m, bool)
    for branch in range(1, m):
        covered[branch] = covered[parent[branch]] or chosen[parent[branch]]
    return np.flatnonzero(chosen & ~covered).tolist()


def _flat(parent: Int64, selected: list[int]) -> Int32:
    cluster = np.full(len(parent), -1, np.int32)
    cluster[selected] = np.arange(len(selected))
    for branch in range(1, len(parent)):
        if cluster[branch] < 0:
            cluster[branch] = cluster[parent[branch]]
    return cluster


def _peaks(parent: Int64, birth: Float64, selected: list[int], branch: Int64, density: Float64) -> Float64:
    """The density at which each selected branch ends; points beyond it are full members."""
    last = np.zeros(len(parent))
    np.maximum.at(last, branch, density)
    np.maximum.at(last, parent[1:], birth[1:])
    return last[selected]
