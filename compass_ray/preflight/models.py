"""Checks that every model and data set is available: on this machine, or on the hub with this account and network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compass_ray.config import EmbedConfig, RunConfig, TrainConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import ModelRole, hub_id, resolve_model
from compass_ray.models.remote_code import describe_unpinned, remedy_for_unpinned, unpinned_settings
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import HubResponse, HubUse, Obstacle, Repository, hub_uses, query_hub, suggest_remedy
from compass_ray.preflight.local_files import find_model_problem

_BY_SETTINGS = (Obstacle.MISSING, Obstacle.REVISION)
_STAGE_OF_DATA = "pool"


def check_models(context: CheckContext) -> list[CheckResult]:
    """Check encoder, base model, language identifier and data sets of the hub. Only what incomplete stages need."""
    used = [use for use in hub_uses(context.config) if _is_needed(context, use.role)]
    answers = query_hub(use.repository for use in used)
    return [
        *_check_local_parts(context),
        *(f for role in dict.fromkeys(u.role for u in used) for f in _check_role(role, used, answers)),
    ]


def _is_needed(context: CheckContext, role: str) -> bool:
    needs = {
        "encoder": context.needs_encoder(),
        "base model": context.needs_base(),
        "language identifier": context.thorough,
        "data sets": _STAGE_OF_DATA in context.stages,
    }
    return needs[role]


def _check_local_parts(context: CheckContext) -> list[CheckResult]:
    """Check the models that are not on the hub."""
    config = context.config
    parts: tuple[tuple[str, str, str, ModelRole], ...] = (
        ("encoder", "embed.encoder", config.embed.encoder, "encoder"),
        ("base model", "train.base_model", config.train.base_model, "base_model"),
        ("language identifier", "identifier.model", config.identifier.model, "language_id"),
    )
    return [
        _check_local_part(role, setting, name, part)
        for role, setting, name, part in parts
        if not hub_id(name) and _is_needed(context, role)
    ]


def _check_local_part(role: str, setting: str, name: str, part: ModelRole) -> CheckResult:
    try:
        problem = find_model_problem(Path(resolve_model(name, part)), part)
    except ModelError as error:
        problem = str(error)
    if problem is None:
        return CheckResult(role, f"{name} is on this machine")
    return CheckResult(role, f"{setting}: {problem}", f"set {setting} to a model that is complete", blocking=True, by="settings")


def require_served_models(config: RunConfig) -> None:
    """Check the local models without which no request can be answered: the base model and the language identifier.

    Raises:
        ModelError: one is missing, unreadable or incomplete.
    """
    parts: tuple[tuple[str, str, ModelRole], ...] = (
        ("train.base_model", config.train.base_model, "base_model"),
        ("identifier.model", config.identifier.model, "language_id"),
    )
    for setting, name, part in parts:
        if not hub_id(name) and (problem := find_model_problem(Path(resolve_model(name, part)), part)):
            raise ModelError(f"{setting}: {problem}")


def _check_role(role: str, used: Iterable[HubUse], answers: dict[Repository, HubResponse]) -> list[CheckResult]:
    responses = {answers[use.repository].repository: answers[use.repository] for use in used if use.role == role}
    usable = [_describe_source(response) for response in responses.values() if response.is_usable]
    results = [CheckResult(role, ", ".join(usable))] if usable else []
    failed: dict[tuple[Obstacle | None, str], list[HubResponse]] = {}
    for response in responses.values():
        if not response.is_usable:
            failed.setdefault((response.obstacle, suggest_remedy(response)), []).append(response)
    return results + [_failure(role, group) for group in failed.values()]


def _describe_source(response: HubResponse) -> str:
    repository = response.repository
    if response.obstacle is None:
        at = f" at {response.commit[:8]}" if response.commit else ""
        return f"{repository.id}{at} will be loaded from the hub"
    return f"{repository.id} is in this machine's cache ({response.obstacle.value})"


def _failure(role: str, group: list[HubResponse]) -> CheckResult:
    """The result for repositories of one role with the same obstacle and remedy."""
    response = group[0]
    assert response.obstacle is not None
    names = [f"{a.repository.id}@{a.repository.revision}" if a.repository.revision else a.repository.id for a in group]
    are = "is a hub id" if len(names) == 1 else "are hub ids"
    detail = f" ({response.detail})" if response.detail else ""
    # Only serving needs the language identifier.
    return CheckResult(
        role,
        f"{', '.join(names)} {are}: {response.obstacle.value}{detail}",
        suggest_remedy(response),
        blocking=role != "language identifier",
        by="settings" if response.obstacle in _BY_SETTINGS else "surroundings",
    )


def check_remote_code(context: CheckContext) -> list[CheckResult]:
    """Check that code of a model runs from a commit only. Reports code that runs unpinned at the user's request."""
    config = context.config
    sections: tuple[tuple[str, str, EmbedConfig | TrainConfig, bool], ...] = (
        ("embed", config.embed.encoder, config.embed, context.needs_encoder()),
        ("train", config.train.base_model, config.train, context.needs_base()),
    )
    return [result for section, name, part, needed in sections if needed for result in _check_code(context, section, name, part)]


def _check_code(context: CheckContext, section: str, name: str, part: EmbedConfig | TrainConfig) -> list[CheckResult]:
    remedy = remedy_for_unpinned(context.run.shown_uri)
    try:
        unpinned = unpinned_settings(part.model_copy(update={"unpinned_code": False}))
    except ModelError as error:
        return [CheckResult("remote code", str(error), remedy, blocking=True)]
    if not unpinned:
        return []
    found = describe_unpinned(section, name, unpinned)
    return [CheckResult("remote code", found, remedy, blocking=not part.unpinned_code, by="settings")]
