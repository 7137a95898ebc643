"""`compass-ray corrections` as a user types it: the list, reviews, and errors with the remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.continual import corrections
from tests.unit.command_line import Command
from tests.unit.continual.corrections.made_run import MODELS, NOW, TESTED, config_of, feed, make_run

CONFIG = config_of("reviewed")
ANSWER = "sw jibu lenye maneno ya kutosha kuhusu jambo hili"


@pytest.fixture
def corrected(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """One correction is held, one is refused; the run's models are fakes on words."""
    run = make_run(str(tmp_path / "corrected"), CONFIG)
    feed(run, CONFIG, [("sw swali jipya la kwanza leo asubuhi", ANSWER, "abc"), (TESTED, ANSWER, None)])
    monkeypatch.setattr(corrections.FilterModels, "load", lambda *_: MODELS)
    monkeypatch.setattr("time.time", lambda: NOW)
    return run


def _listed(compass_ray: Command, run: RunDir, options: str = "") -> dict[str, dict[str, Any]]:
    done = compass_ray(f"corrections {run.uri} --language sw --json {options}")
    assert (done.code, done.err) == (0, "")
    return {record["state"]: record for record in json.loads(done.out)}


def test_the_list_shows_state_and_reason_of_each_correction(compass_ray: Command, corrected: RunDir) -> None:
    done = compass_ray(f"corrections {corrected.uri} --language sw")
    assert (done.code, done.err) == (0, "")
    header, *rows = done.out.splitlines()
    assert header.split() == ["id", "key", "state", "prompt", "correction", "reason"]
    assert sum(row.startswith(record["id"][:12]) for row in rows for record in _listed(compass_ray, corrected).values()) == 2
    assert any("abc" in row and "held" in row for row in rows)
    reasons = {state: record["reason"] for state, record in _listed(compass_ray, corrected).items()}
    assert reasons == {"held": "nobody has reviewed it", "refused": "the prompt is a test question of the language"}


def test_a_person_accepts_a_correction_and_then_rejects_it(compass_ray: Command, corrected: RunDir) -> None:
    held = _listed(compass_ray, corrected)["held"]
    assert (held["key"], held["correction"], held["language"]) == ("abc", ANSWER, "sw")
    assert _listed(compass_ray, corrected, f"--accept {held['id'][:12]}")["accepted"]["id"] == held["id"]
    assert corrections.list_accepted(CONFIG, corrected, "sw", models=MODELS, now=NOW)["response"].to_pylist() == [ANSWER]
    assert _listed(compass_ray, corrected, f"--reject {held['id']}")["rejected"]["id"] == held["id"]
    assert corrections.list_accepted(CONFIG, corrected, "sw", models=MODELS, now=NOW).num_rows == 0
    assert "accepted" in _listed(compass_ray, corrected, f"--accept {held['id']}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--accept {refused}", "is refused and cannot be accepted: the prompt is a test question"),
        ("--accept {held} --reject {held}", "cannot be both accepted and rejected"),
        ("--accept 0000", "does not exist or was deleted; pass an id"),
    ],
)
def test_an_impossible_review_is_an_error(compass_ray: Command, corrected: RunDir, options: str, message: str) -> None:
    ids = {state: record["id"] for state, record in _listed(compass_ray, corrected).items()}
    done = compass_ray(f"corrections {corrected.uri} --language sw {options.format(**ids)}")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert corrections.list_accepted(CONFIG, corrected, "sw", models=MODELS, now=NOW).num_rows == 0


def test_notes_say_why_no_correction_will_be_trained_on(compass_ray: Command, corrected: RunDir) -> None:
    settings = "--set update.corrections=none --set drift.retention=hash"
    done = compass_ray(f"corrections {corrected.uri} --language sw {settings}")
    assert done.code == 0
    assert "note: update.corrections is none, so no update trains on corrections" in done.err
    assert "note: drift.retention is hash, but corrections are stored with text only" in done.err
    assert compass_ray(f"corrections {corrected.uri} --language yo").code == 2


def test_corrections_without_a_stored_prompt_are_counted(compass_ray: Command, corrected: RunDir) -> None:
    from compass_ray.monitoring.monitor import TrafficMonitor
    from compass_ray.monitoring.observations import Feedback

    late = Feedback("id-gone", None, ANSWER, None, "abc", NOW)
    TrafficMonitor(corrected, CONFIG, MODELS.prompt_assigner, lambda: NOW).record_feedback([late])
    done = compass_ray(f"corrections {corrected.uri} --language sw")
    assert "note: unusable corrections, because their prompt is no longer stored: 1" in done.err


def test_control_characters_of_users_are_not_printed(compass_ray: Command, corrected: RunDir) -> None:
    feed(corrected, CONFIG, [("sw swali la pili lenye hila", f"{ANSWER} \x1b]0;hila\x07 \u202eila", "abc")], start=5)
    done = compass_ray(f"corrections {corrected.uri} --language sw")
    assert "]0;hila" in "".join(done.out.split())
    assert not {"\x1b", "\x07", "\u202e"} & set(done.out)


def test_deleted_corrections_are_not_listed(compass_ray: Command, corrected: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 31 * 86_400)
    assert _listed(compass_ray, corrected) == {}
