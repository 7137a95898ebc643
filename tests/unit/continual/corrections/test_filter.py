"""The verdict on corrections: each rule with its reason, reviews by people, and attempts at data poisoning."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.corrections import (
    CorrectionVerdict,
    filter_corrections,
    find_corrections,
    list_accepted,
    record_reviews,
)
from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS
from tests.unit.continual.corrections.made_run import MODELS, NOW, POOLED, TESTED, config_of, feed, make_run

CONFIG = config_of()
ANSWER = "sw jibu lenye maneno ya kutosha kuhusu {}"


def _prompt(number: int) -> str:
    """A prompt with words of its own, so that no two prompts are near each other."""
    return f"sw {' '.join(f'neno{number}x{i}' for i in range(6))} kabisa"


def _corrected(numbers: range, key: str | None = "k1") -> list[tuple[str, str, str | None]]:
    return [(_prompt(n), ANSWER.format(f"jambo{n}"), key) for n in numbers]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(str(tmp_path / "run"), CONFIG)


def _verdicts(run: RunDir, config: RunConfig = CONFIG) -> list[CorrectionVerdict]:
    return list(filter_corrections(config, run, "sw", models=MODELS, now=NOW).verdicts)


def _states(run: RunDir, config: RunConfig = CONFIG) -> Counter[str]:
    return Counter(str(verdict.state) for verdict in _verdicts(run, config))


def _only(run: RunDir, config: RunConfig = CONFIG) -> tuple[str, str]:
    (verdict,) = _verdicts(run, config)
    return str(verdict.state), verdict.reason


def test_a_sound_correction_is_accepted_with_its_cluster(run: RunDir) -> None:
    feed(run, CONFIG, [("sw mji gani wa nchi jirani unajulikana zaidi", ANSWER.format("Nairobi"), "k1")])
    (row,) = list_accepted(CONFIG, run, "sw", models=MODELS, now=NOW).to_pylist()
    assert (row["prompt"], row["response"]) == ("sw mji gani wa nchi jirani unajulikana zaidi", ANSWER.format("Nairobi"))
    assert (row["cluster"], row["key"]) == (0, "k1")
    assert 0.5 <= row["proto"] <= 1.0


@pytest.mark.parametrize(
    ("prompt", "correction", "state", "reason"),
    [
        ("sw", ANSWER, "refused", "the prompt has fewer than 3 visible characters"),
        ("s\u200b\u00ad\u2800w", ANSWER, "refused", "the prompt has fewer than 3 visible characters"),
        (_prompt(1), "sw " + "ndefu " * 400, "refused", "200 tokens hold at most 800"),
        (
            _prompt(1),
            "x" * 2 * MAX_CORRECTION_CHARS,
            "refused",
            f"it was truncated (limits: correction {MAX_CORRECTION_CHARS} characters",
        ),
        (_prompt(1), f"  {_prompt(1).upper()}", "refused", "the correction equals the prompt"),
        (_prompt(1), "de antwort mit vielen worten", "refused", "the correction is not identified as sw: de identified"),
        (_prompt(1), "yo idahun pelu oro pupo", "refused", "the correction is not identified as sw: no language of this run"),
        ("de frage mit vielen worten", ANSWER, "refused", "the prompt is not identified as sw: de identified"),
        (_prompt(1), "maybe sw jibu la maneno", "held", "below the threshold"),
        (_prompt(1), "maybe yo idahun pelu oro", "held", "no language of this run"),
        (_prompt(1), "sw ndiyo", "held", "the correction is too short to identify its language"),
        ("sw 12 + 5?", ANSWER, "held", "the prompt is too short to identify its language"),
        (TESTED.upper().replace("SW", "sw"), ANSWER, "refused", "the prompt is a test question of the language"),
        (f"{TESTED} sasa", ANSWER, "refused", "the prompt nearly equals a test question of the language (cosine 0.9"),
        (f"{POOLED} sasa", ANSWER, "held", "the prompt nearly equals a row of the pool (cosine 0.9"),
    ],
)
def test_unusable_corrections_are_refused_or_held_with_the_reason(
    run: RunDir, prompt: str, correction: str, state: str, reason: str
) -> None:
    feed(run, CONFIG, [(prompt, correction, "k1")])
    found, why = _only(run)
    assert (found, reason in why) == (state, True), why


def test_corrections_in_a_language_that_the_identifier_does_not_know_are_held(run: RunDir) -> None:
    feed(run, CONFIG, [(_prompt(1), "de antwort mit vielen worten", "k1")])
    [verdict] = filter_corrections(CONFIG, run, "sw", models=replace(MODELS, unidentified=("sw",)), now=NOW).verdicts
    assert (str(verdict.state), verdict.reason) == (
        "held",
        "the identifier does not know sw, so its language is unchecked",
    )


def test_of_several_equal_corrections_of_a_prompt_one_is_accepted(run: RunDir) -> None:
    words = _prompt(1).split()
    reordered = " ".join([words[0], *words[:0:-1]])
    feed(run, CONFIG, [(_prompt(1), ANSWER, "k1"), (_prompt(1), ANSWER, "k2"), (reordered, ANSWER, "k3")])
    assert _states(run) == {"accepted": 1, "left out": 2}
    reasons = sorted(verdict.reason.split(" ")[0] for verdict in _verdicts(run) if verdict.state == "left out")
    assert set(reasons) <= {"duplicate", "prompt"}


def test_a_duplicate_is_left_out_even_without_a_near_prompt(run: RunDir) -> None:
    loose = CONFIG.model_copy(update={"select": CONFIG.select.model_copy(update={"tau": 1.0})})
    feed(run, CONFIG, [(_prompt(1), ANSWER, "k1"), (_prompt(1), ANSWER, "k2")])
    assert _states(run, loose) == {"accepted": 1, "left out": 1}


def test_different_corrections_of_a_prompt_are_held_until_a_person_decides(run: RunDir) -> None:
    feed(run, CONFIG, [(_prompt(1), ANSWER.format("Nairobi"), "k1"), (_prompt(1), ANSWER.format("Mombasa"), "k2")])
    assert {(str(v.state), v.reason) for v in _verdicts(run)} == {("held", "its prompt has 2 different corrections")}
    right = next(v.pair for v in _verdicts(run) if "Nairobi" in v.pair.correction)
    record_reviews(run, [right], clock=lambda: NOW)
    assert _states(run) == {"accepted": 1, "held": 1}
    record_reviews(run, [], [right], clock=lambda: NOW)
    assert _states(run) == {"rejected": 1, "accepted": 1}
    record_reviews(run, [right], clock=lambda: NOW)
    assert list_accepted(CONFIG, run, "sw", models=MODELS, now=NOW)["response"].to_pylist() == [right.correction]


def test_one_correction_for_many_prompts_is_held(run: RunDir) -> None:
    feed(run, CONFIG, [(_prompt(n), ANSWER, f"k{n}") for n in range(2)])
    assert _states(run) == {"accepted": 2}
    feed(run, CONFIG, [(_prompt(n), ANSWER, f"k{n}") for n in range(2, 4)], start=2)
    assert {v.reason for v in _verdicts(run)} == {"the same correction answers 4 different prompts"}
    assert _states(run) == {"held": 4}


def test_a_key_whose_corrections_are_mostly_refused_is_held_and_others_are_not(run: RunDir) -> None:
    junk = [(_prompt(n), "de antwort mit vielen worten", "bad") for n in range(5)]
    feed(run, CONFIG, [*junk, *_corrected(range(10, 12), "bad"), *_corrected(range(20, 22), "good")])
    assert _states(run) == {"refused": 5, "held": 2, "accepted": 2}
    assert "5 of 7 corrections of its key were refused" in {v.reason for v in _verdicts(run)}
    assert {v.pair.key for v in _verdicts(run) if v.state == "accepted"} == {"good"}


def test_a_correction_in_a_conversation_is_held(run: RunDir) -> None:
    feed(run, CONFIG, _corrected(range(1)), single_turn=False)
    state, reason = _only(run)
    assert (state, reason[:42]) == ("held", "the prompt was not the complete request (e")


def test_a_person_can_accept_held_corrections_but_not_refused_ones(run: RunDir) -> None:
    feed(run, CONFIG, [(_prompt(1), "sw ndiyo", "k1"), (POOLED, ANSWER, "k1"), (TESTED, ANSWER, "k1")])
    record_reviews(run, [v.pair for v in _verdicts(run)], clock=lambda: NOW)
    assert _states(run) == {"accepted": 2, "refused": 1}


def test_with_reviewed_only_corrections_that_a_person_accepted_are_used(run: RunDir) -> None:
    reviewed = config_of("reviewed")
    feed(run, CONFIG, _corrected(range(3)))
    assert {v.reason for v in _verdicts(run, reviewed)} == {"nobody has reviewed it"}
    assert list_accepted(reviewed, run, "sw", models=MODELS, now=NOW).num_rows == 0
    record_reviews(run, [_verdicts(run)[0].pair], clock=lambda: NOW)
    assert _states(run, reviewed) == {"accepted": 1, "held": 2}
    assert list_accepted(config_of("none"), run, "sw", models=MODELS, now=NOW).num_rows == 0


def test_an_edited_correction_needs_a_new_review(run: RunDir) -> None:
    reviewed = config_of("reviewed")
    feed(run, CONFIG, _corrected(range(1)))
    record_reviews(run, [_verdicts(run)[0].pair], clock=lambda: NOW)
    assert _states(run, reviewed) == {"accepted": 1}
    feed(run, CONFIG, [(_prompt(0), ANSWER.format("jingine"), "k1")], start=1)
    assert _states(run, reviewed) == {"accepted": 1, "held": 1}


def test_thousands_of_corrections_of_one_key_fill_its_cap_and_displace_no_other_key(run: RunDir) -> None:
    run.write_monitor("retention.key", b"the same for all")  # ids, and so the order of near duplicates, depend on it
    honest = [*_corrected(range(100_000, 100_003), "good"), *_corrected(range(200_000, 200_002), None)]
    feed(run, CONFIG, [*honest, *_corrected(range(2_000), "bad")])
    table, cap = list_accepted(CONFIG, run, "sw", models=MODELS, now=NOW), CONFIG.update.corrections_per_key
    keys = Counter(table["key"].to_pylist())
    assert (keys["good"], keys[""]) == (3, 2)
    assert cap / 2 < keys["bad"] <= cap
    assert sorted(table["key"].to_pylist()[:3]) == ["", "bad", "good"]
    assert "20 other corrections of its key come first (update.corrections_per_key)" in {v.reason for v in _verdicts(run)}


def test_the_accepted_corrections_do_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    config, corrected = config_of(corrections_per_key=3), [*_corrected(range(8), "k1"), *_corrected(range(10, 18), "k2")]
    found = []
    for number in range(3):
        run = make_run(str(tmp_path / str(number)), config)
        run.write_monitor("retention.key", b"the same for all")
        random.Random(number).shuffle(corrected)
        numbered = {prompt: int(prompt.split("neno")[1].split("x")[0]) for prompt, _, _ in corrected}
        for each in corrected:
            feed(run, config, [each], start=numbered[each[0]])
        found.append(list_accepted(config, run, "sw", models=MODELS, now=NOW).to_pylist())
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6


def test_no_corrections_load_no_model(run: RunDir) -> None:
    assert filter_corrections(CONFIG, run, "sw").verdicts == ()


def test_an_id_prefix_finds_one_correction(run: RunDir) -> None:
    feed(run, CONFIG, _corrected(range(3)))
    pairs = [verdict.pair for verdict in _verdicts(run)]
    assert find_corrections(pairs, [pairs[1].id[:12], f" {pairs[0].id} "]) == [pairs[1], pairs[0]]
    for wrong in ("", "zz"):
        with pytest.raises(ConfigError, match="does not exist or was deleted"):
            find_corrections(pairs, [wrong])
    with pytest.raises(ConfigError, match="cannot be both accepted and rejected"):
        record_reviews(run, pairs[:1], pairs[:1])
