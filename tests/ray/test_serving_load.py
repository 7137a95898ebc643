"""A few hundred requests at once while versions are replaced and processes die: none fails, none is answered wrongly.

With vLLM too, where its environment is at hand (`make test-vllm`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed import serving_load_vllm
from benchmarks.speed.serving_load import SMALL, measure

PYTHON = Path(__file__).parents[2] / serving_load_vllm.PYTHON
"""Python of the environment with vLLM."""
pytestmark = pytest.mark.slow
without_vllm = pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not installed beside the checkout: make test-vllm")


@pytest.fixture(scope="module", params=["compass", pytest.param("vllm", marks=without_vllm)])
def numbers(request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The benchmark's small load: three replacements, a replica and the monitor killed."""
    folder = Path(tmp_path_factory.mktemp("load"))
    if request.param == "vllm":
        return dict(measure(folder, serving_load_vllm.SMALL, str(PYTHON)))
    return dict(measure(folder, SMALL))


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
