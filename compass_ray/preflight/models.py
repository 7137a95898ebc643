"""Whether every model and data set can be had: on this machine, or on the hub with this account and network."""

from __future__ import annotations

from collections.abc import Iterable

from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import ModelRole, hub_id, resolve_model
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.hub import HubResponse, HubUse, Obstacle, Repository, hub_uses, query_hub, suggest_remedy

_BY_SETTINGS = (Obstacle.MISSING, Obstacle.REVISION)
_STAGE_OF_DATA = "pool"


def check_models(asked: CheckContext) -> list[CheckResult]:
    """Encoder, base model and identifier, and the data sets of the hub; only what the stages to come need."""
    used = [use for use in hub_uses(asked.config) if _is_needed(asked, use.role)]
    answers = query_hub(use.repository for use in used)
    return [
        *_check_local_parts(asked),
        *(f for role in dict.fromkeys(u.role for u in used) for f in _check_role(role, used, answers)),
    ]


def _is_needed(asked: CheckContext, role: str) -> bool:
    needs = {
        "encoder": asked.needs_encoder(),
        "base model": asked.needs_base(),
        "language identifier": asked.thorough,
        "data sets": _STAGE_OF_DATA in asked.stages,
    }
    return needs[role]


def _check_local_parts(asked: CheckContext) -> list[CheckResult]:
    """What does not come from the hub."""
    config = asked.config
    parts: tuple[tuple[str, str, ModelRole], ...] = (
        ("encoder", config.embed.encoder, "encoder"),
        ("base model", config.train.base_model, "base_model"),
        ("language identifier", config.identifier.model, "language_id"),
    )
    return [_check_local_part(role, name, part) for role, name, part in parts if not hub_id(name) and _is_needed(asked, role)]


def _check_local_part(role: str, name: str, part: ModelRole) -> CheckResult:
    try:
        resolve_model(name, part)
    except ModelError as error:
        return CheckResult(role, str(error), "name one that exists", blocking=True)
    return CheckResult(role, f"{name} is on this machine")


def _check_role(role: str, used: Iterable[HubUse], answers: dict[Repository, HubResponse]) -> list[CheckResult]:
    mine = {answers[use.repository].repository: answers[use.repository] for use in used if use.role == role}
    good = [_describe_source(answer) for answer in mine.values() if answer.is_usable]
    found = [CheckResult(role, ", ".join(good))] if good else []
    bad: dict[tuple[Obstacle | None, str], list[HubResponse]] = {}
    for answer in mine.values():
        if not answer.is_usable:
            bad.setdefault((answer.obstacle, suggest_remedy(answer)), []).append(answer)
    return found + [_refusal(role, answers) for answers in bad.values()]


def _describe_source(answer: HubResponse) -> str:
    repository = answer.repository
    if answer.obstacle is None:
        at = f" at {answer.commit[:8]}" if answer.commit else ""
        return f"{repository.id}{at} will be loaded from the hub"
    return f"{repository.id} is in this machine's cache ({answer.obstacle.value})"


def _refusal(role: str, alike: list[HubResponse]) -> CheckResult:
    """Repositories of one role with one obstacle and one remedy."""
    answer = alike[0]
    assert answer.obstacle is not None
    names = [f"{a.repository.id}@{a.repository.revision}" if a.repository.revision else a.repository.id for a in alike]
    are = "is a hub id" if len(names) == 1 else "are hub ids"
    detail = f" ({answer.detail})" if answer.detail else ""
    # The identifier is needed to serve only.
    return CheckResult(
        role,
        f"{', '.join(names)} {are} and {answer.obstacle.value}{detail}",
        suggest_remedy(answer),
        blocking=role != "language identifier",
        by="settings" if answer.obstacle in _BY_SETTINGS else "surroundings",
    )


def check_remote_code(asked: CheckContext) -> list[CheckResult]:
    """Code from the hub that nothing pins."""
    config = asked.config
    sections = (
        ("embed", config.embed.trust_remote_code, config.embed.encoder, config.embed.revision),
        ("train", config.train.trust_remote_code, config.train.base_model, config.train.revision),
    )
    return [
        CheckResult(
            "remote code",
            f"{key}.trust_remote_code runs the code that {name} holds on the day, and {key}.revision is not set",
            f"read it, then pin it: compass-ray doctor --pin --run {asked.run.uri}",
        )
        for key, trusted, name, revision in sections
        if trusted and revision is None and hub_id(name)
    ]
