"""A conversation at the terminal with the real endpoint on a port: replies, routes, commands, keys and errors."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cli.chat_session import ChatError, ChatSession
from compass_ray.cli.service_probe import find_service
from compass_ray.config import load_run_config
from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.inference.backend import StreamInterruptedError
from tests.unit.command_line import Command, Done
from tests.unit.serving.api.endpoint import RUN_ID, Endpoint
from tests.unit.serving.api.running import Running, run_endpoint


@pytest.fixture
def running() -> Iterator[Running]:
    with run_endpoint(Endpoint(keys=ApiKeys({hash_key("sesame"): "amina"}))) as started:
        yield started


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPASS_API_KEY", "sesame")


@pytest.fixture
def talk(compass_ray: Command, running: Running, monkeypatch: pytest.MonkeyPatch) -> object:
    def type_lines(*lines: str, options: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return compass_ray(f"chat --url {running.url} {options}")

    return type_lines


@pytest.fixture
def session(running: Running) -> Iterator[ChatSession]:
    with httpx.Client(base_url=running.url, headers={"authorization": "Bearer sesame"}) as client:
        yield ChatSession(client, clock=running.endpoint.clock)


def test_a_reply_is_shown_with_adapter_and_reason(talk) -> None:  # type: ignore[no-untyped-def]
    done = talk("sw habari")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[1] == "jibu la sw@v0002"
    assert lines[2].startswith("[sw@v0002: ")
    assert "3 tokens in " in lines[2]


def test_the_parts_of_a_reply_arrive_one_by_one(session: ChatSession) -> None:
    assert list(session.send("sw habari")) == ["jibu", " la", " sw@v0002"]
    assert session.route is not None
    assert (session.route.adapter, session.route.tokens) == ("sw@v0002", 3)


def test_each_message_carries_the_conversation_until_a_new_one(session: ChatSession, running: Running) -> None:
    for text in ("sw habari", "sw tena"):
        list(session.send(text))
    session.restart()
    list(session.send("sw mwanzo"))
    roles = [[role for role, _ in request.messages] for request in running.endpoint.backend.requests]
    assert roles == [["user"], ["user", "assistant", "user"], ["user"]]


def test_commands_change_the_model_and_start_anew(talk, running: Running) -> None:  # type: ignore[no-untyped-def]
    done = talk("/model base", "sw habari", "/new", "/model sw@v0003", "sw habari", "/model", "/what", "/quit", "sw never")
    assert [request.adapter for request in running.endpoint.backend.requests] == [None, "sw@v0003"]
    assert [len(request.messages) for request in running.endpoint.backend.requests] == [1, 1]
    assert "[base model: " in done.out
    assert "sw@v0003 is used; the models are auto, base, " in done.out
    assert "/quit         end" in done.out


def test_a_refused_message_is_no_part_of_the_conversation(session: ChatSession) -> None:
    session.model = "xx"
    with pytest.raises(ChatError, match=r"404: .*'xx'"):
        list(session.send("sw habari"))
    assert session.turns == []


def test_a_reply_that_breaks_off_is_an_error(session: ChatSession, running: Running) -> None:
    running.endpoint.backend.late_failure = StreamInterruptedError("The replica was lost.")
    with pytest.raises(ChatError, match=r"lost|interrupted|again"):
        list(session.send("sw habari"))
    assert session.turns == []


def test_the_key_comes_from_the_environment(talk, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("COMPASS_API_KEY")
    assert "error: 401: No valid API key." in talk("sw habari").out
    monkeypatch.setenv("COMPASS_API_KEY", "sesame")
    assert "jibu la sw@v0002" in talk("sw habari").out


def test_a_reply_cannot_control_the_terminal(talk, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(type(running.endpoint.backend), "_begin", _begin_nasty)
    done = talk("sw habari")
    assert "\x1b" not in done.out
    assert "a\\x1b[2Jb" in done.out


def _begin_nasty(self: object, request: object) -> object:
    from compass_ray.serving.inference.backend import GenerationOutput

    return GenerationOutput("a\x1b[2Jb", "sw@v0002", 4, 1, "stop", 0.5, ())


def test_a_service_that_is_away_is_told(compass_ray: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("sw habari\n"))
    assert "error: the service does not answer (ConnectError: " in compass_ray("chat --url http://127.0.0.1:1").out


def test_without_a_run_or_an_address_there_is_nobody_to_talk_to(compass_ray: Command) -> None:
    done = compass_ray("chat")
    assert (done.code, done.out) == (2, "")
    assert "give a RUN, or --url" in done.err


def test_the_service_of_the_run_is_found_and_no_other(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(str(tmp_path / "mine"))
    config = load_run_config("atlas-test", overrides=[f"serve.port={running.url.rpartition(':')[2]}"])
    assert find_service(run, config) is None
    monkeypatch.setattr(RunDir, "public_id", RUN_ID)
    assert find_service(run, config) == running.url


def test_a_stranger_at_the_address_gets_no_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        received = pool.submit(_receive_requests, listener)
        config = load_run_config("atlas-test", overrides=[f"serve.port={listener.getsockname()[1]}"])
        assert find_service(RunDir(str(tmp_path / "mine")), config) is None
        request = received.result(10)
    assert request.startswith(b"GET /healthz ")
    assert b"sesame" not in request
    assert b"authorization" not in request.lower()


def _receive_requests(listener: socket.socket) -> bytes:
    """The first request with content; each connection is answered with 200."""
    while True:
        connection, _ = listener.accept()
        with connection:
            if request := connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                return request
