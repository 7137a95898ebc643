"""Settings of clusters, weights, quotas and sampling (COMPASS, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from compass_ray.config.base import AtLeastTwo, ConfigSection, Fraction, Positive, Share
from compass_ray.config.budget_search import BudgetRule


class ClusterConfig(ConfigSection):
    """Clustering and its sweep (COMPASS, section 3.2.1 and appendix E)."""

    method: Literal["hdbscan", "kmeans", "ward", "butina"] = "hdbscan"
    scope: Literal["shared", "per_language"] = "shared"
    """One fit on the pool for all target languages; or, as printed, a fit for each on the pool and its guide set, which
    costs a fit and a copy of the embeddings a language, and leaves no common clusters to watch traffic in."""
    pca_dims: Positive | None = Field(default=30, serialization_alias="reduce")
    """PCA dimensions before clustering; null clusters the full embedding, as the paper does."""
    min_cluster_size: Annotated[tuple[AtLeastTwo, ...], Field(min_length=1)] = (5, 10, 15, 20)
    min_samples: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5, 10)
    n_clusters: Annotated[tuple[AtLeastTwo, ...], Field(min_length=1)] = tuple(range(10, 121, 5))
    """Numbers of clusters tried: by kmeans as fits, by ward as cuts of one tree."""
    n_init: Positive = 10
    """Starts of k-means for each number of clusters."""
    metric: Literal["euclidean", "cosine", "both"] = "cosine"
    """Of kmeans and ward; cosine compares unit rows, both tries each number of clusters with either."""
    micro_clusters: AtLeastTwo = 2_000
    """Leaves of Ward's tree: a pool of no more rows has its exact tree, a larger one is merged into so many first."""
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)] = (
        0.7, 0.725, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95,
    )  # fmt: skip
    """Cosine similarities that butina tries before it looks closer around the best of them."""
    min_assigned: Fraction = 0.95
    """Share of rows that butina must have in clusters of two or more; where none of the thresholds reaches it, the one
    that comes nearest is taken."""
    cell_rows: AtLeastTwo = 20_000
    """A larger pool is split into cells of at most so many rows, and butina's spheres end at their borders."""
    sweep_rows: Positive = 20_000
    """Rows that settings are tried on, sampled by language; the winner is fitted on all. Butina takes whole cells instead,
    until they hold so many: in a sample its rows would have fewer neighbours than in the fit."""
    tree_rows: Positive = 30_000
    """Rows in the exact spanning tree of hdbscan on a CPU; the others are placed on it."""
    monitor_clusters: Positive = Field(default=64, serialization_alias="coarse")
    """At most so many clusters for drift monitoring."""
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    """Of hdbscan and kmeans; ward and butina know the CPU alone."""

    @model_validator(mode="after")
    def _has_a_way_there(self) -> Self:
        if self.backend == "gpu" and self.method in ("ward", "butina"):
            raise ValueError(f"method {self.method} has no way on a GPU; set backend to auto or cpu, or use hdbscan or kmeans")
        return self


class TransferConfig(ConfigSection):
    """Rows of the best transfer languages, for the methods langsim and langrank (COMPASS, section 4.3)."""

    languages: Annotated[int, Field(ge=1, le=3)] = 3
    """How many transfer languages."""
    rows: Literal["budget", "all"] = "budget"
    """As many of their rows as COMPASS takes, or all of them."""
    results: str | None = None
    """Measured transfers that langrank learns from (.csv, .json, .parquet); null takes those measured on the atlas."""


class SelectConfig(ConfigSection):
    """Cluster weights, quotas and sampling (COMPASS, sections 3.2.2 and 3.2.3)."""

    methods: tuple[
        Literal["target", "all", "random", "langrank", "langsim", "dsir", "nearest", "compass", "compass_fft"], ...
    ] = (
        "target",
        "random",
        "compass",
    )
    budget: float | BudgetRule = 0.8
    """Auxiliary rows as a factor of a language's own, from 0 to 10; or how to find each language's: see `TuneConfig`."""
    weights: Literal["ratio", "deficit", "none"] = "ratio"
    overflow: Literal["redistribute", "repeat"] = "redistribute"
    mode: Literal["stochastic", "deterministic", "uniform"] = "stochastic"
    tau: Fraction = 0.9
    delta: Annotated[float, Field(ge=0.0)] = 0.1
    paper_boundary_score: bool = Field(default=False, serialization_alias="as_printed")
    """Boundary score as printed in the paper, which grows away from the boundary."""
    transfer: TransferConfig = TransferConfig()

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_is_a_factor_or_a_rule(cls, value: object) -> object:
        # Before the union is tried, which would name its members instead of the key.
        if value in get_args(BudgetRule) or (isinstance(value, int | float) and 0 <= value <= 10 and value is not True):
            return value
        raise ValueError(f"expected a number from 0 to 10, or one of {', '.join(get_args(BudgetRule))}")
