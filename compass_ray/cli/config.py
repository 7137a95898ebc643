"""Commands that show and explain settings. They compute nothing and load neither torch nor Ray."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from compass_ray.cli.app import app
from compass_ray.cli.completion import complete_key
from compass_ray.cli.options import File, Json, Languages, Preset, Settings, load_config, parse_languages
from compass_ray.cli.output import emit, out, print_lines
from compass_ray.redaction import redact_tree

if TYPE_CHECKING:
    from compass_ray.config import RunConfig
    from compass_ray.config.reference import SettingInfo

Recorded = Annotated[str | None, typer.Option("--run", help="Run directory or URI whose settings are shown.")]
Key = Annotated[
    str | None,
    typer.Argument(
        metavar="[KEY]", help="Setting or section, for example select.budget. Default: all sections.", autocompletion=complete_key
    ),
]

commands = typer.Typer(help="Show and explain settings.", no_args_is_help=True)
app.add_typer(commands, name="config")


@commands.command("show", epilog="Example: `compass-ray config show --preset atlas --set select.budget=1.2 --changed`")
def show(
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    run: Recorded = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from their defaults.")] = False,
    json_: Json = False,
) -> None:
    """Print the settings of a preset, a file or a run as YAML, with --languages and --set applied.

    The output is a valid file for --config. Credentials are hidden.
    """
    settings = _resolve(run, preset, config, languages, set_)
    tree = _without_credentials(settings.model_dump(mode="json", exclude_defaults=changed))
    emit(json_, tree, lambda: print(to_yaml(tree), end=""))


@commands.command("explain", epilog="Example: `compass-ray config explain select.budget --preset phi-4-mini`")
def explain(
    key: Key = None,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    run: Recorded = None,
    json_: Json = False,
) -> None:
    """Explain a setting or a section: type, default, choices, description.

    With --preset, --config or --run also its value there.
    """
    from compass_ray.config.reference import find_setting, list_section, value_at

    given = _resolve(run, preset, config, languages, set_) if preset or config or run else None
    found = find_setting(key) if key else None
    inside = list_section(found.key if found else "") if found is None or found.is_section else ()
    shown = [*([found] if found else []), *inside]
    values = _without_credentials({each.key: value_at(given, each.key) for each in shown}) if given else {}
    result: dict[str, Any] = _as_json(found, values) if found else {}
    if inside:
        result["settings"] = [_as_json(each, values) for each in inside]
    emit(json_, result, lambda: _print(found, inside, values))


@commands.command("schema", epilog="Example: `compass-ray config schema --output schema.json`")
def schema(
    output: Annotated[Path | None, typer.Option("--output", help="File to write. Default: standard output.")] = None,
) -> None:
    """Print the JSON Schema of a settings file, for editors."""
    from compass_ray.config.json_schema import format_json_schema

    if output is None:
        print(format_json_schema(), end="")
    else:
        output.write_text(format_json_schema(), "utf-8")


def to_yaml(tree: dict[str, Any]) -> str:
    """Settings as YAML: sections in blocks, lists of values on one line."""
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _resolve(run: str | None, preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None) -> RunConfig:
    from compass_ray import config as configuration
    from compass_ray.artifacts import RunDir

    if run is None:
        return load_config(preset, file, languages, set_)
    if preset or file:
        raise configuration.ConfigError("give --run, or --preset or --config, not both")
    return configuration.with_overrides(RunDir(run).read_config(), set_ or (), parse_languages(languages))


def _without_credentials(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = redact_tree(values)
    return found


def _as_json(setting: SettingInfo, values: dict[str, Any]) -> dict[str, Any]:
    return asdict(setting) | ({"value": values[setting.key]} if setting.key in values else {})


def _print(found: SettingInfo | None, inside: tuple[SettingInfo, ...], values: dict[str, Any]) -> None:
    if found:
        print_lines([found.key, f"  {found.description}", ""])
    if not inside and found:
        rows = [("type", found.type), ("default", "none: it must be set" if found.is_required else _shown(found.default))]
        rows += [("value", _shown(values[found.key]))] if values else []
        rows += [("former name", found.former_name)] if found.former_name else []
        rows += [("change it", f"--set {shlex.quote(f'{found.key}={_shown(found.default)}')}")] if not found.is_required else []
        print_lines([f"  {label:<12}{text}" for label, text in rows])
        return
    table = Table(
        "setting", "default", *(["value"] if values else []), "description", box=None, header_style="bold", pad_edge=False
    )
    for each in inside:
        cells = [each.key, "" if each.is_section else "required" if each.is_required else _shown(each.default)]
        cells += [("" if each.is_section else _shown(values[each.key]))] if values else []
        table.add_row(*map(Text, [*cells, each.description]))
    out.print(table)


def _shown(value: Any) -> str:
    """A value as ``--set`` and YAML take it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
