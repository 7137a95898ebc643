"""Canaries and shadows: which versions may become one, how each ends, and that each change is atomic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import ConfigError
from compass_ray.records.checks import StatTestRecord
from compass_ray.registry import Canary, RegistryError
from tests.unit.fakes import Clock, MakeAdapter

TEST = StatTestRecord(name="loss", p_value=0.001, level=0.01, effect=0.3, floor=0.1, n_reference=50, n_window=50)


@pytest.fixture
def served(run: RunDir, make_adapter: MakeAdapter) -> RunDir:
    """A run that serves ``v0001`` of Swahili and has two more versions."""
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001")
    return run


def _catalogue(run: RunDir) -> registry.Catalogue:
    return registry.read_catalogue(run, ["sw"])


def _last(run: RunDir) -> tuple[str, str, str]:
    line = jsonl_log.read(run, "decisions.jsonl")[-1]
    return line["kind"], line["from"], line["to"]


def test_a_canary_is_widened_and_concluded_by_its_promotion(served: RunDir, clock: Clock) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05, reason="first look", clock=clock)
    assert _catalogue(served).canaries == {"sw": Canary("v0002", 0.05)}
    registry.set_canary(served, "sw", "v0002", 0.5)
    assert _catalogue(served).canaries == {"sw": Canary("v0002", 0.5)}
    assert _last(served) == ("canary", "v0001", "v0002")
    assert jsonl_log.read(served, "decisions.jsonl")[1]["share"] == 0.05
    registry.promote(served, "sw", "v0002")
    found = _catalogue(served)
    assert (found.live, found.canaries) == ({"sw": "v0002"}, {})
    assert registry.roll_back(served, "sw")["version"] == "v0001"


def test_a_canary_is_stopped(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    with pytest.raises(RegistryError, match="sw@v0009 is not the canary; v0002 is"):
        registry.stop_canary(served, "sw", version="v0009")
    registry.stop_canary(served, "sw", reason="slower", evidence=[TEST])
    assert _catalogue(served).canaries == {}
    assert jsonl_log.read(served, "decisions.jsonl")[-1]["legs"] == [TEST.to_json()]
    assert _last(served) == ("canary ended", "v0001", "v0002")
    with pytest.raises(RegistryError, match="sw has no canary to stop; v0001 answers all"):
        registry.stop_canary(served, "sw")


def test_a_shadow_replaces_another_and_stops(served: RunDir) -> None:
    registry.set_shadow(served, "sw", "v0002")
    registry.set_shadow(served, "sw", "v0003")
    assert _catalogue(served).shadows == {"sw": "v0003"}
    registry.stop_shadow(served, "sw")
    assert (_catalogue(served).shadows, _last(served)) == ({}, ("shadow ended", "v0001", "v0003"))
    with pytest.raises(RegistryError, match="sw has no shadow"):
        registry.stop_shadow(served, "sw")


def test_promoting_a_version_ends_only_its_own_canary_or_shadow(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    registry.set_shadow(served, "sw", "v0003")
    registry.promote(served, "sw", "v0003")
    found = _catalogue(served)
    assert (found.live, found.canaries, found.shadows) == ({"sw": "v0003"}, {"sw": Canary("v0002", 0.05)}, {})


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_is_refused(served: RunDir, share: float) -> None:
    with pytest.raises(ConfigError, match=r"Invalid canary share .*Give a share between 0 and 1"):
        registry.set_canary(served, "sw", "v0002", share)


def test_one_canary_at_a_time(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    with pytest.raises(RegistryError, match=r"sw already has the canary v0002\. .*--stop"):
        registry.set_canary(served, "sw", "v0003", 0.05)


def test_a_pinned_language_may_have_a_shadow_but_no_canary(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.25)
    with pytest.raises(RegistryError, match=r"sw cannot be pinned to v0001 while the canary v0002 answers 25%"):
        registry.pin(served, "sw")
    registry.stop_canary(served, "sw")
    registry.pin(served, "sw")
    with pytest.raises(RegistryError, match="or make v0002 a shadow"):
        registry.set_canary(served, "sw", "v0002", 0.25)
    assert registry.set_shadow(served, "sw", "v0002")["shadow"] == "v0002"


SetCandidate = Callable[[RunDir, str], Any]
SETTERS: list[SetCandidate] = [
    lambda run, version: registry.set_canary(run, "sw", version, 0.1),
    lambda run, version: registry.set_shadow(run, "sw", version),
]


@pytest.mark.parametrize("set_candidate", SETTERS)
def test_a_version_that_cannot_be_served_is_refused(
    served: RunDir, make_adapter: MakeAdapter, set_candidate: SetCandidate
) -> None:
    make_adapter("sw", "v0004", base="organisation/other")
    (Path(served.adapter("sw", "v0002").path) / "adapter_model.safetensors").write_bytes(b"other")
    before = served.live("sw")
    for version, message in (
        ("v0001", "sw@v0001 is live and already answers every request"),
        ("v0002", "damaged"),
        ("v0004", "organisation/other.*Train it again"),
        ("v0009", "no such complete version"),
    ):
        with pytest.raises(RegistryError, match=message):
            set_candidate(served, version)
    assert served.live("sw") == before


def test_one_of_two_concurrent_changes_is_refused(served: RunDir) -> None:
    """Each thread reads the pointer before either replaces it."""
    start, read = threading.Barrier(2), RunDir.replace_live

    def together(run: RunDir, *words: Any) -> None:
        start.wait(5)
        read(run, *words)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(RunDir, "replace_live", together)
        tasks = [pool.submit(registry.set_canary, served, "sw", "v0002", 0.1), pool.submit(registry.pin, served, "sw")]
        errors = [task.exception() for task in tasks]
    [refused] = [error for error in errors if error]
    assert isinstance(refused, RegistryError)
    assert "Conflict: another process changed sw" in str(refused)
    pointer = served.live("sw") or {}
    assert ("canary" in pointer) != ("pinned" in pointer)
    assert [line["kind"] for line in jsonl_log.read(served, "decisions.jsonl")][1:] == [
        "canary" if "canary" in pointer else "pin"
    ]


@pytest.mark.parametrize("version", ["../de/v0001", "..", ".", "", "a/b", "a@b", "v0001 ", "v0001\n", "x" * 200])
def test_an_invalid_version_name_changes_nothing(served: RunDir, make_adapter: MakeAdapter, version: str) -> None:
    make_adapter("de", "v0001")
    before = served.live("sw")
    for change in (registry.promote, registry.set_shadow, lambda *of: registry.set_canary(*of, 0.5)):
        with pytest.raises(RegistryError, match="Invalid version name"):
            change(served, "sw", version)
    assert served.live("sw") == before
