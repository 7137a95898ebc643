"""Configuration of a run: one frozen model per stage, read from YAML and ``key=value`` overrides.

Settings that shape results are separate from settings that say where to compute. `Resources` holds worker counts, devices
and timeouts; it never enters a fingerprint. Every other section enters the fingerprints of the stages that read it.
An unknown key is an error that names the closest known key. This package reads no data and starts nothing.
"""

from compass_ray.config.base import ConfigError, ConfigSection
from compass_ray.config.budget_search import BudgetRule, TuneConfig
from compass_ray.config.continual import DriftConfig, UpdateConfig
from compass_ray.config.data import BiasConfig, EmbedConfig, PoolConfig, SourceConfig
from compass_ray.config.full_finetuning import FullConfig
from compass_ray.config.loader import list_presets, load_run_config, parse_config, read_raw_config, resolve_config, with_overrides
from compass_ray.config.report import ReportConfig
from compass_ray.config.resources import Resources
from compass_ray.config.run import RunConfig
from compass_ray.config.selection import ClusterConfig, SelectConfig, TransferConfig
from compass_ray.config.serving import API_KEYS_VARIABLE, IdentifierConfig, ServeConfig, VLLMConfig
from compass_ray.config.time_window import DailyTimeWindow, is_within
from compass_ray.config.training import AdapterConfig, EvaluateConfig, TrainConfig

__all__ = [
    "API_KEYS_VARIABLE",
    "AdapterConfig",
    "BiasConfig",
    "BudgetRule",
    "ClusterConfig",
    "ConfigError",
    "ConfigSection",
    "DailyTimeWindow",
    "DriftConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "FullConfig",
    "IdentifierConfig",
    "PoolConfig",
    "ReportConfig",
    "Resources",
    "RunConfig",
    "SelectConfig",
    "ServeConfig",
    "SourceConfig",
    "TrainConfig",
    "TransferConfig",
    "TuneConfig",
    "UpdateConfig",
    "VLLMConfig",
    "is_within",
    "list_presets",
    "load_run_config",
    "parse_config",
    "read_raw_config",
    "resolve_config",
    "with_overrides",
]
