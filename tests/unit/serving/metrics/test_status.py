"""The service status: a bounded tree of plain values."""

from __future__ import annotations

import json

from compass_ray.registry import Canary, Catalogue
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.metrics.status import build_status, to_columns
from tests.unit.fakes import Clock
from tests.unit.serving.dashboard import states


def test_the_status_has_the_versions_of_each_language() -> None:
    catalogue = Catalogue(
        {"sw": "v0002"},
        {"sw": ("v0001", "v0002")},
        {"sw": Canary("v0003", 0.1)},
        {"sw": "v0001"},
        pins={"sw": ""},
        previous={"sw": "v0001"},
    )
    found = build_status(
        run="r",
        languages=("sw", "xyz"),
        catalogue=catalogue,
        statistics=RequestStatistics(Clock(7.0)),
        problems={},
        traffic={},
        monitor=None,
        decisions=[],
        engine={},
    )
    assert found["time"] == 7.0
    assert found["languages"]["sw"] == {
        "name": "Swahili",
        "live": "v0002",
        "previous": "v0001",
        "versions": ["v0001", "v0002"],
        "canary": {"version": "v0003", "share": 0.1},
        "shadow": "v0001",
        "pinned": "",
    }
    nothing = {"live": None, "previous": None, "versions": [], "canary": None, "shadow": None, "pinned": None}
    assert found["languages"]["xyz"] == {"name": "xyz", **nothing}


def test_an_hour_of_forty_two_languages_is_a_bounded_tree_of_plain_values() -> None:
    text = json.dumps(states.busy(), allow_nan=False)
    assert len(text) < 300_000
    assert len(json.loads(text)["history"]["time"]) == 360


def test_only_the_last_decisions_and_the_displayed_fields_are_included() -> None:
    decisions = [{"time": n, "kind": "drift", "language": "sw", "from": None, "trigger": "permutation_test"} for n in range(80)]
    found = build_status(
        run="r",
        languages=(),
        catalogue=Catalogue({}, {}),
        statistics=RequestStatistics(Clock()),
        problems={},
        traffic={},
        monitor=None,
        decisions=decisions,
        engine={},
    )
    assert found["decisions"] == [{"time": n, "kind": "drift", "language": "sw"} for n in range(30, 80)]


def test_records_become_columns() -> None:
    assert to_columns([{"a": 1, "b": None}, {"a": 2, "b": 3}]) == {"a": [1, 2], "b": [None, 3]}
    assert to_columns([]) == {}
