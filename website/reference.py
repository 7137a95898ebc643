"""The reference in Markdown: every setting of a configuration and every command of ``compass-ray``.

Settings come from `compass_ray.config.reference`, commands from typer's own generator. Nothing is written here by hand, so a page
cannot differ from the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from compass_ray.config import ConfigError, RunConfig
from compass_ray.config.reference import SettingInfo, find_setting, list_settings

_COMMAND_LIST = re.compile(r"^\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?", re.MULTILINE)
"""The list of commands of a group. It cuts their first sentences, and the page has a section for each command."""


def settings_tables() -> str:
    """One table for each section of a configuration: those of the run itself first."""
    settings = sorted(list_settings(), key=_order)
    descriptions = {each.key: each.description for each in settings}
    lines = []
    for section, members in groupby(settings, key=lambda each: each.key.rpartition(".")[0]):
        lines += [f"## `{section}`" if section else "## Run", "", descriptions.get(section.removesuffix(".0"), ""), ""]
        lines += ["| setting | meaning |", "| --- | --- |", *map(_row, members), ""]
    return "\n".join(lines)


def command_sections() -> str:
    """One section for each command, by typer's generator."""
    import typer
    from typer.cli import get_docs_for_click

    from compass_ray import cli

    command: Any = typer.main.get_command(cli.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), indent=1, name="compass-ray")
    return _COMMAND_LIST.sub("", text)


def anchor_of(text: str) -> str | None:
    """The anchor of a setting in the reference, or None if a text names none.

    >>> anchor_of("select.budget"), anchor_of("pool.sources.1.path"), anchor_of("select.py")
    ('select.budget', 'pool.sources.0.path', None)
    """
    if text.partition(".")[0] not in RunConfig.model_fields:
        return None
    try:
        return find_setting(text).key
    except ConfigError:
        return None


def _order(setting: SettingInfo) -> tuple[Any, ...]:
    """Settings of one section side by side, sections in the order of the configuration."""
    section = setting.key.rpartition(".")[0]
    names = list(RunConfig.model_fields)
    return (names.index(section.partition(".")[0]), section) if section else (-1, "")


def _row(setting: SettingInfo) -> str:
    """Name and default in one cell, meaning and values in the other, so that the table fits on a phone."""
    name, meaning = f'<a id="{setting.key}"></a>`{setting.key}`', setting.description
    if not setting.is_section:
        default = "required" if setting.is_required else f"default `{json.dumps(setting.default, ensure_ascii=False)}`"
        name, meaning = f"{name}<br>{default}", f"{meaning}<br>*Values:* {_code_choices(setting.type, setting.choices)}"
    return "| " + " | ".join(each.replace("|", "\\|") for each in (name, meaning)) + " |"


def _code_choices(values: str, choices: Iterable[str]) -> str:
    """The words of a type with its choices in code type."""
    listed = ", ".join(choices)
    return (
        values.replace(f"one of {listed}", listed).replace(listed, ", ".join(f"`{each}`" for each in choices))
        if listed
        else values
    )
