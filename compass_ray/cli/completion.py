"""Completion in the shell: presets, languages, stages, and keys and values of settings. It loads neither torch nor Ray.

Imports are within functions, because this module is loaded with every command.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compass_ray.config.reference import SettingInfo

_MAX_EXPLANATION = 60
"""Maximum length of an explanation in characters; typer breaks longer ones at 80 columns."""
Completions = list[tuple[str, str]]
"""Words that complete a text, each with its explanation."""


def complete_preset(incomplete: str) -> Completions:
    """Presets that start with a text."""
    from compass_ray.config import list_presets
    from compass_ray.config.preset_catalog import read_description

    return [(name, _brief(read_description(name))) for name in list_presets() if name.startswith(incomplete)]


def complete_language(incomplete: str) -> Completions:
    """Codes of languages that start with a text."""
    from compass_ray.languages import LANGUAGES

    return [(code, each.name) for code, each in LANGUAGES.items() if code.startswith(incomplete)]


def complete_languages(incomplete: str) -> Completions:
    """Lists of codes that start with a text, such as ``sw,hi``; only its last code is completed.

    >>> complete_languages("sw,h")[0]
    ('sw,ha', 'Hausa')
    """
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [(before + comma + code, name) for code, name in complete_language(last) if code not in given]


def complete_stage(incomplete: str) -> list[str]:
    """Stages that start with a text."""
    from compass_ray.config.stage_names import STAGE_NAMES

    return [name for name in STAGE_NAMES if name.startswith(incomplete)]


def complete_key(incomplete: str) -> Completions:
    """Sections and settings that start with a text."""
    from compass_ray.config.reference import list_settings

    return [(each.key, _brief(each.description)) for each in list_settings() if each.key.startswith(incomplete)]


def complete_setting(incomplete: str) -> Completions:
    """``key=value`` that starts with a text: keys of settings, then the choices of a setting.

    >>> [text for text, _ in complete_setting("select.w")], [text for text, _ in complete_setting("select.weights=")]
    (['select.weights='], ['select.weights=ratio', 'select.weights=deficit', 'select.weights=none'])
    """
    from compass_ray.config.reference import list_settings

    key, equals, value = incomplete.partition("=")
    settings = [each for each in list_settings() if not each.is_section]
    if not equals:
        return [(f"{each.key}=", _brief(each.description)) for each in settings if each.key.startswith(key)]
    chosen = next((each for each in settings if each.key == key), None)
    return [(f"{key}={choice}", "") for choice in _values(chosen) if choice.startswith(value)] if chosen else []


def _brief(description: str) -> str:
    """The start of a description, which a shell shows on one line."""
    return textwrap.shorten(description.replace("`", ""), _MAX_EXPLANATION, placeholder=" ...")


def _values(setting: SettingInfo) -> tuple[str, ...]:
    """What may follow ``key=``; nothing for a list."""
    if "list of" in setting.type:
        return ()
    return setting.choices or (("true", "false") if setting.type == "true or false" else ())
