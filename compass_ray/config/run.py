"""Settings of a run: its languages, its seed and one section per stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from compass_ray.config.base import ConfigSection
from compass_ray.config.budget_search import TuneConfig
from compass_ray.config.continual import DriftConfig, UpdateConfig
from compass_ray.config.data import EmbedConfig, PoolConfig
from compass_ray.config.full_finetuning import FullConfig
from compass_ray.config.report import ReportConfig
from compass_ray.config.resources import Resources
from compass_ray.config.selection import ClusterConfig, SelectConfig
from compass_ray.config.serving import IdentifierConfig, ServeConfig
from compass_ray.config.training import EvaluateConfig, TrainConfig
from compass_ray.languages import get_language as known_language


class RunConfig(ConfigSection):
    """Settings of a run."""

    languages: tuple[str, ...]
    """Target languages, one adapter each, by their codes in Global-MMLU and MMLU-ProX, for example ``[sw, hi]``."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random number of the run. The number and order of workers do not change results."""
    pool: PoolConfig = PoolConfig()
    """Rows, guide sets and test sets."""
    embed: EmbedConfig = EmbedConfig()
    """Embedding of prompts."""
    cluster: ClusterConfig = ClusterConfig()
    """Clustering of embedded prompts."""
    tune: TuneConfig = TuneConfig()
    """Search for each language's budget."""
    select: SelectConfig = SelectConfig()
    """Selection of the rows that are added to a language's own."""
    train: TrainConfig = TrainConfig()
    """Base model, and training of adapters."""
    full: FullConfig = FullConfig()
    """Full fine-tuning of complete models, by the method ``compass_fft``."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation on the test sets."""
    drift: DriftConfig = DriftConfig()
    """Monitoring of traffic, and the drift alarm."""
    update: UpdateConfig = UpdateConfig()
    """Updates of served adapters: training, gate and promotion."""
    identifier: IdentifierConfig = IdentifierConfig()
    """Language identification of requests."""
    serve: ServeConfig = ServeConfig()
    """The endpoint."""
    report: ReportConfig = ReportConfig()
    """The report."""
    resources: Resources = Resources()
    """Workers, GPUs and replicas. They never change results."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> RunConfig:
        for key, values in (("languages", self.languages), ("select.methods", self.select.methods)):
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{key} lists {', '.join(repeated)} more than once; list each once")
        return self

    @field_validator("languages")
    @classmethod
    def _languages_are_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not codes:
            raise ValueError("no target language is given; list some with --languages, for example sw,hi")
        for code in codes:
            known_language(code)
        return codes

    @model_validator(mode="after")
    def _one_adapter_needs_one_clustering(self) -> RunConfig:
        if "all" in self.select.methods and self.cluster.scope == "per_language":
            raise ValueError("select.methods has 'all', one adapter for all languages; it needs cluster.scope=shared")
        return self

    @model_validator(mode="after")
    def _full_finetuning_trains_in_epochs(self) -> RunConfig:
        if self.train.tokens is not None and "compass_fft" in self.select.methods:
            raise ValueError(
                f"train.tokens is {self.train.tokens}, but select.methods has compass_fft, which trains in epochs only; "
                f"remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _centroid_step_needs_shared_kmeans(self) -> RunConfig:
        if self.update.centroid_step and (self.cluster.method != "kmeans" or self.cluster.scope != "shared"):
            raise ValueError(
                f"update.centroid_step is {self.update.centroid_step:g}: it needs k-means clusters that all languages share, but "
                f"cluster.method is {self.cluster.method} and cluster.scope {self.cluster.scope}; set update.centroid_step=0, or "
                f"cluster.method=kmeans and cluster.scope=shared"
            )
        return self

    @model_validator(mode="after")
    def _corrections_need_stored_text(self) -> RunConfig:
        if self.update.corrections != "none" and self.drift.retention != "text":
            raise ValueError(
                f"update.corrections is {self.update.corrections!r}, but drift.retention {self.drift.retention!r} stores no "
                f"corrections; set drift.retention to text, or update.corrections to none"
            )
        return self

    @model_validator(mode="after")
    def _served_method_is_selected(self) -> RunConfig:
        if self.serve.method not in self.select.methods:
            raise ValueError(
                f"serve.method is {self.serve.method!r}, which select.methods {list(self.select.methods)} "
                f"does not produce; add it there or serve another method"
            )
        return self
