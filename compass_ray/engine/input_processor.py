"""From a request to its state: token ids, and the refusal of requests that no engine can answer.

Both engines use it, so both accept the same requests, with the same messages. Computes no token of a reply.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.prompt_echo import PromptEcho
from compass_ray.engine.reply_logprobs import ReplyLogprobs
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationRequest
from compass_ray.engine.sampler import SamplingParams, make_generator
from compass_ray.engine.token_bytes import TokenBytes
from compass_ray.models.chat_template import check_token_ids, encode_messages, encode_text
from compass_ray.models.errors import ModelError, TooLongError

_TOKEN_LENGTH_MARGIN = 4
"""Factor on the longest token's characters: a prompt token may cover more characters, because a tokenizer may drop some."""


class InputProcessor:
    """Reads the requests to one base model."""

    def __init__(self, tokenizer: Any, max_model_len: int, num_embeddings: int) -> None:
        """``max_model_len`` limits the tokens of prompt and reply together; ``num_embeddings`` is the model's vocabulary.

        A tokenizer may have more tokens than the model, such as those of images.
        """
        self.max_model_len = max_model_len
        self._tokenizer = tokenizer
        self._prompt_tokenizer = copy.deepcopy(tokenizer)
        self._token_bytes = TokenBytes(tokenizer)
        self._max_characters_per_token = _TOKEN_LENGTH_MARGIN * max(map(len, tokenizer.get_vocab()))
        self._vocabulary = min(num_embeddings, max(tokenizer.get_vocab().values()) + 1)
        self._last_request_id = 0

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Return the prompt token ids of a request. One thread at a time may call it; it may differ from the engine's thread.

        Raises:
            ModelError: the chat template rejects the messages, a token id is unknown, or the prompt is certainly too long.
        """
        characters = len(request.text or "") + sum(len(text) for _, text in request.messages)
        if characters > self.max_model_len * self._max_characters_per_token:
            raise TooLongError(
                f"the conversation has {characters} characters, more than fit into {self.max_model_len} tokens; shorten it"
            )
        return check_token_ids(self._token_ids(request), self._vocabulary)

    def _token_ids(self, request: GenerationRequest) -> Sequence[int]:
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        if request.text is not None:
            return encode_text(self._prompt_tokenizer, request.text)
        messages = [{"role": role, "content": text} for role, text in request.messages]
        return encode_messages(self._prompt_tokenizer, messages, 1 << 30)

    def make_state(self, request: GenerationRequest, token_adapters: TokenAdapters) -> RequestState:
        """Return the state of a request before its first token, with an id of its own.

        Raises:
            ModelError: the prompt is empty or too long, or a sampling value is out of range.
        """
        _check_sampling(request)
        prompt = self.tokenize(request)
        self._check_length(len(prompt), request.max_tokens)
        self._last_request_id += 1
        stop_strings, continues_text = [text for text in request.stop if text], not request.messages
        return RequestState(
            self._last_request_id,
            prompt,
            request.adapter,
            token_adapters,
            request.max_tokens,
            SamplingParams(make_generator(request.seed), request.temperature, request.top_p, request.logprobs),
            IncrementalDetokenizer(self._tokenizer, stop_strings, continues_text=continues_text),
            None if request.logprobs is None else ReplyLogprobs(self._token_bytes, continues_text=continues_text),
            PromptEcho(self._tokenizer, prompt, None if request.logprobs is None else self._token_bytes)
            if request.echo
            else None,
        )

    def _check_length(self, prompt_tokens: int, max_tokens: int) -> None:
        if not prompt_tokens:
            raise ModelError("the prompt is empty; send at least one token of text")
        if prompt_tokens + max_tokens > self.max_model_len:
            raise TooLongError(
                f"the conversation has {prompt_tokens} tokens and max_tokens is {max_tokens}, but the context is limited "
                f"to {self.max_model_len} tokens; shorten the conversation or lower max_tokens"
            )


def _check_sampling(request: GenerationRequest) -> None:
    if request.max_tokens < 1:
        raise ModelError(f"max_tokens is {request.max_tokens}; it must be at least 1")
    if request.temperature < 0 or not 0 < request.top_p <= 1:
        raise ModelError(f"temperature is {request.temperature} and top_p {request.top_p}; expected 0 or more, and (0, 1]")
    if request.blend and not 0 < request.blend[1] < 1:
        raise ModelError(f"the blend weight of {request.blend[0]} is {request.blend[1]}; it must be between 0 and 1")
