"""What a configuration takes from the hub, and whether it may be had: repositories, revisions, licences to accept.

Key property: each repository is asked about once, all at the same time, and nothing is downloaded. What lies in this
machine's cache needs no hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from compass_ray.config import ConfigError, RunConfig, SourceConfig
from compass_ray.models.model_resolver import ATLAS, hub_id

_SECONDS = 10.0
_AT_ONCE = 8
_FILES = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True)
class Repository:
    """A model or a data set on the hub."""

    id: str
    kind: Literal["model", "dataset"]
    revision: str | None = None


@dataclass(frozen=True)
class HubUse:
    """A repository, what the run takes it for, and the setting that holds its revision."""

    repository: Repository
    role: str
    setting: str


class Obstacle(Enum):
    """Why a repository cannot be had."""

    GATED = "its licence has not been accepted by this account"
    MISSING = "there is no such repository, or this account may not see it"
    REVISION = "it has no such revision"
    OFFLINE = "HF_HUB_OFFLINE=1"
    UNREACHABLE = "the hub cannot be reached"


@dataclass(frozen=True)
class HubResponse:
    """What the hub says of a repository: its commit, or the obstacle."""

    repository: Repository
    commit: str | None = None
    obstacle: Obstacle | None = None
    detail: str = ""
    cached: bool = False
    """Whether a snapshot lies on this machine; looked for only where there is an obstacle."""

    @property
    def is_usable(self) -> bool:
        """Whether a run that starts here can load it."""
        return self.obstacle is None or self.cached


def hub_uses(config: RunConfig) -> list[HubUse]:
    """Everything that the configuration takes from the hub."""
    models = (
        ("encoder", config.embed.encoder, config.embed.revision, "embed.revision"),
        ("base model", config.train.base_model, config.train.revision, "train.revision"),
        ("language identifier", config.identifier.model, config.identifier.revision, "identifier.revision"),
    )
    found = [HubUse(Repository(name, "model", revision), role, key) for role, name, revision, key in models if hub_id(name)]
    return [*found, *_dataset_uses(config)]


def _dataset_uses(config: RunConfig) -> Iterator[HubUse]:
    places = [(f"pool.sources.{i}", source) for i, source in enumerate(config.pool.sources)]
    for where, source in [*places, ("pool.guides", config.pool.guides), ("pool.tests", config.pool.tests)]:
        parts = [(where, source), *((f"{where}.extra_sources.{i}", other) for i, other in enumerate(source.extra_sources))]
        for key, part in parts:
            if name := dataset_id(part):
                yield HubUse(Repository(name, "dataset", part.revision), "data sets", f"{key}.revision")


def dataset_id(source: SourceConfig) -> str | None:
    """The id of a source that lies on the hub, None where it lies here or its path cannot be filled in."""
    try:
        path = source.resolved_path()
    except ConfigError:
        return None  # told where the source is read
    if path.partition(":")[0] == ATLAS or path.endswith(_FILES) or "{" in path or Path(path).exists():
        return None
    return hub_id(path)


def query_hub(repositories: Iterable[Repository], *, permission: bool = True) -> dict[Repository, HubResponse]:
    """The hub's answer for each repository, asked at the same time; with ``permission`` also whether files may be read."""
    wanted = list(dict.fromkeys(repositories))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(lambda repository: _query_repository(repository, permission), wanted), strict=True))


def _query_repository(repository: Repository, permission: bool) -> HubResponse:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return HubResponse(repository, _commit(HfApi(), repository, permission))
    except OfflineModeIsEnabled:
        answer = HubResponse(repository, obstacle=Obstacle.OFFLINE)
    except HfHubHTTPError as error:
        answer = _to_failed_response(repository, error)
    except HFValidationError as error:
        answer = HubResponse(repository, obstacle=Obstacle.MISSING, detail=_line(error))
    except Exception as error:  # whatever the HTTP client of this version raises
        answer = HubResponse(repository, obstacle=Obstacle.UNREACHABLE, detail=_line(error))
    return replace(answer, cached=_is_cached(repository))


def _commit(api: Any, repository: Repository, permission: bool) -> str | None:
    info = api.repo_info(repository.id, repo_type=repository.kind, revision=repository.revision, timeout=_SECONDS)
    if permission and getattr(info, "gated", False):
        api.auth_check(repository.id, repo_type=repository.kind)
    sha: str | None = info.sha
    return sha


def _to_failed_response(repository: Repository, error: Exception) -> HubResponse:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    kinds = (  # the first is a case of the second
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
    except Exception:  # of whatever kind, it is not there
        return False
    return True


def suggest_remedy(answer: HubResponse) -> str:
    """What to do about an obstacle."""
    from huggingface_hub import constants, get_token

    repository = answer.repository
    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.id}"
    token = "" if get_token() else "set HF_TOKEN to a token that may read it, "
    remedies = {
        Obstacle.GATED: f"{token}accept the licence at {page} with that account, and give every machine the same HF_TOKEN",
        Obstacle.MISSING: f"{token}check the spelling, or give a directory",
        Obstacle.REVISION: f"name a branch, tag or commit of {page}",
        Obstacle.OFFLINE: "give a directory, or allow the hub",
        Obstacle.UNREACHABLE: "check network, proxy and HF_ENDPOINT, or give a directory",
    }
    return remedies[answer.obstacle] if answer.obstacle else ""


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
