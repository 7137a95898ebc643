"""The complete loop on one machine: adapt, serve, shifted traffic, drift alarm, update, gate, promotion, questions, report.

Every step uses the product's own code, and the service updates by itself. This module only simulates the users. It does not
assert which method scores better.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import httpx

from compass_ray import pipeline, registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import RunConfig, with_overrides
from compass_ray.continual import deployment
from compass_ray.continual.update import UpdateResult
from compass_ray.demo_traffic import DemoTraffic, draw_demo_traffic, pick_questions
from compass_ray.progress import Progress, silent
from compass_ray.records.decisions import UpdateFailedRecord
from compass_ray.records.updates import ChangeRecord, GateRecord, UpdateRecord
from compass_ray.report.run_reader import RunReader
from compass_ray.serving import monitor_actor
from compass_ray.serving.monitor_actor import MonitorClient
from compass_ray.stages import report
from compass_ray.stages.evaluate import Evaluation, evaluate

CLIENTS = 8
_SERVED_TIMEOUT_S = 30.0
_UPDATE_TIMEOUT_S = 1800.0
_PROMPT_INTERVAL_S = 0.5
_REPLIES_IN_INTERVAL = 5.0
"""Least time between prompts, in times that a reply took."""
_REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class DemoReply:
    """A question and its language, the adapter that the router picked, and the reply."""

    language: str
    question: str
    adapter: str
    reply: str


@dataclass(frozen=True)
class DemoOutcome:
    """Result of the demo: summary lines, the update, sent and failed requests, replies, duration in seconds."""

    lines: list[str]
    outcome: UpdateResult | None
    requests: int
    failed: int
    seconds: float
    replies: list[DemoReply]

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)


def run(config: RunConfig, run: RunDir, *, progress: Progress = silent) -> DemoOutcome:
    """Run the loop; steps that an earlier attempt completed are not repeated.

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
    requests, failed, outcome, replies = _serve_and_send(config, run, language, traffic, progress)
    if outcome is not None:
        _compare(config, run, outcome, traffic, progress)
    report.run(config, run, progress=progress)
    from compass_ray.report.drift_summary import summarize_drift

    return DemoOutcome(summarize_drift(run), outcome, requests, failed, round(time.monotonic() - started, 1), replies)


def _serve_and_send(
    config: RunConfig, run: RunDir, language: str, traffic: DemoTraffic, progress: Progress
) -> tuple[int, int, UpdateResult | None, list[DemoReply]]:
    """Serve and send the traffic; return the request counts, the update that the service made by itself, and the replies.

    An update of an earlier attempt is not repeated. Nothing is served then, as another service may use the run.
    """
    earlier = _last_gated_update(run, language)
    if earlier is not None:
        return 0, 0, earlier, []
    adapting = with_overrides(config, ["update.auto=true", "update.promotion=immediate"])
    endpoint = deployment.start(run.uri, adapting, port=0)
    try:
        users = _Users(endpoint.url, language)
        outcome = _send_and_wait(users, adapting, run, traffic, progress)
        replies = [users.ask(code, question) for code, question in pick_questions(config, run)]
        return users.sent, users.failed, outcome, replies
    finally:
        deployment.stop(endpoint)


def _send_and_wait(
    users: _Users, config: RunConfig, run: RunDir, traffic: DemoTraffic, progress: Progress
) -> UpdateResult | None:
    """Send the traffic and wait for the update, if the drift is declared, until it is served."""
    monitor = monitor_actor.connect(run.uri, config)
    if not _send_until_drift(users, monitor, traffic, config.drift.check_every, progress):
        return None
    _wait_for_update(users, monitor, run, traffic, progress)
    outcome = _last_gated_update(run, config.languages[0])
    if outcome is not None and outcome.promoted:
        users.wait_for(outcome.to_version, traffic.shifted)
    return outcome


def _send_until_drift(users: _Users, monitor: MonitorClient, traffic: DemoTraffic, at_once: int, progress: Progress) -> bool:
    """Send the traffic until a window is ready for an update; return whether one is."""
    stream = [*traffic.usual, *traffic.shifted]
    for chunk in _chunks(stream, at_once):
        users.send(chunk)
        progress("traffic", users.sent, len(stream))
        if any(window.language == users.language for window in monitor.ready()):
            return True
    return False


def _wait_for_update(users: _Users, monitor: MonitorClient, run: RunDir, traffic: DemoTraffic, progress: Progress) -> None:
    """Send a prompt at intervals until the service has updated.

    Raises:
        ArtifactError: the service has not updated within half an hour.
    """
    deadline = time.monotonic() + _UPDATE_TIMEOUT_S
    prompts = cycle(traffic.shifted)
    progress("update", 0, 1)
    while any(window.language == users.language for window in monitor.ready()):
        if time.monotonic() > deadline:
            failed = [each.reason for each in registry.read_decisions(run) if isinstance(each, UpdateFailedRecord)]
            why = failed[-1] if failed else "no attempt has finished"
            raise ArtifactError(f"no update of {users.language} reached the gate within {_UPDATE_TIMEOUT_S:.0f} s: {why}")
        sent = time.monotonic()
        users.send((next(prompts),))
        # Leaves most of the CPU time to the update.
        time.sleep(max(_PROMPT_INTERVAL_S, _REPLIES_IN_INTERVAL * (time.monotonic() - sent)))
    progress("update", 1, 1)


class _Users:
    """A few concurrent clients that send prompts and count failed requests."""

    def __init__(self, url: str, language: str) -> None:
        self.url, self.language = url, language
        self.sent = self.failed = 0

    def send(self, prompts: tuple[str, ...]) -> list[dict[str, Any]]:
        """Send prompts concurrently; return the replies in order, an empty one for each failure."""
        with httpx.Client(base_url=self.url, timeout=_REQUEST_TIMEOUT_S) as client, ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(lambda prompt: self._send_one(client, prompt, self.language), prompts))
        self.sent += len(prompts)
        self.failed += sum(not reply for reply in replies)
        return replies

    def ask(self, language: str, question: str) -> DemoReply:
        """Ask a question of a language; the service itself finds the language and its adapter."""
        with httpx.Client(base_url=self.url, timeout=_REQUEST_TIMEOUT_S) as client:
            reply = self._send_one(client, question, "auto", store=False)
        self.sent, self.failed = self.sent + 1, self.failed + (not reply)
        if not reply:
            return DemoReply(language, question, "", "")
        adapter, text = reply["compass"]["adapter"] or "base", reply["choices"][0]["message"]["content"]
        return DemoReply(language, question, str(adapter), str(text))

    def _send_one(self, client: httpx.Client, prompt: str, model: str, *, store: bool = True) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "store": store}
        try:
            reply = client.post("/v1/chat/completions", json=body)
            reply.raise_for_status()
        except httpx.HTTPError:
            return {}
        answer: dict[str, Any] = reply.json()
        return answer

    def wait_for(self, version: str, prompts: list[str]) -> None:
        """Send prompts until the new version answers.

        Raises:
            ArtifactError: it does not answer within half a minute.
        """
        deadline = time.monotonic() + _SERVED_TIMEOUT_S
        for prompt in cycle(prompts):
            [reply] = self.send((prompt,))
            if reply and version in str(reply["compass"]["adapter"]):
                return
            if time.monotonic() > deadline:
                raise ArtifactError(f"{version} was promoted but is not served after {_SERVED_TIMEOUT_S:.0f} s; run it again")


def _chunks(prompts: list[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(prompts), size):
        yield tuple(prompts[start : start + size])


def _last_gated_update(run: RunDir, language: str) -> UpdateResult | None:
    """The last update that the gate rejected or that is live, so that a repeated demo does not update again."""
    for version in reversed(run.adapter_versions(language)):
        artifact = run.update(language, version)
        if artifact.manifest():
            verdict = GateRecord.read(artifact)
            live = run.live(language) or {}
            if not verdict.accepted or live.get("version") == version:
                return UpdateResult(language, str(verdict.from_version), version, bool(verdict.accepted), verdict.reason)
    return None


def _compare(config: RunConfig, run: RunDir, outcome: UpdateResult, traffic: DemoTraffic, progress: Progress) -> None:
    """Evaluate the new version; publish accuracy on old and new subjects before and after the update."""
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
    _results(config, run, outcome, traffic).write(writer)
    writer.publish()


def _results(config: RunConfig, run: RunDir, outcome: UpdateResult, traffic: DemoTraffic) -> UpdateRecord:
    reader = RunReader(run)

    def change(subjects: tuple[str, ...]) -> ChangeRecord:
        before, after = (_mean_answers(reader, name, outcome.language, subjects) for name in names)
        return ChangeRecord(items=before.items, before=before.accuracy, after=after.accuracy, chance=before.chance)

    names = (config.serve.method, outcome.to_version)
    return UpdateRecord(
        language=outcome.language,
        from_version=outcome.from_version,
        to_version=outcome.to_version,
        old_subjects=traffic.old_subjects,
        new_subjects=traffic.new_subjects,
        gate=GateRecord.read(run.update(outcome.language, outcome.to_version)),
        old=change(traffic.old_subjects),
        new=change(traffic.new_subjects),
    )


@dataclass(frozen=True)
class _MeanAnswers:
    items: int
    accuracy: float
    chance: float | None


def _mean_answers(reader: RunReader, name: str, language: str, subjects: tuple[str, ...]) -> _MeanAnswers:
    """Accuracy of an evaluation on the items of some subjects, and its chance level."""
    scored = reader.scored_items(name, language)
    chosen = [i for i, subject in enumerate(scored.subjects) if subject in subjects] if scored else []
    if not scored or not chosen:
        return _MeanAnswers(0, 0.0, None)
    return _MeanAnswers(len(chosen), float(scored.correct[chosen].mean()), float(scored.chance[chosen].mean()))
