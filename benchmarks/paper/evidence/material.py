"""The material: a pool and test items from the data kit, the same for all methods and seeds.

Rows are the first by row_id, a hash of their content, and items the first by a hash of their sample_id, so that languages share
items. The thinned subjects are those that the product's bias simulation draws, which this module asks in advance to choose the
items. Texts stay in the working folder; results hold ids only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.paper.evidence.protocol import MaterialSize, Protocol, ProtocolError
from compass_ray.artifacts import content_hash
from compass_ray.config import BiasConfig
from compass_ray.row_selection.problem import draw_bias

Row = Mapping[str, Any]
_VERSION = 2
"""Of the rules of this module: a material of other rules is not reused. Since 2 each language has exactly ``own_rows`` rows."""
ITEMS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("thinned", pa.bool_(), nullable=False),
        pa.field("elsewhere", pa.bool_(), nullable=False),
    ]
)
"""What is known of an item: ``elsewhere``, whether its fact stands in the pool in another language."""


@dataclass(frozen=True)
class Material:
    """A folder with ``pool.parquet``, and for each language ``tests`` and ``items``; ``guides`` if they are not the kit's."""

    folder: Path
    languages: tuple[str, ...]
    guide_subjects: str = "all"

    @property
    def pool(self) -> Path:
        """Rows of all languages: prompt, response, language, source, subject."""
        return self.folder / "pool.parquet"

    def tests(self, language: str) -> Path:
        """Test items of a language, with the columns of Global-MMLU."""
        return self.folder / "tests" / f"{language}.parquet"

    def guides(self, kit: Path) -> dict[str, str]:
        """Settings of the guide sets: those of the kit, or files of this material if it has its own."""
        if self.guide_subjects != "all":
            return {"path": str(self._own_guides / "{language}.parquet"), "layout": "global_mmlu"}
        return {"path": str(kit / "global_mmlu"), "name": "{language}", "split": "dev"}

    @property
    def _own_guides(self) -> Path:
        return self.folder / f"guides-{self.guide_subjects}"

    def write_guides(self, protocol: Protocol, kit: Path) -> None:
        """Write guide sets of some subjects, unless they are there or are those of the kit."""
        if self.guide_subjects == "all":
            return
        self._own_guides.mkdir(exist_ok=True)
        for language in self.languages:
            target = self._own_guides / f"{language}.parquet"
            if target.exists():
                continue
            [file] = (kit / "global_mmlu" / language).glob("dev*.parquet")
            table, thinned = pq.read_table(file), {*self.record["languages"][language]["thinned"]}
            kept = [
                protocol.family_of(subject) is not None and (self.guide_subjects == "families" or subject in thinned)
                for subject in table["subject"].to_pylist()
            ]
            part = target.with_suffix(".part")
            pq.write_table(table.filter(pa.array(kept)), part)
            os.replace(part, target)

    def items(self, language: str) -> pa.Table:
        """The items of a language (ITEMS), without text, in no order."""
        return pq.read_table(self.folder / "items" / f"{language}.parquet", schema=ITEMS)

    def thinning_seed(self, language: str) -> int:
        """The seed of the language's bias simulation."""
        return int(self.record["languages"][language]["thinning_seed"])

    @property
    def record(self) -> Mapping[str, Any]:
        """Numbers of rows, seeds and thinned subjects."""
        found: Mapping[str, Any] = json.loads((self.folder / "material.json").read_text("utf-8"))
        return found

    @property
    def is_complete(self) -> bool:
        """Whether everything was written; the record is written last."""
        return (self.folder / "material.json").exists()


def bias_settings(protocol: Protocol, size: MaterialSize, seed: int) -> BiasConfig:
    """Bias simulation of the product: at least one subject of each family, equal in all seeds of a run."""
    return BiasConfig(p_low=size.thinning.p_low, keep=size.thinning.keep, seed=seed, groups=tuple(protocol.families.values()))


def make_material(protocol: Protocol, size: MaterialSize, languages: Sequence[str], kit: Path, work: Path) -> Material:
    """Write the material of these target languages, unless it is complete."""
    families = {name: list(parts) for name, parts in protocol.families.items()}
    rows = size.model_copy(update={"guide_subjects": "all"}).record()
    key = content_hash(json.dumps([_VERSION, rows, list(languages), families]))
    material = Material(work / f"material-{key[:8]}", tuple(languages), size.guide_subjects)
    if not material.is_complete:
        _write(protocol, size, kit, material)
    material.write_guides(protocol, kit)
    return material


def _write(protocol: Protocol, size: MaterialSize, kit: Path, material: Material) -> None:
    for name in ("tests", "items"):
        (material.folder / name).mkdir(parents=True, exist_ok=True)
    by_language, pool, own = _read_rows(kit), list[Row](), dict[str, OwnRows]()
    for language, rows in sorted(by_language.items()):
        if language in material.languages:
            own[language] = _own_rows(protocol, size, kit, language, [row["subject"] for row in rows])
        pool += rows[: own[language].rows if language in own else size.rows_of_other_languages]
    columns = ("prompt", "response", "language", "source", "subject")
    pq.write_table(pa.table({name: [row[name] for row in pool] for name in columns}), material.pool)
    where = defaultdict[str, set[str]](set)
    for row in pool:
        where[row["native_id"]].add(row["language"])
    for language in material.languages:
        _write_items(material, language, own[language].items, where)
    languages = {
        language: {"rows": each.rows, "thinning_seed": each.seed, "thinned": list(each.thinned)} for language, each in own.items()
    }
    record = {"rows": len(pool), "languages": languages}
    (material.folder / "material.json").write_text(json.dumps(record, indent=2), "utf-8")


@dataclass(frozen=True)
class Facts:
    """Which fact a row of the pool states, and which facts the guide prompts and the thinned items of a language ask for."""

    of_row: Mapping[str, str]
    guide: frozenset[str]
    items: frozenset[str]

    def count(self, row_ids: Iterable[str]) -> dict[str, int]:
        """Number of rows that state a fact of a guide prompt, and a fact of an item, in any language."""
        found = [self.of_row.get(row_id, "") for row_id in row_ids]
        return {"guide_facts": sum(each in self.guide for each in found), "item_facts": sum(each in self.items for each in found)}


def read_facts(material: Material, kit: Path, language: str) -> Facts:
    """The facts of a language, by the identifiers of the kit."""
    [file] = (kit / "global_mmlu" / language).glob("dev*.parquet")
    guide = pq.read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
    items = material.items(language).filter(pc.field("thinned"))["sample_id"].to_pylist()
    rows = {row_id: row["native_id"] for each in _read_rows_by_id(kit).values() for row_id, row in each.items()}
    return Facts(rows, frozenset(guide), frozenset(items))


def _read_rows(kit: Path) -> dict[str, list[Row]]:
    """Training rows of the kit by language, each list sorted by the row_id that the product computes."""
    return {language: [rows[key] for key in sorted(rows)] for language, rows in _read_rows_by_id(kit).items()}


@functools.cache
def _read_rows_by_id(kit: Path) -> Mapping[str, Mapping[str, Row]]:
    """Training rows of the kit by language and row_id."""
    [file] = (kit / "aya_dataset" / "data").glob("train-*.parquet")
    texts = pq.read_table(file, columns=["inputs", "targets"])
    prompts, responses = texts["inputs"].to_pylist(), texts["targets"].to_pylist()
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in pq.read_table(kit / "aya_dataset_provenance.parquet").to_pylist():
        if row["split"] == "train":
            text = {"prompt": prompts[row["row"]], "response": responses[row["row"]]}
            row_id = content_hash(row["language"], row["source"], text["prompt"], text["response"])
            found[row["language"]].setdefault(row_id, {**row, **text})
    return found


@dataclass(frozen=True)
class OwnRows:
    """The first ``rows`` of a language, the seed of its thinning, the thinned subjects, and the test items."""

    rows: int
    seed: int
    thinned: tuple[str, ...]
    items: Sequence[Row]


def _own_rows(protocol: Protocol, size: MaterialSize, kit: Path, language: str, subjects: Sequence[str]) -> OwnRows:
    """The first thinning by seed that leaves exactly ``own_rows`` rows, and enough items of thinned subjects in every family."""
    [file] = (kit / "global_mmlu" / language).glob("test*.parquet")
    tests = sorted(pq.read_table(file).to_pylist(), key=lambda each: _hash(each["sample_id"]))
    families = {protocol.family_of(row["subject"]) for row in tests} - {None}
    for seed in range(1000):
        count, thinned = _thin(bias_settings(protocol, size, seed), language, subjects, size.own_rows)
        if not count:
            continue
        items = _choose_items(protocol, size, tests, frozenset(thinned))
        found = Counter(row["family"] for row in items if row["thinned"])
        if all(found[family] >= size.thinning.min_items for family in families):
            return OwnRows(count, seed, thinned, items)
    raise ProtocolError(f"no thinning of {language} leaves {size.thinning.min_items} items of thinned subjects in each family")


def _thin(bias: BiasConfig, language: str, subjects: Sequence[str], wanted: int) -> tuple[int, tuple[str, ...]]:
    """How many of the first rows leave ``wanted`` rows after thinning, and the thinned subjects.

    No rows if more are left at once: further rows brought a further subject, and the draw is another one.
    """
    count = wanted
    while count <= len(subjects):
        found = draw_bias(bias, 0, language, subjects[:count])
        kept = int(found.kept.sum())
        if kept >= wanted:
            return (count, found.thinned_subjects) if kept == wanted else (0, ())
        count += wanted - kept
    raise ProtocolError(f"{language} has {len(subjects)} rows, too few to leave {wanted} after thinning; lower material.own_rows")


def _choose_items(protocol: Protocol, size: MaterialSize, tests: Sequence[Row], thinned: frozenset[str]) -> list[Row]:
    """Test items of the families: as many as wanted of each family, of thinned and of other subjects."""
    limits = {True: size.thinned_items_per_family, False: size.other_items_per_family}
    taken: Counter[tuple[str, bool]] = Counter()
    chosen: list[Row] = []
    for row in tests:
        family, low = protocol.family_of(row["subject"]), row["subject"] in thinned
        if family is not None and taken[family, low] < limits[low]:
            taken[family, low] += 1
            chosen.append({**row, "family": family, "thinned": low})
    return chosen


def _write_items(material: Material, language: str, chosen: Sequence[Row], where: Mapping[str, set[str]]) -> None:
    names = [name for name in chosen[0] if name not in ("family", "thinned")]
    pq.write_table(pa.table({name: [row[name] for row in chosen] for name in names}), material.tests(language))
    items = [{**row, "elsewhere": bool(where.get(row["sample_id"], set()) - {language})} for row in chosen]
    columns = {name: [row[name] for row in items] for name in ITEMS.names}
    pq.write_table(pa.table(columns, schema=ITEMS), material.folder / "items" / f"{language}.parquet")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
