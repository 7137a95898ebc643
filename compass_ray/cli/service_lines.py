"""Lines of `compass-ray serve`: one for each request, and one for each event, such as a lost replica."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from compass_ray.records.times import to_unix_seconds
from compass_ray.texts import make_visible

if TYPE_CHECKING:
    from compass_ray.serving.api.access_log import AccessRecord
    from compass_ray.serving.service_poll import ReplicaCounts, ServicePoll

_NAMES = {"adapters": "adapter server", "ingress": "ingress"}
_REASON = re.compile(r'reason="([^"]*)"')


class ServiceLines:
    """Turns polls of a service into lines."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns Unix seconds."""
        self._clock = clock
        self._started = clock()
        self._replicas: dict[str, _ReplicaWatch] = {}
        self._last_requests: dict[str, int] = {}
        self._retries: dict[str, int] = {}
        self._last_decision = self._started
        self._silent = False

    def next_lines(self, poll: Callable[[Mapping[str, int]], ServicePoll]) -> list[Text]:
        """The lines since the last call. A service that does not answer is one event, and so is its next answer.

        ``poll`` gets the number of the last printed request of each access log. Every poll may reach another ingress replica.
        """
        try:
            found = poll(dict(self._last_requests))
        except Exception as error:
            was_silent, self._silent = self._silent, True
            reason = str(error).strip().splitlines()[:1]
            return [] if was_silent else [self._event(f"the service does not answer: {''.join(reason)}", "red")]
        answers = [self._event("the service answers again", "green")] if self._silent else []
        self._silent = False
        return [*answers, *self._events(found), *self._accesses(found)]

    def _events(self, found: ServicePoll) -> Iterator[Text]:
        new_retries = found.ingress.retries - self._retries.get(found.ingress.log, 0)
        if new_retries > 0:
            yield self._event(f"adapter server lost; requests that are retried on another one: {new_retries}", "red")
        self._retries[found.ingress.log] = found.ingress.retries
        for name, counts in found.replicas.items():
            watch = self._replicas.setdefault(name, _ReplicaWatch(_NAMES.get(name, name)))
            for line, style in watch.describe(counts, self._clock()):
                yield self._event(line, style)
        for decision in found.ingress.decisions:
            moment = to_unix_seconds(decision.get("time"))
            if moment is not None and moment > self._last_decision:
                self._last_decision = moment
                yield self._event(describe_decision(decision), "cyan")

    def _accesses(self, found: ServicePoll) -> Iterator[Text]:
        for record in found.ingress.requests:
            self._last_requests[found.ingress.log] = record.number
            yield describe_request(record)

    def _event(self, line: str, style: str) -> Text:
        return Text.assemble(f"{_time(self._clock())} ", (_on_one_line(line), style))


class _ReplicaWatch:
    """Notices that replicas of one deployment are lost, start again and are ready again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wanted, self._starting = 0, 0
        self._lost_at: float | None = None

    def describe(self, counts: ReplicaCounts, now: float) -> Iterator[tuple[str, str]]:
        """The events since the last counts, each with its style."""
        if counts.is_scaling and self._lost_at is None:
            self._wanted = counts.running
        if counts.running < self._wanted and self._lost_at is None:
            self._lost_at = now
            yield f"{self._name} lost: {counts.running} of {self._wanted} running", "red"
        if self._lost_at is not None and counts.starting > self._starting:
            yield f"{self._name} recovering: {counts.starting} starting", "yellow"
        self._starting = counts.starting if self._lost_at is not None else 0
        if counts.running >= self._wanted:
            if self._lost_at is not None:
                yield f"{self._name} ready again after {now - self._lost_at:.0f} s", "green"
            self._wanted, self._lost_at = counts.running, None


def describe_request(record: AccessRecord) -> Text:
    """The line of a request: time, method, path, status, duration, adapter with reason, and request id."""
    status = str(record.status or "disconnected")
    style = "green" if 200 <= record.status < 400 else "red" if record.status >= 500 else "yellow"
    adapter, _, _ = record.route.partition(";")
    reason = _REASON.search(record.route)
    route = f" {adapter} ({reason[1]})" if adapter and reason else ""
    call = f"{_time(record.time)} {record.method} {record.path} "
    took = f" {1000 * record.seconds:.0f} ms{route} "
    return Text.assemble(_on_one_line(call), (status, style), _on_one_line(took), (_on_one_line(record.request_id), "dim"))


def _on_one_line(text: str) -> str:
    """A client's path must not look like a line of its own."""
    return make_visible(text).translate({ord(each): repr(each)[1:-1] for each in "\n\r\t"})


def describe_decision(decision: Mapping[str, Any]) -> str:
    """A decision about a language in one line."""
    version = f" {decision['to']}" if decision.get("to") else ""
    reason = f": {decision['reason']}" if decision.get("reason") else ""
    return f"{decision.get('language')}: {decision.get('kind')}{version}{reason}"


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment):%H:%M:%S}"
