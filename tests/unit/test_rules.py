"""Rules of CONTRIBUTING for names, layers, documents and reading maps. A second test shows that each rule can fail."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from compass_ray.config import RunConfig

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "compass_ray"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""Documents that name present settings only."""
KNOWN_OPERATIONS = frozenset(
    {
        "autoscaling", "batching", "clustering", "embedding", "finetuning", "checkpointing", "forgetting", "mapping", "mixing",
        "monitoring", "packing", "padding", "ranking", "resampling", "rounding", "routing", "sampling", "scoring",
        "serving", "spanning", "timing", "tracking", "training", "filling",
    }
)  # fmt: skip
"""Words in -ing that name an operation of the field, alone or as part of a module's name."""
MAX_ARCHITECTURE_LINES = 200


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def repeated_classes(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Classes with more than one definition, nested and private ones included: name to files."""
    files = defaultdict(list)
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(name)
    return {name: found for name, found in files.items() if len(found) > 1}


def actions(names: Iterable[str]) -> list[str]:
    """Names of modules and packages with a word in -ing that is not a known operation."""
    return sorted(
        name for name in names if any(word.endswith("ing") and word not in KNOWN_OPERATIONS for word in name.split("_"))
    )


def layers(pyproject: str) -> list[list[str]]:
    """The layers of import-linter's contract, from top to bottom; the packages of one layer are side by side."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers"]
    return [re.findall(r"\((\w+)\)", layer) for layer in contract["layers"]]


def package_table(architecture: str) -> list[str]:
    """Packages and modules of the first table under ``## Packages``, row by row, without slash and suffix."""
    table = architecture.split("## Packages", 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)(?:/|\.py)`", row.split("|")[1])]


def faults_of_table(table: Sequence[str], contract: Sequence[Sequence[str]], existing: Iterable[str]) -> list[str]:
    """Differences between the package table and the existing packages, or the order of the layers."""
    level = {name: depth for depth, layer in enumerate(contract) for name in layer}
    found = [f"{name} is missing" for name in sorted(set(existing) - set(table))]
    found += [f"{name} does not exist" for name in sorted(set(table) - set(existing))]
    depths = [(level[name], name) for name in table if name in level]
    found += [f"{name} is above {before}" for (a, before), (b, name) in pairwise(depths) if b < a]
    return found


def layer_lists(document: str, names: Iterable[str]) -> list[str]:
    """Chains of three or more packages joined by ``>`` or ``->``, each of which is a copy of the layer list."""
    known = set(names)
    chains = re.findall(r"`?\w+`?(?:[,|\s`]+\w+)*(?:\s*-?>\s*`?\w+`?(?:[,|\s`]+\w+)*){2,}", document)
    return [chain for chain in chains if len(known & set(re.findall(r"\w+", chain))) >= 3]


def missing_files(journeys: str) -> list[str]:
    """Files that a page of journeys names in its numbered lists and that do not exist."""
    return [name for name in journey_files(journeys) if not (PACKAGE / name).is_file()]


def journey_files(journeys: str) -> list[str]:
    """The files of the numbered lists, in order."""
    return re.findall(r"^\d+\. `([\w/.]+)`", journeys, re.MULTILINE)


def broken_links(document: str, folder: Path) -> list[str]:
    """Relative links of a document whose file does not exist."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document)
    return [link for link in links if not (folder / link).exists()]


def missing_modules(document: str, packages: Iterable[str]) -> list[str]:
    """Paths in backticks that start with a package of compass_ray and do not exist."""
    found = re.findall(rf"`(?:compass_ray/)?((?:{'|'.join(sorted(packages))})/[\w./]*)`", document)
    return [path for path in found if not (PACKAGE / path).exists()]


def unknown_settings(document: str) -> list[str]:
    """Settings in backticks, such as ``select.budget``, that no configuration has."""
    sections = "|".join(RunConfig.model_fields)
    named = re.findall(rf"`((?:{sections})\.[a-z_]+(?:\.[a-z_]+)*)\b(?!\.)(?=[^`]*`)", document)
    return sorted({name for name in named if not name.endswith((".py", ".yaml")) and not _is_setting(name)})


def _is_setting(name: str) -> bool:
    section: Any = RunConfig
    for part in name.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return False
        section = next((kind for kind in (field.annotation, *get_args(field.annotation)) if hasattr(kind, "model_fields")), None)
    return True


def test_class_names_are_unique() -> None:
    assert not repeated_classes({str(path.relative_to(ROOT)): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")})


def test_a_class_name_that_repeats_is_found() -> None:
    sources = {"a.py": "class _Asked: ...", "b.py": "def f():\n    class _Asked: ...", "c.py": "class Other: ..."}
    assert repeated_classes(sources) == {"_Asked": ["a.py", "b.py"]}


def test_modules_are_nouns_or_known_operations() -> None:
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py")}
    assert not actions({path.stem for path in _modules()} | packages)


def test_a_module_named_after_an_action_is_found() -> None:
    assert actions(["looking", "making_plans", "row_sampling", "promotion"]) == ["looking", "making_plans"]


def _top_level() -> set[str]:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_the_package_table_lists_every_package_in_the_order_of_the_layers() -> None:
    contract = layers((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {name for layer in contract for name in layer} == _top_level()
    table = package_table((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert not faults_of_table(table, contract, _top_level())


def test_faults_of_a_package_table_are_found() -> None:
    text = "## Packages\n\nText.\n\n| package | content |\n| --- | --- |\n| `core/` | x |\n| `cli/`, `app.py` | y |\n\nEnd."
    assert package_table(text) == ["core", "cli", "app"]
    assert faults_of_table(["core", "cli", "gone"], [["cli"], ["core"]], ["cli", "core", "new"]) == [
        "new is missing",
        "gone does not exist",
        "cli is above core",
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_layer_list_is_in_pyproject_alone(path: Path) -> None:
    assert not layer_lists(path.read_text("utf-8"), _top_level())


def test_a_copy_of_the_layer_list_is_found() -> None:
    names = {"cli", "stages", "serving", "core"}
    assert layer_lists("```\njobs > cli > stages | serving > core\n```", names)
    assert layer_lists("`cli` -> `stages` -> `core`", names)
    assert not layer_lists("A > B > C; core has > 3 stages", names)


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= MAX_ARCHITECTURE_LINES


def test_the_files_of_the_journeys_exist() -> None:
    journeys = (ROOT / "docs/journeys.md").read_text("utf-8")
    sections = journeys.split("\n## ")[1:]
    assert len(sections) == 3
    assert all(10 <= len(journey_files(section)) <= 14 for section in sections)
    assert not missing_files(journeys)


def test_a_missing_file_of_a_journey_is_found() -> None:
    assert missing_files("1. `pipeline.py`: a.\n2. `serving/nowhere.py`: b.\n") == ["serving/nowhere.py"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    assert not broken_links(path.read_text("utf-8"), path.parent)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    assert broken_links("[a](gone.md#x), [b](https://example.org)", tmp_path) == ["gone.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_named_in_documents_exist(path: Path) -> None:
    assert not missing_modules(path.read_text("utf-8"), _top_level())


def test_a_module_that_is_gone_is_found() -> None:
    assert missing_modules("`core/gap.py`, `core/gone.py`, `compass_ray/core/old/`, `other/x.py`", {"core"}) == [
        "core/gone.py",
        "core/old/",
    ]


@pytest.mark.parametrize("path", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_named_in_documents_exist(path: Path) -> None:
    assert not unknown_settings(path.read_text("utf-8"))


def test_a_setting_that_is_gone_is_found() -> None:
    text = "`select.budget: tuned`, `serve.max_rows`, `select.py`, `train.adapter.target_modules`, `drift.floor`"
    assert unknown_settings(text) == ["drift.floor", "serve.max_rows"]
