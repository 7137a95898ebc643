"""The command that writes a settings file for a user's own rows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.cli.app import app
from compass_ray.cli.completion import complete_language, complete_preset
from compass_ray.cli.options import Json, Languages, parse_languages
from compass_ray.cli.output import emit, print_lines

if TYPE_CHECKING:
    from compass_ray.sources.file_recognition import RecognizedFile

Rows = Annotated[str, typer.Argument(metavar="ROWS", help="File, folder or hub id with prompts and responses.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Base = Annotated[
    str, typer.Option("--preset", help="Preset that gives models and other settings.", autocompletion=complete_preset)
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Name of a column, for example prompt=question. Can be repeated.")
]
Language = Annotated[
    str | None,
    typer.Option("--language", help="Language of all rows, if no column has it.", autocompletion=complete_language),
]
Guides = Annotated[str | None, typer.Option("--guides", help="File with prompts of your users. Default: those of the preset.")]
Tests = Annotated[str | None, typer.Option("--tests", help="File with multiple-choice items. Default: those of the preset.")]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@app.command(epilog="Example: `compass-ray init rows.jsonl --language sw --output mine.yaml`")
def init(
    rows: Rows,
    output: Output = Path("compass-ray.yaml"),
    preset: Base = "atlas",
    languages: Languages = None,
    language: Language = None,
    column: Columns = None,
    guides: Guides = None,
    tests: Tests = None,
    force: Replace = False,
    json_: Json = False,
) -> None:
    """Write a commented settings file for your own rows. Columns and languages are recognized."""
    from compass_ray.config import ConfigError, resolve_config
    from compass_ray.config.json_schema import format_json_schema
    from compass_ray.config.loader import read_text
    from compass_ray.sources import config_draft
    from compass_ray.sources.file_recognition import GUIDE_COLUMNS, ITEM_COLUMNS, ROW_COLUMNS, recognize_file

    if output.exists() and not force:
        raise ConfigError(f"{output} exists; give another file with --output, or replace it with --force")
    found = recognize_file(rows, ROW_COLUMNS, _parse_columns(column), language)
    draft = config_draft.ConfigDraft(
        found,
        preset,
        output,
        recognize_file(guides, GUIDE_COLUMNS) if guides else None,
        recognize_file(tests, ITEM_COLUMNS) if tests else None,
        parse_languages(languages),
    )
    text = config_draft.write_draft(draft)
    config = resolve_config(read_text(text, output))
    output.write_text(text, "utf-8")
    schema = output.with_name(config_draft.SCHEMA_FILE)
    schema.write_text(format_json_schema(), "utf-8")
    result = {
        "output": str(output),
        "schema": str(schema),
        "preset": preset,
        "languages": list(config.languages),
        "layout": found.layout,
        "columns": dict(found.columns),
        "rows": dict(found.rows),
        "unknown_languages": dict(found.unknown),
    }
    emit(json_, result, lambda: _print(found, output, schema, config.languages))


def _parse_columns(given: list[str] | None) -> dict[str, str]:
    from compass_ray.config import ConfigError

    columns = {}
    for each in given or ():
        ours, equals, theirs = each.partition("=")
        if not (ours and equals and theirs):
            raise ConfigError(f"--column {each!r}: expected OURS=THEIRS, for example prompt=question")
        columns[ours] = theirs
    return columns


def _print(found: RecognizedFile, output: Path, schema: Path, languages: tuple[str, ...]) -> None:
    from compass_ray.languages import describe_spellings

    counts = ", ".join(f"{code} {count:,}" for code, count in found.rows.items())
    lines = [
        f"columns: {', '.join(f'{ours} = {theirs}' for ours, theirs in found.columns.items())}",
        f"rows: {counts}",
        f"target languages: {', '.join(languages)}",
    ]
    if found.unknown:
        lines.append(f"not used, because the language is not known: {describe_spellings(found.unknown)}")
    check = f"compass-ray doctor --config {shlex.quote(str(output))} --run runs/first"
    print_lines([*lines, f"wrote {output}, and {schema} for editors. Check the settings: {check}"])
