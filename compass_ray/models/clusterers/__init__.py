"""Clusters of the embedded pool, by density or by centre, on a CPU or through cuML (COMPASS, section 3.2.1)."""

from compass_ray.models.clusterers.fitting import fit_clusters
from compass_ray.models.clusterers.protocol import Clusterer, FittedClusters, SweepCell
from compass_ray.models.clusterers.storage import load_clusterer

__all__ = ["Clusterer", "FittedClusters", "SweepCell", "fit_clusters", "load_clusterer"]
