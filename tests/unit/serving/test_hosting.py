"""Adapters that come, go and cannot be loaded, around a fake engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.serving import hosting, registry
from compass_ray.serving.backend import AdapterUnavailableError, Answer, BadOrderError, Order
from compass_ray.serving.hosting import AdapterHost
from tests.unit.serving.fakes import Clock, EchoEngine, MakeAdapter

LANGUAGES = ("sw", "de")


@pytest.fixture
def engine() -> EchoEngine:
    return EchoEngine()


@pytest.fixture
def host(engine: EchoEngine, run: RunDir, clock: Clock) -> AdapterHost:
    return AdapterHost(engine, run, max_prompt_tokens=5, clock=clock)


def _follow(host: AdapterHost) -> dict[str, str]:
    return dict(host.follow(registry.catalogue(host.run, LANGUAGES)).live)


def _order(adapter: str | None, text: str = "habari") -> Order:
    return Order((("user", text),), adapter, 8)


def _damage(run: RunDir, language: str, version: str) -> None:
    (Path(run.adapter(language, version).path) / "adapter_model.safetensors").write_bytes(b"torn")


def test_live_versions_are_loaded_and_orders_of_several_adapters_share_a_batch(
    host: AdapterHost, engine: EchoEngine, run: RunDir, make_adapter: MakeAdapter
) -> None:
    for code in LANGUAGES:
        make_adapter(code, "v0001")
        registry.promote(run, code, "v0001")
    assert _follow(host) == {"sw": "v0001", "de": "v0001"}
    answers = host.generate([_order("sw@v0001"), _order(None), _order("de@v0001")])
    assert [a.adapter for a in answers if isinstance(a, Answer)] == ["sw@v0001", None, "de@v0001"]
    assert engine.batches == [3]


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
    assert "sw@v0002 cannot be loaded" in host.state().problems["sw@v0002"]
    clock.now += 1000
    assert _follow(host) == {"sw": "v0001"}


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
    assert host.state().problems == {}


def test_one_order_that_cannot_be_answered_does_not_fail_its_batch(
    host: AdapterHost, run: RunDir, make_adapter: MakeAdapter
) -> None:
    make_adapter("sw", "v0001")
    orders = [
        _order("sw@v0001"),
        _order("sw@v0009"),
        _order(None, "much too long a text to prefill"),
        Order((("system", "be brief"), ("user", "habari")), None, 8),
        _order(None),
    ]
    outcomes = host.generate(orders)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Answer, AdapterUnavailableError, BadOrderError, BadOrderError, Answer]
    assert "has 7 tokens, 5 are the most" in str(outcomes[2])


def test_what_is_no_longer_live_is_unloaded_only_once_idle(
    host: AdapterHost, engine: EchoEngine, run: RunDir, make_adapter: MakeAdapter, clock: Clock
) -> None:
    for version in ("v0001", "v0002"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version)
        _follow(host)
    assert set(engine.names) == {"sw@v0001", "sw@v0002"}
    clock.now += hosting.IDLE_SECONDS - 1
    host.generate([_order("sw@v0001")])
    clock.now += 2
    _follow(host)
    assert set(engine.names) == {"sw@v0001", "sw@v0002"}
    clock.now += hosting.IDLE_SECONDS
    _follow(host)
    assert engine.names == ("sw@v0002",)
