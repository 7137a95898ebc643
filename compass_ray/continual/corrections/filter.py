"""Apply all rules to the corrections of a language, and return a verdict on each.

A refusal is final. A held correction is accepted only if a person accepts it. All rules see all corrections at once. The
caps per key come last, in a round-robin order of keys that depends on the seed. Writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import TrainedRows
from compass_ray.config import RunConfig
from compass_ray.continual.corrections.leakage import ComparisonSet
from compass_ray.continual.corrections.reviews import read_reviews
from compass_ray.continual.corrections.rules import check_language, check_length_and_letters, find_suspicious, row_id
from compass_ray.continual.corrections.verdicts import CorrectionState, CorrectionVerdict, RuleFinding, VerdictSet
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.core.instance_scores import pool_scores
from compass_ray.core.round_robin import find_kept_duplicates, round_robin_order
from compass_ray.monitoring.cluster_assigner import PromptAssigner, load_prompt_assigner
from compass_ray.monitoring.corrections import CorrectionPair, read_pairs
from compass_ray.serving.routing.language_decision import Identifier

SHOWN_ID_DIGITS = 12
"""Digits of an id that are shown: enough to distinguish all stored corrections."""
_AWAITS_REVIEW = RuleFinding(CorrectionState.HELD, "nobody has reviewed it")


@dataclass(frozen=True)
class FilterModels:
    """The models that the rules use."""

    prompt_assigner: PromptAssigner
    identifier: Identifier
    unidentified: tuple[str, ...] = ()
    """Languages of the run that the identifier does not know."""

    @classmethod
    def load(cls, config: RunConfig, run: RunDir) -> FilterModels:
        """Load the run's encoder, clusters and language identifier."""
        from compass_ray.models.language_id import LanguageIdentifier

        identifier = LanguageIdentifier(config.identifier)
        return cls(load_prompt_assigner(run, config), identifier, identifier.unknown_languages(config.languages))


@dataclass(frozen=True)
class FilterResult:
    """The verdict on every correction, and the accepted ones in round-robin order.

    ``cluster`` int32[n] and ``proto`` float64[n] are the clusters and prototype scores of the accepted corrections.
    """

    verdicts: tuple[CorrectionVerdict, ...] = ()
    accepted: tuple[CorrectionPair, ...] = ()
    cluster: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    proto: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Decides which corrections may become anchors."""


def filter_corrections(
    config: RunConfig, run: RunDir, language: str, *, models: FilterModels | None = None, now: float | None = None
) -> FilterResult:
    """Filter the corrections of a language that are retained at ``now`` (Unix seconds, the current time if None).

    Raises:
        ArtifactError, ConfigError, ModelError: the run has no shared clusters or no guide set, or a model cannot be loaded.
    """
    pairs = [pair for pair in read_pairs(run, config.drift, time.time() if now is None else now) if pair.language == language]
    if not pairs:
        return FilterResult()
    models, found = models or FilterModels.load(config, run), VerdictSet(pairs)
    refused = _apply_text_rules(config, run, language, models, found)
    comparison = ComparisonSet.read(run, language)
    found.add(comparison.find_test_leaks(found.pending))
    if not (pending := found.pending):
        return FilterResult(found.verdicts())
    embedded = [*found.trained, *pending]
    assigned = models.prompt_assigner.assign([pair.prompt for pair in embedded])
    vectors, embedder = assigned.embeddings[-len(pending) :], models.prompt_assigner.embedder
    found.add(comparison.find_near_duplicates(pending, vectors, embedder, config.select.tau))
    found.add(find_suspicious(found.pending, refused))
    _apply_reviews(config, run, found)
    index = {pair.id: i for i, pair in enumerate(embedded)}
    ordered = _apply_key_caps(config, found)
    sequence = [*found.trained, *ordered]
    repeats = _find_repeats(sequence, assigned.embeddings[[index[pair.id] for pair in sequence]], config.select.tau)
    found.add({pair.id: repeats[pair.id] for pair in ordered if pair.id in repeats})
    accepted = tuple(pair for pair in ordered if pair.id not in found.findings)
    rows = [index[pair.id] for pair in accepted]
    cluster = assigned.cluster[rows]
    proto = pool_scores(assigned.embeddings[rows], cluster, models.prompt_assigner.assigner.centroids).proto
    return FilterResult(found.verdicts(), accepted, cluster, proto)


def _apply_text_rules(
    config: RunConfig, run: RunDir, language: str, models: FilterModels, found: VerdictSet
) -> list[CorrectionPair]:
    """Apply the rules on single texts; returns the refused corrections, which count against their keys."""
    used, reviews = _trained_row_ids(config, run, language), read_reviews(run)
    trained = RuleFinding(CorrectionState.TRAINED, "the live version was trained on it")
    found.add({pair.id: trained for pair in found.pairs if row_id(pair) in used})
    rejected = RuleFinding(CorrectionState.REJECTED, "a person rejected it")
    found.add({pair.id: rejected for pair in found.pending if reviews.get(pair.id) is False})
    reasons = {pair.id: check_length_and_letters(pair, config.train.max_tokens) for pair in found.pending}
    found.add({name: RuleFinding(CorrectionState.REFUSED, reason) for name, reason in reasons.items() if reason})
    languages, identifier = config.languages, models.identifier
    found.add(check_language(found.pending, identifier, config.identifier, languages, models.unidentified))
    return found.refused


def _apply_reviews(config: RunConfig, run: RunDir, found: VerdictSet) -> None:
    """Release held corrections that a person accepted; hold unreviewed ones if ``update.corrections`` requires a review."""
    reviews = read_reviews(run)
    for pair in found.pending:
        if reviews.get(pair.id):
            found.findings.pop(pair.id, None)
    if config.update.corrections != "all":
        found.add({pair.id: _AWAITS_REVIEW for pair in found.passed if not reviews.get(pair.id)})


def _apply_key_caps(config: RunConfig, found: VerdictSet) -> list[CorrectionPair]:
    """The corrections that passed, at most the cap of each key, in round-robin order."""
    passed, cap = found.passed, config.update.corrections_per_key
    order = round_robin_order([pair.id for pair in passed], [pair.key for pair in passed], config.seed)
    over = RuleFinding(CorrectionState.LEFT_OUT, f"{cap} other corrections of its key come first (update.corrections_per_key)")
    found.add({passed[i].id: over for i, turn in zip(order.position, order.turn, strict=True) if turn >= cap})
    return [passed[i] for i, turn in zip(order.position, order.turn, strict=True) if turn < cap]


def _find_repeats(ordered: Sequence[CorrectionPair], embeddings: npt.NDArray[np.float32], tau: float) -> dict[str, RuleFinding]:
    """Corrections equal to an earlier one, and corrections with a prompt that nearly equals an earlier prompt."""
    first: dict[str, CorrectionPair] = {}
    equal = {pair.id: one for pair in ordered if (one := first.setdefault(row_id(pair), pair)) is not pair}
    near = {pair.id: ordered[i] for pair, i in zip(ordered, find_kept_duplicates(embeddings, tau), strict=True) if i >= 0}
    reasons = {name: f"prompt nearly equals that of {one.id[:SHOWN_ID_DIGITS]}, which comes first" for name, one in near.items()}
    reasons |= {name: f"duplicate of {one.id[:SHOWN_ID_DIGITS]}" for name, one in equal.items()}
    return {name: RuleFinding(CorrectionState.LEFT_OUT, reason) for name, reason in reasons.items()}


def _trained_row_ids(config: RunConfig, run: RunDir, language: str) -> frozenset[str]:
    """Ids of rows in the lineage of the live version; only its held-out rows if updates retrain from scratch."""
    live = run.live(language)
    if live is None:
        return frozenset()
    rows = TrainedRows.read(config, lineage.lineage_selections(config, run, language, str(live["version"])))
    from_scratch = STRATEGIES[config.update.strategy].from_scratch
    return frozenset(name for name, held_out in zip(rows.row_ids, rows.held_out, strict=True) if held_out or not from_scratch)
