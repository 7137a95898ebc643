"""A service that adapts by itself, through HTTP: shifted traffic leads to a promoted version, and worse replies take it back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx
import psutil
import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig, with_overrides
from compass_ray.continual import deployment
from compass_ray.demo_traffic import DemoTraffic, draw_demo_traffic
from compass_ray.serving import monitor_actor
from compass_ray.serving.api.key_source import hash_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LANGUAGE = "sw"
KEYS = tuple(f"key-{number}" for number in range(24))
"""Of one key's ratings only a few count."""
_CLIENTS = 2
SETTINGS = [
    "update.auto=true",
    "update.max_forgetting=9",
    "update.canary_questions=8",
    "serve.max_tokens=8",
    "resources.replica_cpus=0.1",
]
CANARY = ("update.promotion=canary", "update.canary_share=0.5", "update.canary_replies=20")


@dataclass
class Users:
    """Clients that send requests without a pause until they are stopped, their replies, and their failures."""

    url: str
    prompts: list[str]
    rating: str | None = None
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    _home: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Users:
        self._pool = ThreadPoolExecutor(_CLIENTS)
        self._next = cycle(enumerate(self.prompts))
        self._turn = threading.Lock()
        self._asking = [self._pool.submit(self._ask) for _ in range(_CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._home.set()
        self._pool.shutdown()
        for each in self._asking:
            each.result()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self._home.is_set():
                with self._turn:
                    number, prompt = next(self._next)
                    self.sent += 1
                self._one(client, prompt, KEYS[number % len(KEYS)])

    def _one(self, client: httpx.Client, prompt: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": LANGUAGE, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        response = client.post("/v1/chat/completions", json=body, headers=headers)
        if response.status_code != 200:
            self.failures.append(f"{response.status_code} {response.text}")
            return
        reply = response.json()
        self.adapters.append(reply["model"])
        self.acknowledged.add(reply["id"])
        rating = self.rating
        if rating:
            client.post("/v1/feedback", json={"id": reply["id"], "rating": rating}, headers=headers).raise_for_status()


@dataclass(frozen=True)
class Served:
    """A service that adapts by itself."""

    run: RunDir
    config: RunConfig
    url: str
    traffic: DemoTraffic

    @property
    def live(self) -> str:
        return str((self.run.live(LANGUAGE) or {})["version"])

    def decisions(self, *kinds: str) -> list[dict[str, Any]]:
        return [
            each for each in jsonl_log.read(self.run, "decisions.jsonl") if each["kind"] in kinds and each["language"] == LANGUAGE
        ]


@pytest.fixture
def served(
    copy: Callable[..., RunDir], small: RunConfig, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Served]:
    """By ``SETTINGS`` and what a test gives besides."""
    run, config = copy(), with_overrides(small, [*SETTINGS, *getattr(request, "param", ())])
    monkeypatch.setenv("COMPASS_API_KEYS", ",".join(hash_key(key) for key in KEYS))
    registry.promote_first_versions(config, run)
    traffic = draw_demo_traffic(config, run, LANGUAGE, usual=80, shifted=400, new_share=0.7)
    endpoint = deployment.start(run.uri, config, port=0)
    yield Served(run, config, endpoint.url, traffic)
    deployment.stop(endpoint)


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Ask again until it holds; what is waited for is in other processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s"
        threading.Event().wait(0.1)


def kill(title: str) -> None:
    """SIGKILL the processes of this Ray with such a title, once there are some."""

    def found() -> list[psutil.Process]:
        return [each for each in psutil.Process().children(recursive=True) if _title(each).startswith(title)]

    until(lambda: bool(found()), title, 120)
    for process in found():
        process.send_signal(signal.SIGKILL)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


@pytest.mark.parametrize("served", [CANARY], indirect=True, ids=["canary"])
def test_shifted_traffic_is_answered_with_a_version_that_is_taken_back_when_it_worsens(served: Served) -> None:
    with Users(served.url, served.traffic.usual) as users:
        until(lambda: users.sent > 60, "traffic of the usual kind")
    with Users(served.url, served.traffic.shifted, rating="good") as shifted:
        until(lambda: f"{LANGUAGE}@v0002" in shifted.adapters, "a new version in a reply", 300)
        until(lambda: served.live == "v0002", "its promotion")
        shifted.rating = "bad"
        until(lambda: bool(served.decisions("rollback")), "a roll-back")
        until(lambda: shifted.adapters[-8:] == [f"{LANGUAGE}@v0001"] * 8, "the old version in replies")
    assert users.failures + shifted.failures == []
    kinds = [each["kind"] for each in jsonl_log.read(served.run, "decisions.jsonl") if each["language"] == LANGUAGE]
    assert kinds[1:6] == ["drift", "gate", "canary", "promotion", "rollback"]
    (back,) = served.decisions("rollback")
    assert "feedback" in [leg["name"] for leg in back["legs"] if leg["p_value"] <= leg["level"] and leg["effect"] > leg["floor"]]
    monitor = monitor_actor.connect(served.run.uri, served.config)
    assert monitor.status()["languages"][LANGUAGE]["version"] == "v0001"
    assert monitor.signals(LANGUAGE)["v0002"].asked > 0, "both versions were asked questions"


def test_nothing_is_lost_and_nothing_done_twice_when_everything_is_killed_in_the_middle(served: Served) -> None:
    with Users(served.url, served.traffic.shifted) as users:
        kill("ray::MonitorActor")
        kill("ray::RayTrainWorker")
        kill("ray::ControllerActor")
        kill("ray::ServeReplica:compass-ray:adapters")
        kill("ray::RayTrainWorker")
        kill("ray::MonitorActor")
        until(lambda: f"{LANGUAGE}@v0002" in users.adapters, "a new version in a reply", 180)
    assert users.failures == []
    assert set(users.adapters) == {f"{LANGUAGE}@v0001", f"{LANGUAGE}@v0002"}
    gates = served.decisions("gate")
    assert [each["to"] for each in gates] == ["v0002"]
    assert served.run.adapter_versions(LANGUAGE).count("v0002") == 1
    assert served.run.adapter(LANGUAGE, "v0002").verify()
    monitor = monitor_actor.connect(served.run.uri, served.config)
    answered = len(users.acknowledged)
    until(lambda: monitor.status()["languages"][LANGUAGE]["prompts"] >= answered, f"{answered} prompts with the monitor")
    assert monitor.status()["languages"][LANGUAGE]["prompts"] == answered, "none counts twice"
