"""Properties for any text: headers are one line of ASCII, errors are JSON, and joined streams equal the response."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.conversions import format_route_header
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.api.middleware import error_response
from compass_ray.serving.api.schema.common_response import CompassInfo
from compass_ray.serving.inference.client_hashes import ClientHashes
from compass_ray.serving.inference.errors import ApiError
from tests.unit.serving.api.endpoint import Endpoint, chunks

ANY = st.text(st.characters(codec=None), max_size=50)
TEXT = st.text(max_size=50)


@given(ANY)
def test_a_route_in_a_header_is_one_line_of_printable_ascii(reason: str) -> None:
    header = format_route_header(CompassInfo(language=None, confidence=None, adapter=None, reason=reason))
    assert header.isascii()
    assert header.isprintable()


@given(ANY)
def test_an_error_is_json_whatever_its_message_holds(message: str) -> None:
    assert "error" in json.loads(error_response(ApiError(400, message)).body)


@given(ANY)
def test_a_draw_is_a_share(name: str) -> None:
    assert 0.0 <= ClientHashes(b"secret").draw(name) < 1.0


@given(ANY)
def test_only_a_header_with_the_key_is_accepted(header: str) -> None:
    assert ApiKeys({hash_key("sesame"): "amina"}).find_id(header) is None


@given(TEXT.filter(str.strip))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_joined_stream_is_the_complete_response(text: str) -> None:
    endpoint = Endpoint()
    complete = endpoint.chat(f"sw {text}", logprobs=True).json()["choices"][0]
    *sent, done = chunks(endpoint.chat(f"sw {text}", logprobs=True, stream=True))
    choices = [chunk["choices"][0] for chunk in sent]
    assert done == "[DONE]"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == complete["message"]["content"]
    scores = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    assert scores == complete["logprobs"]["content"]
    assert choices[-1]["finish_reason"] == complete["finish_reason"]
