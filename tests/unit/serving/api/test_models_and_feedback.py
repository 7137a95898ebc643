"""The model list, feedback, metrics and the dashboard."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.serving.api.endpoint import TRYING, Endpoint

ID = "chatcmpl-" + "0" * 32


def test_models_lists_every_name_with_details(endpoint: Endpoint) -> None:
    endpoint.backend.known = TRYING
    found = {card["id"]: card for card in endpoint.request("GET", "/v1/models").json()["data"]}
    names = ["auto", "base", "de", "hi", "sw", "de@target", "hi@v0001", "sw@target", "sw@v0001", "sw@v0002", "sw@v0003"]
    assert list(found) == names
    assert found["sw"]["compass"]["versions"] == ["target", "v0001", "v0002", "v0003"]
    details = {name: tuple(found[name]["compass"][part] for part in ("live", "canary", "shadow")) for name in names[-3:]}
    assert details == {"sw@v0001": (False, None, True), "sw@v0002": (True, None, False), "sw@v0003": (False, 0.5, False)}


@pytest.mark.parametrize("name", ["auto", "base", "sw", "sw@v0002", "sw%40v0002"])
def test_one_model_by_name(endpoint: Endpoint, name: str) -> None:
    assert endpoint.request("GET", f"/v1/models/{name}").json()["id"] == name.replace("%40", "@")


def test_models_are_listed_while_the_backend_is_unavailable(endpoint: Endpoint) -> None:
    async def silent() -> Any:
        raise RuntimeError("no replica for a moment")

    endpoint.backend.catalogue = silent  # type: ignore[method-assign]
    assert endpoint.request("GET", "/v1/models/sw@v0002").status_code == 200


def test_feedback_is_forwarded_and_the_response_says_what_was_accepted(endpoint: Endpoint) -> None:
    body = {"id": ID, "rating": "bad", "correction": "sahihi", "comment": None}
    response = endpoint.request("POST", "/v1/feedback", json=body)
    taken = {"object": "compass.feedback", "id": ID, "rating": "bad", "correction": True, "comment": False}
    assert (response.status_code, response.json()) == (200, taken)
    [feedback] = endpoint.traffic.feedback
    assert (feedback.reply, feedback.rating, feedback.correction, feedback.key) == (ID, "bad", "sahihi", None)
    assert feedback.time == endpoint.clock()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"id": "../x"}, "id"),
        ({"id": ID + "\n"}, "id"),
        ({"rating": "so-so"}, "rating"),
        ({"rating": None}, "rating"),
        ({"correction": "x" * 8_001}, "correction"),
        ({"comment": "x" * 2_001}, "comment"),
        ({"comment": ""}, "comment"),
    ],
)
def test_feedback_is_bounded(endpoint: Endpoint, fields: dict[str, Any], param: str) -> None:
    response = endpoint.request("POST", "/v1/feedback", json={"id": ID, "rating": "good", **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert endpoint.traffic.feedback == []


def test_metrics_are_prometheus_text(endpoint: Endpoint) -> None:
    endpoint.chat()
    response = endpoint.request("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'compass_requests_total{adapter="sw@v0002",language="sw",status="200"} 1.0' in response.text


def test_the_page_is_html_and_escapes_what_it_shows(endpoint: Endpoint) -> None:
    page = endpoint.request("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
