"""The commit of everything that a run takes from the hub, written into the run and filled in where none is set.

Key property: a pin that stands is kept, so that a run means the same files for ever; a revision that the configuration
names wins over it, and that is told. Nothing is written unless every commit is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.models.errors import ModelError
from compass_ray.preflight.hub import HubUse, Repository, hub_uses, query_hub, suggest_remedy


class Pins(BaseModel):
    """Repository id to commit, and when the last was added."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: datetime | None = None
    models: dict[str, str] = {}
    datasets: dict[str, str] = {}

    def commit_of(self, repository: Repository) -> str | None:
        """The commit of a repository."""
        return (self.models if repository.kind == "model" else self.datasets).get(repository.id)


@dataclass(frozen=True)
class PinnedConfig:
    """A configuration with its revisions filled in, and the settings that name another revision than the run's pins."""

    config: RunConfig
    overruled: tuple[str, ...] = ()


def read_pins(run: RunDir) -> Pins:
    """The run's pins, none where it was never pinned.

    Raises:
        ArtifactError: they are damaged.
    """
    found = run.read_pins()
    if found is None:
        return Pins()
    try:
        return Pins.model_validate_json(found)
    except ValidationError:
        raise ArtifactError(
            f"{run.uri}/pins.json is damaged; remove it and run 'compass-ray doctor --pin --run {run.uri}' again"
        ) from None


def pin(config: RunConfig, run: RunDir, now: datetime) -> Pins:
    """Look up the commit of every repository without a revision, and write what the run had no pin for.

    Raises:
        ModelError: a commit cannot be looked up; nothing is written then.
    """
    before = read_pins(run)
    commits = _look_up_commits(
        u.repository for u in hub_uses(config) if not u.repository.revision and not before.commit_of(u.repository)
    )
    if not commits:
        return before
    models = {r.id: commit for r, commit in commits.items() if r.kind == "model"}
    datasets = {r.id: commit for r, commit in commits.items() if r.kind == "dataset"}
    pins = Pins(time=now, models=before.models | models, datasets=before.datasets | datasets)
    run.write_pins(pins.model_dump_json(indent=2).encode())
    return pins


def _look_up_commits(repositories: Iterable[Repository]) -> dict[Repository, str]:
    answers = query_hub(repositories, permission=False)
    lost = [answer for answer in answers.values() if not answer.commit]
    if lost:
        reasons = [f"{a.repository.id}: {a.obstacle.value if a.obstacle else 'no commit'}; {suggest_remedy(a)}" for a in lost]
        raise ModelError(f"nothing was pinned: {'. '.join(reasons)}")
    return {repository: answer.commit for repository, answer in answers.items() if answer.commit}


def apply_pins(config: RunConfig, pins: Pins) -> PinnedConfig:
    """The configuration with unset revisions filled in from the pins."""
    used = [(use, commit) for use in hub_uses(config) if (commit := pins.commit_of(use.repository))]
    missing = [f"{use.setting}={commit!r}" for use, commit in used if use.repository.revision is None]
    return PinnedConfig(with_overrides(config, missing) if missing else config, tuple(_overruled(used)))


def _overruled(used: Iterable[tuple[HubUse, str]]) -> Iterable[str]:
    for use, commit in used:
        named = use.repository.revision
        if named not in (None, commit):
            yield f"{use.setting} is {named}, and is used; the run's pins have {commit} for {use.repository.id}"
