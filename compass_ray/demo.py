"""The whole loop on one machine: adapt, serve, shifted traffic, alarm, update, gate, promotion, report.

Every part is the product's own, and the service adapts by itself; this module only plays the users. It asserts nothing about who
wins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from compass_ray import pipeline, registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.continual import deployment
from compass_ray.continual.update import UpdateResult
from compass_ray.demo_traffic import DemoTraffic, draw_demo_traffic
from compass_ray.progress import Progress, silent
from compass_ray.serving import monitor_actor
from compass_ray.serving.monitor_actor import MonitorClient
from compass_ray.stages import report
from compass_ray.stages.evaluate import Evaluation, evaluate

CLIENTS = 8
_PATIENCE_SECONDS = 30.0
_UPDATE_SECONDS = 1800.0
_BETWEEN_SECONDS = 0.5


@dataclass(frozen=True)
class DemoOutcome:
    """What happened: the lines that tell it, the updates, and requests that failed."""

    lines: list[str]
    outcome: UpdateResult | None
    requests: int
    failed: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The story as plain values."""
        return asdict(self)


def run(config: RunConfig, run: RunDir, *, progress: Progress = silent) -> DemoOutcome:
    """Execute the loop; what an earlier attempt finished is not repeated.

    Raises:
        ArtifactError: a stage failed.
    """
    started = time.monotonic()
    pipeline.run_all(config, run, until="evaluate", progress=progress)
    registry.promote_first_versions(config, run)
    language = config.languages[0]
    traffic = draw_demo_traffic(
        config, run, language, usual=config.drift.window * 2, shifted=config.drift.window * 6, new_share=0.7
    )
    requests, failed, outcome = _serve_and_send(config, run, language, traffic, progress)
    if outcome is not None:
        _compare(config, run, outcome, traffic, progress)
    report.run(config, run, progress=progress)
    from compass_ray.report.drift_summary import summarize_drift

    return DemoOutcome(summarize_drift(run), outcome, requests, failed, round(time.monotonic() - started, 1))


def _serve_and_send(
    config: RunConfig, run: RunDir, language: str, traffic: DemoTraffic, progress: Progress
) -> tuple[int, int, UpdateResult | None]:
    """Serve, send the traffic, and see what the service makes of it: it answers the alarm by itself."""
    earlier = _last_gated_update(run, language)
    if earlier is not None:
        return 0, 0, earlier
    adapting = with_overrides(config, ["update.auto=true", "update.promotion=immediate"])
    endpoint = deployment.start(run.uri, adapting, port=0)
    try:
        users = _Users(endpoint.url, language)
        monitor = monitor_actor.connect(run.uri, adapting)
        outcome = None
        if _send_until_drift(users, monitor, traffic, config.drift.check_every, progress):
            _wait_for_update(users, monitor, run, traffic, progress)
            outcome = _last_gated_update(run, language)
        if outcome is not None and outcome.promoted:
            users.wait_for(outcome.to_version, traffic.shifted)
        return users.sent, users.failed, outcome
    finally:
        deployment.stop(endpoint)


def _send_until_drift(users: _Users, monitor: MonitorClient, traffic: DemoTraffic, at_once: int, progress: Progress) -> bool:
    """Send the traffic until a window of it is offered for an update; whether one was."""
    stream = [*traffic.usual, *traffic.shifted]
    for part in _parts(stream, at_once):
        users.send(part)
        progress("traffic", users.sent, len(stream))
        if any(window.language == users.language for window in monitor.ready()):
            return True
    return False


def _wait_for_update(users: _Users, monitor: MonitorClient, run: RunDir, traffic: DemoTraffic, progress: Progress) -> None:
    """Go on asking, now and then, until the service has answered the alarm.

    Raises:
        ArtifactError: it has not within half an hour.
    """
    deadline = time.monotonic() + _UPDATE_SECONDS
    prompts = _cycle(traffic.shifted)
    progress("update", 0, 1)
    while any(window.language == users.language for window in monitor.ready()):
        if time.monotonic() > deadline:
            failed = [each["reason"] for each in registry.read_decisions(run) if each["kind"] == "update failed"]
            why = failed[-1] if failed else "no attempt at it has ended"
            raise ArtifactError(f"no update of {users.language} was judged within {_UPDATE_SECONDS:.0f} s: {why}")
        users.send((next(prompts),))
        time.sleep(_BETWEEN_SECONDS)  # the update's share of this machine
    progress("update", 1, 1)


class _Users:
    """A few clients that send prompts at once and count what fails."""

    def __init__(self, url: str, language: str) -> None:
        self.url, self.language = url, language
        self.sent = self.failed = 0

    def send(self, prompts: tuple[str, ...]) -> list[dict[str, Any]]:
        """Send prompts, several at a time; replies in order."""
        with httpx.Client(base_url=self.url, timeout=60.0) as client, ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(lambda prompt: self._send_one(client, prompt), prompts))
        self.sent += len(prompts)
        self.failed += sum(not reply for reply in replies)
        return replies

    def _send_one(self, client: httpx.Client, prompt: str) -> dict[str, Any]:
        body = {"model": self.language, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        try:
            reply = client.post("/v1/chat/completions", json=body)
            reply.raise_for_status()
        except httpx.HTTPError:
            return {}
        answer: dict[str, Any] = reply.json()
        return answer

    def wait_for(self, version: str, prompts: list[str]) -> None:
        """Go on asking until the new version answers.

        Raises:
            ArtifactError: it does not within half a minute.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for prompt in _cycle(prompts):
            [reply] = self.send((prompt,))
            if reply and version in str(reply["compass"]["adapter"]):
                return
            if time.monotonic() > deadline:
                raise ArtifactError(f"{version} was promoted but is not served after {_PATIENCE_SECONDS:.0f} s")


def _parts(prompts: list[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(prompts), size):
        yield tuple(prompts[start : start + size])


def _cycle(prompts: list[str]) -> Iterator[str]:
    while True:
        yield from prompts


def _last_gated_update(run: RunDir, language: str) -> UpdateResult | None:
    """The last update that a gate has judged, so that a demo run again does not update once more."""
    for version in reversed(run.adapter_versions(language)):
        artifact = run.update(language, version)
        if artifact.manifest():
            verdict = artifact.read_json("gate.json")
            live = run.live(language) or {}
            if not verdict["accepted"] or live.get("version") == version:
                return UpdateResult(language, verdict["from"], version, verdict["accepted"], verdict["reason"])
    return None


def _compare(config: RunConfig, run: RunDir, outcome: UpdateResult, traffic: DemoTraffic, progress: Progress) -> None:
    """Evaluate the new version, and publish accuracy on old and new subjects before and after."""
    language, version = outcome.language, outcome.to_version
    before = run.evaluation(config.serve.method, language)
    [after] = evaluate(config, run, [Evaluation(version, language, version)], progress=progress)
    artifact = run.change(language, version)
    identity = Identity(
        "evaluate", {"new": traffic.new_subjects}, {"before": before.require().fingerprint, "after": after.fingerprint}
    )
    if artifact.find_complete(identity, force=False):
        return
    writer = artifact.begin(identity)
    writer.write_json("results.json", _results(config, run, outcome, traffic))
    writer.publish()


def _results(config: RunConfig, run: RunDir, outcome: UpdateResult, traffic: DemoTraffic) -> dict[str, Any]:
    gate = run.update(outcome.language, outcome.to_version).read_json("gate.json")
    parts = {
        part: {
            "before": _accuracy(run, config.serve.method, outcome.language, subjects),
            "after": _accuracy(run, outcome.to_version, outcome.language, subjects),
        }
        for part, subjects in (("old", traffic.old_subjects), ("new", traffic.new_subjects))
    }
    return {
        "language": outcome.language,
        "from": outcome.from_version,
        "to": outcome.to_version,
        "old_subjects": list(traffic.old_subjects),
        "new_subjects": list(traffic.new_subjects),
        "gate": gate,
        **{part: {"items": v["before"][0], "before": v["before"][1], "after": v["after"][1]} for part, v in parts.items()},
    }


def _accuracy(run: RunDir, name: str, language: str, subjects: tuple[str, ...]) -> tuple[int, float]:
    items = run.evaluation(name, language).read_table("items.parquet", ["subject", "answer", "predicted"]).to_pylist()
    right = [item["answer"] == item["predicted"] for item in items if item["subject"] in subjects]
    return len(right), sum(right) / max(len(right), 1)
