"""Pinned commits of all models, their code and data sets that a run uses from the hub. They fill in unset revisions.

Key property: an existing pin never changes, so a run always uses the same files. A revision in the configuration overrides the
pin, with a note to the user. Nothing is written unless every commit is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.models.errors import ModelError
from compass_ray.models.remote_code import code_repository
from compass_ray.preflight.hub import HubUse, Repository, hub_uses, query_hub, suggest_remedy


class Pins(BaseModel):
    """Commits by repository id, and the time of the last addition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: datetime | None = None
    models: dict[str, str] = {}
    datasets: dict[str, str] = {}
    code: dict[str, str] = {}
    """By model with Python code of its own: the repository of that code, whose commit is in ``models``."""

    def commit_of(self, repository: Repository) -> str | None:
        """The pinned commit of a repository. None if it has no pin."""
        return (self.models if repository.kind == "model" else self.datasets).get(repository.id)


@dataclass(frozen=True)
class PinnedConfig:
    """A configuration with pinned revisions, and a note for each setting that overrides a pin."""

    config: RunConfig
    overruled: tuple[str, ...] = ()


def read_pins(run: RunDir) -> Pins:
    """Read the run's pins; empty if it was never pinned.

    Raises:
        ArtifactError: the file is damaged.
    """
    found = run.read_pins()
    if found is None:
        return Pins()
    try:
        return Pins.model_validate_json(found)
    except ValidationError:
        raise ArtifactError(
            f"{run.shown_uri}/pins.json is damaged; remove it and run 'compass-ray doctor --pin --run {run.shown_uri}' again"
        ) from None


def pin(config: RunConfig, run: RunDir, now: datetime) -> Pins:
    """Look up the commit of every repository that has neither a revision nor a pin, and write the new pins.

    Raises:
        ModelError: a commit cannot be looked up. Nothing is written.
    """
    before = read_pins(run)
    commits = _look_up_commits(
        u.repository for u in hub_uses(config) if not u.repository.revision and not before.commit_of(u.repository)
    )
    models = before.models | {r.id: commit for r, commit in commits.items() if r.kind == "model"}
    datasets = before.datasets | {r.id: commit for r, commit in commits.items() if r.kind == "dataset"}
    code = _code_repositories(config, before, models)
    added = _look_up_commits(Repository(name, "model") for name in code.values() if name not in models)
    if not commits and not code:
        return before
    models |= {repository.id: commit for repository, commit in added.items()}
    pins = Pins(time=now, models=models, datasets=datasets, code=before.code | code)
    run.write_pins(pins.model_dump_json(indent=2).encode())
    return pins


def _code_repositories(config: RunConfig, before: Pins, models: Mapping[str, str]) -> dict[str, str]:
    """By model with code that has neither a revision nor a pin: the repository of the code."""
    found: dict[str, str] = {}
    for part in _parts_with_code(config):
        if part.code_revision is None and part.name not in before.code:
            repository = code_repository(part.name, part.revision or models.get(part.name))
            found |= {part.name: repository} if repository else {}
    return found


@dataclass(frozen=True)
class _PartWithCode:
    """A model that may run code: its section of the configuration, and its revisions."""

    section: str
    name: str
    revision: str | None
    code_revision: str | None


def _parts_with_code(config: RunConfig) -> list[_PartWithCode]:
    embed, train = config.embed, config.train
    parts = (
        (embed.trust_remote_code, _PartWithCode("embed", embed.encoder, embed.revision, embed.code_revision)),
        (train.trust_remote_code, _PartWithCode("train", train.base_model, train.revision, train.code_revision)),
    )
    return [part for trusted, part in parts if trusted]


def _look_up_commits(repositories: Iterable[Repository]) -> dict[Repository, str]:
    responses = query_hub(repositories, permission=False)
    failed = [response for response in responses.values() if not response.commit]
    if failed:
        reasons = [f"{r.repository.id}: {r.obstacle.value if r.obstacle else 'no commit'}; {suggest_remedy(r)}" for r in failed]
        raise ModelError(f"nothing was pinned: {'. '.join(reasons)}")
    return {repository: response.commit for repository, response in responses.items() if response.commit}


def apply_pins(config: RunConfig, pins: Pins) -> PinnedConfig:
    """Fill in unset revisions of the configuration from the pins."""
    used = [(use, commit) for use in [*hub_uses(config), *_code_uses(config, pins)] if (commit := pins.commit_of(use.repository))]
    missing = [f"{use.setting}={commit!r}" for use, commit in used if use.repository.revision is None]
    return PinnedConfig(with_overrides(config, missing) if missing else config, tuple(_overruled(used)))


def _code_uses(config: RunConfig, pins: Pins) -> list[HubUse]:
    """The pinned repositories of code."""
    return [
        HubUse(Repository(pins.code[part.name], "model", part.code_revision), "code", f"{part.section}.code_revision")
        for part in _parts_with_code(config)
        if part.name in pins.code
    ]


def _overruled(used: Iterable[tuple[HubUse, str]]) -> Iterable[str]:
    for use, commit in used:
        revision = use.repository.revision
        if revision not in (None, commit):
            yield f"{use.setting}={revision} overrides the run's pin of {use.repository.id}, which is {commit}"
