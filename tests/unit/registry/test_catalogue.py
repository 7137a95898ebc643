"""What a polling replica reads from the registry, and how many requests to the store it takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import parse_config
from compass_ray.models.model_resolver import model_identity
from compass_ray.registry import Catalogue, CatalogueReader
from tests.unit.fakes import BASE, Clock, MakeAdapter

LANGUAGES = ("sw", "de")


@pytest.fixture
def reader(run: RunDir, clock: Clock) -> CatalogueReader:
    return CatalogueReader(run, LANGUAGES, clock)


def _after(reader: CatalogueReader, clock: Clock, seconds: float) -> Catalogue:
    clock.now += seconds
    return reader.read()


def test_every_change_is_seen_at_the_next_read(
    run: RunDir, reader: CatalogueReader, make_adapter: MakeAdapter, clock: Clock
) -> None:
    assert reader.read() == Catalogue({}, {})
    for version in ("v0001", "v0002"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001")
    found = _after(reader, clock, 1)
    assert (found.live, found.versions) == ({"sw": "v0001"}, {"sw": ("v0001", "v0002")})
    registry.set_canary(run, "sw", "v0002", 0.1)
    assert _after(reader, clock, 1).canaries["sw"].version == "v0002"
    registry.promote(run, "sw", "v0002")
    assert _after(reader, clock, 10) == Catalogue({"sw": "v0002"}, {"sw": ("v0001", "v0002")}, previous={"sw": "v0001"})
    run.clear_live("sw")
    assert _after(reader, clock, 1).live == {}


def test_a_new_version_that_nothing_points_at_is_seen_within_seconds(
    reader: CatalogueReader, make_adapter: MakeAdapter, clock: Clock
) -> None:
    reader.read()
    make_adapter("de", "v0001")
    assert _after(reader, clock, 1).versions == {}
    assert _after(reader, clock, 4).versions == {"de": ("v0001",)}


def test_a_language_with_a_damaged_pointer_keeps_its_state_until_the_pointer_is_repaired(
    run: RunDir, reader: CatalogueReader, make_adapter: MakeAdapter, clock: Clock
) -> None:
    for code in LANGUAGES:
        make_adapter(code, "v0001")
        registry.promote(run, code, "v0001")
    reader.read()
    pointer = Path(run.path) / "serving" / "live" / "sw.json"
    pointer.write_bytes(b"{")
    for _ in range(4):
        found = _after(reader, clock, 1)
        assert found.live == {"sw": "v0001", "de": "v0001"}
        assert list(found.problems) == ["sw"]
    registry.promote(run, "sw", "v0001", force=True)
    assert _after(reader, clock, 1).problems == {}


def test_a_pointer_that_could_not_be_read_for_a_moment_is_read_again(
    run: RunDir, reader: CatalogueReader, make_adapter: MakeAdapter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001")

    def fail(run: RunDir, language: str) -> Any:
        raise ArtifactError("the store fails")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "live", fail)
        for _ in range(4):
            assert "the store fails" in _after(reader, clock, 1).problems["sw"]
    assert _after(reader, clock, 1) == Catalogue({"sw": "v0001"}, {"sw": ("v0001",)})


def test_two_changes_with_equal_etags_are_both_seen(
    run: RunDir, reader: CatalogueReader, make_adapter: MakeAdapter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a store with a clock in seconds, when a pointer is replaced by one of equal length."""
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    monkeypatch.setattr(RunDir, "live_pointer_etags", lambda run: {"sw": (1, 1)})
    run.set_live("sw", {"version": "v0001"})
    assert reader.read().live == {"sw": "v0001"}
    run.set_live("sw", {"version": "v0002"})
    assert _after(reader, clock, 1).live == {"sw": "v0002"}


class CountedS3:
    """An S3 server that records its requests."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self.seen: list[str] = []
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        return self._app(environ, start_response)


@pytest.fixture
def counted(moto_s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedS3]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = CountedS3()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    yield server
    server.stop()


def test_polling_costs_one_request_per_read_for_any_number_of_languages(counted: CountedS3, s3_uri: str, clock: Clock) -> None:
    codes = ["sw", "de", "yo", "hi", "am", "ha"]
    run = RunDir(s3_uri)
    run.write_config(parse_config({"languages": codes, "train": {"base_model": BASE}}))
    for code in codes:
        for version in ("v0001", "v0002"):
            config = {"base_model": model_identity(BASE, None), "v": version}
            run.adapter(code, version).begin(Identity("train", config, {})).publish()
        registry.promote(run, code, "v0001")
    reader = CatalogueReader(run, codes, clock)
    assert len(reader.read().live) == 6
    for _ in range(3):
        _after(reader, clock, 1)
    counted.seen.clear()
    _after(reader, clock, 1)
    assert len(counted.seen) == 1
    registry.promote(run, "sw", "v0002")
    counted.seen.clear()
    assert _after(reader, clock, 1).live["sw"] == "v0002"
    assert len(counted.seen) <= 5, "two listings and one pointer"
