"""Whether the compared methods were trained at equal cost: tokens and optimizer steps of their adapters.

Key property: equality is read from the training histories, not from the settings. A difference between methods of unequal cost
may come from the length of training alone. Zero-shot is not trained and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compass_ray.config import RunConfig
from compass_ray.records.training import HistoryRecord
from compass_ray.report.run_reader import METHODS, RunReader, method_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_REMEDY = mark("Set train.tokens to compare at equal cost.")
_NAMED = 5
"""Adapters to train again that a sentence names."""


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one adapter, or the mean over several."""

    tokens: float
    """Trained tokens of prompts and replies."""
    reply_tokens: float | None
    """Those of ``tokens`` that have a loss. None if a training of an earlier version did not record them, as for ``steps``."""
    steps: float | None

    def describe(self, *, units: bool = True) -> str:
        """Tokens and steps, as ``5,120 tokens in 40 steps``, or without ``units`` as ``5,120 in 40``."""
        tokens, steps = f"{self.tokens:,.0f}", None if self.steps is None else f"{self.steps:,.0f}"
        if steps is None:
            return _("{tokens} tokens", tokens=tokens) if units else tokens
        if not units:
            return _("{tokens} in {steps}", tokens=tokens, steps=steps)
        one = self.steps == 1
        return (
            _("{tokens} tokens in 1 step", tokens=tokens)
            if one
            else _("{tokens} tokens in {steps} steps", tokens=tokens, steps=steps)
        )


@dataclass(frozen=True)
class TrainingCosts:
    """Costs of the methods of one run."""

    methods: Mapping[str, TrainingCost]
    """Mean over languages, by method, in the order of the tables."""
    languages: int
    """Languages that the means are over."""
    is_equal: bool
    """Whether in every language all trained methods have equal tokens and equal steps."""
    to_retrain: tuple[str, ...] = ()
    """Adapters to train again. With ``train.tokens``: those of another cost, or without recorded steps. Without it: those without
    recorded steps, if nothing but steps is unknown."""

    def describe(self) -> str:
        """State whether the methods were trained at equal cost, with numbers; empty with fewer than two trained methods."""
        if len(self.methods) < 2:
            return ""
        first = next(iter(self.methods.values()))
        if self.is_equal:
            return _("Methods were trained at equal cost: {cost} for each adapter (prompts and replies).", cost=first.describe())
        unknown = [method_name(method) for method, cost in self.methods.items() if cost.steps is None]
        if unknown and all(cost.tokens == first.tokens for cost in self.methods.values()):
            every = len(unknown) == len(self.methods)
            return _join(
                _("Methods were trained on equal numbers of tokens ({tokens}).", tokens=f"{first.tokens:,.0f}"),
                _("Their steps are not recorded.")
                if every
                else _("Steps of {methods} are not recorded.", methods=", ".join(unknown)),
                _retrain(self.to_retrain),
            )
        listed = [
            f"{method_name(method)} {cost.describe(units=number == 0)}"
            for number, (method, cost) in enumerate(self.methods.items())
        ]
        costs = ", ".join(listed)
        found = (
            _(
                "Methods were not trained at equal cost: {costs} (means over {count} languages).",
                costs=costs,
                count=self.languages,
            )
            if self.languages > 1
            else _("Methods were not trained at equal cost: {costs}.", costs=costs)
        )
        return f"{found} {_retrain(self.to_retrain) or _(_REMEDY)}"


def read_costs(reader: RunReader, config: RunConfig) -> TrainingCosts:
    """Costs of the trained methods of a run.

    Means are over the languages in which every method has been trained, or over all languages if there are none.
    """
    by_language = {code: costs for code in config.languages if (costs := _costs(reader, config, code))}
    trained = [method for method in config.select.methods if any(method in costs for costs in by_language.values())]
    complete = [costs for costs in by_language.values() if costs.keys() == set(trained)]
    averaged = complete or list(by_language.values())
    order = [*(m for m in METHODS if m in trained), *(m for m in trained if m not in METHODS)]
    return TrainingCosts(
        methods={method: _mean([costs[method] for costs in averaged if method in costs]) for method in order},
        languages=len(averaged),
        is_equal=bool(by_language) and all(_are_equal(list(costs.values())) for costs in by_language.values()),
        to_retrain=_find_retrain(reader, config, by_language),
    )


def describe_variants(variants: Mapping[str, TrainingCosts]) -> str:
    """State whether all methods of all variants were trained at equal cost; empty with fewer than two adapters."""
    trained = [(name, method, cost) for name, costs in variants.items() for method, cost in costs.methods.items()]
    if len(trained) < 2:
        return ""
    is_equal_within = all(costs.is_equal for costs in variants.values() if costs.methods)
    if is_equal_within and _are_equal([cost for _, _, cost in trained]):
        return f"All variants and methods were trained at equal cost: {trained[0][2].describe()} for each adapter."
    to_retrain = [f"{adapter} ({name})" for name, costs in variants.items() for adapter in costs.to_retrain]
    if any(cost.steps is None for *_, cost in trained) and len({cost.tokens for *_, cost in trained}) == 1:
        tokens = f"{trained[0][2].tokens:,.0f}"
        found = f"Variants and methods were trained on equal numbers of tokens ({tokens}). Not all steps are recorded."
        return _join(found, _retrain(to_retrain))
    least, most = (chosen(trained, key=lambda each: each[2].tokens) for chosen in (min, max))
    span = " to ".join(f"{cost.describe()} ({METHODS.get(m, m)}, {name})" for name, m, cost in (least, most))
    if is_equal_within:
        return f"Methods of one variant were trained at equal cost, but variants were not: from {span}."
    return f"Variants and methods were not trained at equal cost: from {span}. {_retrain(to_retrain) or _REMEDY}"


def _find_retrain(reader: RunReader, config: RunConfig, by_language: Mapping[str, Mapping[str, TrainingCost]]) -> tuple[str, ...]:
    """The names of the adapters to train again, each once. See `TrainingCosts.to_retrain`."""
    train, trained = config.train, [(code, method, cost) for code, costs in by_language.items() for method, cost in costs.items()]
    if train.tokens is not None:
        chosen = [each for each in trained if (each[2].tokens, each[2].steps) != (train.tokens, train.token_steps)]
    else:
        chosen = [each for each in trained if each[2].steps is None]
        if len(chosen) == len(trained) or any(len({c.tokens for c in costs.values()}) > 1 for costs in by_language.values()):
            return ()
    return tuple(dict.fromkeys(reader.first_trained(config, method, code).name for code, method, _ in chosen))


def _retrain(adapters: Sequence[str]) -> str:
    """The advice to train adapters again; empty without any."""
    if not adapters:
        return ""
    names, more = ", ".join(adapters[:_NAMED]), len(adapters) - _NAMED
    if more > 0:
        return _("Train again with --force train: {names} and {count} more.", names=names, count=f"{more:,}")
    return _("Train again with --force train: {names}.", names=names)


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _costs(reader: RunReader, config: RunConfig, language: str) -> dict[str, TrainingCost]:
    found = ((method, reader.first_history(config, method, language)) for method in config.select.methods)
    return {method: _cost(history) for method, history in found if history and history.tokens is not None}


def _cost(history: HistoryRecord) -> TrainingCost:
    return TrainingCost(float(history.tokens or 0), history.reply_tokens, history.steps)


def _mean(costs: Sequence[TrainingCost]) -> TrainingCost:
    tokens = sum(cost.tokens for cost in costs) / len(costs)
    return TrainingCost(tokens, _average([cost.reply_tokens for cost in costs]), _average([cost.steps for cost in costs]))


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _are_equal(costs: Sequence[TrainingCost]) -> bool:
    return len({(cost.tokens, cost.steps) for cost in costs}) == 1 and costs[0].steps is not None
