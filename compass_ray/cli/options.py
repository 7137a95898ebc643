"""Options that several commands share, and the configuration that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compass_ray import config as configuration
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig

Run = Annotated[str, typer.Option("--run", help="Run directory, local or a URI such as s3://bucket/run.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URI.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings that ship with the package.")]
File = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; it may start with 'extends: PRESET'.")]
Languages = Annotated[str | None, typer.Option("--languages", help="Target languages, as in am,sw.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, as in select.budget=1.2; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only, without progress bars.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[list[str] | None, typer.Option("--force", help="Make this stage anew; repeatable.")]
LanguageArgument = Annotated[str, typer.Argument(help="Code of a target language, as in sw.")]


def load_config(preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None) -> RunConfig:
    """The configuration that a command line names."""
    return configuration.resolve_config(load_raw_config(preset, file), set_ or (), parse_languages(languages))


def load_raw_config(preset: str | None, file: Path | None) -> dict[str, Any]:
    """The settings that a preset or a file holds, not checked yet."""
    if preset and file:
        raise ConfigError("give --preset or --config, not both; a file may start with 'extends: PRESET'")
    return configuration.read_raw_config(preset, file)


def parse_languages(languages: str | None) -> list[str] | None:
    """The codes that ``--languages`` names, None where it is not given."""
    return None if languages is None else [code.strip() for code in languages.split(",") if code.strip()]


def require_language(run: RunDir, language: str) -> str:
    """The language, once the run is known to have it."""
    known = run.read_config().languages
    if language not in known:
        raise ConfigError(f"{language!r} is not a language of this run; it has {', '.join(known)}")
    return language


def apply_overrides(recorded: RunConfig, set_: list[str] | None) -> RunConfig:
    """A recorded configuration with settings changed."""
    return configuration.with_overrides(recorded, set_ or ())
