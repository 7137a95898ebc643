"""Scores of every item as arrays over languages, seeds and items, for one group of items of a try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.paper.evidence.deviations import list_deviations
from benchmarks.paper.evidence.measurements import Cell, MeasurementStore
from benchmarks.paper.evidence.protocol import ZERO_SHOT, Protocol, ProtocolError, ProtocolFile, is_evaluation
from compass_ray.core.choice_measures import ItemMeasures, measure_items

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LanguageItems:
    """The items of one language, and the measures of each method and seed."""

    ids: Sequence[str]
    families: Sequence[str]
    thinned: npt.NDArray[np.bool_]
    elsewhere: npt.NDArray[np.bool_]
    options: Sequence[int]
    measures: Mapping[tuple[str, int], ItemMeasures]
    text: Mapping[tuple[str, int], float]
    """Bits per byte of the plain text, by method and seed."""


@dataclass(frozen=True)
class TryScores:
    """All measurements of a try."""

    protocol: Protocol
    attempt: str
    languages: Mapping[str, LanguageItems]
    footers: Mapping[Cell, Mapping[str, Any]]
    deviations: Sequence[str] = ()
    """Sentences about files that deviate from the protocol; an evaluation has none."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Measured methods, in the order of the protocol."""
        found = {method for each in self.languages.values() for method, _ in each.measures}
        return tuple(name for name in self.protocol.methods if name in found)

    def seeds(self, *methods: str) -> tuple[int, ...]:
        """Seeds in which any language has all of these methods; the base model has all seeds."""
        trained = [method for method in methods if method != ZERO_SHOT]
        return tuple(
            seed
            for seed in self.protocol.seeds
            if any(all((method, seed) in each.measures for method in trained) for each in self.languages.values())
        )


def read_try(file: ProtocolFile, store: MeasurementStore, attempt: str) -> TryScores:
    """Read the measurements of a try; languages in the order of the protocol.

    Raises:
        ProtocolError: there is no such try, nothing is measured, the protocol of an evaluation is not the frozen one, or a
            measurement of an evaluation deviates from it.
    """
    protocol, chosen = file.protocol, file.protocol.languages_of(attempt)
    every = {cell: store.read(cell) for cell in store.cells(attempt)}
    deviations = list_deviations(file, attempt, {cell: scored.footer for cell, scored in every.items()})
    if is_evaluation(attempt):
        file.check_frozen()
        if deviations:
            raise ProtocolError(f"{store.folder / attempt} deviates from the frozen protocol. {' '.join(deviations)} Remove them")
    found = {cell: each for cell, each in every.items() if cell.method in protocol.methods and cell.language in chosen}
    if not found:
        raise ProtocolError(f"nothing is measured of the try {attempt!r} in {store.folder}; measure it first")
    languages = {}
    for language in chosen:
        own = {cell: scored for cell, scored in found.items() if cell.language == language}
        if not own:
            continue
        items = store.items(attempt, language).to_pydict()
        measures = {
            (cell.method, cell.seed): measure_items(
                scored.scores["sums"].to_pylist(), items["characters"], items["bytes"], items["answer"]
            )
            for cell, scored in own.items()
        }
        texts = {(cell.method, cell.seed): scored.footer.get("text") for cell, scored in own.items()}
        languages[language] = LanguageItems(
            items["sample_id"],
            items["family"],
            np.array(items["thinned"], bool),
            np.array(items["elsewhere"], bool),
            [len(each) for each in items["bytes"]],
            measures,
            {key: each["nats"] / np.log(2) / each["bytes"] for key, each in texts.items() if each},
        )
    return TryScores(protocol, attempt, languages, {cell: scored.footer for cell, scored in found.items()}, deviations)


@dataclass(frozen=True)
class ItemGroup:
    """Which items count: of thinned subjects or others, of one family or all, with a fact elsewhere or not, or all."""

    thinned: bool = True
    family: str | None = None
    elsewhere: bool | None = None

    def mask(self, items: LanguageItems) -> npt.NDArray[np.bool_]:
        """bool[n] over the items of a language."""
        chosen = np.equal(items.thinned, self.thinned)
        if self.family is not None:
            chosen &= np.equal(np.array(items.families), self.family)
        if self.elsewhere is not None:
            chosen &= np.equal(items.elsewhere, self.elsewhere)
        return np.asarray(chosen, bool)


@dataclass(frozen=True)
class GroupScores:
    """Values float64[L, S, I] of one method, or of a difference, NaN where none; the family int64[I]; the languages."""

    values: Array
    family: Labels
    languages: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return not self.languages or not self.values.size


def method_scores(
    scores: TryScores, method: str, measure: str, group: ItemGroup, languages: Sequence[str], seeds: Sequence[int]
) -> GroupScores:
    """Values of a method, positive if more is better: bits per byte and Brier scores have their sign changed."""
    index = _item_index(scores, group, languages)
    names = list(scores.protocol.families)
    values = np.full((len(languages), len(seeds), len(index)), np.nan)
    family = np.zeros(len(index), np.int64)
    sign = scores.protocol.measures[measure].sign
    for row, language in enumerate(languages):
        items = scores.languages[language]
        mask = group.mask(items)
        at = [index[name] for name, keep in zip(items.ids, mask, strict=True) if keep]
        family[at] = [names.index(name) for name, keep in zip(items.families, mask, strict=True) if keep]
        for column, seed in enumerate(seeds):
            found = items.measures.get((method, _seed_of(scores, method, seed)))
            if found is not None:
                values[row, column, at] = sign * found.values(measure)[mask]
    return GroupScores(values, family, tuple(languages), tuple(seeds))


def difference(scores: TryScores, a: str, b: str, measure: str, group: ItemGroup, languages: Sequence[str]) -> GroupScores:
    """a - b on the same items and seeds, positive if a is better; languages and seeds that lack either are left out."""
    seeds = scores.seeds(a, b)
    first, second = (method_scores(scores, each, measure, group, languages, seeds) for each in (a, b))
    values = first.values - second.values
    kept = np.asarray(~np.isnan(values).all(axis=(1, 2)) if values.size else np.zeros(len(languages), bool))
    values = values[kept]
    present = ~np.isnan(values).all(axis=(0, 1)) if len(values) else np.zeros(values.shape[2], bool)
    names = tuple(name for name, keep in zip(languages, kept, strict=True) if keep)
    return GroupScores(values[:, :, present], first.family[present], names, seeds)


def text_difference(scores: TryScores, a: str, b: str, languages: Sequence[str]) -> GroupScores:
    """Bits per byte of the plain text, b - a: positive if a is better."""
    seeds = scores.seeds(a, b)
    values = np.full((len(languages), len(seeds), 1), np.nan)
    for row, language in enumerate(languages):
        text = scores.languages[language].text
        for column, seed in enumerate(seeds):
            first, second = (text.get((each, _seed_of(scores, each, seed)), np.nan) for each in (a, b))
            values[row, column, 0] = second - first
    kept = np.asarray(~np.isnan(values).all(axis=(1, 2)))
    names = tuple(name for name, keep in zip(languages, kept, strict=True) if keep)
    return GroupScores(values[kept], np.zeros(1, np.int64), names, seeds)


def _seed_of(scores: TryScores, method: str, seed: int) -> int:
    """The base model is scored once."""
    return scores.protocol.seeds[0] if method == ZERO_SHOT else seed


def _item_index(scores: TryScores, group: ItemGroup, languages: Sequence[str]) -> dict[str, int]:
    names = {
        name
        for language in languages
        for name, keep in zip(scores.languages[language].ids, group.mask(scores.languages[language]), strict=True)
        if keep
    }
    return {name: position for position, name in enumerate(sorted(names))}
