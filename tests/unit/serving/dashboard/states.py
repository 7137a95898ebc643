"""States of a service for the dashboard to show."""

from __future__ import annotations

import math
from typing import Any

from compass_ray.languages import LANGUAGES
from compass_ray.monitoring.audit_records import summarize_checks
from compass_ray.records.checks import CheckRecord
from compass_ray.registry import Canary, Catalogue
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.metrics.status import build_status, to_columns
from tests.unit.fakes import Clock

NOW = 1_800_000_000.0
CODES = tuple(LANGUAGES)[:42]
SCRIPT = "<script>document.title='taken'</script>"


def busy(languages: tuple[str, ...] = CODES, *, run: str = f"s3://bucket/runs/{SCRIPT}") -> dict[str, Any]:
    """A service with traffic, checks, decisions, errors and a broken adapter."""
    versions = dict.fromkeys(languages, ("target", "v0001", "v0002", "v0003"))
    live = dict.fromkeys(languages[1:], "v0002")
    first = languages[1]
    catalogue = Catalogue(
        live,
        versions,
        {first: Canary("v0003", 0.05)},
        {languages[2]: "v0003"},
        pins={languages[3]: "held for the release"},
        previous={first: "v0001"},
    )
    traffic = {"waiting": 3, "delivered": 20_412, "dropped": 0, "retries": 2}
    return build_status(
        run=run,
        languages=languages,
        catalogue=catalogue,
        statistics=_hour(languages),
        problems={f"{first}@v0004": "made for another base model, <b>not</b> this one"},
        traffic=traffic,
        monitor=_monitor(languages),
        decisions=_decisions(first),
        engine={"steps": 10, "orders": 20},
    )


def quiet() -> dict[str, Any]:
    """As busy, but with one answered and three refused requests in five intervals."""
    clock = Clock(NOW - 50)
    statistics = RequestStatistics(clock)
    for step in range(5):
        statistics.record_start()
        if step == 2:
            statistics.record_completion(
                language="sw",
                adapter="sw@v0001",
                seconds=0.4,
                first_token_seconds=0.1,
                prompt_tokens=9,
                completion_tokens=20,
            )
        elif step != 3:
            statistics.record_refusal(404 if step else 400)
        clock.now += 10
    return busy() | {"requests": statistics.summary(), "history": to_columns(statistics.history())}


def first_check() -> dict[str, Any]:
    """As busy, but with one drift check so far."""
    line = _check("sw", 0, 0) | {"time": NOW}
    checks = {"sw": summarize_checks([CheckRecord.model_validate(line)])}
    return busy() | {"monitor": {"languages": {"sw": _language_status("sw", line)}, "checks": checks}}


def idle() -> dict[str, Any]:
    """A service without languages and requests."""
    return build_status(
        run="runs/empty",
        languages=(),
        catalogue=Catalogue({}, {}),
        statistics=RequestStatistics(Clock(NOW)),
        problems={},
        traffic={"waiting": 0, "delivered": 0, "dropped": 0, "retries": 0},
        monitor=None,
        decisions=[],
        engine={},
    )


def _hour(languages: tuple[str, ...]) -> RequestStatistics:
    clock = Clock(NOW - 3600)
    statistics = RequestStatistics(clock)
    for step in range(360):
        for turn in range(1 + step % 7):
            statistics.record_start()
            seconds = 0.4 + 0.2 * math.sin(step / 30) + 0.02 * turn
            language = languages[(step + turn) % len(languages)]
            adapter, first = f"{language}@v0002", 0.05 + seconds / 20
            tokens = {"prompt_tokens": 80 + turn, "completion_tokens": 40 + step % 11}
            statistics.record_completion(language=language, adapter=adapter, seconds=seconds, first_token_seconds=first, **tokens)
        if step % 50 == 0:
            statistics.record_start()
            statistics.record_refusal(429)
        clock.now += 10
    statistics.record_error("InterruptedReplyError in POST /v1/chat/completions: log under 3f2a")
    return statistics


def _monitor(languages: tuple[str, ...]) -> dict[str, Any]:
    checks = {code: [_check(code, index, number) for number in range(100)] for index, code in enumerate(languages[:-1])}
    return {
        "languages": {code: _language_status(code, lines[-1]) for code, lines in checks.items()},
        "checks": {code: summarize_checks(map(CheckRecord.model_validate, lines)) for code, lines in checks.items()},
        "rejected": 0,
        "duplicates": 1,
        "retention": {"keeps": "text", "days": 30.0},
    }


def _check(code: str, index: int, number: int) -> dict[str, Any]:
    divergence = 0.06 + 0.02 * math.sin(number / 6 + index) + (0.15 if index == 1 and number > 90 else 0.0)
    return {
        "language": code,
        "time": NOW - (100 - number) * 600,
        "prompts": 300 + number * 50,
        "divergence": divergence,
        "threshold": 0.11,
        "p_value": 0.0005 if divergence > 0.11 else 0.4,
        "drifted": divergence > 0.11,
        "version": "v0001" if number < 40 else "v0002",
        "mean_nll": 1.9,
    }


def _language_status(code: str, last: dict[str, Any]) -> dict[str, Any]:
    phase = "collecting" if last["drifted"] else "watching"
    ratings = {"good": 12, "bad": 3}
    fits = {"noise": 0.04, "distance": 0.31, "stale": last["drifted"]}
    return {"phase": phase, "prompts": 5250, "window": 300, "window_size": 300, "last_check": last, "ratings": ratings, **fits}


def _decisions(language: str) -> list[dict[str, Any]]:
    reason = "0.213 bits from the reference, above 0.110, p = 0.0005"
    return [
        {"time": NOW - 9000, "kind": "promotion", "language": language, "to": "v0001", "reason": "first training"},
        {"time": NOW - 7000, "kind": "drift", "language": language, "from": "v0001", "reason": reason, "prompts": 2100},
        {"time": NOW - 6000, "kind": "gate", "language": language, "from": "v0001", "to": "v0002", "accepted": True,
         "reason": "better on the window by 0.21 nats, anchors lose 0.02"},
        {"time": NOW - 5990, "kind": "promotion", "language": language, "from": "v0001", "to": "v0002", "reason": SCRIPT},
    ]  # fmt: skip
