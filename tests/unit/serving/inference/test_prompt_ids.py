"""The prompt that a chat request prefills is the prompt of training, under the chat templates of several families."""

from __future__ import annotations

import pytest
import torch

from compass_ray.engine.engine import Engine
from compass_ray.models.base_model import freeze
from compass_ray.models.chat_template import TrainingRow, encode_rows
from compass_ray.serving.api.conversions import from_chat_request
from compass_ray.serving.api.schema.chat import ChatRequest
from compass_ray.serving.routing.model_names import ModelTarget
from compass_ray.serving.routing.route_selection import Route
from compass_ray.sources.conversations import parse_conversation
from tests.unit.models.chat_styles import STYLES, make_chat_tokenizer
from tests.unit.tiny_models import make_model


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("system", ["system", "developer", None])
def test_the_endpoint_prefills_the_prompt_of_training(style: str, system: str | None) -> None:
    tokenizer = make_chat_tokenizer(style)
    engine = Engine(freeze(make_model("llama", len(tokenizer)), tokenizer, torch.device("cpu"), "tiny"))
    route = Route(None, None, None, "asked", ModelTarget.AUTO)
    written = [*([(system, "Be brief.")] if system else []), ("user", "Habari?"), ("assistant", "Nzuri."), ("user", " Jina? ")]
    body = {"model": "auto", "messages": [{"role": role, "content": text} for role, text in written]}
    request = from_chat_request(ChatRequest.model_validate(body), conversation=None, key=None)
    served = engine.tokenize(request.to_generation_request(route, 8))
    engine.close()
    parsed = parse_conversation([*body["messages"], {"role": "assistant", "content": "Asha."}])
    row = TrainingRow("", "", messages=parsed.turns)
    [example] = encode_rows(tokenizer, [row], 1000, "last")
    assert list(example.input_ids[: example.prompt_length]) == served
    [every] = encode_rows(tokenizer, [row], 1000)
    assert list(every.input_ids[: len(served)]) == served
