"""Files of a suite: what each table or figure of a paper prints, and the settings that repeat it here.

A suite is a folder with ``suite.yaml`` and one YAML file for each table or figure. The package has the suite ``paper``, so that a
container or a job without a checkout finds it. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from compass_ray.config import ConfigError, ConfigSection
from compass_ray.config.selection import MethodName
from compass_ray.config.yaml_loader import read_yaml
from compass_ray.evaluation.experiments import BASE
from compass_ray.languages import get_language

SUITE_FILE = "suite.yaml"
S = TypeVar("S", bound=ConfigSection)
Seconds = Annotated[float, Field(ge=0.0)]

Kind = Literal[
    "accuracy", "budgets", "languages", "groups", "contributions", "drift", "strategies", "buffers", "sweep", "harness"
]  # fmt: skip
"""``accuracy`` and ``budgets`` compare rows in the mean over languages, ``languages`` in each, ``groups`` in related ones.
``contributions`` shows the sources of added rows, ``drift`` simulates traffic. ``strategies``, ``buffers`` and ``sweep`` simulate
updates, and ``harness`` evaluates other benchmarks."""
UPDATES = ("strategies", "buffers", "sweep")
IN_FIRST_RUN = ("drift", *UPDATES, "harness")
"""Kinds that are made in the first run of the unchanged preset, after its stages."""


class UnitCost(ConfigSection):
    """Seconds of one run on one device."""

    start: Seconds
    """Of the pool, embeddings and clusters, and of the adapter of all data: once for each seed."""
    adapter: Seconds
    """To train one adapter and to score it."""
    how: Literal["measured", "computed"]
    note: str
    """Where the numbers are from."""


class SuitePreset(ConfigSection):
    """What the suite runs with one preset."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    methods: tuple[MethodName, ...] = ()
    """Methods in addition to those of the suite."""
    update_languages: Annotated[int, Field(gt=0)] | None = None
    """Number of languages, the first ones, in which updates are simulated; all if unset."""
    update_seeds: Annotated[int, Field(gt=0)] = 1
    """Seeds of the simulated updates; they start at 0."""
    cpu: UnitCost | None = None
    gpu: UnitCost | None = None


class PaperColumn(ConfigSection):
    """A column of a table of the paper, and the presets with its model and benchmark."""

    name: str
    presets: tuple[str, ...] = ()


class PaperRow(ConfigSection):
    """A row of a table of the paper, and the group of variants and the method that repeat it."""

    name: str
    """As printed."""
    method: Literal["zero_shot"] | MethodName | None = None
    """None: not repeated here."""
    variant: str = BASE
    """Group of variants: the name of a variant without its seed."""
    values: tuple[float | None, ...] = ()
    """As printed, accuracies in percent: one for each column or language. Null: not printed."""
    key: float | None = None
    """The threshold in bits or the share of anchors, for a simulation."""


class SuiteEntry(ConfigSection):
    """One table or figure."""

    title: str
    where: str
    """Table, figure and section of the paper."""
    shows: str
    """What the paper says that it shows."""
    kind: Kind = "accuracy"
    columns: tuple[PaperColumn, ...] = ()
    languages: tuple[str, ...] = ()
    """Instead of columns, for a table by language."""
    rows: tuple[PaperRow, ...] = ()
    reference: str | None = None
    """The row that the others are compared with."""
    data: str | None = None
    """The entry by language whose values a figure draws."""
    inconsistencies: tuple[str, ...] = ()
    """Where the paper contradicts itself, and by how much."""
    limits: tuple[str, ...] = ()
    """What its comparison cannot show."""
    vary: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values of settings, beside the unchanged preset."""
    variants: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Named variants and their changes as ``key=value``, beside the unchanged preset."""
    presets: tuple[str, ...] = ()
    """Presets with the model and benchmark of the entry."""
    any_preset: bool = True
    """Whether it is also set beside runs of other presets."""
    on_request: bool = False
    """Whether it runs only if it is named."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, for the kind ``harness``."""
    methods: tuple[Literal["base"] | MethodName, ...] = ()
    """Methods that are evaluated on the tasks."""
    settings: tuple[str, ...] = ()
    """Changes to the settings of the tasks as ``key=value``."""

    @model_validator(mode="after")
    def _rows_fit_the_header(self) -> Self:
        width = len(self.languages or self.columns)
        for row in self.rows:
            if len(row.values) != width:
                raise ValueError(f"row {row.name!r} has {len(row.values)} values, and the table has {width} columns")
        if self.reference and not self.data and self.reference not in [row.name for row in self.rows]:
            raise ValueError(f"reference {self.reference!r} is not a row")
        for code in self.languages:
            get_language(code)
        return self

    @model_validator(mode="after")
    def _kind_has_its_data(self) -> Self:
        names = {"languages": ("languages",), "groups": ("data",), "harness": ("tasks", "methods")}.get(self.kind, ())
        if missing := [name for name in names if not getattr(self, name)]:
            raise ValueError(f"kind {self.kind} needs {' and '.join(missing)}")
        return self

    def column_for(self, preset: str | None) -> int:
        """Index of the column with the model and benchmark of a preset; the first one if there is none."""
        return next((index for index, column in enumerate(self.columns) if preset in column.presets), 0)

    def has_model_of(self, preset: str | None) -> bool:
        """Whether the table was measured with the model and benchmark of a preset."""
        return preset in self.presets or any(preset in column.presets for column in self.columns)


class SuiteConfig(ConfigSection):
    """``suite.yaml``."""

    title: str
    source: str
    """Where the paper is."""
    entries: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the files, without their ending, in the order of the paper."""
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)]
    """Methods of the unchanged preset. Other variants have COMPASS alone."""
    presets: Mapping[str, SuitePreset] = Field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A suite and its entries by name."""

    name: str
    config: SuiteConfig
    entries: Mapping[str, SuiteEntry]

    def preset(self, name: str | None) -> SuitePreset:
        """What the suite runs with a preset; one seed if it does not name it."""
        return self.config.presets.get(name or "", SuitePreset())

    def shown(self, preset: str | None) -> dict[str, SuiteEntry]:
        """The entries that belong on the page of a preset."""
        return {name: entry for name, entry in self.entries.items() if entry.any_preset or preset in entry.presets}

    def chosen(self, only: Iterable[str], preset: str | None) -> dict[str, SuiteEntry]:
        """The entries of these names, or without names those of a preset that need no request.

        Raises:
            ConfigError: no such entry.
        """
        names = list(only)
        if unknown := [name for name in names if name not in self.entries]:
            raise ConfigError(f"the suite {self.name!r} has no entry {unknown[0]!r}; choose some of {', '.join(self.entries)}")
        if names:
            return {name: entry for name, entry in self.entries.items() if name in names}
        return {name: entry for name, entry in self.shown(preset).items() if not entry.on_request}


def list_suites() -> tuple[str, ...]:
    """Names of the suites that ship with the package."""
    return tuple(sorted(folder.name for folder in _packaged().iterdir() if folder.is_dir()))


def load_suite(name: str) -> Suite:
    """Read a suite of the package, or one in a folder.

    Raises:
        ConfigError: no such suite, or a file with an error.
    """
    folder = _packaged() / name if name in list_suites() else Path(name)
    if not (folder / SUITE_FILE).is_file():
        raise ConfigError(f"--suite {name!r}: expected one of {', '.join(list_suites())}, or a folder with {SUITE_FILE}")
    config = _read(SuiteConfig, folder / SUITE_FILE)
    entries = {each: _read(SuiteEntry, folder / f"{each}.yaml") for each in config.entries}
    for each, entry in entries.items():
        if entry.data is not None and not (entry.data in entries and entries[entry.data].languages):
            raise ConfigError(f"{each}.yaml: data {entry.data!r} is not an entry with languages")
    return Suite(folder.name, config, entries)


def _packaged() -> Traversable:
    return resources.files("compass_ray") / "suites"


def _read(kind: type[S], file: Traversable) -> S:
    try:
        return kind.model_validate(read_yaml(file.read_text("utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{file.name}: {key and f'{key}: '}{problem['msg'].removeprefix('Value error, ')}") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file.name}: cannot be read ({str(error)[:300]})") from None
