"""The command: its groups, its entry point and its error handling."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer
from rich.text import Text

from compass_ray import __version__
from compass_ray.artifacts import ArtifactError
from compass_ray.artifacts.write_errors import explain_os_error
from compass_ray.cli.output import err, out
from compass_ray.config import ConfigError
from compass_ray.config.base import DeprecatedSettingWarning
from compass_ray.languages import UnknownLanguageError
from compass_ray.models.errors import ModelError
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
    from compass_ray import ray_session

    ray_session.prepare_environment()
    warnings.showwarning = _show_warning
    try:
        app()
    except SystemExit as ended:
        if ended.code in _STOP_CODES:
            _fail(ray_session.stop_message(_STOP_CODES[ended.code]), ended.code)
        raise
    except (ConfigError, UnknownLanguageError) as error:
        _fail(ray_session.user_message(error), 2)
    except (ArtifactError, ModelError, OSError) as error:
        _fail((explain_os_error(error) if isinstance(error, OSError) else None) or ray_session.user_message(error), 1)
    except Exception as error:
        if os.environ.get("COMPASS_RAY_DEBUG"):
            raise
        _fail(f"{ray_session.user_message(error)}\nSet COMPASS_RAY_DEBUG=1 for the stack trace.", 1)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **kwargs: Any) -> None:
    """Print a deprecated setting as one line; leave other warnings to Python."""
    if issubclass(category, DeprecatedSettingWarning):
        err.print(Text.assemble(("warning", "bold yellow"), f": {redact(message)}"), soft_wrap=True)
    else:
        _show_python_warning(message, category, *place, **kwargs)


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
