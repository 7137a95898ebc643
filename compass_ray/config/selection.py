"""Settings of clusters, weights, quotas and sampling (COMPASS, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from compass_ray.config.base import AtLeastTwo, ConfigSection, Fraction, Positive, Share
from compass_ray.config.budget_search import BudgetRule


class ClusterConfig(ConfigSection):
    """Clustering and its sweep (COMPASS, section 3.2.1 and appendix E)."""

    method: Literal["hdbscan", "kmeans", "ward", "butina"] = "hdbscan"
    """Clustering method. ``hdbscan`` is the paper's; ``kmeans`` suits real encoders; ``ward`` is hierarchical; ``butina`` forms
    spheres of a minimum similarity."""
    scope: Literal["shared", "per_language"] = "shared"
    """``shared``: one fit on the pool for all target languages. ``per_language``: as in the paper, one fit for each on the pool
    and its guide set. That costs one fit and one copy of the embeddings per language, and traffic cannot be monitored."""
    pca_dims: Positive | None = Field(default=30, serialization_alias="reduce")
    """PCA dimensions before clustering; null clusters the full embedding, as the paper does."""
    whiten: bool = False
    """Scale the PCA dimensions to equal variance. The few large ones of a real encoder hold language and length."""
    min_cluster_size: Annotated[tuple[AtLeastTwo, ...], Field(min_length=1)] = (5, 10, 15, 20)
    """Minimum cluster sizes in rows that hdbscan tries. The sweep takes the best one."""
    min_samples: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5, 10)
    """Neighbours of a dense point that hdbscan tries. Larger values label more rows as noise."""
    n_clusters: Annotated[tuple[AtLeastTwo, ...], Field(min_length=1)] = tuple(range(10, 121, 5))
    """Numbers of clusters to try: as separate fits of kmeans, as cuts of one tree of ward."""
    n_init: Positive = 10
    """Initialisations of k-means for each number of clusters."""
    metric: Literal["euclidean", "cosine", "both"] = "cosine"
    """Metric of kmeans and ward: ``cosine`` compares unit rows, ``both`` tries each number of clusters with both."""
    micro_clusters: AtLeastTwo = 2_000
    """Leaves of Ward's tree: a pool of at most this many rows has its exact tree, a larger one is first merged into them."""
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)] = (
        0.7, 0.725, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95,
    )  # fmt: skip
    """Cosine similarities that butina tries before it refines around the best one."""
    min_assigned: Fraction = 0.95
    """Share of rows that butina must assign to clusters of two or more rows. If no threshold reaches it, the closest one is
    used."""
    cell_rows: AtLeastTwo = 20_000
    """Butina splits a larger pool into cells of at most this many rows; its spheres do not cross cells."""
    sweep_rows: Positive = 20_000
    """Rows on which settings are tried, sampled by language; the best one is fitted on all rows. Butina uses complete cells
    with this many rows in total instead: sampled rows would have fewer neighbours than in the fit."""
    tree_rows: Positive = 30_000
    """Rows in the exact spanning tree of hdbscan on a CPU; the other rows are assigned with that tree."""
    monitor_clusters: Positive = Field(default=64, serialization_alias="coarse")
    """Maximum number of clusters for drift monitoring."""
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    """Backend of hdbscan and kmeans; ward and butina run on the CPU only."""

    def fingerprint_settings(self, *, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
        """Settings as they enter a fingerprint; ``whiten`` joins where it is used, so that earlier fingerprints hold.

        >>> "whiten" in ClusterConfig().fingerprint_settings(), "whiten" in ClusterConfig(whiten=True).fingerprint_settings()
        (False, True)
        """
        unused = set() if self.whiten else {"whiten"}
        return super().fingerprint_settings(include=include, exclude=unused | (exclude or set()))

    @model_validator(mode="after")
    def _whitening_has_dimensions(self) -> Self:
        if self.whiten and self.pca_dims is None:
            raise ValueError("whiten scales PCA dimensions, and pca_dims is null; set pca_dims, for example to 15")
        return self

    @model_validator(mode="after")
    def _method_supports_backend(self) -> Self:
        if self.backend == "gpu" and self.method in ("ward", "butina"):
            raise ValueError(f"method {self.method} cannot run on a GPU; set backend to auto or cpu, or use hdbscan or kmeans")
        return self


class TransferConfig(ConfigSection):
    """Rows of the best transfer languages, for the methods langsim and langrank (COMPASS, section 4.3)."""

    languages: Annotated[int, Field(ge=1, le=3)] = 3
    """Number of transfer languages."""
    rows: Literal["budget", "all"] = "budget"
    """As many of their rows as COMPASS selects, or all of them."""
    results: str | None = None
    """Measured transfers that langrank trains on (.csv, .json, .parquet); null uses those measured on the atlas."""


MethodName = Literal[
    "target", "all", "random", "langrank", "langsim", "dsir", "nearest", "round_robin", "placebo", "oracle", "own_repeated",
    "quantile_1", "quantile_2", "quantile_3", "quantile_4", "quantile_5", "compass", "compass_fft",
]  # fmt: skip


class SelectConfig(ConfigSection):
    """Cluster weights, quotas and sampling (COMPASS, sections 3.2.2 and 3.2.3)."""

    methods: tuple[MethodName, ...] = ("target", "random", "compass")
    """Methods to compare, each with its own selection and adapters. ``target`` adds no rows, ``random`` draws uniformly,
    ``compass`` fills the gaps."""
    budget: Annotated[float, Field(ge=0.0, le=10.0)] | BudgetRule = 0.8
    """Auxiliary rows as a factor of a language's own rows, 0 to 10, or the rule that finds it: ``tuned`` trains, ``predicted``
    computes."""
    weights: Literal["ratio", "deficit", "none"] = "ratio"
    """How clusters share the budget. ``ratio`` is the paper's weight; ``deficit`` fills the largest gaps first; ``none`` treats
    all alike."""
    overflow: Literal["redistribute", "repeat"] = "redistribute"
    """What happens if a quota exceeds a cluster's candidates. ``redistribute`` gives the rest to other clusters; ``repeat``
    repeats rows up to three times."""
    mode: Literal["stochastic", "deterministic", "uniform", "nearest"] = "stochastic"
    """How a cluster's rows are drawn. ``stochastic`` is the paper's; ``deterministic`` takes the best scores, ``uniform`` any
    rows. ``nearest`` takes the rows most similar to a guide prompt, which is better on a real encoder."""
    tau: Fraction = 0.9
    """Cosine similarity above which two rows count as near duplicates."""
    delta: Annotated[float, Field(ge=0.0)] = 0.1
    """Penalty on the score of a row for each near duplicate that was drawn before; 0 sets none."""
    paper_boundary_score: bool = Field(default=False, serialization_alias="as_printed")
    """Use the boundary score as printed in the paper, which grows away from the boundary."""
    transfer: TransferConfig = TransferConfig()
    """Transfer languages of the methods langsim and langrank."""

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_is_a_factor_or_a_rule(cls, value: object) -> object:
        # Runs before validation of the union, which would name the union's members instead of the key.
        if value in get_args(BudgetRule) or (isinstance(value, int | float) and 0 <= value <= 10 and value is not True):
            return value
        raise ValueError(f"expected a number from 0 to 10, or one of {', '.join(get_args(BudgetRule))}")
