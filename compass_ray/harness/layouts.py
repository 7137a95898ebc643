"""Layouts of benchmarks: which task of lm-evaluation-harness it is, and where its rows lie in a copy of its hub repository.

One YAML file for each benchmark in ``layouts/``. Nothing is downloaded, and the harness is not imported: its task files are only
located.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from compass_ray.config import ConfigError
from compass_ray.config.yaml_loader import read_yaml
from compass_ray.languages import LANGUAGES

TEST_SET = "test_set"
"""The task of the run's own test items."""
_FOLDER = Path(__file__).parent / "layouts"
_SCRIPTS = {"zh": "zho_Hans", "fil": "tgl_Latn"}
"""FLORES codes that are not made of the Aya code and the script of the identifier's label."""


class TaskLayout(BaseModel):
    """One benchmark. Texts in braces are replaced: ``language``, ``flores``, ``code`` and ``part``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    source: str | None = None
    """Hub repository whose files are read; None for a task of the run itself."""
    base: str | None = None
    """The harness's own task file, below its folder of tasks; None if `settings` define the task."""
    keep: tuple[str, ...] = ()
    """Settings that are copied from ``base``, which is not included then, because its code needs an older transformers."""
    functions: Mapping[str, str] = Field(default_factory=dict)
    """Settings that are functions, by their import path."""
    primary: str
    """Metric and filter that tables show, for example ``acc,none``."""
    codes: Mapping[str, str] = Field(default_factory=dict)
    """``code`` by language, where it is not the FLORES code in lower case."""
    parts: tuple[str, ...] = ()
    """Subtasks, which are evaluated together and joined in one group."""
    aggregate: Mapping[str, Any] = Field(default_factory=dict)
    """How the group joins the metric of its subtasks."""
    files: Mapping[str, tuple[str, ...]]
    """Patterns of the files of each split, the first that matches; the first split is evaluated."""
    table: Mapping[str, Any] = Field(default_factory=dict)
    """Options for tables with tabs or commas."""
    plain: bool = False
    """Evaluated without the chat template in any case."""
    option_prefix: str | None = None
    """Columns of the options of an item that is answered by a generated letter."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the task that replace those of ``base``."""
    letter_settings: Mapping[str, Any] = Field(default_factory=dict)
    """Further ones if options are scored by their letter (`evaluate.scoring`)."""

    def fill(self, pattern: str, language: str, part: str = "") -> str:
        """A pattern with the codes of a language."""
        flores = flores_code(language)
        code = self.codes.get(language, flores.lower())
        return pattern.format(language=language, flores=flores, code=code, part=part)


@cache
def task_layouts() -> Mapping[str, TaskLayout]:
    """All layouts by name."""
    return {path.stem: _read(path) for path in sorted(_FOLDER.glob("*.yaml"))}


def _read(path: Path) -> TaskLayout:
    return TaskLayout.model_validate({"name": path.stem, **read_yaml(path.read_text("utf-8"))})


def flores_code(language: str) -> str:
    """The code of a language in FLORES-200, which several benchmarks use.

    >>> flores_code("sw"), flores_code("zh"), flores_code("ar")
    ('swh_Latn', 'zho_Hans', 'arb_Arab')
    """
    known = LANGUAGES[language]
    return _SCRIPTS.get(language) or f"{known.aya_code}_{known.glotlid[0].partition('_')[2]}"


def harness_task_file(layout: TaskLayout, language: str, part: str = "") -> Path:
    """The harness's own file of a task in a language.

    Raises:
        ConfigError: the harness is not installed, or it does not have this benchmark in this language.
    """
    assert layout.base is not None
    path = harness_folder() / "tasks" / layout.fill(layout.base, language, part)
    if not path.is_file():
        raise ConfigError(
            f"lm-evaluation-harness has no task of {layout.title} for {language!r}; leave out {layout.name} or the language"
        )
    return path


def harness_folder() -> Path:
    """The folder of the installed harness.

    Raises:
        ConfigError: it is not installed.
    """
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        raise ConfigError("lm-evaluation-harness is not installed; run: pip install 'compass-ray[eval]'")
    return Path(found.origin).parent


def harness_version() -> str:
    """The version of the installed harness.

    Raises:
        ConfigError: it is not installed.
    """
    harness_folder()
    return version("lm-eval")
