"""Valid and invalid requests generated from the OpenAPI description: every response is declared, and none is a 5xx.

One check is omitted: a valid body can still be refused, because the description cannot say that a user turn must not be blank
or that a model must exist.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.key_source import hash_key
from tests.unit.serving.api.endpoint import Endpoint

BEARER = {"authorization": "Bearer sesame"}
KEYS = ApiKeys({hash_key("sesame"): "amina"})
CHECKED = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name != "positive_data_acceptance"]


def _schema(endpoint: Endpoint) -> Any:
    config = SchemathesisConfig.from_dict({"generation": {"mode": "all"}})
    loaded = schemathesis.openapi.from_dict(endpoint.api.openapi(), config=config)
    loaded.app = endpoint.api
    return loaded


OPEN = _schema(Endpoint())
GUARDED = _schema(Endpoint(keys=KEYS))
BOUNDED = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@OPEN.parametrize()
@BOUNDED
def test_generated_requests_get_declared_responses(case: Any) -> None:
    _check_response(case)


@pytest.mark.slow
@OPEN.parametrize()
@settings(BOUNDED, max_examples=150)
def test_more_generated_requests_get_declared_responses(case: Any) -> None:
    _check_response(case)


def _check_response(case: Any) -> None:
    response = case.call_and_validate(checks=CHECKED)
    assert response.status_code < 500
    assert "Traceback" not in response.text
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@GUARDED.parametrize()
@settings(BOUNDED, max_examples=20)
def test_responses_with_keys_are_declared(case: Any) -> None:
    case.call_and_validate(checks=CHECKED, headers=BEARER)


def test_401_and_429_are_declared_only_if_configured() -> None:
    described = Endpoint(keys=KEYS, requests_per_minute=5).api.openapi()["paths"]
    statuses = {
        path: {"401", "429"} & set(next(iter(operations.values()))["responses"]) for path, operations in described.items()
    }
    assert statuses["/healthz"] == set()
    assert statuses["/v1/models"] == {"401"}
    assert statuses["/v1/feedback"] == statuses["/v1/completions"] == {"401", "429"}
    assert described["/healthz"]["get"]["security"] == []
    assert described["/v1/models"]["get"]["security"] == [{"bearer": []}, {"basic": []}]


@pytest.mark.parametrize("path", sorted(OPEN.raw_schema["paths"]))
def test_every_path_declares_its_errors(path: str) -> None:
    for operation in OPEN.raw_schema["paths"][path].values():
        assert not {"422", "401", "429"} & set(operation["responses"])
        assert all("x-request-id" in response["headers"] for response in operation["responses"].values())
