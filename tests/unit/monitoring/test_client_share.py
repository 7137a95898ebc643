"""What one client counts for in a window and among the replies of a version, and prompts that repeat."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import registry
from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig, parse_config
from compass_ray.monitoring.client_share import ClientShare, PromptEntry, extract_words, hash_words
from compass_ray.monitoring.language_monitor import LanguageMonitorState
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import MAX_PROMPT_CHARS, Feedback, Observation
from compass_ray.monitoring.retention import RetentionPolicy
from compass_ray.monitoring.window_store import read_window
from tests.unit.fakes import BASE, Clock, MakeAdapter, WordAssigner


@pytest.fixture(autouse=True)
def served(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    registry.promote(run, "sw", "v0001", clock=clock)


@pytest.fixture
def monitor(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> TrafficMonitor:
    return TrafficMonitor(run, config, assigner, clock)


def _asked(numbers: range, cluster: int, clients: int, name: str = "c", version: str = "v0001") -> list[Observation]:
    """Different prompts of several clients in turn."""
    return [
        Observation(f"{name}-{n}", "sw", f"swali {name} {n} {cluster}", version, 1.0, 900.0, None, True, f"{name}{n % clients}")
        for n in numbers
    ]


def _window_clients(monitor: TrafficMonitor, clients: list[str]) -> Counter[str]:
    """How many prompts of the window are of each client, found with the secret."""
    hashed, window = monitor.retention_policy.client_hash, monitor.log.language_state("sw").window
    return Counter(client for entry in window for client in clients if entry.get("client") == hashed(entry["id"], client))


def test_a_flood_of_one_client_neither_raises_an_alarm_nor_fills_the_window_of_an_update(
    monitor: TrafficMonitor, run: RunDir
) -> None:
    monitor.record(_asked(range(110), cluster=0, clients=10))
    monitor.record(_asked(range(200), cluster=2, clients=1, name="flood"))
    state = monitor.log.language_state("sw")
    assert _window_clients(monitor, ["flood0"]) == {"flood0": 25}
    assert state.num_prompts == 110 + 25
    assert state.excluded == 175
    assert monitor.ready() == []
    monitor.record(_asked(range(110, 300), cluster=2, clients=10))  # a real change raises it
    monitor.record(_asked(range(200, 300), cluster=3, clients=1, name="flood"))
    monitor.record(_asked(range(300, 420), cluster=2, clients=10))
    (ready,) = monitor.ready()
    assert Counter(read_window(run, ready)["cluster"].to_pylist())[3] <= 25


def test_without_other_clients_the_window_does_not_fill_and_says_so(
    monitor: TrafficMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.record(_asked(range(300), cluster=2, clients=3))
    status = monitor.status()["languages"]["sw"]
    assert (status["window"], status["excluded"], status["last_check"]) == (75, 225, None)
    assert "monitor: 200 prompts did not count, language=sw" in caplog.text


def test_with_a_share_of_one_every_prompt_counts(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    every = config.model_copy(update={"drift": config.drift.model_copy(update={"share_per_key": 1.0})})
    monitor = TrafficMonitor(run, every, assigner, clock)
    monitor.record([Observation(f"id-{n}", "sw", "habari 0", "v0001", 1.0, 900.0, client="one") for n in range(50)])
    assert monitor.status()["languages"]["sw"]["prompts"] == 50


def test_equal_prompts_count_once_whoever_sends_them(monitor: TrafficMonitor) -> None:
    texts = ["Habari yako? 0", "habari  yako 0", "HABARI\u200b yako… 0", "ｈａｂａｒｉ yako 0"]
    monitor.record([Observation(f"id-{n}", "sw", texts[n % 4], "v0001", 1.0, 900.0, client=f"c{n}") for n in range(40)])
    state = monitor.log.language_state("sw")
    assert (state.num_prompts, state.excluded) == (1, 39)
    assert monitor.signals("sw")["v0001"].nll.size == 1
    monitor.record(_asked(range(120), cluster=1, clients=10))
    monitor.record([Observation("late", "sw", texts[0], "v0001", 1.0, 900.0, client="c9")])
    assert state.num_prompts == 122, "it counts again once the other left the window"


def test_the_work_for_a_prompt_is_bounded_whatever_its_length() -> None:
    longest = "\ufdfa" * MAX_PROMPT_CHARS  # each is 18 characters when normalized
    assert len(extract_words(longest)) <= MAX_PROMPT_CHARS
    assert len(hash_words(longest)) == len(hash_words("habari")) == 64
    assert hash_words("Habari, yako?") == hash_words("habari YAKO") != hash_words("habari zako")


def test_marks_distinguish_words() -> None:
    assert extract_words("कि") != extract_words("का")
    assert extract_words("?!") == "?!"


def test_one_client_fills_at_most_its_share_of_the_replies_of_a_canary(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    update = config.update.model_copy(update={"canary_replies": 40})
    monitor = TrafficMonitor(run, config.model_copy(update={"update": update}), assigner, clock)
    monitor.record(_asked(range(100), cluster=0, clients=10))
    monitor.record(_asked(range(300), cluster=0, clients=1, name="flood", version="v0002"))
    assert monitor.signals("sw")["v0002"].nll.size == 10
    monitor.record(_asked(range(100, 130), cluster=0, clients=10, version="v0002"))
    assert monitor.signals("sw")["v0002"].nll.size == 40


def test_a_restart_and_a_replay_keep_the_share(
    monitor: TrafficMonitor, run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock
) -> None:
    monitor.record(_asked(range(60), cluster=0, clients=1))
    replayed = TrafficMonitor(run, config, assigner, clock)  # it also rewrites the log as a snapshot
    assert replayed.status() == monitor.status()
    again = TrafficMonitor(run, config, assigner, clock)
    again.record(_asked(range(60, 120), cluster=0, clients=1))
    assert again.status()["languages"]["sw"]["prompts"] == 25
    assert again.status()["languages"]["sw"]["excluded"] == 95
    assert again.record(_asked(range(100, 120), cluster=0, clients=1)).duplicates == 20


def test_no_client_is_on_disk_or_linked_there_and_hashes_are_deleted_with_age(
    monitor: TrafficMonitor, run: RunDir, clock: Clock
) -> None:
    clock.now = 1000.0
    monitor.record(_asked(range(8), cluster=0, clients=2, name="client-of-"))
    entries = [entry for entry in jsonl_log.read(run, "traffic.jsonl") if entry["event"] == "prompt"]
    assert len({entry["client"] for entry in entries}) == len({entry["words"] for entry in entries}) == 8
    folder = Path(run.artifact("monitor").path)
    assert b"client-of-0" not in b"".join(path.read_bytes() for path in folder.glob("*.jsonl"))
    clock.now += 31 * 86_400.0
    monitor.erase_expired()
    on_disk = (folder / "traffic.jsonl").read_text()
    assert '"client"' not in on_disk
    assert not any(entry["client"] in on_disk or entry["words"] in on_disk for entry in entries)


@pytest.mark.parametrize("retention", ["none", "hash", "embedding", "text"])
def test_the_share_holds_under_every_retention_setting_and_excluded_prompts_leave_no_text(
    run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock, retention: str
) -> None:
    drift = config.drift.model_copy(update={"retention": retention})
    monitor = TrafficMonitor(run, config.model_copy(update={"drift": drift}), assigner, clock)
    monitor.record(_asked(range(80), cluster=0, clients=1))
    assert monitor.status()["languages"]["sw"]["window"] == 25
    excluded = [entry for entry in jsonl_log.read(run, "traffic.jsonl") if not entry.get("counts", True)]
    assert len(excluded) == 55
    assert not any({"prompt", "row_id", "embedding", "words"} & entry.keys() for entry in excluded)


def test_a_log_of_an_earlier_release_still_loads(run: RunDir, config: RunConfig, assigner: WordAssigner, clock: Clock) -> None:
    replies = {"v0001": {"replies": [["id-1", 1.0]], "answers": []}}
    fields = {"language": "sw", "cluster": 0, "coarse": 0, "version": "v0001", "nll": 1.0, "time": 900.0}
    former = [
        {"event": "snapshot", "language": "sw", "phase": "watching", "trigger": {"streak": 0, "cooldown": 0}, "seen": 1,
         "window": [{"event": "prompt", "id": "id-1", **fields}], "replies": replies},
        {"event": "prompt", "id": "id-2", **fields},
    ]  # fmt: skip
    jsonl_log.append(run, "traffic.jsonl", former)
    monitor = TrafficMonitor(run, config, assigner, clock)
    monitor.record(_asked(range(3), cluster=0, clients=3))
    assert monitor.status()["languages"]["sw"]["window"] == 5
    assert monitor.signals("sw")["v0001"].nll.size == 5


def test_at_most_as_many_ratings_of_a_network_count_as_of_a_key(monitor: TrafficMonitor) -> None:
    monitor.record(_asked(range(50), cluster=0, clients=10))
    flood = [Feedback(f"c-{n}", "bad", None, None, None, 900.0, "net") for n in range(50)]
    monitor.record_feedback(flood)
    assert monitor.signals("sw")["v0001"].bad == monitor.feedback.max_ratings_per_key


_CLIENTS = st.integers(0, 6)


@given(
    asked=st.lists(st.tuples(_CLIENTS, st.integers(0, 60), st.sampled_from(["v1", "v2"])), max_size=150),
    share=st.floats(0.05, 0.99),
    size=st.integers(1, 30),
    canary_replies=st.integers(1, 40),
)
def test_no_order_of_prompts_exceeds_a_share_or_repeats_a_prompt(
    asked: list[tuple[int, int, str]], share: float, size: int, canary_replies: int
) -> None:
    drift, update = {"window": size, "share_per_key": share}, {"canary_replies": canary_replies}
    config = parse_config({"languages": ["sw"], "train": {"base_model": BASE}, "drift": drift, "update": update})
    policy, state = RetentionPolicy("text", b"x"), LanguageMonitorState("sw", size)
    limit, words, owner = ClientShare(config, policy), dict[str, int](), dict[str, int]()
    for n, (client, text, version) in enumerate(asked):
        words[str(n)], owner[str(n)] = text, client
        event = {"event": "prompt", "id": str(n), "version": version, "nll": 1.0, "time": 1.0, "coarse": 0}
        event |= policy.client_fields(str(n), str(client), str(text))
        state.apply(limit.limit(state, PromptEntry(event, str(client), str(text))))
        texts = [words[entry["id"]] for entry in state.window]
        assert len(set(texts)) == len(texts)
        assert _most([owner[entry["id"]] for entry in state.window]) <= max(1, int(share * size))
        for ids in map(state.reply_quality.reply_ids, state.reply_quality.versions):
            compared = max(len(ids), min(canary_replies, size))
            assert _most([owner[name] for name in ids]) <= max(1, int(share * compared))


def _most(owners: list[int]) -> int:
    return max(Counter(owners).values(), default=0)


def test_with_default_settings_no_client_exceeds_its_share_of_a_comparison() -> None:
    config = parse_config({"languages": ["sw"], "train": {"base_model": BASE}})
    policy, state = RetentionPolicy("text", b"x"), LanguageMonitorState("sw", config.drift.window)
    limit = ClientShare(config, policy)
    asked = ["flood"] * 50 + [f"one-{n}" for n in range(150)] + ["flood"] * 50 + [f"two-{n}" for n in range(50)]
    for n, client in enumerate(asked):
        event = {"event": "prompt", "id": f"{client}/{n}", "version": "v1", "nll": 1.0, "time": 1.0, "coarse": 0}
        event |= policy.client_fields(f"{client}/{n}", client, str(n))
        state.apply(limit.limit(state, PromptEntry(event, client, str(n))))
    ids = state.reply_quality.reply_ids("v1")
    assert sum(name.startswith("flood") for name in ids) <= config.drift.share_per_key * len(ids)
