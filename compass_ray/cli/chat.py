"""The command for a conversation at the terminal. It shows the route of each reply."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from compass_ray.cli.app import app
from compass_ray.cli.chat_session import AUTO, ChatError, ChatSession
from compass_ray.cli.options import Settings, apply_overrides, open_run
from compass_ray.cli.output import err, out
from compass_ray.cli.service_probe import auth_headers, find_service
from compass_ray.redaction import redact
from compass_ray.texts import make_visible

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.serving.local_endpoint import LocalAddress

_REPLY_SECONDS = 600.0
_HELP = (
    "/model NAME   answer with auto, base, a language such as sw, or a version such as sw@v0002",
    "/model        list the models",
    "/new          start a new conversation",
    "/quit         end (also Ctrl-D)",
)


@app.command(epilog="Example: `compass-ray chat runs/mine`, or `compass-ray chat --url http://localhost:8000`")
def chat(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run directory or URI. It is not needed with --url.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of a running service, such as http://localhost:8000.")] = None,
    model: Annotated[str, typer.Option(help="Model that answers: auto, base, sw or sw@v0002.")] = AUTO,
    set_: Settings = None,
) -> None:
    """Talk to a run's adapters at the terminal, and see which adapter answers and why.

    Without --url it uses the service of the run on this machine. If none runs, it loads the models itself and records nothing.
    An API key is read from COMPASS_API_KEY.
    """
    import httpx

    with (
        _endpoint(run, url, set_) as (address, headers),
        httpx.Client(base_url=address, headers=headers, timeout=_REPLY_SECONDS) as client,
    ):
        _say(f"Talking to {redact(address)} with model {model}. /help lists the commands.", "dim")
        converse(ChatSession(client, model), _read_line)


def converse(session: ChatSession, read_line: Callable[[], str | None]) -> None:
    """Answer line after line until ``read_line`` returns None, or the user types /quit."""
    import httpx

    while (line := read_line()) is not None:
        text = line.strip()
        if text in ("/quit", "/exit"):
            return
        if not text:
            continue
        try:
            _run_command(session, text) if text.startswith("/") else _answer(session, text)
        except ChatError as error:
            _say(f"error: {error}", "red")
        except httpx.HTTPError as error:
            _say(f"error: the service does not answer ({type(error).__name__}: {error})", "red")
        except KeyboardInterrupt:
            _say("\nstopped", "yellow")


def _run_command(session: ChatSession, text: str) -> None:
    name, _, value = text.partition(" ")
    if name == "/new":
        session.restart()
        _say("new conversation", "dim")
    elif name == "/model" and value.strip():
        session.model = value.strip()
        _say(f"model {session.model}", "dim")
    elif name == "/model":
        _say(f"{session.model} is used; the models are {', '.join(session.models())}", "dim")
    else:
        for line in _HELP:
            _say(line, "dim")


def _answer(session: ChatSession, text: str) -> None:
    try:
        for part in session.send(text):
            out.print(Text(make_visible(part)), end="", soft_wrap=True)
    finally:
        out.print()
    if session.route:
        _say(f"[{session.route.describe()}]", "cyan dim")


def _say(line: str, style: str) -> None:
    out.print(Text(make_visible(line), style=style), soft_wrap=True)


def _read_line() -> str | None:
    """A line of the user; None at the end of the input."""
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  # input() then edits the line and remembers earlier ones
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None


@contextmanager
def _endpoint(run: str | None, url: str | None, set_: list[str] | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and headers of the endpoint: the given one, that of the run's service, or one that is started here."""
    from compass_ray.config import ConfigError

    if url:
        yield url.rstrip("/").removesuffix("/v1"), auth_headers()
        return
    if run is None:
        raise ConfigError("give a RUN, or --url with the address of a running service")
    where = open_run(run)
    config = apply_overrides(where.read_config(), set_)
    if served := find_service(where, config):
        yield served, auth_headers()
        return
    with _start(where, config) as found:
        yield found.url, auth_headers(found.key)


@contextmanager
def _start(run: RunDir, config: RunConfig) -> Iterator[LocalAddress]:
    from compass_ray import preflight, registry

    _require_engine(config)
    preflight.require_served_models(config)
    for language, reason in registry.promote_first_versions(config, run).items():
        _say(f"the base model answers {language}: {reason}", "yellow")
    with _loading() as loaded:
        from compass_ray.serving.local_endpoint import open_local_endpoint

        with open_local_endpoint(run, config) as address:
            loaded()
            yield address


def _require_engine(config: RunConfig) -> None:
    """Refuse vLLM in an environment without it. Only replicas of a service start ``serve.vllm.python``."""
    from compass_ray.config import ConfigError

    if config.serve.engine == "vllm" and find_spec("vllm") is None:
        raise ConfigError(
            "chat loads the models in this environment, which has no vLLM; "
            "start the service with 'compass-ray serve', or add --set serve.engine=compass"
        )


@contextmanager
def _loading() -> Iterator[Callable[[], None]]:
    """A spinner on a terminal until the yielded function is called."""
    if not err.is_terminal:
        yield lambda: None
        return
    with err.status("Loading the models ...") as shown:
        yield shown.stop
