"""Whether a run could be done here, said before any work: versions, memory, storage, models, data, resources.

Each check looks at one thing and never changes anything but a probe file in the run directory, which it removes.
"""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from compass_ray import languages
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.location import Part, resolve_model
from compass_ray.models.ranker import require_methods
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.typology import vectors_source

_PACKAGES = ("ray", "torch", "transformers", "sentence-transformers", "pyarrow", "datasets")


@dataclass(frozen=True)
class Finding:
    """One check: what was found, what to do about it, and whether a run cannot start because of it."""

    check: str
    found: str
    remedy: str = ""
    blocking: bool = False


def check(config: RunConfig, run: RunDir) -> list[Finding]:
    """Every check, in the order in which a run would meet the problem."""
    checks: tuple[Callable[[RunConfig, RunDir], Finding], ...] = (
        _versions,
        _devices,
        _cores,
        _storage,
        _languages,
        _guides,
        _encoder,
        _methods,
        _base_model,
        _identifier,
        _authentication,
    )
    return [one(config, run) for one in checks]


def _versions(config: RunConfig, run: RunDir) -> Finding:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return Finding("versions", ", ".join(f"{name} {version}" for name, version in found.items()))


def _devices(config: RunConfig, run: RunDir) -> Finding:
    import torch

    gpus = torch.cuda.device_count()
    if gpus == 0 and config.resources.gpus_per_worker > 0:
        return Finding(
            "devices",
            "no GPU on this machine",
            "fine for a driver of a GPU cluster; here set resources.gpus_per_worker=0",
        )
    return Finding("devices", f"{gpus} GPUs" if gpus else "no GPU: everything runs on CPU")


def _cores(config: RunConfig, run: RunDir) -> Finding:
    has = config.resources.cpus or os.cpu_count() or 1
    needs = config.resources.cpus_per_worker * config.resources.train_workers
    if needs > has and not os.environ.get("RAY_ADDRESS"):
        return Finding(
            "cores",
            f"one Train run asks for {needs:g} CPUs, this machine offers {has}",
            "lower resources.train_workers or resources.cpus_per_worker, or raise resources.cpus",
            blocking=True,
        )
    return Finding("cores", f"{has} CPUs, one Train run asks for {needs:g}")


def _storage(config: RunConfig, run: RunDir) -> Finding:
    probe, file = run.artifact("monitor"), f"probe-{uuid.uuid4().hex[:8]}"
    try:
        probe.store_bytes(file, b"probe")
        probe.drop(file)
    except (OSError, ArtifactError) as error:
        return Finding("storage", f"{run.uri} cannot be written: {error}", "give another --run", blocking=True)
    return Finding("storage", f"{run.uri} can be written")


def _languages(config: RunConfig, run: RunDir) -> Finding:
    return Finding("languages", ", ".join(languages.language(code).name for code in config.languages))


def _guides(config: RunConfig, run: RunDir) -> Finding:
    counts = {}
    for code in config.languages:
        try:
            sets = read_guide_and_test(config.pool, code)
        except (ConfigError, ValueError) as error:
            return Finding("guide sets", f"{code}: {error}", "correct pool.guides or pool.tests", blocking=True)
        counts[code] = f"{code} {sets.guide.num_rows}/{sets.test.num_rows}"
    return Finding("guide sets", "prompts/test items: " + ", ".join(counts.values()))


def _encoder(config: RunConfig, run: RunDir) -> Finding:
    return _model("encoder", config.embed.encoder, "encoder")


def _methods(config: RunConfig, run: RunDir) -> Finding:
    try:
        require_methods(config.select, config.languages)
    except (ConfigError, ModelError) as error:
        return Finding("methods", str(error), "or leave the method out of select.methods", blocking=True)
    by_vectors = [name for name in config.select.methods if name in ("langrank", "langsim")]
    vectors = f"; languages compared by {vectors_source()}" if by_vectors else ""
    return Finding("methods", ", ".join(config.select.methods) + vectors)


def _base_model(config: RunConfig, run: RunDir) -> Finding:
    return _model("base model", config.train.base_model, "base_model")


def _identifier(config: RunConfig, run: RunDir) -> Finding:
    return _model("language identifier", config.identifier.model, "language_id")


def _model(check_name: str, name: str, part: Part) -> Finding:
    try:
        where = resolve_model(name, part)
    except ModelError as error:
        return Finding(check_name, str(error), "name one that exists", blocking=True)
    if where != name or os.path.exists(where):
        return Finding(check_name, f"{name} is on this machine")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Finding(
            check_name, f"{name} is a hub id and HF_HUB_OFFLINE=1", "give a directory, or allow the hub", blocking=True
        )
    return Finding(check_name, f"{name} will be loaded from the hub")


def _authentication(config: RunConfig, run: RunDir) -> Finding:
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if os.path.exists(token) and os.environ.get("RAY_AUTH_MODE") != "token":
        return Finding(
            "Ray authentication",
            f"a token lies in {token}, and RAY_AUTH_MODE is not set",
            "set RAY_AUTH_MODE alike for the cluster and its clients, or 'ray start' may answer Unauthorized",
        )
    return Finding("Ray authentication", "nothing in the way")
