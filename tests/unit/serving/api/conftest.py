"""An endpoint for each test."""

from __future__ import annotations

import pytest

from tests.unit.serving.api.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()
