"""Updates without Ray: the windows they are made for, and that a verdict once given is never asked for again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import ConfigError, load
from compass_ray.continual.update import Outcome, Window, read_window, update, update_settings
from compass_ray.models.location import model_identity
from compass_ray.serving import registry

CONFIG = load("atlas-test")
WINDOW = Window("sw", (0, 1, 1), "abc")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(str(tmp_path / "run"))
    found.record(CONFIG)
    for version in ("v0001", "v0002"):
        identity = Identity("train", {"base_model": model_identity("atlas"), "version": version}, {})
        found.adapter("sw", version).begin(identity).publish()
    registry.promote(found, "sw", "v0001")
    return found


def _judge(run: RunDir, *, accepted: bool, window: str = WINDOW.name) -> None:
    writer = run.update("sw", "v0002").begin(Identity("update", {"window": window}, {}))
    writer.json("gate.json", {"accepted": accepted, "reason": "as it was", "from": "v0001"})
    writer.publish()


def test_a_refused_update_of_the_same_window_is_not_made_again(run: RunDir) -> None:
    _judge(run, accepted=False)
    assert update(CONFIG, run, WINDOW) == Outcome("sw", "v0001", "v0002", False, "as it was")
    assert (run.live("sw") or {})["version"] == "v0001"


def test_an_accepted_update_whose_promotion_was_missed_is_promoted(run: RunDir) -> None:
    _judge(run, accepted=True)
    outcome = update(CONFIG, run, WINDOW)
    assert outcome.accepted
    assert (run.live("sw") or {})["version"] == "v0002"
    kinds = [decision["kind"] for decision in registry.decisions(run)]
    assert kinds == ["promotion", "gate", "promotion"]
    assert update(CONFIG, run, WINDOW) == outcome
    assert [decision["kind"] for decision in registry.decisions(run)] == kinds


def test_a_version_rolled_back_by_hand_stays_so(run: RunDir) -> None:
    _judge(run, accepted=True)
    update(CONFIG, run, WINDOW)
    registry.roll_back(run, "sw")
    assert "rolled back since" in update(CONFIG, run, WINDOW).sentence()
    assert (run.live("sw") or {})["version"] == "v0001"


def test_a_language_that_serves_nothing_has_nothing_to_update(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match="hi serves no adapter yet"):
        update(CONFIG, run, Window("hi", (0,), "abc"))


@pytest.mark.parametrize(
    ("accepted", "told"),
    [(True, "sw: v0001 -> v0002 better; v0002 is served"), (False, "sw: v0001 -> v0002 better; v0001 is served")],
)
def test_the_outcome_says_what_is_served(accepted: bool, told: str) -> None:
    assert Outcome("sw", "v0001", "v0002", accepted, "better").sentence() == told


def test_an_update_has_its_own_epochs_and_the_training_s_rate_unless_told() -> None:
    settings = update_settings(load("atlas-test", overrides=["update.epochs=7"]))
    assert (settings.epochs, settings.learning_rate) == (7, CONFIG.train.learning_rate)
    assert update_settings(load("atlas-test", overrides=["update.learning_rate=0.5"])).learning_rate == 0.5


def test_a_language_outside_the_run_is_refused(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="'yo' is not a language of this run; it has sw, hi"):
        read_window(run, CONFIG, "yo", None)


def test_no_traffic_is_said_with_the_way_on(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"no traffic of sw has been collected; give prompts with --prompts"):
        read_window(run, CONFIG, "sw", None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no prompts"),
        ("habari", "cannot be read as JSON Lines with a 'prompt' in each"),
        (json.dumps({"text": "habari"}), "cannot be read as JSON Lines with a 'prompt' in each"),
        (json.dumps(["habari"]), "cannot be read as JSON Lines with a 'prompt' in each"),
        (json.dumps({"prompt": " "}), "line 1 holds no prompt"),
        (json.dumps({"prompt": None}), "line 1 holds no prompt"),
        (None, r"cannot be read as JSON Lines .*No such file"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(run: RunDir, tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "traffic.jsonl"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=told):
        read_window(run, CONFIG, "sw", file)


def test_a_file_in_another_encoding_is_refused(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "traffic.jsonl"
    file.write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as JSON Lines"):
        read_window(run, CONFIG, "sw", file)
