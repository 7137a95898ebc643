"""The command: its groups, its entry point and its error handling."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer
from rich.text import Text

from compass_ray import __version__, ray_session
from compass_ray.cli.output import err, out
from compass_ray.ray_session import message_log
from compass_ray.redaction import redact

_STOP_CODES = {128 + number: number for number in (signal.SIGTERM, signal.SIGHUP)}
"""Exit codes of a command that a signal stopped, and these signals."""

_show_python_warning = warnings.showwarning

app = typer.Typer(
    name="compass-ray",
    help="Train, serve, monitor and update one adapter per language on a shared base model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
adapters = typer.Typer(help="List and change adapter versions: live version, pin, canary, shadow.", no_args_is_help=True)
app.add_typer(adapters, name="adapters")


def main() -> None:
    """Entry point of the console script."""
    ray_session.prepare_environment()
    message_log.separate_stderr()
    warnings.showwarning = _show_warning
    try:
        app()
    except SystemExit as ended:
        if ended.code in _STOP_CODES:
            _fail(ray_session.stop_message(_STOP_CODES[ended.code]), ended.code)
        raise
    except Exception as error:
        _report(error)


def _report(error: Exception) -> None:
    """Print an error and exit: 2 for an invalid request, otherwise 1. The error's classes are imported here, not at the start."""
    from compass_ray.artifacts import ArtifactError
    from compass_ray.artifacts.write_errors import explain_os_error
    from compass_ray.config import ConfigError
    from compass_ray.languages import UnknownLanguageError
    from compass_ray.models.errors import ModelError

    message = ray_session.user_message(error)
    if isinstance(error, ConfigError | UnknownLanguageError):
        _fail(message, 2)
    if isinstance(error, ArtifactError | ModelError | OSError):
        _fail((explain_os_error(error) if isinstance(error, OSError) else None) or message, 1)
    if os.environ.get("COMPASS_RAY_DEBUG"):
        raise error
    _fail(f"{message}\nSet COMPASS_RAY_DEBUG=1 for the stack trace.", 1)


def _show_warning(message: Warning | str, category: type[Warning], *position: Any, **kwargs: Any) -> None:
    """Print a deprecated setting as one line; leave other warnings to Python."""
    if category.__name__ == "DeprecatedSettingWarning":
        err.print(Text.assemble(("warning", "bold yellow"), f": {redact(message)}"), soft_wrap=True)
    else:
        _show_python_warning(message, category, *position, **kwargs)


def _fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error", "bold red"), f": {redact(message)}"), soft_wrap=True)
    sys.stdout.flush()
    raise SystemExit(code)


def _version(shown: bool) -> None:
    if shown:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options before the command."""
