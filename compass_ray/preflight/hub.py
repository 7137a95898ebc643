"""Repositories of the hub that a configuration uses, and whether this account can read them: revisions, licences.

Key property: each repository is queried once, all in parallel, and nothing is downloaded. A snapshot in this machine's cache
needs no hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

from compass_ray.config import ConfigError, RunConfig, SourceConfig
from compass_ray.models.model_resolver import hub_id
from compass_ray.sources.source_paths import is_hub_id

_SECONDS = 10.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Repository:
    """A model or a data set on the hub."""

    id: str
    kind: Literal["model", "dataset"]
    revision: str | None = None


@dataclass(frozen=True)
class HubUse:
    """A repository, its role in the run, and the setting that holds its revision."""

    repository: Repository
    role: str
    setting: str


class Obstacle(Enum):
    """Why a repository is not available."""

    GATED = "this account has not accepted its licence"
    MISSING = "the repository does not exist, or this account cannot see it"
    REVISION = "the revision does not exist"
    OFFLINE = "HF_HUB_OFFLINE=1"
    UNREACHABLE = "the hub cannot be reached"


@dataclass(frozen=True)
class HubResponse:
    """The hub's response for a repository: its commit, or the obstacle."""

    repository: Repository
    commit: str | None = None
    obstacle: Obstacle | None = None
    detail: str = ""
    cached: bool = False
    """Whether this machine has a snapshot. Checked only if there is an obstacle."""

    @property
    def is_usable(self) -> bool:
        """Whether a run on this machine can load it."""
        return self.obstacle is None or self.cached


def hub_uses(config: RunConfig) -> list[HubUse]:
    """All repositories of the hub that the configuration uses."""
    models = (
        ("encoder", config.embed.encoder, config.embed.revision, "embed.revision"),
        ("base model", config.train.base_model, config.train.revision, "train.revision"),
        ("language identifier", config.identifier.model, config.identifier.revision, "identifier.revision"),
    )
    found = [HubUse(Repository(name, "model", revision), role, key) for role, name, revision, key in models if hub_id(name)]
    return [*found, *_dataset_uses(config)]


def _dataset_uses(config: RunConfig) -> Iterator[HubUse]:
    sources = [(f"pool.sources.{i}", source) for i, source in enumerate(config.pool.sources)]
    for setting, source in [*sources, ("pool.guides", config.pool.guides), ("pool.tests", config.pool.tests)]:
        parts = [(setting, source), *((f"{setting}.extra_sources.{i}", extra) for i, extra in enumerate(source.extra_sources))]
        for key, part in parts:
            if name := dataset_id(part):
                yield HubUse(Repository(name, "dataset", part.revision), "data sets", f"{key}.revision")


def dataset_id(source: SourceConfig) -> str | None:
    """The hub id of a source. None if it is on this machine or its path cannot be resolved."""
    try:
        path = source.resolved_path()
    except ConfigError:
        return None  # reported where the source is read
    return path if is_hub_id(path) else None


def query_hub(repositories: Iterable[Repository], *, permission: bool = True) -> dict[Repository, HubResponse]:
    """Query the hub about each repository, in parallel. With ``permission``: also whether files can be read."""
    wanted = list(dict.fromkeys(repositories))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(lambda repository: _query_repository(repository, permission), wanted), strict=True))


def _query_repository(repository: Repository, permission: bool) -> HubResponse:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return HubResponse(repository, _commit(HfApi(), repository, permission))
    except OfflineModeIsEnabled:
        response = HubResponse(repository, obstacle=Obstacle.OFFLINE)
    except HfHubHTTPError as error:
        response = _to_failed_response(repository, error)
    except HFValidationError as error:
        response = HubResponse(repository, obstacle=Obstacle.MISSING, detail=_line(error))
    except Exception as error:  # depends on the HTTP client's version
        response = HubResponse(repository, obstacle=Obstacle.UNREACHABLE, detail=_line(error))
    return replace(response, cached=_is_cached(repository))


def _commit(api: Any, repository: Repository, permission: bool) -> str | None:
    info = api.repo_info(repository.id, repo_type=repository.kind, revision=repository.revision, timeout=_SECONDS)
    if permission and getattr(info, "gated", False):
        api.auth_check(repository.id, repo_type=repository.kind)
    sha: str | None = info.sha
    return sha


def _to_failed_response(repository: Repository, error: Exception) -> HubResponse:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    kinds = (  # the first is a subclass of the second
        (GatedRepoError, Obstacle.GATED),
        (RepositoryNotFoundError, Obstacle.MISSING),
        (RevisionNotFoundError, Obstacle.REVISION),
    )
    obstacle = next((found for kind, found in kinds if isinstance(error, kind)), Obstacle.UNREACHABLE)
    return HubResponse(repository, obstacle=obstacle, detail=_line(error) if obstacle is Obstacle.UNREACHABLE else "")


def _is_cached(repository: Repository) -> bool:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repository.id, repo_type=repository.kind, revision=repository.revision, local_files_only=True)
    except Exception:  # any failure means that it is not cached
        return False
    return True


def suggest_remedy(response: HubResponse) -> str:
    """The remedy for the obstacle of a response; empty if there is none."""
    from huggingface_hub import constants, get_token

    repository = response.repository
    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.id}"
    token = "" if get_token() else "set HF_TOKEN to a token that can read it, "
    remedies = {
        Obstacle.GATED: f"{token}accept the licence at {page} with that account, and set the same HF_TOKEN on every machine",
        Obstacle.MISSING: f"{token}check the spelling, or use a local directory",
        Obstacle.REVISION: f"use a branch, tag or commit of {page}",
        Obstacle.OFFLINE: "set a local directory (some presets read it from an environment variable), or unset HF_HUB_OFFLINE",
        Obstacle.UNREACHABLE: "check network, proxy and HF_ENDPOINT, or use a local directory",
    }
    return remedies[response.obstacle] if response.obstacle else ""


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
