"""10,000 requests, 64 concurrent, on a service while adapters are replaced and processes are killed.

Every reply is compared with the engine's reply for the version it names, and that version with the live versions (see
`serving_load_metrics`). Requests continue until each replacement was seen in a reply. The load fails after `LIMIT` seconds. It
says nothing about a model of useful size: replies are very cheap here.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.serving_client import RequestOutcome
from benchmarks.speed.serving_expected_replies import expected_replies
from benchmarks.speed.serving_fixture import SEED, Shape, make_run, serving
from benchmarks.speed.serving_load_generator import LIMIT, LoadPlan, run_load
from benchmarks.speed.serving_load_metrics import (
    GRACE,
    LiveVersions,
    count_outcomes,
    find_mismatch,
    measure_latencies,
    measure_replacements,
)
from benchmarks.speed.serving_processes import ServiceMemorySampler

TOKENS = (4, 12)
_SHOWN = 5
FULL = LoadPlan(Shape(64, 2, ("sw", "hi", "ru", "am", "ko", "el"), 3), 10_000, 20, 2, (0.1,), (0.05, 0.2), 6)
SMALL = LoadPlan(Shape(32, 1, ("sw", "hi", "ru"), 2), 300, 3, 2, (0.3,), (0.2,), 3)


def measure(folder: Path, plan: LoadPlan, vllm_python: str | None = None) -> dict[str, Value]:
    """Run one load and return its numbers. ``vllm_python`` is the Python of an environment with vLLM, if that is the engine."""
    engine = {"engine": "vllm", "vllm": {"python": vllm_python}, "kv_cache_gib": 0.25} if vllm_python else {}
    run, config = make_run(folder, plan.shape, resources={"replicas": plan.replicas}, serve=engine)
    replies = expected_replies(run, config, plan.shape, count=plan.prompts, tokens=TOKENS)
    timeline = LiveVersions.of(plan.shape.languages, "v0001")
    with serving(run, config) as url, ServiceMemorySampler() as memory:
        started = time.monotonic()
        responses = asyncio.run(run_load(url, run, plan, list(replies), timeline))
        seconds = time.monotonic() - started
        traffic = _traffic(url)
    spoke = [each for each in responses if each.outcome in (RequestOutcome.ANSWERED, RequestOutcome.INTERRUPTED)]
    mistakes = [reason for each in spoke if (reason := find_mismatch(each, replies, timeline))]
    _show([each.detail for each in responses if each.outcome is RequestOutcome.FAILED] + mistakes)
    return {
        **count_outcomes(responses),
        "answered_in_a_language": sum(
            each.outcome is RequestOutcome.ANSWERED and each.request.model != "base" for each in responses
        ),
        "wrong": len(mistakes),
        "replicas_killed": len(plan.replica_killed_at),
        "monitors_killed": len(plan.monitor_killed_at),
        "seconds": seconds,
        "requests_per_second": len(responses) / seconds,
        **measure_latencies(responses),
        **measure_replacements(responses, timeline),
        "memory_last_quarter_over_second": memory.growth(),
        "memory_mib_by_tenth": memory.by_tenth_mib(),
        "monitor": traffic,
    }


def _traffic(url: str) -> Value:
    """Traffic counters of the monitor, when no prompt waits or after 30 seconds."""
    deadline = time.monotonic() + 30.0
    while True:
        found: dict[str, Value] = httpx.get(f"{url}/v1/compass/status", timeout=30).json()["traffic"]
        if not found["waiting"] or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _show(problems: Sequence[str]) -> None:
    for each in problems[:_SHOWN]:
        print(each, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    plan = SMALL if arguments.small else FULL
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(Path(folder), plan)
    settings = describe_plan(plan)
    return write_record("speed/serving_load", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


def describe_plan(plan: LoadPlan) -> dict[str, Value]:
    """The settings of a load in its record."""
    return {
        "hidden": plan.shape.hidden,
        "layers": plan.shape.layers,
        "languages": plan.shape.languages,
        "versions": plan.shape.versions,
        "replicas": plan.replicas,
        "at_once": plan.at_once,
        "limit_seconds": LIMIT,
        "grace_seconds": GRACE,
        "new_tokens": TOKENS,
        "replica_killed_at": plan.replica_killed_at,
        "monitor_killed_at": plan.monitor_killed_at,
    }


if __name__ == "__main__":
    main()
