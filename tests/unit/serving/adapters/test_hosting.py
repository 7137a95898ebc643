"""Adapters that come, go and cannot be loaded, around a fake of what holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.serving import registry
from compass_ray.serving.adapters import hosting
from compass_ray.serving.adapters.hosting import AdapterHost
from compass_ray.serving.answering.backend import AdapterUnavailableError
from tests.unit.serving.fakes import Clock, MakeAdapter, Residents

LANGUAGES = ("sw", "de")


@pytest.fixture
def residents() -> Residents:
    return Residents()


@pytest.fixture
def host(residents: Residents, run: RunDir, clock: Clock) -> AdapterHost:
    return AdapterHost(residents, run, clock=clock)


def _follow(host: AdapterHost) -> dict[str, str]:
    return dict(host.follow(registry.catalogue(host.run, LANGUAGES)).live)


def _damage(run: RunDir, language: str, version: str) -> None:
    (Path(run.adapter(language, version).path) / "adapter_model.safetensors").write_bytes(b"torn")


def test_what_is_live_a_canary_or_a_shadow_is_loaded(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter
) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    make_adapter("de", "v0001")
    for code in LANGUAGES:
        registry.promote(run, code, "v0001")
    registry.canary(run, "sw", "v0002", 0.1)
    registry.shadow(run, "sw", "v0003")
    assert _follow(host) == {"sw": "v0001", "de": "v0001"}
    assert set(residents.names) == {"sw@v0001", "sw@v0002", "sw@v0003", "de@v0001"}
    assert host.catalogue.canaries["sw"].version == "v0002"
    assert host.catalogue.shadows == {"sw": "v0003"}


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_live(
    host: AdapterHost, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    _follow(host)
    registry.promote(run, "sw", "v0002")
    _damage(run, "sw", "v0002")
    assert _follow(host) == {"sw": "v0001"}
    assert "sw@v0002 cannot be loaded" in host.problems["sw@v0002"].reason
    clock.now += 1000
    assert _follow(host) == {"sw": "v0001"}


def test_a_canary_that_cannot_be_loaded_is_not_offered(host: AdapterHost, run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    registry.canary(run, "sw", "v0002", 0.5)
    _damage(run, "sw", "v0002")
    assert _follow(host) == {"sw": "v0001"}
    assert host.catalogue.canaries == {}


def test_a_version_that_was_mended_is_loaded_after_a_while(
    host: AdapterHost, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001")
    whole = run.adapter("sw", "v0001").read_bytes("adapter_model.safetensors")
    _damage(run, "sw", "v0001")
    assert _follow(host) == {}
    run.adapter("sw", "v0001").store_bytes("adapter_model.safetensors", whole)
    assert _follow(host) == {}
    clock.now += hosting.RETRY_SECONDS
    assert _follow(host) == {"sw": "v0001"}
    assert host.problems == {}


def test_a_version_asked_for_is_loaded_then_and_a_missing_one_is_refused(
    host: AdapterHost, residents: Residents, make_adapter: MakeAdapter
) -> None:
    make_adapter("sw", "v0001")
    assert not host.ready(["sw@v0001"])
    host.ensure("sw@v0001")
    assert host.ready(["sw@v0001"])
    assert residents.names == ("sw@v0001",)
    with pytest.raises(AdapterUnavailableError, match="sw@v0009 cannot be loaded"):
        host.ensure("sw@v0009")


def test_what_is_no_longer_live_is_unloaded_only_once_idle(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    for version in ("v0001", "v0002"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version)
        _follow(host)
    assert set(residents.names) == {"sw@v0001", "sw@v0002"}
    clock.now += hosting.IDLE_SECONDS - 1
    assert host.ready(["sw@v0001"])
    clock.now += 2
    _follow(host)
    assert set(residents.names) == {"sw@v0001", "sw@v0002"}
    clock.now += hosting.IDLE_SECONDS
    _follow(host)
    assert residents.names == ("sw@v0002",)
