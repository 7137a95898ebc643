"""The drift summary: it follows the records, and names missing ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.report.drift_summary import NO_TRAFFIC, build_timelines, summarize_drift
from compass_ray.report.run_reader import RunReader


def write(run: RunDir, file: str, records: list[dict[str, Any]]) -> None:
    run.write_monitor(file, "".join(f"{json.dumps(record)}\n" for record in records).encode())


def check(prompts: int, divergence: float) -> dict[str, Any]:
    return {"language": "sw", "prompts": prompts, "divergence": divergence, "threshold": 0.1, "p_value": None}


def test_the_summary_has_all_five_parts(run: RunDir) -> None:
    traffic, divergence, decision, gate, outcome = summarize_drift(run)
    assert traffic == "Swahili (sw): 800 prompts seen, 16 drift checks."
    assert divergence == "Divergence crossed its threshold at prompt 400: 0.110 bits, threshold 0.100, p = 0.0005."
    assert decision == "Drift declared at prompt 450: p = 0.0005, twice in a row. v0002 was trained from v0001 after this alarm."
    assert gate.startswith("The gate accepted v0002: lower loss on the window")
    assert (
        "nats per token; lower is better. Rows: window: held-out rows on the subjects of the new traffic; anchors: earlier"
        in gate
    )
    assert gate.endswith("v0002 was promoted at prompt 550 and is served from then on.")
    assert "on new subjects 30.0% before and 45.0% after (60 items, chance 25.0%)" in outcome
    assert "on old subjects 52.0% before and 51.0% after (100 items, chance unknown)" in outcome


def test_a_run_without_traffic_has_a_note(empty: RunDir) -> None:
    assert summarize_drift(empty) == [NO_TRAFFIC]


def test_traffic_without_drift_is_summarized(empty: RunDir) -> None:
    write(empty, "checks.jsonl", [check(50, 0.03), check(100, 0.07)])
    assert summarize_drift(empty) == [
        "Swahili (sw): 100 prompts seen, 2 drift checks.",
        "No drift detected. Highest divergence: 0.070 bits (threshold 0.100).",
        "No drift was declared, so no update was made.",
        "The gate has not evaluated an update. The served adapter version did not change.",
        "Accuracy before and after an update was not measured.",
    ]


def test_a_rejected_update_keeps_the_old_version(empty: RunDir) -> None:
    write(empty, "checks.jsonl", [check(50, 0.2)])
    gate = {"kind": "gate", "language": "sw", "to": "v0002", "accepted": False, "reason": "forgets 0.3 nats."}
    write(empty, "decisions.jsonl", [{"kind": "drift", "language": "sw", "prompts": 50}, gate])
    gate_sentence = summarize_drift(empty)[3]
    assert gate_sentence == "The gate rejected v0002: forgets 0.3 nats. The served adapter version did not change."


def test_a_rollback_is_the_last_change(run: RunDir) -> None:
    before = run.read_monitor("decisions.jsonl") or b""
    back = {"kind": "rollback", "language": "sw", "prompts": 700, "from": "v0002", "to": "v0001"}
    run.write_monitor("decisions.jsonl", before + json.dumps(back).encode())
    assert summarize_drift(run)[3].endswith("v0001 was restored by rollback at prompt 700 and is served from then on.")


def test_decisions_without_a_prompt_count_have_that_of_the_check_before_their_time(empty: RunDir) -> None:
    write(empty, "checks.jsonl", [{**check(50, 0.2), "time": 100.0}, {**check(100, 0.2), "time": 200.0}])
    moved = {"kind": "promotion", "language": "sw", "from": "v0001", "to": "v0002", "time": 250.0}
    gate = {
        "kind": "gate",
        "language": "sw",
        "to": "v0002",
        "accepted": True,
        "prompts": 300,
        "time": "1970-01-01T00:02:30+00:00",
    }
    write(empty, "decisions.jsonl", [gate, moved])
    timeline = build_timelines(RunReader(empty))[0]
    assert [timeline.prompts_seen_at(d) for d in timeline.decisions] == [50, 100]


def test_the_first_promotion_is_not_an_event(empty: RunDir) -> None:
    write(empty, "decisions.jsonl", [{"kind": "promotion", "language": "sw", "from": None, "to": "v0001"}])
    assert summarize_drift(empty) == [NO_TRAFFIC]


def test_damaged_and_incomplete_lines_are_ignored(empty: RunDir) -> None:
    empty.write_monitor("checks.jsonl", f'{json.dumps(check(50, 0.03))}\n{{"language": 7}}\n{{"language": "s'.encode())
    assert [c.prompts for c in RunReader(empty).checks] == [50]


def test_the_gates_verdict_is_stated_once(empty: RunDir, publish: Callable[..., None]) -> None:
    write(empty, "checks.jsonl", [check(50, 0.2)])
    reason = "accepted: loss on the window 1.3 -> 1.1"
    write(
        empty,
        "decisions.jsonl",
        [{"kind": "gate", "language": "sw", "to": "v0002", "accepted": True, "reason": reason}],
    )
    publish(empty.update("sw", "v0002"), {"gate.json": {"from": "v0001", "window_before": 1.3}})
    summary = summarize_drift(empty)
    assert summary[3].startswith("The gate accepted v0002: loss on the window 1.3 -> 1.1.")
    assert summary[4] == "Accuracy before and after an update was not measured."


def test_the_most_eventful_language_is_summarized(run: RunDir) -> None:
    calm = [{**check(n, 0.01), "language": "am"} for n in (50, 100)]
    write(run, "checks.jsonl", [*calm, check(400, 0.2)])
    assert summarize_drift(run)[0].startswith("Swahili (sw)")


def test_an_invalid_record_is_left_out(empty: RunDir) -> None:
    write(empty, "checks.jsonl", [{"language": "sw", "prompts": "many", "divergence": 0.1, "threshold": 0.1}])
    assert RunReader(empty).checks == ()


def test_worse_replies_are_described(empty: RunDir) -> None:
    tests = [
        {"name": "divergence", "effect": 0.03, "p_value": 0.4, "exceeded": False},
        {"name": "loss", "effect": 0.31, "p_value": 0.0001, "exceeded": True},
        {"name": "feedback", "effect": 0.2, "p_value": 0.002, "exceeded": True},
    ]
    write(empty, "checks.jsonl", [check(50, 0.03), {**check(100, 0.03), "drifted": True, "legs": tests}])
    assert summarize_drift(empty)[1] == (
        "Replies became worse (median loss up by 0.310 nats per token (p = 0.0001); share rated bad up by 0.200 (p = 0.002)) "
        "at prompt 100. Divergence: 0.030 bits."
    )


def test_stale_clusters_are_described(empty: RunDir) -> None:
    write(empty, "checks.jsonl", [{**check(100, 0.03), "noise": 0.48}])
    reason = "48.0% of the window lies in no cluster, and 5.0% of the guide set"
    write(empty, "decisions.jsonl", [{"kind": "stale", "language": "sw", "prompts": 100, "reason": reason}])
    assert summarize_drift(empty)[-1] == (
        f"Clusters no longer fit the traffic at prompt 100: {reason}. At the last check 48.0% of the window was noise."
    )
