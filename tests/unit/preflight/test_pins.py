"""Pins: written all at once, never changed, applied to unset revisions, and overridden by set ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig, load_run_config
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import model_identity
from compass_ray.preflight import Pins, apply_pins, pin, read_pins
from tests.unit.preflight.fake_hub import Hub

_NOW = datetime(2026, 11, 21, tzinfo=UTC)
_BASE, _SET = "1" * 38 + "e5", "b" * 40
_SETTINGS = ("train.base_model=org/base", "pool.sources.0.path=org/set", "pool.tests.path=org/set")


def _config(*more: str) -> RunConfig:
    return load_run_config("atlas-test", overrides=(*_SETTINGS, *more))


@pytest.fixture
def full(hub: Hub) -> Hub:
    hub.commits |= {"models/org/base": _BASE, "datasets/org/set": _SET}
    return hub


def test_every_repository_is_pinned_and_its_commit_filled_in_everywhere(full: Hub, run: RunDir) -> None:
    pins = pin(_config(), run, _NOW)
    assert pins == read_pins(run) == Pins(time=_NOW, models={"org/base": _BASE}, datasets={"org/set": _SET})
    config = apply_pins(_config(), pins).config
    assert config.train.revision == _BASE
    assert config.pool.sources[0].revision == config.pool.tests.revision == _SET
    assert config.pool.guides.revision is None  # the atlas's
    assert _BASE in model_identity(config.train.base_model, config.train.revision)


def test_nothing_else_of_the_configuration_changes(full: Hub, run: RunDir) -> None:
    config = apply_pins(_config(), pin(_config(), run, _NOW)).config
    unset = ("train.revision=null", "pool.sources.0.revision=null", "pool.tests.revision=null")
    assert load_run_config("atlas-test", overrides=(*_SETTINGS, *unset)) == _config()
    assert config.model_copy(update={"train": _config().train, "pool": _config().pool}) == _config()


def test_nothing_is_written_unless_every_commit_is_known(hub: Hub, run: RunDir) -> None:
    hub.commits["models/org/base"] = _BASE
    with pytest.raises(ModelError, match="nothing was pinned: org/set: the repository does not exist"):
        pin(_config(), run, _NOW)
    assert not Path(run.uri).exists()


def test_an_existing_pin_is_kept_and_needs_no_hub(full: Hub, run: RunDir) -> None:
    pin(load_run_config("atlas-test", overrides=_SETTINGS[:1]), run, _NOW)
    full.commits["models/org/base"] = "c" * 40
    full.requests.clear()
    pins = pin(_config(), run, _NOW)
    assert pins.models == {"org/base": _BASE}
    assert pins.datasets == {"org/set": _SET}
    assert not any("base" in path for path in full.requests)


def test_a_revision_in_the_settings_is_not_looked_up_and_overrides_the_pin(full: Hub, run: RunDir) -> None:
    pin(_config(), run, _NOW)
    found = apply_pins(_config("train.revision=v2"), read_pins(run))
    assert found.config.train.revision == "v2"
    [note] = found.overruled
    assert "train.revision=v2 overrides the run's pin" in note
    assert _BASE in note
    assert apply_pins(_config(f"train.revision='{_BASE}'"), read_pins(run)).overruled == ()


def test_a_run_without_pins_leaves_the_configuration_as_it_is(run: RunDir) -> None:
    assert read_pins(run) == Pins()
    assert apply_pins(_config(), Pins()).config == _config()


def test_damaged_pins_are_an_error(run: RunDir) -> None:
    run.write_pins(b'{"models": [')
    with pytest.raises(ArtifactError, match=r"pins\.json is damaged; remove it"):
        read_pins(run)


_CODE = "c" * 40
_TRUSTED = "train.trust_remote_code=true"


def test_the_repository_of_a_model_s_code_is_pinned_too(full: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def code_repository(name: str, revision: str | None) -> str:
        asked.append((name, revision))
        return "org/code"

    monkeypatch.setattr("compass_ray.preflight.pins.code_repository", code_repository)
    full.commits["models/org/code"] = _CODE
    assert pin(_config(), run, _NOW).code == {}  # nothing runs
    pins = pin(_config(_TRUSTED), run, _NOW)
    assert (pins.models, pins.code) == ({"org/base": _BASE, "org/code": _CODE}, {"org/base": "org/code"})
    assert asked == [("org/base", _BASE)]  # the files of the pinned commit
    assert apply_pins(_config(_TRUSTED), pins).config.train.code_revision == _CODE
    assert apply_pins(_config(), pins).config.train.code_revision is None
    full.commits["models/org/code"] = "d" * 40
    assert pin(_config(_TRUSTED), run, _NOW) == pins
    [note] = apply_pins(_config(_TRUSTED, "train.code_revision=v2"), pins).overruled
    assert "train.code_revision=v2 overrides the run's pin of org/code" in note


def test_code_in_the_model_s_own_repository_gets_the_model_s_commit(
    full: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compass_ray.preflight.pins.code_repository", lambda name, revision: name)
    pins = pin(_config(_TRUSTED), run, _NOW)
    assert pins.models == {"org/base": _BASE}
    config = apply_pins(_config(_TRUSTED), pins).config
    assert (config.train.revision, config.train.code_revision) == (_BASE, _BASE)


def test_a_setting_without_effect_on_the_results_leaves_the_fingerprint() -> None:
    trusted = _config(_TRUSTED, "train.unpinned_code=true", "embed.unpinned_code=true")
    assert trusted.train.identity() == _config(_TRUSTED).train.identity()
    assert trusted.embed.identity() == _config().embed.identity()
    assert not {"code_revision", "unpinned_code"} & trusted.train.identity().keys()
    assert not {"code_revision", "unpinned_code", "adapter", "pooling"} & trusted.embed.identity().keys()
    assert _config(_TRUSTED, "train.code_revision=v2").train.identity()["code_revision"] == "v2"
