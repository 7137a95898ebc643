"""`compass-ray adapters` as a user types it: output, changes, and errors with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from tests.unit.command_line import Command


def _pointer(run: RunDir) -> dict[str, Any]:
    return run.live("sw") or {}


def test_the_list_shows_state_and_parent_of_each_version(compass_ray: Command, run: RunDir) -> None:
    registry.set_canary(run, "sw", "v0002", 0.05)
    registry.set_shadow(run, "sw", "v0003")
    done = compass_ray(f"adapters list {run.uri}")
    assert (done.code, done.err) == (0, "")
    header, first, second, third = (line.split() for line in done.out.splitlines())
    assert header[:2] == ["language", "version"]
    assert (first[:3], first[-3:]) == (["sw", "v0001", "live"], ["40", "0.625", "(0.250)"])
    assert second[:4] == ["sw", "v0002", "canary", "5%"]
    assert second[-5:] == ["v0001", "40", "2.000", "->", "1.500"]
    assert third[:3] == ["sw", "v0003", "shadow"]


def test_the_list_as_json_has_one_record_per_version(compass_ray: Command, run: RunDir) -> None:
    registry.pin(run, "sw")
    one, two, three = json.loads(compass_ray(f"adapters list {run.uri} --json").out)
    assert (one["language"], one["version"], one["live"], one["pinned"], one["accuracy"]) == ("sw", "v0001", True, True, 0.625)
    assert (two["parent"], two["gate"]["window_after"], two["metrics"], two["canary"]) == ("v0001", 1.5, {"rows": 40}, None)
    assert (three["live"], three["shadow"], three["trained_on"]) == (False, False, {"selections/v0003/sw": "f00d"})
    assert compass_ray(f"adapters list {run.uri} --language hi --json").out == "[]\n"


def test_a_damaged_pointer_does_not_hide_the_versions(compass_ray: Command, run: RunDir) -> None:
    (Path(run.path) / "serving" / "live" / "sw.json").write_bytes(b"{")
    done = compass_ray(f"adapters list {run.uri}")
    assert done.code == 0
    assert "v0003" in done.out
    assert done.err.count("note: The live pointer of sw cannot be read") == 1
    done = compass_ray(f"adapters show {run.uri} sw")
    assert (done.code, done.out) == (1, "")
    assert "adapters promote" in done.err
    assert compass_ray(f"adapters promote {run.uri} sw v0002 --force").code == 0
    assert _pointer(run)["version"] == "v0002"


def test_one_version_in_full(compass_ray: Command, run: RunDir) -> None:
    registry.promote(run, "sw", "v0002", reason="better")
    registry.pin(run, "sw", reason="exams")
    message = compass_ray(f"adapters show {run.uri} sw").out
    for words in ("sw@v0002\n", "state: live, pinned", "updated from: v0001", "selections/v0002/sw (f00d)", "accepted: better"):
        assert words in message
    assert message.index("UTC: first training") < message.index("UTC: better") < message.index("exams")
    tree = json.loads(compass_ray(f"adapters show {run.uri} sw v0001 --json").out)
    assert (tree["version"], tree["live"], [past["version"] for past in tree["history"]]) == ("v0001", False, ["v0001"])


def test_a_canary_from_its_start_to_its_promotion(compass_ray: Command, run: RunDir) -> None:
    done = compass_ray(f"adapters canary {run.uri} sw v0002 --share 0.05 --reason look")
    assert (done.code, done.out) == (0, "v0002 answers 0.05 of the requests of sw, v0001 the rest\n")
    assert _pointer(run)["canary"] == {"version": "v0002", "share": 0.05}
    assert compass_ray(f"adapters promote {run.uri} sw v0002").out == "sw now serves v0002\n"
    assert "canary" not in _pointer(run)
    assert jsonl_log.read(run, "decisions.jsonl")[-2]["reason"] == "look"


def test_canary_and_shadow_are_stopped(compass_ray: Command, run: RunDir) -> None:
    registry.set_canary(run, "sw", "v0002", 0.05)
    assert compass_ray(f"adapters canary {run.uri} sw --stop").out == "v0001 answers all requests of sw\n"
    assert compass_ray(f"adapters shadow {run.uri} sw v0003").out == "v0003 answers copies of the requests of sw\n"
    assert "shadow" not in json.loads(compass_ray(f"adapters shadow {run.uri} sw --stop --json").out)


def test_pin_and_unpin(compass_ray: Command, run: RunDir) -> None:
    assert compass_ray(f"adapters pin {run.uri} sw --reason exams").out == "sw is pinned to v0001\n"
    for line in ("promote {} sw v0002", "rollback {} sw", "canary {} sw v0002 --share 0.1"):
        done = compass_ray(f"adapters {line.format(run.uri)}")
        assert done.code == 1
        assert "sw is pinned to v0001 (exams)" in done.err or "no earlier live version" in done.err
    assert compass_ray(f"adapters promote {run.uri} sw v0002 --force").code == 0
    assert compass_ray(f"adapters unpin {run.uri} sw").out == "sw is unpinned and serves v0002\n"
    assert compass_ray(f"adapters rollback {run.uri} sw").out == "sw now serves v0001\n"


def test_other_commands_know_the_run_s_languages_and_a_port_s_bounds(compass_ray: Command, folder: str, tmp_path: Path) -> None:
    done = compass_ray(f"export {folder} yo {tmp_path / 'out'}")
    assert (done.code, done.out) == (2, "")
    assert "'yo' is not a language of this run; choose one of sw, hi" in done.err
    done = compass_ray(f"serve {folder} --port 99999")
    assert (done.code, done.out) == (2, "")
    assert "Invalid value for '--port'" in done.err


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("list {} --language yo", 2, "'yo' is not a language of this run; choose one of sw, hi"),
        ("show {} yo", 2, "'yo' is not a language of this run"),
        ("promote {} yo v0001", 2, "'yo' is not a language of this run; choose one of sw, hi"),
        ("rollback {} yo", 2, "'yo' is not a language of this run"),
        ("pin {} yo", 2, "'yo' is not a language of this run"),
        ("unpin {} yo", 2, "'yo' is not a language of this run"),
        ("canary {} yo v0001 --share 0.1", 2, "'yo' is not a language of this run"),
        ("shadow {} yo v0001", 2, "'yo' is not a language of this run"),
        ("show {} sw v0009", 2, "sw has no complete version 'v0009'; see 'compass-ray adapters list"),
        ("show {} hi", 2, "hi has no live version; give a VERSION from"),
        ("canary {} sw", 2, "a canary needs a VERSION and --share"),
        ("canary {} sw v0002", 2, "a canary needs a VERSION and --share"),
        ("canary {} sw v0002 --share 1", 2, "Invalid canary share 1. Give a share between 0 and 1"),
        ("canary {} sw v0002 --stop", 2, "--stop ends the current canary"),
        ("canary {} sw --stop", 1, "sw has no canary to stop; v0001 answers all its requests"),
        ("canary {} sw v0001 --share 0.1", 1, "sw@v0001 is live and already answers every request"),
        ("canary {} hi v0001 --share 0.1", 1, "hi has no live version. Promote one first: compass-ray adapters promote"),
        ("shadow {} sw", 2, "a shadow needs a VERSION"),
        ("shadow {} sw --stop", 1, "sw has no shadow"),
        ("shadow {} sw v0009", 1, "sw@v0009 cannot be served: "),
        ("pin {} hi", 1, "hi has no live version"),
        ("unpin {} sw", 1, "sw is not pinned; its live version v0001"),
    ],
)
def test_errors_name_the_remedy(compass_ray: Command, folder: str, line: str, code: int, message: str) -> None:
    done = compass_ray(f"adapters {line.format(folder)}")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err
