"""What a run is: one frozen model per stage, read from YAML and ``key=value`` overrides.

Key property: what to compute is kept apart from where it is computed. `Resources` holds worker counts,
devices and timeouts, and never enters a fingerprint; every other section does, through the stages that read it.
An unknown key is an error that names the nearest known one. This module reads no data and starts nothing.
"""

from __future__ import annotations

import difflib
import os
import string
from collections.abc import Iterable, Mapping
from importlib import resources as package_files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from compass_ray.languages import language as known_language

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Groups = Annotated[int, Field(ge=2)]


class ConfigError(ValueError):
    """A configuration that cannot be run, with the value, what was expected and the next thing to do."""


class Section(BaseModel):
    """Base of every section: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(Section):
    """Where rows come from: the embedded atlas, a hub data set, or local files with the same columns."""

    path: str
    """``atlas``, a hub id, a directory, or a Parquet / JSON Lines file. ``${NAME}`` is read from the environment,
    ``{language}`` stands for the language that is read."""
    name: str | None = None
    """Configuration of a hub data set; ``{language}`` stands for the code of the language that is read."""
    split: str = "train"
    revision: str | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our name to theirs, where they differ from the layout's own (prompt, response, language, subject, ...)."""
    where: Mapping[str, str] = Field(default_factory=dict)
    """Keep only rows whose column equals the value."""
    without: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Leave out rows whose column is one of the values."""
    language: str | None = None
    """The one language of all rows, for files that do not carry a language column."""
    rows_per_language: Positive | None = None
    """Bound for small runs: the first rows by row_id, which is a hash and so a seeded sample."""

    def resolved_path(self) -> str:
        """The path with ``${NAME}`` filled in from the environment.

        Raises:
            ConfigError: a variable that is not set.
        """
        try:
            return string.Template(self.path).substitute(os.environ)
        except KeyError as missing:
            raise ConfigError(
                f"{self.path}: the environment variable {missing.args[0]} is not set; "
                f"set it to the folder that holds the data and run again"
            ) from None


class BiasConfig(Section):
    """Bias simulation (COMPASS, section 4.3.1): thin the target's rows of some subjects."""

    p_low: Fraction = 0.2
    keep: Fraction = 0.5


class PoolConfig(Section):
    """The pool, the guide sets and the test sets."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(path="atlas"),)
    guides: SourceConfig = SourceConfig(path="atlas", name="{language}", split="dev")
    tests: SourceConfig = SourceConfig(path="atlas", name="{language}", split="test")
    languages: tuple[str, ...] | None = None
    """Languages of the pool; all that the sources hold when unset."""
    bias: BiasConfig | None = BiasConfig()


class EmbedConfig(Section):
    """Embedding of prompts (COMPASS, section 3.2.1)."""

    encoder: str = "atlas"
    revision: str | None = None
    trust_remote_code: bool = False
    prompt_prefix: str = ""
    max_tokens: Positive = 512
    dtype: Literal["float32", "float16"] = "float32"


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


class AdapterConfig(Section):
    """Shape of the adapter (COMPASS, section 4.3)."""

    kind: Literal["dora", "lora"] = "dora"
    r: Positive = 16
    alpha: Positive = 32
    dropout: Fraction = 0.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class TrainConfig(Section):
    """One adapter a language on a frozen base model (COMPASS, sections 3.2.4 and 4.3)."""

    base_model: str = "atlas"
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    adapter: AdapterConfig = AdapterConfig()
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    decay_magnitude: bool = False
    """Also decay the DoRA magnitude vectors, as the paper's optimiser does; it shrinks them towards zero."""
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    warmup_ratio: Fraction = 0.1
    epochs: Positive = 3
    batch_size: Positive = 16
    max_tokens: Positive = 2048
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    patience: Positive = 2
    """Epochs without a better validation loss before training stops."""
    layout: Literal["per_language", "pooled"] = "per_language"
    """One Ray Train run a language, or one run whose workers keep the base and take languages in turn."""


class EvaluateConfig(Section):
    """Multiple choice over the test sets (COMPASS, sections 4.1 and 5)."""

    scoring: Literal["letter", "option"] = "letter"
    """Log-probability of the option's letter, or of its text as the reply."""
    batch_size: Positive = 32
    resamples: Positive = 2000
    confidence: Share = 0.95
    items_per_language: Positive | None = None


class DriftConfig(Section):
    """When traffic counts as drifted (COMPASS, section 3.3)."""

    window: Positive = 300
    trigger: Literal["paper", "calibrated"] = "calibrated"
    threshold: Fraction = 0.15
    false_alarm_rate: Share = 0.01
    floor: Fraction = 0.05
    persistence: Positive = 2
    cooldown: Annotated[int, Field(ge=0)] = 300
    """Prompts after a decision during which the trigger stays silent."""
    check_every: Positive = 50
    permutations: Positive = 2000
    retention: Literal["none", "hash", "embedding", "text"] = "text"

    @model_validator(mode="after")
    def _can_alarm(self) -> DriftConfig:
        least = 1.0 / (self.permutations + 1)
        if self.trigger == "calibrated" and least > self.false_alarm_rate:
            raise ValueError(
                f"with {self.permutations} permutations no p-value is below {least:.4f}, so a false_alarm_rate of "
                f"{self.false_alarm_rate:g} never alarms; raise one of the two"
            )
        return self


class UpdateConfig(Section):
    """The ECDA update and its gate (COMPASS, section 3.3 and appendix D)."""

    strategy: Literal["naive", "ewc", "random_rehearsal", "ecda"] = "ecda"
    budget: Annotated[float, Field(gt=0.0)] = 0.4
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    ewc_lambda: Annotated[float, Field(ge=0.0)] = 2.0
    anchors: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Share of the rows trained on that an update must not forget."""
    max_forgetting: Annotated[float, Field(ge=0.0)] = 0.1
    """Largest rise of the anchors' mean loss, in nats a token, that the gate lets pass."""


class IdentifierConfig(Section):
    """Language identification and the routes it may choose (COMPASS, sections 3.2.5 and 4.2)."""

    model: str = "atlas"
    revision: str | None = None
    threshold: Fraction = 0.5


class ServeConfig(Section):
    """What the endpoint answers with."""

    method: Literal["compass", "target", "random"] = "compass"
    """Whose adapters are served."""
    max_tokens: Positive = 64
    max_prompt_tokens: Positive = 2048
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000


class Resources(Section):
    """Where and how wide the work runs. Never part of a fingerprint."""

    cpus: Positive | None = None
    """Logical CPUs of a Ray started here; all that the machine has when unset."""
    embed_workers: Positive = 1
    embed_batch: Positive = 256
    train_workers: Positive = 1
    """Workers of one Ray Train run."""
    train_concurrency: Positive = 2
    """Ray Train runs at once."""
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 0.5
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    threads_per_worker: Positive = 1
    replicas: Positive = 1
    replica_cpus: Annotated[float, Field(gt=0.0)] = 0.2
    replica_gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """Of a GPU, for each replica that holds the base model and its adapters."""
    max_failures: Annotated[int, Field(ge=0)] = 2


class RunConfig(Section):
    """A whole run."""

    languages: tuple[str, ...]
    seed: Annotated[int, Field(ge=0)] = 0
    pool: PoolConfig = PoolConfig()
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    select: SelectConfig = SelectConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    drift: DriftConfig = DriftConfig()
    update: UpdateConfig = UpdateConfig()
    identifier: IdentifierConfig = IdentifierConfig()
    serve: ServeConfig = ServeConfig()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _nothing_is_asked_for_twice(self) -> RunConfig:
        for key, values in (("languages", self.languages), ("select.methods", self.select.methods)):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{key} names {', '.join(twice)} more than once; name each once")
        return self

    @field_validator("languages")
    @classmethod
    def _languages_are_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not codes:
            raise ValueError("no target language is named; name some with --languages, as in sw,hi")
        for code in codes:
            known_language(code)
        return codes

    @model_validator(mode="after")
    def _served_method_is_selected(self) -> RunConfig:
        if self.serve.method not in self.select.methods:
            raise ValueError(
                f"serve.method is {self.serve.method!r}, which select.methods {list(self.select.methods)} "
                f"does not produce; add it there or serve another method"
            )
        return self


def presets() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    folder = package_files.files("compass_ray") / "presets"
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml")))


def load(
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    languages: Iterable[str] | None = None,
) -> RunConfig:
    """Read a preset or a YAML file, then apply ``key=value`` overrides in order.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.
    """
    tree = _read_file(Path(file)) if file else _read_preset(preset or "atlas")
    if languages is not None:
        tree["languages"] = list(languages)
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def changed(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """The configuration with ``key=value`` overrides applied in order.

    Raises:
        ConfigError: an unknown key or a value out of range.
    """
    tree = config.model_dump(mode="json")
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def parse(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a plain tree of settings.

    Raises:
        ConfigError: the first problem found, with the nearest known key where a key is unknown.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _read_preset(name: str) -> dict[str, Any]:
    if name not in presets():
        raise ConfigError(f"preset {name!r} does not exist; {_nearest(name, presets())}")
    text = (package_files.files("compass_ray") / "presets" / f"{name}.yaml").read_text("utf-8")
    return _expand(yaml.safe_load(text))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file with --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML in UTF-8 ({error})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected settings as 'key: value' lines, found {type(tree).__name__}")
    return _expand(tree)


def _expand(tree: dict[str, Any]) -> dict[str, Any]:
    """A file may start from a preset: ``extends: NAME``."""
    base = tree.pop("extends", None)
    return _merge(_read_preset(base), tree) if base else tree


def _merge(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) and value else value
    return merged


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, for example select.budget=1.2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value ({error})") from None
    *sections, leaf = key.strip().split(".")
    node: Any = tree
    for section in sections:
        node = _below(node, section, override)
    if isinstance(node, list):
        node[_position(node, leaf, override)] = value
    else:
        node[leaf] = value


def _below(node: Any, section: str, override: str) -> Any:
    """The section or list entry of that name; an unset section is made."""
    if isinstance(node, list):
        found = node[_position(node, section, override)]
    else:
        if node.get(section) is None:
            node[section] = {}
        found = node[section]
    if not isinstance(found, dict | list):
        raise ConfigError(f"--set {override!r}: {section!r} is a value ({found!r}) and has no settings below it")
    return found


def _position(entries: list[Any], text: str, override: str) -> int:
    if not text.isdigit() or int(text) >= len(entries):
        raise ConfigError(f"--set {override!r}: expected an entry from 0 to {len(entries) - 1}, found {text!r}")
    return int(text)


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {_nearest(where[-1], _fields(where[:-1]))}"
    if problem["type"] == "missing":
        return f"{key} is missing; set it in the file or with --set {key}=..."
    value = "" if isinstance(problem["input"], Mapping | RunConfig) else f" (it is {problem['input']!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{value}" if key else message


def _fields(path: list[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if sections:
            model = sections[0]
        elif not part.isdigit():
            model = SourceConfig
    return list(model.model_fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
