"""The pipeline: complete artifacts are reused, other settings stop it, and bad input leaves no complete artifact."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline, preflight
from compass_ray.artifacts import (
    ArtifactError,
    FingerprintMismatchError,
    Identity,
    LanguagesFailedError,
    Manifest,
    RunDir,
    read_attempts,
)
from compass_ray.config import ConfigError, RunConfig, load_run_config
from compass_ray.models.errors import ModelError
from compass_ray.pipeline import Stage, StageStatus, collect_status, incomplete_stages, run_all

NAMES = ("pool", "embed", "train")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three stages that publish one artifact each, made of the seed and the previous one; the list of stages that ran."""
    calls: list[str] = []

    def stage(name: str) -> Stage:
        def make(config: RunConfig, run: RunDir, *, force: bool, progress: Callable[..., None]) -> list[Manifest]:
            identity = Identity(name, {"seed": config.seed}, {})
            artifact = run.artifact(name)
            if done := artifact.find_complete(identity, force=force):
                return [done]
            calls.append(name)
            progress(name, 1, 1)
            return [artifact.begin(identity).publish()]

        return Stage(name, make, lambda config, run: [run.artifact(name)])

    monkeypatch.setattr(pipeline, "STAGES", tuple(stage(name) for name in NAMES))
    return calls


def test_stages_come_in_order_and_only_once(run: RunDir, made: list[str]) -> None:
    seconds = run_all(load_run_config("atlas-test"), run)
    assert tuple(seconds) == tuple(made) == NAMES
    run_all(load_run_config("atlas-test"), run)
    assert tuple(made) == NAMES


def test_until_is_the_last_stage(run: RunDir, made: list[str]) -> None:
    run_all(load_run_config("atlas-test"), run, until="embed")
    assert made == ["pool", "embed"]
    assert collect_status(load_run_config("atlas-test"), run) == [
        StageStatus("pool", 1, 1),
        StageStatus("embed", 1, 1),
        StageStatus("train", 0, 1),
    ]


def test_force_recomputes_that_stage_only(run: RunDir, made: list[str]) -> None:
    run_all(load_run_config("atlas-test"), run)
    run_all(load_run_config("atlas-test"), run, force=["embed"])
    assert made == [*NAMES, "embed"]


def test_a_stage_is_incomplete_until_complete_or_if_forced(run: RunDir, made: list[str]) -> None:
    config = load_run_config("atlas-test")
    run.artifact("train").begin(Identity("train", {"seed": config.seed}, {})).publish()
    assert incomplete_stages(config, run, None, ()) == {"pool", "embed"}
    assert incomplete_stages(config, run, "pool", ()) == {"pool"}
    run_all(config, run)
    assert incomplete_stages(config, run, None, ()) == frozenset()
    assert incomplete_stages(config, run, None, ["embed"]) == {"embed"}


@pytest.mark.parametrize("asked", [{"until": "trane"}, {"force": ["pool", "trane"]}])
def test_an_unknown_stage_is_refused_before_anything_is_written(run: RunDir, made: list[str], asked: Any) -> None:
    with pytest.raises(ConfigError, match="unknown stage 'trane'; the stages are pool, embed, train"):
        run_all(load_run_config("atlas-test"), run, **asked)
    assert made == []
    assert not Path(run.uri).exists()


def test_a_run_of_other_settings_stops_and_keeps_its_record(run: RunDir, made: list[str]) -> None:
    config = load_run_config("atlas-test")
    run_all(config, run)
    with pytest.raises(FingerprintMismatchError, match=r"pool was made with other settings: seed was 0, is 7"):
        run_all(load_run_config("atlas-test", overrides=["seed=7"]), run)
    assert run.read_config() == config
    assert tuple(made) == NAMES


def test_a_stage_that_fails_leaves_the_earlier_ones_and_the_settings(
    run: RunDir, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **named: Any) -> list[Manifest]:
        raise ArtifactError("no space left")

    stages = pipeline.STAGES
    monkeypatch.setattr(pipeline, "STAGES", (*stages[:2], Stage("train", fail, stages[2].artifacts)))
    with pytest.raises(ArtifactError, match="no space left"):
        run_all(load_run_config("atlas-test"), run)
    assert run.read_config() == load_run_config("atlas-test")
    monkeypatch.setattr(pipeline, "STAGES", stages)
    run_all(load_run_config("atlas-test"), run)
    assert tuple(made) == NAMES


def test_resources_may_differ_and_are_recorded(run: RunDir, made: list[str]) -> None:
    run_all(load_run_config("atlas-test"), run)
    wider = load_run_config("atlas-test", overrides=["resources.train_workers=8"])
    run_all(wider, run)
    assert tuple(made) == NAMES
    assert run.read_config() == wider


def test_the_status_of_an_empty_run_counts_all_artifacts(run: RunDir) -> None:
    config = load_run_config("atlas-test")
    found = {status.name: (status.complete, status.total) for status in collect_status(config, run)}
    languages, methods = len(config.languages), len(config.select.methods)
    assert found == {
        "pool": (0, 1 + languages),
        "embed": (0, 1 + languages),
        "cluster": (0, 1),
        "select": (0, languages * methods),
        "train": (0, languages * methods),
        "evaluate": (0, languages * (methods + 1)),
        "report": (0, 1),
    }


# Bad input found before any work: a helpful error, and no complete artifact.


def _nothing_is_complete(config: RunConfig, run: RunDir) -> bool:
    return all(status.complete == 0 for status in collect_status(config, run))


def test_an_unknown_language_is_refused_before_anything_is_read(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="did you mean 'sw'"):
        load_run_config("atlas-test", languages=["sw", "swahili"])
    assert _nothing_is_complete(load_run_config("atlas-test"), run)


@pytest.mark.parametrize(("setting", "until"), [("embed.encoder", "embed"), ("train.base_model", "report")])
def test_a_missing_model_is_found_before_any_work(run: RunDir, setting: str, until: str) -> None:
    config = load_run_config("atlas-test", overrides=[f"{setting}=/nowhere/model"])
    with pytest.raises(ModelError, match="'/nowhere/model' does not exist on this machine; use an existing directory"):
        run_all(config, run, until=until)
    assert not Path(run.uri).exists()


@pytest.mark.parametrize(
    ("override", "found"),
    [("select.transfer.results=none.csv", "none.csv cannot be read"), ("select.transfer.languages=2", "lightgbm")],
)
def test_missing_requirements_of_langrank_are_reported_before_any_work(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, override: str, found: str
) -> None:
    if found == "lightgbm":
        known = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lightgbm" else known(name, *a))
    config = load_run_config("atlas-test", overrides=["select.methods=[langrank, compass]", override])
    with pytest.raises((ConfigError, ModelError), match=found):
        run_all(config, run)
    assert not Path(run.uri).exists()
    [result] = [each for each in preflight.run_checks(config, run) if each.check == "methods"]
    assert result.blocking
    assert found in result.found


def _failing(monkeypatch: pytest.MonkeyPatch, failing: dict[str, set[str]]) -> dict[str, list[str]]:
    """Four stages that publish one artifact per language or fail as listed; the languages that each stage got."""
    given: dict[str, list[str]] = {}

    def make(name: str, run: RunDir, codes: list[str]) -> list[str]:
        bad = [code for code in codes if code in failing.get(name, ())]
        given.setdefault(name, []).extend(codes)
        for code in set(codes) - set(bad):
            run.artifact(name, code).begin(Identity(name, {}, {})).publish()
        return bad

    def stage(name: str) -> Stage:
        def complete(config: RunConfig, run: RunDir, *, ready: Callable[[str], None] = lambda code: None, **_: Any) -> list[Any]:
            bad = make(name, run, list(config.languages))
            for code in config.languages:
                if code not in bad:
                    ready(code)
            if bad:
                raise LanguagesFailedError(dict.fromkeys(bad, f"{name} broke"))
            return []

        return Stage(name, complete, lambda c, r: [r.artifact(name, code) for code in c.languages])

    class Feed:
        def __init__(self, config: RunConfig, run: RunDir, **_: Any) -> None:
            self._run, self.failures = run, dict[str, str]()

        def start(self, code: str) -> None:
            self.failures |= dict.fromkeys(make("train", self._run, [code]), "train broke")

        def __enter__(self) -> Feed:
            return self

        def __exit__(self, *_: object) -> None:
            """All work ended when it was started."""

    fed: Any = Feed
    train = replace(stage("train"), open_feed=fed)
    monkeypatch.setattr(pipeline, "STAGES", (stage("pool"), stage("select"), train, stage("evaluate")))
    return given


def test_failed_languages_are_left_out_and_reported_and_the_others_finish(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _failing(monkeypatch, {"select": {"hi"}, "train": {"ru"}})
    config = load_run_config("atlas-test", languages=["sw", "hi", "ru", "am"])
    with pytest.raises(LanguagesFailedError, match=r"2 languages failed.*hi: select broke; ru: train broke") as raised:
        run_all(config, run)
    assert given == {
        "pool": ["sw", "hi", "ru", "am"],
        "select": ["sw", "hi", "ru", "am"],
        "train": ["sw", "ru", "am"],
        "evaluate": ["sw", "am"],
    }
    assert set(raised.value.failures) == {"hi", "ru"}


def test_the_run_stops_without_a_language(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _failing(monkeypatch, {"pool": {"sw", "hi"}})
    with pytest.raises(LanguagesFailedError, match="2 languages failed"):
        run_all(load_run_config("atlas-test", languages=["sw", "hi"]), run)
    assert set(given) == {"pool"}


def test_the_times_of_stages_that_ran_are_recorded(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, {})
    config = load_run_config("atlas-test")
    assert list(run_all(config, run)) == ["pool", "select", "train", "evaluate"]
    run_all(config, run)
    [attempt] = read_attempts(run)
    assert [time.stage for time in attempt.stages] == ["pool", "select", "train", "evaluate"]
