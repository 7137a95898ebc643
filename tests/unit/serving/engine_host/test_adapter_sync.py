"""Loading, unloading and failing adapters, with a fake adapter loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.engine.protocol import EngineStoppedError
from compass_ray.registry import Catalogue
from compass_ray.serving.engine_host import adapter_sync
from compass_ray.serving.engine_host.adapter_sync import AdapterHost, HostState, merge_host_state
from compass_ray.serving.inference.backend import AdapterUnavailableError
from tests.unit.fakes import Clock, MakeAdapter, Residents

LANGUAGES = ("sw", "de")


@pytest.fixture
def residents() -> Residents:
    return Residents()


@pytest.fixture
def host(residents: Residents, run: RunDir, clock: Clock) -> AdapterHost:
    return AdapterHost(residents, run, clock=clock)


def _sync(host: AdapterHost) -> dict[str, str]:
    return dict(host.sync(registry.read_catalogue(host.run, LANGUAGES)).live)


def _damage(run: RunDir, language: str, version: str) -> None:
    (Path(run.adapter(language, version).path) / "adapter_model.safetensors").write_bytes(b"torn")


def test_live_canary_and_shadow_versions_are_loaded(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter
) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    make_adapter("de", "v0001")
    for code in LANGUAGES:
        registry.promote(run, code, "v0001")
    registry.set_canary(run, "sw", "v0002", 0.1)
    registry.set_shadow(run, "sw", "v0003")
    assert _sync(host) == {"sw": "v0001", "de": "v0001"}
    assert set(residents.names) == {"sw@v0001", "sw@v0002", "sw@v0003", "de@v0001"}
    assert host.catalogue.canaries["sw"].version == "v0002"
    assert host.catalogue.shadows == {"sw": "v0003"}


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_live(
    host: AdapterHost, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    _sync(host)
    registry.promote(run, "sw", "v0002")
    _damage(run, "sw", "v0002")
    assert _sync(host) == {"sw": "v0001"}
    assert host.problems["sw@v0002"].reason.startswith("sw@v0002 cannot be served: ")
    clock.now += 1000
    assert _sync(host) == {"sw": "v0001"}


def test_a_canary_that_cannot_be_loaded_is_not_offered(host: AdapterHost, run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    registry.set_canary(run, "sw", "v0002", 0.5)
    _damage(run, "sw", "v0002")
    assert _sync(host) == {"sw": "v0001"}
    assert host.catalogue.canaries == {}


def test_a_repaired_version_is_loaded_after_the_retry_delay(
    host: AdapterHost, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001")
    weights = run.adapter("sw", "v0001").read_bytes("adapter_model.safetensors")
    _damage(run, "sw", "v0001")
    assert _sync(host) == {}
    run.adapter("sw", "v0001").store_bytes("adapter_model.safetensors", weights)
    assert _sync(host) == {}
    clock.now += adapter_sync.RETRY_SECONDS
    assert _sync(host) == {"sw": "v0001"}
    assert host.problems == {}


def test_a_stopped_engine_is_no_problem_of_an_adapter(
    host: AdapterHost, residents: Residents, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, folder: Path) -> None:
        raise EngineStoppedError("stopped")

    make_adapter("sw", "v0001")
    monkeypatch.setattr(residents, "load", fail)
    with pytest.raises(EngineStoppedError):
        host.ensure_loaded("sw@v0001")
    assert not host.problems


def test_a_requested_version_is_loaded_on_demand_and_a_missing_one_is_refused(
    host: AdapterHost, residents: Residents, make_adapter: MakeAdapter
) -> None:
    make_adapter("sw", "v0001")
    assert not host.is_loaded(["sw@v0001"])
    host.ensure_loaded("sw@v0001")
    assert host.is_loaded(["sw@v0001"])
    assert residents.names == ("sw@v0001",)
    with pytest.raises(AdapterUnavailableError, match=r"^sw@v0009 cannot be served: "):
        host.ensure_loaded("sw@v0009")


def test_a_version_that_is_no_longer_live_is_unloaded_when_idle(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    for version in ("v0001", "v0002"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version)
        _sync(host)
    assert set(residents.names) == {"sw@v0001", "sw@v0002"}
    clock.now += adapter_sync.IDLE_SECONDS - 1
    assert host.is_loaded(["sw@v0001"])
    clock.now += 2
    _sync(host)
    assert set(residents.names) == {"sw@v0001", "sw@v0002"}
    clock.now += adapter_sync.IDLE_SECONDS
    _sync(host)
    assert residents.names == ("sw@v0002",)


def test_a_failure_of_one_adapter_does_not_affect_the_others(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in LANGUAGES:
        make_adapter(code, "v0001")
        registry.promote(run, code, "v0001")

    def load(name: str, folder: Path) -> None:
        if name.startswith("sw"):
            raise MemoryError("no room on the device")
        residents.loaded[name] = b""

    monkeypatch.setattr(residents, "load", load)
    assert _sync(host) == {"de": "v0001"}
    assert "no room" in host.state(0, 0).problems["sw@v0001"]


def test_an_adapter_of_another_base_model_is_never_loaded(host: AdapterHost, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001", base="organisation/another")
    with pytest.raises(AdapterUnavailableError, match="trained on base model"):
        host.ensure_loaded("sw@v0001")


def test_versions_requested_by_name_do_not_fill_the_memory(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_sync, "MAX_UNSERVED_VERSIONS", 2)
    for version in ("v0001", "v0002", "v0003", "v0004"):
        make_adapter("sw", version)
    make_adapter("de", "v0001")
    for code in LANGUAGES:
        registry.promote(run, code, "v0001")
    _sync(host)
    for version in ("v0002", "v0003", "v0004"):
        clock.now += 1
        host.ensure_loaded(f"sw@{version}")
    assert set(residents.names) == {"sw@v0001", "de@v0001", "sw@v0003", "sw@v0004"}


def test_all_live_versions_are_loaded_beyond_the_limit(
    host: AdapterHost, residents: Residents, run: RunDir, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_sync, "MAX_UNSERVED_VERSIONS", 1)
    for code in LANGUAGES:
        make_adapter(code, "v0001")
        registry.promote(run, code, "v0001")
    assert _sync(host) == {"sw": "v0001", "de": "v0001"}
    assert set(residents.names) == {"sw@v0001", "de@v0001"}


def test_a_replica_that_cannot_load_a_live_version_does_not_remove_it() -> None:
    def catalogue(**live: str) -> Catalogue:
        return Catalogue(live=live, versions={"sw": ("v0001", "v0002")})

    behind = HostState(catalogue(sw="v0001"), {}, desired_live={"sw": "v0002"})
    ahead = HostState(catalogue(sw="v0002"), {}, desired_live={"sw": "v0002"})
    without = HostState(catalogue(), {}, desired_live={"sw": "v0002"})
    rolled_back = HostState(catalogue(sw="v0001"), {}, desired_live={"sw": "v0001"})
    gone = HostState(catalogue(), {}, desired_live={})
    known = merge_host_state(catalogue(sw="v0001"), behind)
    assert known.live == {"sw": "v0001"}
    known = merge_host_state(known, ahead)
    assert merge_host_state(known, behind).live == merge_host_state(known, without).live == {"sw": "v0002"}
    assert merge_host_state(known, rolled_back).live == {"sw": "v0001"}
    assert merge_host_state(known, gone).live == {}
