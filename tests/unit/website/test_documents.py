"""README and the pages of ``docs/``: their length, and the reference of settings and commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel

from compass_ray.config import RunConfig
from website import records, reference

ROOT = Path(__file__).parents[3]
PAGES = sorted(ROOT.glob("docs/*.md"))
MAX_README_LINES = 250
MAX_PARAGRAPH_WORDS = 80
MAX_PICTURE_BYTES = 400_000


def paragraphs(markdown: str) -> list[str]:
    """The paragraphs of a document: list items and table rows one by one, without code."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return [each for each in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)|\n(?=\|)", text) if each.strip()]


def long_paragraphs(markdown: str) -> list[str]:
    """Paragraphs of more than the permitted number of words."""
    return [each for each in paragraphs(markdown) if len(each.split()) > MAX_PARAGRAPH_WORDS]


def dotted_names(model: type[BaseModel], prefix: str = "", above: tuple[type[BaseModel], ...] = ()) -> set[str]:
    """Names of all settings of a model, found without the reference; the first entry of a list stands for all."""
    names = set()
    for key, field in model.model_fields.items():
        names.add(f"{prefix}{key}")
        sections = {each for each in _arguments(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)}
        entry = f"{prefix}{key}.0." if "tuple" in str(field.annotation) else f"{prefix}{key}."
        for section in sections - {model, *above}:
            names |= dotted_names(section, entry, (*above, model))
    return names


def _arguments(annotation: Any) -> list[Any]:
    return [annotation, *(inner for each in get_args(annotation) for inner in _arguments(each))]


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_paragraphs_are_short(path: Path) -> None:
    assert not long_paragraphs(path.read_text("utf-8"))


def test_a_long_paragraph_is_found() -> None:
    text = "word " * 81
    assert long_paragraphs(f"short\n\n{text}\n\n- item\n") == [text]
    assert not long_paragraphs(f"```\n{text}\n```\n\n" + "\n".join("- some words " * 9 for _ in range(9)))


def test_every_setting_is_in_the_reference() -> None:
    page = reference.settings_tables()
    missing = [name for name in dotted_names(RunConfig) if f'<a id="{name}"></a>`{name}`' not in page]
    assert len(dotted_names(RunConfig)) > 150
    assert not missing


def test_every_command_and_option_is_in_the_reference() -> None:
    from compass_ray import cli

    page = reference.command_sections()
    commands: list[tuple[str, Any]] = [("compass-ray", typer.main.get_command(cli.app))]
    for name, command in commands:
        commands += [(f"{name} {each}", inner) for each, inner in getattr(command, "commands", {}).items() if not inner.hidden]
        section = page.split(f"`{name}`\n", 1)[1]
        options = [option for each in command.params if not getattr(each, "hidden", False) for option in each.opts]
        assert all(option in section for option in options if option.startswith("--")), name
    assert len(commands) > 15


def test_every_record_is_on_the_page_of_benchmarks() -> None:
    results = ROOT / "benchmarks/results"
    page = records.add_records((ROOT / "benchmarks/README.md").read_text("utf-8"), results)
    missing = [path.name for path in results.glob("*.json") if f'"Record of {path.stem.partition("_")[2]}"' not in page]
    assert not missing


def test_every_section_of_a_benchmark_has_a_question_and_a_setup() -> None:
    sections = re.split(r"(?m)^(?=#{2,3} )", (ROOT / "benchmarks/README.md").read_text("utf-8"))
    described = [section for section in sections if section.startswith("### ") and not section.startswith("### evidence")]
    assert len(described) > 20
    assert not [each.partition("\n")[0] for each in described if "**Question.**" not in each or "**Setup.**" not in each]


def test_the_reference_has_a_page() -> None:
    assert "<!-- generated: settings -->" in (ROOT / "docs/settings.md").read_text("utf-8")
    assert "<!-- generated: commands -->" in (ROOT / "docs/cli.md").read_text("utf-8")


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = [page for section in navigation for pages in section.values() for page in pages]
    assert len(set(listed)) == len(listed)
    assert {path.name for path in PAGES} <= set(listed)


def test_the_site_loads_nothing_from_the_network() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert settings["theme"]["font"] is False
    assert not [each for each in (*settings.get("extra_css", []), *settings.get("extra_javascript", [])) if "//" in each]


def test_the_pictures_are_small() -> None:
    pictures = [path for path in (ROOT / "docs/images").glob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in pictures) <= MAX_PICTURE_BYTES


def test_the_citation_names_the_paper_and_the_version() -> None:
    from compass_ray import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert "2604.20720" in citation["preferred-citation"]["url"]
