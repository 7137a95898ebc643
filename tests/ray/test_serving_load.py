"""A few hundred requests at once while versions are replaced and processes die: none fails, none is answered wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.serving_load import SMALL, measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def numbers(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The benchmark's small load: three replacements, a replica and the monitor killed."""
    return dict(measure(Path(tmp_path_factory.mktemp("load")), SMALL))


def test_no_request_fails(numbers: dict[str, object]) -> None:
    assert (numbers["failed"], numbers["refused_429"], numbers["refused_503"]) == (0, 0, 0)
    assert numbers["answered"] == numbers["requests"] - numbers["streams_that_ended_in_an_error_event"]  # type: ignore[operator]
    assert numbers["requests"] >= SMALL.requests  # type: ignore[operator]


def test_no_reply_is_of_a_wrong_version(numbers: dict[str, object]) -> None:
    assert numbers["replacements"] == SMALL.replacements
    assert numbers["wrong"] == 0


def test_the_monitor_hears_of_every_prompt_in_a_language(numbers: dict[str, object]) -> None:
    traffic = numbers["monitor"]
    assert isinstance(traffic, dict)
    assert (traffic["waiting"], traffic["dropped"]) == (0, 0)
    assert traffic["delivered"] == numbers["answered_in_a_language"]
