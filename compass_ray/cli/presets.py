"""The command that lists the presets."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from compass_ray.cli.app import app
from compass_ray.cli.options import Json
from compass_ray.cli.output import emit, out

if TYPE_CHECKING:
    from compass_ray.config.preset_catalog import PresetInfo

_MOST_LISTED = 3
"""Maximum number of languages that are listed by code."""
_NEEDS_WIDTH = 19


@app.command(epilog="Example: `compass-ray presets`")
def presets(json_: Json = False) -> None:
    """List the presets: purpose, languages, base model and requirements."""
    from compass_ray.config.preset_catalog import describe_presets

    found = describe_presets()
    emit(json_, [asdict(each) for each in found], lambda: _print(found))


def _print(found: tuple[PresetInfo, ...]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("preset", "languages", "base model"):
        table.add_column(name, no_wrap=True)
    table.add_column("needs", max_width=_NEEDS_WIDTH)
    table.add_column("description")
    for each in found:
        codes = ", ".join(each.languages) if len(each.languages) <= _MOST_LISTED else str(len(each.languages))
        model = each.base_model.rpartition("/")[2]
        table.add_row(*map(Text, (each.name, codes, model, ", ".join(each.needs) or "nothing", each.description)))
    out.print(table)
