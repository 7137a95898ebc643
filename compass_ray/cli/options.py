"""Options that several commands share, and the configuration that they select.

Imports of settings and artifacts are within functions, so that help texts do not wait for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.cli.completion import (
    complete_language,
    complete_languages,
    complete_preset,
    complete_setting,
    complete_stage,
)
from compass_ray.redaction import HIDDEN

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig

Run = Annotated[str, typer.Option("--run", help="Run directory, local or a URI such as s3://bucket/run.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URI.")]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Name of a preset; 'presets' lists them.", autocompletion=complete_preset)
]
File = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; it may start with 'extends: PRESET'.")]
Languages = Annotated[
    str | None,
    typer.Option("--languages", help="Target languages, for example am,sw.", autocompletion=complete_languages),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting, for example select.budget=1.2. Can be repeated.", autocompletion=complete_setting
    ),
]
Unpinned = Annotated[bool, typer.Option("--unpinned", help="Run Python code of models although no commit fixes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only, without progress bars.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", help="Recompute this stage even if it is complete. Can be repeated.", autocompletion=complete_stage),
]
Until = Annotated[str | None, typer.Option(help="Last stage to run, for example select.", autocompletion=complete_stage)]
LanguageArgument = Annotated[
    str, typer.Argument(help="Code of a target language, for example sw.", autocompletion=complete_language)
]


def open_run(uri: str) -> RunDir:
    """The run directory of an option or argument.

    Raises:
        ConfigError: the URI cannot be used.
    """
    from compass_ray.artifacts import RunDir

    return RunDir(uri)


def load_config(preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None) -> RunConfig:
    """The configuration that the options select."""
    from compass_ray import config as configuration

    return configuration.resolve_config(load_raw_config(preset, file), set_ or (), parse_languages(languages))


def load_run_settings(
    run: RunDir, preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None
) -> RunConfig:
    """The configuration that the options select. Without a preset and a file, an existing run keeps its settings.

    Raises:
        ConfigError: a recorded setting had credentials, which are not recorded.
    """
    from compass_ray import config as configuration

    recorded = None if preset or file else _read_recorded(run)
    if recorded is None:
        return load_config(preset, file, languages, set_)
    return configuration.with_overrides(recorded, set_ or (), parse_languages(languages))


def _read_recorded(run: RunDir) -> RunConfig | None:
    """The settings of an existing run; None without one, or if its storage cannot be read, which the storage check reports."""
    from compass_ray.config import ConfigError

    try:
        data = run.read_config_bytes()
        recorded = run.read_config() if data is not None else None
    except OSError:
        return None
    if recorded and HIDDEN.encode() in (data or b""):
        raise ConfigError(f"{run.shown_uri}/run.json has settings without their credentials; give --preset or --config again")
    return recorded


def allow_unpinned_code(set_: list[str] | None, unpinned: bool) -> list[str]:
    """The ``--set`` options, with those that ``--unpinned`` abbreviates."""
    return [*(set_ or ()), *(("embed.unpinned_code=true", "train.unpinned_code=true") if unpinned else ())]


def load_raw_config(preset: str | None, file: Path | None) -> dict[str, Any]:
    """The settings of a preset or a file, not yet validated."""
    from compass_ray import config as configuration

    if preset and file:
        raise configuration.ConfigError("give --preset or --config, not both; a file may start with 'extends: PRESET'")
    return configuration.read_raw_config(preset, file)


def parse_languages(languages: str | None) -> list[str] | None:
    """The codes in ``--languages``; None if it is not given."""
    return None if languages is None else [code.strip() for code in languages.split(",") if code.strip()]


def require_language(run: RunDir, language: str) -> str:
    """Return the language if the run has it.

    Raises:
        ConfigError: the run does not have the language.
    """
    from compass_ray.config import ConfigError

    languages = run.read_config().languages
    if language not in languages:
        raise ConfigError(f"{language!r} is not a language of this run; choose one of {', '.join(languages)}")
    return language


def apply_overrides(recorded: RunConfig, set_: list[str] | None) -> RunConfig:
    """A recorded configuration with ``--set`` options applied."""
    from compass_ray import config as configuration

    return configuration.with_overrides(recorded, set_ or ())
