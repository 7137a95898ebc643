"""A run to serve, made in seconds: random base and adapters, and the identifier, encoder and prompts of the atlas.

It is served by the normal application, with router and monitor. Its replies are meaningless. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.speed.tiny_models import random_adapter, random_base
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import AdapterConfig, RunConfig, parse_config
from compass_ray.models.base_model import BaseModel

SEED = 0
PROMPTS = 100
"""Prompts per language, to fit clusters and to count a reference."""
_LOGIT_SCALE = 20.0
"""Factor of the random output layer; without it, the logits of the likeliest tokens differ by only a few hundredths."""


@dataclass(frozen=True)
class Shape:
    """Shape of the random base, and its languages and versions per language."""

    hidden: int
    layers: int
    languages: tuple[str, ...]
    versions: int
    rank: int = 4

    def names(self) -> list[tuple[str, str]]:
        """Language and version of every adapter."""
        return [(code, f"v{number:04}") for code in self.languages for number in range(1, self.versions + 1)]


def make_run(folder: Path, shape: Shape, **sections: Mapping[str, Any]) -> tuple[RunDir, RunConfig]:
    """Make a run below ``folder`` with first versions live; ``sections`` override settings of the configuration."""
    from compass_ray import registry

    base = random_base(shape.hidden, shape.layers, seed=SEED)
    base.model.lm_head.weight.data.mul_(_LOGIT_SCALE)
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    config = _config(folder, shape, sections)
    run = RunDir(str(folder / "run"))
    run.write_config(config)
    counts = _write_clusters(run, config)
    drawn = AdapterConfig(r=shape.rank, alpha=32 * shape.rank)
    for seed, (language, version) in enumerate(shape.names()):
        _write_adapter(run, base, language, version, drawn, counts[language], seed=seed)
    for language in shape.languages:
        registry.promote(run, language, "v0001")
    return run, config


@contextmanager
def serving(run: RunDir, config: RunConfig) -> Iterator[str]:
    """Serve the run on a free port of the loopback interface; yield the URL."""
    from compass_ray import ray_session
    from compass_ray.serving import app

    with ray_session.session(config.resources):
        endpoint = app.start(run.uri, config, port=0)
        try:
            yield endpoint.url
        finally:
            app.stop(endpoint)


def prompts(language: str, count: int) -> list[str]:
    """Distinct prompts of the atlas in a language."""
    return list(_by_language()[language])[:count]


@cache
def _by_language() -> dict[str, dict[str, None]]:
    from compass_ray.languages import from_aya
    from compass_ray.sources.atlas import atlas_pool

    found: dict[str, dict[str, None]] = {}
    for row in atlas_pool().select(["inputs", "language_code"]).to_pylist():
        found.setdefault(from_aya(row["language_code"]), {})[row["inputs"]] = None
    return found


def _config(folder: Path, shape: Shape, sections: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    settings: dict[str, Any] = {
        "languages": list(shape.languages),
        "train": {"base_model": str(folder / "base")},
        "cluster": {"method": "kmeans", "n_clusters": [8], "n_init": 1, "pca_dims": 16},
        "embed": {"encoder": "atlas"},
        "serve": {"max_tokens": 64, "max_prompt_tokens": 192},
        "resources": {"cpus": 4, "replica_cpus": 0.1},
    }
    for name, values in sections.items():
        settings[name] = {**settings.get(name, {}), **values}
    return parse_config(settings)


def _write_adapter(
    run: RunDir, base: BaseModel, language: str, version: str, drawn: AdapterConfig, counts: list[int], *, seed: int
) -> None:
    from compass_ray.models.model_resolver import model_identity

    settings = {"base_model": model_identity(run.read_config().train.base_model, None), "seed": seed}
    writer = run.adapter(language, version).begin(Identity("train", settings, {}))

    def draw(folder: Path) -> None:
        random_adapter(base, folder, drawn, seed=seed)

    writer.write_folder(draw)
    writer.write_json("reference.json", {"guide_counts": counts, "selected_counts": counts, "trained_counts": counts})
    writer.publish()


def _write_clusters(run: RunDir, config: RunConfig) -> dict[str, list[int]]:
    """Write clusters of the prompts, and return the counts of each language by coarse cluster, noise last."""
    from compass_ray.clustering import fit_clusters
    from compass_ray.core.distribution import cluster_counts
    from compass_ray.models.encoder import Encoder
    from compass_ray.monitoring.cluster_assigner import load_prompt_assigner

    texts = {code: prompts(code, PROMPTS) for code in config.languages}
    embedded = Encoder(config.embed).encode([text for each in texts.values() for text in each], batch_size=64)
    fitted = fit_clusters(config.cluster, embedded, seed=SEED)
    writer = run.clusters.begin(Identity("cluster", {}, {}))
    writer.write_folder(fitted.clusterer.save)
    writer.write_array("coarse.npy", fitted.coarse)
    writer.publish()
    assigner, coarse = load_prompt_assigner(run, config), int(fitted.coarse.max()) + 1
    return {code: cluster_counts(assigner.assign(each).coarse, coarse).tolist() for code, each in texts.items()}
