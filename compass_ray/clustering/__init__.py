"""Cluster the embedded pool by density or by centre, on a CPU or with cuML (COMPASS, section 3.2.1)."""

from compass_ray.clustering.fit import fit_clusters
from compass_ray.clustering.load import load_clusterer
from compass_ray.clustering.protocol import Clusterer, FittedClusters, SweepCell

__all__ = ["Clusterer", "FittedClusters", "SweepCell", "fit_clusters", "load_clusterer"]
