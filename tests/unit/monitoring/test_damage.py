"""A damaged file of the monitor costs what was damaged: the monitor starts, keeps the rest, and accepts prompts."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig, parse_config
from compass_ray.continual.controller.state import STATE_FILE, CanaryEvaluation, ControllerState, ControllerStateStore
from compass_ray.continual.corrections import record_reviews
from compass_ray.core.drift import ClusterFit
from compass_ray.monitoring import journal
from compass_ray.monitoring.corrections import read_pairs
from compass_ray.monitoring.language_monitor import ReferenceDistribution
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import CanaryAnswers, Feedback, Observation
from compass_ray.monitoring.retention import load_retention_policy
from compass_ray.monitoring.traffic_log import TrafficLog, read_ready_windows
from tests.unit.fakes import BASE, Clock, WordAssigner
from tests.unit.monitoring.test_monitor_machine import REFERENCE

CLOCK = Clock(1000 * 86_400.0)
WINDOW, SENT = 24, 61
CONFIG = parse_config(
    {
        "languages": ["sw", "de"],
        "train": {"base_model": BASE},
        "drift": {"window": WINDOW, "check_every": 8, "cooldown": 0, "trigger": "fixed_threshold", "retention_days": None},
    }
)
POINTER = {"language": "sw", "version": "v0001", "fingerprint": "f"}


def _start(folder: str, config: RunConfig = CONFIG) -> TrafficMonitor:
    references = lambda _, version: ReferenceDistribution(version, REFERENCE, ClusterFit(0.0, 0.25))  # noqa: E731
    return TrafficMonitor(RunDir(folder), config, WordAssigner(), CLOCK, references=references)


def _prompt(number: int) -> Observation:
    cluster = 0 if number < WINDOW + 8 else 2
    return Observation(f"id-{number}", "sw", f"swali {number} {cluster}", "v0001", 1.5, CLOCK(), "k", client=f"client {number}")


@pytest.fixture(scope="module")
def stored() -> Iterator[str]:
    """A run with every file of the monitor: prompts in a snapshot and in lines, a ready window, feedback, decisions, state."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(folder)
        run.set_live("sw", POINTER)
        monitor = _start(folder)
        for number in range(SENT):
            monitor.record([_prompt(number)])
            if number in (WINDOW, SENT - 10):
                monitor = _start(folder)
        assert monitor.ready()
        monitor.record_canary_answers([CanaryAnswers("sw", "v0001", 10, 9, CLOCK())])
        monitor.record_feedback([Feedback(f"id-{n}", "bad", f"jibu {n}", None, f"k{n}", CLOCK()) for n in range(40, 50)])
        record_reviews(run, read_pairs(run, CONFIG.drift, CLOCK())[:3], clock=CLOCK)
        store = ControllerStateStore(run)
        for language in CONFIG.languages:
            store.save(language, ControllerState(CanaryEvaluation("v0001", True, 1, 2), questioned=7))
        yield folder


def _files(folder: str) -> list[Path]:
    return sorted(path for part in ("monitor", "serving/live") for path in Path(folder, part).rglob("*") if path.is_file())


def test_every_kind_of_file_is_damaged_below(stored: str) -> None:
    names = {path.name for path in _files(stored)}
    logs = {f"{name}.jsonl" for name in ("traffic", "checks", "decisions", "feedback", "corrections", "reviews")}
    assert logs | {STATE_FILE, "retention.key", "sw.json"} <= names
    assert any(name.endswith(".parquet") for name in names)
    assert _start(stored).status()["damaged_lines"] == {}


def _flip(data: bytes, place: float, bit: int, _: bytes) -> bytes:
    at = int(place * (len(data) - 1))
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def _truncate(data: bytes, place: float, _: int, __: bytes) -> bytes:
    return data[: int(place * len(data))]


def _insert(data: bytes, place: float, _: int, line: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    at = int(place * len(lines))
    return b"".join([*lines[:at], line + b"\n", *lines[at:]])


def _replace(old: bytes, new: bytes) -> Callable[[bytes, float, int, bytes], bytes]:
    """A damage of the last occurrence of some bytes."""

    def damage(data: bytes, _: float, __: int, ___: bytes) -> bytes:
        before, found, after = data.rpartition(old)
        assert found
        return before + new + after

    return damage


LINES = [
    *(b"{}", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000),
    *(b'{"event": "prompt"}', b'{"language": "sw"}', b'{"event": 3}'),
    b'{"event": "snapshot", "language": "sw", "window": 1}',
    b'{"event": "recluster", "language": "sw", "place": "x", "assigned": []}',
    b'{"event": "reset", "language": "sw", "version": "v0001", "trigger": {"streak": "x"}, "more": NaN}',
    b'{"reply": [], "by": {}, "time": 1.0}',
    b'{"language": "sw", "prompts": [], "divergence": NaN, "threshold": 1e999}',
]


def _surviving(before: bytes, after: bytes) -> set[str]:
    """The ids of the prompts in undamaged lines."""
    undamaged = set(before.splitlines()) & set(after.splitlines())
    found: set[str] = set()
    for line in map(json.loads, undamaged):
        found |= {each[0] for each in line["ids"]} if line["event"] == "ids" else set()
        found |= {each["id"] for each in line.get("window", [line]) if "id" in each}
    return found


@settings(max_examples=50)
@given(
    damage=st.sampled_from([_flip, _truncate, _insert]),
    choice=st.integers(0, 10**6).map(str),
    place=st.floats(0, 1),
    bit=st.integers(0, 7),
    line=st.sampled_from(LINES),
)
@example(_replace(b'"time": 8', b'"time": 0'), "traffic.jsonl", 0, 0, b"")  # JSON refuses the leading zero
@example(_replace(b'"time": 8', b'"time": 0'), "feedback.jsonl", 0, 0, b"")
@example(_replace(b'"time": 8', b'"time": 0'), "corrections.jsonl", 0, 0, b"")
@example(_replace(b'"id": "id-48"', b'"ie": "id-48"'), "traffic.jsonl", 0, 0, b"")  # an entry of a snapshot
@example(_replace(b'"id": "id-60"', b'"ie": "id-60"'), "traffic.jsonl", 0, 0, b"")
@example(_replace(b'"rating"', b'"ratiog"'), "feedback.jsonl", 0, 0, b"")
def test_a_damaged_file_costs_only_what_was_damaged(
    stored: str, damage: Callable[[bytes, float, int, bytes], bytes], choice: str, place: float, bit: int, line: bytes
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = shutil.copytree(stored, Path(scratch, "run"))
        files = _files(str(folder))
        file = next((each for each in files if each.name == choice), None) or files[int(choice) % len(files)]
        before = file.read_bytes()
        after = damage(before, place, bit, line)
        file.write_bytes(after)
        read_ready_windows(RunDir(str(folder)), CONFIG)
        monitor = _start(str(folder))
        status = monitor.status()
        assert monitor.record([_prompt(n) for n in range(SENT, SENT + 40)]).stored == 40
        assert monitor.record_feedback([Feedback(f"id-{SENT}", "good", None, None, "k", CLOCK())]).stored == 1
        again = monitor.record([_prompt(n) for n in range(SENT)])
        kept = {f"id-{n}" for n in range(SENT)} if file.name != "traffic.jsonl" else _surviving(before, after)
        assert again.duplicates >= len(kept & {f"id-{n}" for n in range(SENT)})
        if file.name != "traffic.jsonl":
            assert status["languages"]["sw"]["prompts"] == SENT
        assert _start(str(folder)).status()["damaged_lines"] == {}, "the next start finds no damage"
        ControllerStateStore(RunDir(str(folder)))
        registry.read_decisions(RunDir(str(folder)))


@pytest.fixture
def folder(stored: str, tmp_path: Path) -> str:
    return str(shutil.copytree(stored, tmp_path / "run"))


def _damage(folder: str, file: str) -> bytes:
    """Append a prompt line of wrong shape, and return it."""
    line = b'{"event": "prompt", "language": "sw", "prompt": "siri ya mtu", "time": "today"}'
    with Path(folder, "monitor", file).open("ab") as log:
        log.write(line + b"\n")
    return line


def test_a_line_of_wrong_shape_is_set_aside_counted_and_logged(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    line, run = _damage(folder, "traffic.jsonl"), RunDir(folder)
    number = len((run.read_monitor("traffic.jsonl") or b"").splitlines())
    monitor = _start(folder)
    assert monitor.status()["damaged_lines"] == {"traffic.jsonl": 1}
    [aside] = jsonl_log.read(run, "traffic.jsonl.rejected")
    assert (aside["line"], aside["content"]) == (number, line.decode())
    [message] = [each for each in caplog.messages if "is damaged" in each]
    assert message.startswith(f"monitor: line {number} of {folder}/monitor/traffic.jsonl is damaged (prompt.cluster.missing)")
    assert "siri" not in message
    _start(folder)
    assert jsonl_log.read(run, "traffic.jsonl.rejected") == [aside]


@pytest.mark.parametrize(("retention", "days"), [("none", None), ("text", 30.0)])
def test_what_is_set_aside_follows_the_retention_setting(folder: str, retention: str, days: float | None) -> None:
    _damage(folder, "traffic.jsonl")
    config = CONFIG.model_copy(update={"drift": CONFIG.drift.model_copy(update={"retention": retention, "retention_days": days})})
    monitor, run, clock = _start(folder, config), RunDir(folder), replace(CLOCK)
    assert (b"siri" in (run.read_monitor("traffic.jsonl.rejected") or b"")) == (retention == "text")
    monitor.log.erase(clock() + 1)
    assert b"siri" not in (run.read_monitor("traffic.jsonl.rejected") or b"")
    assert "line" in jsonl_log.read(run, "traffic.jsonl.rejected")[0]


def test_a_damaged_controller_state_is_copied_and_costs_one_language(folder: str) -> None:
    run = RunDir(folder)
    states = json.loads(run.read_monitor(STATE_FILE) or b"")
    states["de"]["settled"] = 7
    damaged = json.dumps(states).encode()
    run.write_monitor(STATE_FILE, damaged)
    store = ControllerStateStore(run)
    assert (store.get("sw").questioned, store.get("de").questioned) == (7, 0)
    store.save("de", ControllerState(questioned=9))
    assert run.read_monitor(f"{STATE_FILE}.rejected") == damaged


def test_a_damaged_window_is_moved_aside_if_it_may_be_kept(folder: str) -> None:
    run = RunDir(folder)
    [file] = [each for each in run.monitor_files() if each.endswith(".parquet")]
    run.write_monitor(file, b"PAR1")
    _start(folder)
    assert run.read_monitor(f"{file}.rejected") == b"PAR1"
    assert run.read_monitor(file) is None


@pytest.mark.parametrize("file", ["traffic.jsonl", "feedback.jsonl", "corrections.jsonl"])
def test_what_is_set_aside_expires_while_nothing_else_does(folder: str, file: str) -> None:
    with Path(folder, "monitor", file).open("ab") as log:
        log.write(b'{"event": "prompt", "language": "sw", "prompt": "siri ya mtu", "time": 60.0}\n')
    monitor, run = _start(folder), RunDir(folder)
    assert b"siri" in (run.read_monitor(f"{file}.rejected") or b"")
    monitor._erase(61.0)
    assert b"siri" not in (run.read_monitor(f"{file}.rejected") or b"")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("traffic.jsonl", b'"prompt": "swali 45', b'"promqt": "siri'),
        ("traffic.jsonl", b'"prompt": "swali 60', b'"promqt": "siri'),
        ("feedback.jsonl", b'"correction": "jibu', b'"correctiom": "siri'),
        ("corrections.jsonl", b'"prompt": "swali', b'"promqt": "siri'),
    ],
)
def test_a_text_under_a_damaged_name_is_deleted(folder: str, file: str, old: bytes, new: bytes) -> None:
    path = Path(folder, "monitor", file)
    path.write_bytes(_replace(old, new)(path.read_bytes(), 0, 0, b""))
    monitor = _start(folder)
    assert monitor.status()["languages"]["sw"]["prompts"] == SENT
    monitor._erase(CLOCK() + 1)
    assert not [each for each in _files(folder) if b"siri" in each.read_bytes()]


def test_damage_of_a_set_aside_line_keeps_no_text(folder: str) -> None:
    _damage(folder, "traffic.jsonl")
    _start(folder)
    aside = Path(folder, "monitor", "traffic.jsonl.rejected")
    aside.write_bytes(aside.read_bytes().replace(b'"time"', b'"timf"') + b'{"line": 7, "time": "x", "content": "siri"}\n')
    _start(folder)._erase(60.0)
    assert b"siri" not in aside.read_bytes()


def test_the_reason_of_a_damaged_line_shows_no_content(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    line = b'{"event": "snapshot", "language": "sw", "phase": "watching", "trigger": {"streak": 0, "cooldown": 0}, "window": [], '
    with Path(folder, "monitor", "traffic.jsonl").open("ab") as log:
        log.write(line + b'"replies": {"siri ya mtu": {"replies": 3, "answers": []}}}\n')
    _start(folder)
    [aside] = jsonl_log.read(RunDir(folder), "traffic.jsonl.rejected")
    assert aside["reason"].startswith("snapshot.replies.")
    assert "siri" not in aside["reason"] + caplog.text


def test_what_is_set_aside_is_bounded_in_bytes(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_REJECTED_BYTES", 2_000)
    monkeypatch.setattr(journal, "_MAX_CONTENT_BYTES", 100)
    with Path(folder, "monitor", "traffic.jsonl").open("ab") as log:
        for _ in range(50):
            log.write(b'{"prompt": "' + 1_000 * b"x" + b'"}\n')
    monitor, run = _start(folder), RunDir(folder)
    assert monitor.status()["damaged_lines"] == {"traffic.jsonl": 50}
    assert 1_000 < len(run.read_monitor("traffic.jsonl.rejected") or b"") <= 2_000


def test_a_damaged_line_that_is_read_again_counts_once(folder: str) -> None:
    _damage(folder, "traffic.jsonl")
    run = RunDir(folder)
    log = TrafficLog(run, CONFIG, load_retention_policy(run, "text"))
    log.rebuild()
    assert log.journal.num_rejected == 1


def test_with_a_maximum_age_no_damaged_window_is_kept(folder: str) -> None:
    run, now = RunDir(folder), CLOCK() + 5 * 3600
    [file] = [each for each in run.monitor_files() if each.endswith(".parquet")]
    run.write_monitor(file, b"PAR1")
    run.write_monitor(f"{file}.rejected", b"PAR1")
    config = CONFIG.model_copy(update={"drift": CONFIG.drift.model_copy(update={"retention_days": 30.0})})
    TrafficMonitor(run, config, WordAssigner(), lambda: now, elapsed=lambda: 0.0)
    assert not [each for each in run.monitor_files() if ".parquet" in each]
