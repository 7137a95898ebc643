"""Updates without Ray: their windows, and that a stored verdict is reused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir, jsonl_log
from compass_ray.config import ConfigError, load_run_config
from compass_ray.continual.update import UpdateResult, Window, load_ready_windows, read_window, run_update, update_settings
from compass_ray.continual.update.promotion import record_and_promote
from compass_ray.models.model_resolver import model_identity
from compass_ray.monitoring import window_store

CONFIG = load_run_config("atlas-test")
WINDOW = Window("sw", (0, 1, 1), "abc")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(str(tmp_path / "run"))
    found.write_config(CONFIG)
    for version in ("v0001", "v0002"):
        identity = Identity("train", {"base_model": model_identity("atlas"), "version": version}, {})
        found.adapter("sw", version).begin(identity).publish()
    registry.promote(found, "sw", "v0001")
    return found


def _write_verdict(run: RunDir, *, accepted: bool, window: str = WINDOW.name) -> None:
    writer = run.update("sw", "v0002").begin(Identity("update", {"window": window}, {}))
    writer.write_json("gate.json", {"accepted": accepted, "reason": "as it was", "from": "v0001", "window_before": 2.5})
    writer.publish()


def _kinds(run: RunDir) -> list[str]:
    return [decision["kind"] for decision in jsonl_log.read(run, "decisions.jsonl")]


def test_a_rejected_update_of_the_same_window_is_not_repeated(run: RunDir) -> None:
    _write_verdict(run, accepted=False)
    assert run_update(CONFIG, run, WINDOW) == UpdateResult("sw", "v0001", "v0002", False, "as it was")
    assert (run.live("sw") or {})["version"] == "v0001"


def test_an_accepted_update_whose_promotion_was_missed_is_promoted(run: RunDir) -> None:
    _write_verdict(run, accepted=True)
    outcome = run_update(CONFIG, run, WINDOW)
    assert outcome.accepted
    assert (run.live("sw") or {})["version"] == "v0002"
    assert _kinds(run) == ["promotion", "gate", "promotion"]
    assert run_update(CONFIG, run, WINDOW) == outcome
    assert _kinds(run) == ["promotion", "gate", "promotion"]


def test_a_verdict_is_recorded_once_with_all_losses(run: RunDir) -> None:
    _write_verdict(run, accepted=False)
    for _ in range(2):
        run_update(CONFIG, run, WINDOW)
    [gate] = [decision for decision in jsonl_log.read(run, "decisions.jsonl") if decision["kind"] == "gate"]
    expected = {"from": "v0001", "to": "v0002", "accepted": False, "reason": "as it was", "window_before": 2.5, "prompts": 3}
    assert expected.items() <= gate.items()


def test_an_accepted_update_becomes_the_canary_if_promotion_is_canary(run: RunDir) -> None:
    _write_verdict(run, accepted=True)
    config = load_run_config("atlas-test", overrides=["update.promotion=canary", "update.canary_share=0.25"])
    for _ in range(2):
        outcome = run_update(config, run, WINDOW)
        assert (outcome.accepted, outcome.promoted) == (True, False)
        assert outcome.summarize().endswith("v0001 is live, v0002 is the canary")
        live = registry.read_pointer(run, "sw").live
        assert live is not None
        assert (live.version, live.canary) == ("v0001", registry.Canary("v0002", 0.25))
    assert _kinds(run) == ["promotion", "gate", "canary"]
    registry.stop_canary(run, "sw")
    assert "its canary was stopped later" in run_update(config, run, WINDOW).summarize()
    assert _kinds(run) == ["promotion", "gate", "canary", "canary ended"]


def test_an_accepted_update_waits_if_promotion_is_manual(run: RunDir) -> None:
    _write_verdict(run, accepted=True)
    outcome = run_update(load_run_config("atlas-test", overrides=["update.promotion=manual"]), run, WINDOW)
    assert (outcome.accepted, outcome.promoted) == (True, False)
    assert outcome.summarize().endswith("v0001 is live, v0002 waits for manual promotion")
    assert (run.live("sw") or {})["version"] == "v0001"
    assert [decision.get("promotion") for decision in jsonl_log.read(run, "decisions.jsonl")] == [None, "manual"]
    assert run_update(CONFIG, run, WINDOW).promoted


def test_a_language_with_a_canary_gets_no_second_one(run: RunDir) -> None:
    registry.set_canary(run, "sw", "v0002", 0.1)
    config = load_run_config("atlas-test", overrides=["update.promotion=canary"])
    with pytest.raises(
        ArtifactError, match=r"sw already has the canary v0002 \(10% of requests\)\. .*compass-ray adapters canary .* sw --stop"
    ):
        run_update(config, run, WINDOW)


def test_static_trains_nothing_and_is_recorded_once_per_window(run: RunDir) -> None:
    config = load_run_config("atlas-test", overrides=["update.strategy=static"])
    for _ in range(2):
        outcome = run_update(config, run, WINDOW)
        assert outcome.summarize() == "sw: nothing is trained: update.strategy is static; v0001 is live"
    run_update(config, run, Window("sw", (1,), "def"))
    decisions = [(d["kind"], d.get("window"), d["to"]) for d in jsonl_log.read(run, "decisions.jsonl")][1:]
    assert decisions == [("static", "abc", "v0001"), ("static", "def", "v0001")]
    assert run.adapter_versions("sw") == ["v0001", "v0002"]


def test_an_update_from_scratch_has_the_settings_of_first_training() -> None:
    config = load_run_config("atlas-test", overrides=["update.strategy=full", "update.epochs=7", "update.learning_rate=0.5"])
    assert update_settings(config) == config.train


def test_ready_windows_are_read_without_a_monitor(run: RunDir) -> None:
    table = window_store.window_table("sw", [{"cluster": 3, "coarse": 1}, {"cluster": -1, "coarse": -1}])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    run.write_monitor("windows/sw-000000002.parquet", buffer.getvalue())
    offer = {"event": "offer", "language": "sw", "file": "windows/sw-000000002.parquet"}
    jsonl_log.append(run, "traffic.jsonl", [{**offer, "language": "yo"}, offer])
    [window], unusable = load_ready_windows(run, CONFIG)
    assert unusable == {}
    assert (window.language, window.clusters) == ("sw", (3, -1))
    jsonl_log.append(run, "traffic.jsonl", [{"event": "release", "language": "sw", "trigger": {"streak": 0, "cooldown": 0}}])
    assert load_ready_windows(run, CONFIG) == ([], {})


def test_a_version_rolled_back_by_hand_stays_so(run: RunDir) -> None:
    _write_verdict(run, accepted=True)
    run_update(CONFIG, run, WINDOW)
    registry.roll_back(run, "sw")
    assert "was rolled back later" in run_update(CONFIG, run, WINDOW).summarize()
    assert (run.live("sw") or {})["version"] == "v0001"


@pytest.mark.parametrize("promotion", ["immediate", "canary", "manual"])
def test_what_a_person_promoted_during_the_update_stays_live(run: RunDir, promotion: str) -> None:
    run.adapter("sw", "v0007").begin(Identity("train", {"base_model": model_identity("atlas"), "version": "v0007"}, {})).publish()
    registry.promote(run, "sw", "v0007")
    _write_verdict(run, accepted=True)
    config = load_run_config("atlas-test", overrides=[f"update.promotion={promotion}"])
    for made in (record_and_promote(config, run, WINDOW, "v0002"), run_update(config, run, WINDOW)):
        assert not made.accepted
        reason = "as it was, but v0007 was promoted during the update; promote v0002 manually"
        assert made.summarize() == f"sw: v0001 -> v0002 {reason}; v0007 is live"
    live = registry.read_pointer(run, "sw").live
    assert live is not None
    assert (live.version, live.canary) == ("v0007", None)
    assert _kinds(run) == ["promotion", "promotion", "gate"]


def test_a_canary_that_was_promoted_is_reported_as_live(run: RunDir) -> None:
    _write_verdict(run, accepted=True)
    config = load_run_config("atlas-test", overrides=["update.promotion=canary"])
    run_update(config, run, WINDOW)
    registry.promote(run, "sw", "v0002")
    outcome = run_update(config, run, WINDOW)
    assert (outcome.accepted, outcome.promoted) == (True, True)
    assert outcome.summarize().endswith("; v0002 is live")


def test_a_language_that_serves_nothing_has_nothing_to_update(run: RunDir) -> None:
    with pytest.raises(ArtifactError, match="hi has no live adapter"):
        run_update(CONFIG, run, Window("hi", (0,), "abc"))


@pytest.mark.parametrize(
    ("accepted", "summary"),
    [(True, "sw: v0001 -> v0002 better; v0002 is live"), (False, "sw: v0001 -> v0002 better; v0001 is live")],
)
def test_the_summary_names_the_live_version(accepted: bool, summary: str) -> None:
    assert UpdateResult("sw", "v0001", "v0002", accepted, "better").summarize() == summary


def test_an_update_has_its_own_epochs_and_by_default_the_training_s_learning_rate() -> None:
    settings = update_settings(load_run_config("atlas-test", overrides=["update.epochs=7"]))
    assert (settings.epochs, settings.learning_rate) == (7, CONFIG.train.learning_rate)
    assert update_settings(load_run_config("atlas-test", overrides=["update.learning_rate=0.5"])).learning_rate == 0.5


def test_a_language_outside_the_run_is_rejected(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="'yo' is not a language of this run; it has sw, hi"):
        read_window(run, CONFIG, "yo", None)


def test_missing_traffic_is_an_error_with_a_next_step(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"no traffic of sw has been recorded; pass prompts with --prompts"):
        read_window(run, CONFIG, "sw", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows; it needs prompt"),
        ("habari", "line 1 is not JSON"),
        (json.dumps({"text": "habari"}), "no column for prompt; it has text"),
        (json.dumps(["habari"]), "row 1 is not a JSON object"),
        (json.dumps({"prompt": " "}), "row 1 has no prompt"),
        (json.dumps({"prompt": None}), "row 1 has no prompt"),
        (None, "the file does not exist"),
    ],
)
def test_a_file_without_prompts_is_rejected(run: RunDir, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "traffic.jsonl"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=message):
        read_window(run, CONFIG, "sw", file)


def test_a_file_in_another_encoding_is_rejected(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "traffic.jsonl"
    file.write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 0xE9, which is not UTF-8"):
        read_window(run, CONFIG, "sw", file)
