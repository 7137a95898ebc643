"""Where a run stands: the live version and the last drift check of each language, and the command to type next.

Key property: it reads pointers, the last lines of the monitor's files and no table, and imports neither Ray nor torch. So
``compass-ray status`` answers within about a second.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.monitoring.traffic_log import CHECKS, read_ready_windows
from compass_ray.pipeline import StageStatus
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import (
    Decision,
    DriftRecord,
    GateDecisionRecord,
    PromotionRecord,
    RollbackRecord,
    StaticRecord,
    WindowDiscardedRecord,
)
from compass_ray.redaction import redact
from compass_ray.registry import LivePointer, RegistryError

_ENDS_OF_WINDOWS = (GateDecisionRecord, StaticRecord, WindowDiscardedRecord)


@dataclass(frozen=True)
class LanguageOverview:
    """One language: its live pointer, its last drift check, and what waits for a decision."""

    language: str
    pointer: LivePointer | None = None
    problem: str = ""
    """Why the pointer cannot be read."""
    check: CheckRecord | None = None
    drift: DriftRecord | None = None
    """The last alarm."""
    accepted: str | None = None
    """A version that the gate accepted for promotion by hand, and that was not promoted yet."""
    is_window_ready: bool = False


@dataclass(frozen=True)
class NextStep:
    """A command line and why to type it."""

    command: str
    reason: str


def read_overview(run: RunDir, config: RunConfig) -> list[LanguageOverview]:
    """The overview of every language of a run, in the order of the configuration.

    Raises:
        ArtifactError: the store cannot be reached.
    """
    decisions = registry.read_decisions(run)
    checks = read_last_checks(run.read_monitor(CHECKS) or b"", config.languages)
    histories = {code: [each for each in decisions if each.language == code] for code in config.languages}
    waiting = any(_awaits_update(history) for history in histories.values())
    ready = {window.language for window in read_ready_windows(run, config)} if waiting else set[str]()
    return [_overview(run, code, histories[code], checks.get(code), code in ready) for code in config.languages]


def read_last_checks(lines: bytes, languages: Sequence[str]) -> dict[str, CheckRecord]:
    """The last valid check of each language in ``checks.jsonl``, read from its end."""
    found: dict[str, CheckRecord] = {}
    for line in reversed(lines.splitlines()):
        try:
            check = CheckRecord.model_validate_json(line)
        except ValidationError:
            continue
        if check.language in languages:
            found.setdefault(check.language, check)
        if len(found) == len(languages):
            break
    return found


def _overview(run: RunDir, code: str, history: Sequence[Decision], check: CheckRecord | None, ready: bool) -> LanguageOverview:
    try:
        pointer, problem = registry.read_pointer(run, code).live, ""
    except RegistryError as error:
        pointer, problem = None, str(error)
    drift = next((each for each in reversed(history) if isinstance(each, DriftRecord)), None)
    return LanguageOverview(code, pointer, problem, check, drift, _accepted(history), ready)


def _awaits_update(history: Sequence[Decision]) -> bool:
    """Whether no decision followed the last alarm."""
    last = next((each for each in reversed(history) if isinstance(each, (DriftRecord, *_ENDS_OF_WINDOWS))), None)
    return isinstance(last, DriftRecord)


def _accepted(history: Sequence[Decision]) -> str | None:
    """The version of the last verdict, if the gate accepted it and a person promotes."""
    kinds = (GateDecisionRecord, PromotionRecord, RollbackRecord)
    last = next((each for each in reversed(history) if isinstance(each, kinds)), None)
    is_waiting = isinstance(last, GateDecisionRecord) and last.accepted and last.promotion == "manual"
    return last.to_version if last and is_waiting else None


def choose_next_step(
    run: str,
    stages: Sequence[StageStatus],
    languages: Sequence[LanguageOverview],
    *,
    auto: bool = False,
    served_at: str | None = None,
) -> NextStep:
    """What to do next with a run.

    Args:
        run: the run as the user typed it.
        stages: complete and total artifacts of each stage.
        languages: the overview of each language.
        auto: whether a service of the run updates by itself.
        served_at: address of a running service of the run.
    """
    path = shlex.quote(redact(run))
    unfinished = next((stage for stage in stages if stage.complete < stage.total), None)
    if unfinished:
        reason = f"stage {unfinished.name} has {unfinished.complete} of {unfinished.total} artifacts"
        return NextStep(f"compass-ray adapt --run {path}", reason)
    for each in languages:
        if each.accepted:
            command = f"compass-ray adapters promote {path} {each.language} {each.accepted}"
            return NextStep(command, f"the gate accepted {each.accepted} of {each.language}")
    ready = [each.language for each in languages if each.is_window_ready]
    if ready and not auto:
        return NextStep(f"compass-ray update {path} --ready", f"the traffic of {', '.join(ready)} has drifted")
    if not any(each.pointer for each in languages):
        return NextStep(f"compass-ray serve {path}", "no adapter is live yet; serving promotes the first versions")
    if served_at:
        return NextStep(f"compass-ray chat {path}", f"all stages are complete, and {served_at} serves the run")
    return NextStep(f"compass-ray serve {path}", f"all stages are complete; 'compass-ray chat {path}' asks the adapters here")
