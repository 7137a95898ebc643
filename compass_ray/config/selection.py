"""Settings of clusters, weights, quotas and sampling (COMPASS, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from compass_ray.config.sections import Fraction, Groups, Positive, Section


class ClusterConfig(Section):
    """Clustering and its sweep (COMPASS, section 3.2.1 and appendix E)."""

    method: Literal["hdbscan", "kmeans"] = "hdbscan"
    reduce: Positive | None = 30
    """PCA dimensions before clustering; null clusters the full embedding, as the paper does."""
    min_cluster_size: Annotated[tuple[Groups, ...], Field(min_length=1)] = (5, 10, 15, 20)
    min_samples: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5, 10)
    n_clusters: Annotated[tuple[Groups, ...], Field(min_length=1)] = tuple(range(10, 121, 5))
    n_init: Positive = 10
    metric: Literal["euclidean", "cosine"] = "cosine"
    sweep_rows: Positive = 20_000
    tree_rows: Positive = 30_000
    coarse: Positive = 64
    """At most so many clusters for drift monitoring."""
    backend: Literal["auto", "cpu", "gpu"] = "auto"


class SelectConfig(Section):
    """Cluster weights, quotas and sampling (COMPASS, sections 3.2.2 and 3.2.3)."""

    methods: tuple[Literal["compass", "target", "random"], ...] = ("target", "random", "compass")
    budget: Annotated[float, Field(ge=0.0, le=10.0)] = 0.8
    weights: Literal["ratio", "deficit", "none"] = "ratio"
    overflow: Literal["redistribute", "repeat"] = "redistribute"
    mode: Literal["stochastic", "deterministic", "uniform"] = "stochastic"
    tau: Fraction = 0.9
    delta: Annotated[float, Field(ge=0.0)] = 0.1
    as_printed: bool = False
    """Boundary score as printed in the paper, which grows away from the boundary."""
