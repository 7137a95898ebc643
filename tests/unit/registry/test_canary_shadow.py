"""Canaries and shadows: who may become one, how each ends, and that nothing of it is half done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError
from compass_ray.registry import Canary, RegistryError
from tests.unit.fakes import Clock, MakeAdapter


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
    line = registry.read_decisions(run)[-1]
    return line["kind"], line["from"], line["to"]


def test_a_canary_is_widened_and_concluded_by_its_promotion(served: RunDir, clock: Clock) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05, reason="first look", clock=clock)
    assert _catalogue(served).canaries == {"sw": Canary("v0002", 0.05)}
    registry.set_canary(served, "sw", "v0002", 0.5)
    assert _catalogue(served).canaries == {"sw": Canary("v0002", 0.5)}
    assert _last(served) == ("canary", "v0001", "v0002")
    assert registry.read_decisions(served)[1]["share"] == 0.05
    registry.promote(served, "sw", "v0002")
    found = _catalogue(served)
    assert (found.live, found.canaries) == ({"sw": "v0002"}, {})
    assert registry.roll_back(served, "sw")["version"] == "v0001"


def test_a_canary_is_ended(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    with pytest.raises(RegistryError, match="the trial of sw@v0009 was to end, and v0002 is tried"):
        registry.stop_canary(served, "sw", version="v0009")
    registry.stop_canary(served, "sw", reason="slower", evidence={"legs": [1]})
    assert _catalogue(served).canaries == {}
    assert registry.read_decisions(served)[-1]["legs"] == [1]
    assert _last(served) == ("canary ended", "v0001", "v0002")
    with pytest.raises(RegistryError, match="sw has no canary: v0001 answers all"):
        registry.stop_canary(served, "sw")


def test_a_shadow_follows_another_and_ends(served: RunDir) -> None:
    registry.set_shadow(served, "sw", "v0002")
    registry.set_shadow(served, "sw", "v0003")
    assert _catalogue(served).shadows == {"sw": "v0003"}
    registry.stop_shadow(served, "sw")
    assert (_catalogue(served).shadows, _last(served)) == ({}, ("shadow ended", "v0001", "v0003"))
    with pytest.raises(RegistryError, match="sw has no shadow"):
        registry.stop_shadow(served, "sw")


def test_trials_of_other_versions_go_on_when_one_is_promoted(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    registry.set_shadow(served, "sw", "v0003")
    registry.promote(served, "sw", "v0003")
    found = _catalogue(served)
    assert (found.live, found.canaries, found.shadows) == ({"sw": "v0003"}, {"sw": Canary("v0002", 0.05)}, {})


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_is_refused(served: RunDir, share: float) -> None:
    with pytest.raises(ConfigError, match=r"share is .*; give one between 0 and 1"):
        registry.set_canary(served, "sw", "v0002", share)


def test_one_canary_at_a_time(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.05)
    with pytest.raises(RegistryError, match=r"sw has the canary v0002 already; .*--stop"):
        registry.set_canary(served, "sw", "v0003", 0.05)


def test_a_pin_bears_no_canary_but_a_shadow(served: RunDir) -> None:
    registry.set_canary(served, "sw", "v0002", 0.25)
    with pytest.raises(RegistryError, match=r"sw cannot be pinned to v0001 while v0002 answers 25%"):
        registry.pin(served, "sw")
    registry.stop_canary(served, "sw")
    registry.pin(served, "sw")
    with pytest.raises(RegistryError, match="or try v0002 as a shadow"):
        registry.set_canary(served, "sw", "v0002", 0.25)
    assert registry.set_shadow(served, "sw", "v0002")["shadow"] == "v0002"


Try = Callable[[RunDir, str], Any]
TRIALS: list[Try] = [
    lambda run, version: registry.set_canary(run, "sw", version, 0.1),
    lambda run, version: registry.set_shadow(run, "sw", version),
]


@pytest.mark.parametrize("trial", TRIALS)
def test_what_cannot_be_served_is_not_tried(served: RunDir, make_adapter: MakeAdapter, trial: Try) -> None:
    make_adapter("sw", "v0004", base="organisation/other")
    (Path(served.adapter("sw", "v0002").path) / "adapter_model.safetensors").write_bytes(b"other")
    before = served.live("sw")
    for version, told in (
        ("v0001", "sw@v0001 is live and answers every request already"),
        ("v0002", "damaged"),
        ("v0004", "organisation/other.*train it again"),
        ("v0009", "no such whole version"),
    ):
        with pytest.raises(RegistryError, match=told):
            trial(served, version)
    assert served.live("sw") == before


def test_of_two_changes_at_once_one_is_refused(served: RunDir) -> None:
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
    assert "was changed meanwhile" in str(refused)
    pointer = served.live("sw") or {}
    assert ("canary" in pointer) != ("pinned" in pointer)
    assert [line["kind"] for line in registry.read_decisions(served)][1:] == ["canary" if "canary" in pointer else "pin"]


@pytest.mark.parametrize("version", ["../de/v0001", "..", ".", "", "a/b", "a@b", "v0001 ", "v0001\n", "x" * 200])
def test_what_is_no_name_of_a_version_changes_nothing(served: RunDir, make_adapter: MakeAdapter, version: str) -> None:
    make_adapter("de", "v0001")
    before = served.live("sw")
    for change in (registry.promote, registry.set_shadow, lambda *of: registry.set_canary(*of, 0.5)):
        with pytest.raises(RegistryError, match="is no name of a version"):
            change(served, "sw", version)
    assert served.live("sw") == before
