"""The verdict on every correction of a language, rule by rule.

Key property: what refuses is final, what holds is lifted by a person's word alone, and both are found over all corrections at
once; only then come the caps, by turns of keys that chance orders by name. It writes nothing.
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
"""Digits of an id that are shown: more than tell any two of the kept corrections apart."""
_AWAITS_REVIEW = RuleFinding(CorrectionState.HELD, "nobody has reviewed it")


@dataclass(frozen=True)
class FilterModels:
    """What texts are looked at with."""

    prompt_assigner: PromptAssigner
    identifier: Identifier

    @classmethod
    def load(cls, config: RunConfig, run: RunDir) -> FilterModels:
        """The run's own encoder, clusters and identifier."""
        from compass_ray.models.language_id import LanguageIdentifier

        return cls(load_prompt_assigner(run, config), LanguageIdentifier(config.identifier))


@dataclass(frozen=True)
class FilterResult:
    """Every correction's verdict, and of the accepted ones, in order of turn, cluster int32[n] and prototype score float64[n]."""

    verdicts: tuple[CorrectionVerdict, ...] = ()
    accepted: tuple[CorrectionPair, ...] = ()
    cluster: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    proto: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """By which one may become an anchor."""


def filter_corrections(
    config: RunConfig, run: RunDir, language: str, *, means: FilterModels | None = None, now: float | None = None
) -> FilterResult:
    """Judge the corrections of a language that are kept at ``now`` (Unix seconds, the present if None).

    Raises:
        ArtifactError, ConfigError, ModelError: the run has no clusters that languages share, no guide set, or its models fail.
    """
    pairs = [pair for pair in read_pairs(run, config.drift, time.time() if now is None else now) if pair.language == language]
    if not pairs:
        return FilterResult()
    means, sieve = means or FilterModels.load(config, run), VerdictSet(pairs)
    blamed = _apply_text_rules(config, run, language, means, sieve)
    around = ComparisonSet.read(run, language)
    sieve.add(around.find_test_leaks(sieve.pending))
    if not (open_ := sieve.pending):
        return FilterResult(sieve.verdicts())
    looked_at = [*sieve.trained, *open_]
    placed = means.prompt_assigner.assign([pair.prompt for pair in looked_at])
    sieve.add(
        around.find_near_duplicates(open_, placed.embeddings[-len(open_) :], means.prompt_assigner.embedder, config.select.tau)
    )
    sieve.add(find_suspicious(sieve.pending, blamed))
    _apply_reviews(config, run, sieve)
    at = {pair.id: i for i, pair in enumerate(looked_at)}
    ordered = _apply_key_caps(config, sieve)
    one_after_another = [*sieve.trained, *ordered]
    again = _find_repeats(one_after_another, placed.embeddings[[at[pair.id] for pair in one_after_another]], config.select.tau)
    sieve.add({pair.id: again[pair.id] for pair in ordered if pair.id in again})
    accepted = tuple(pair for pair in ordered if pair.id not in sieve.findings)
    rows = [at[pair.id] for pair in accepted]
    cluster = placed.cluster[rows]
    proto = pool_scores(placed.embeddings[rows], cluster, means.prompt_assigner.assigner.centroids).proto
    return FilterResult(sieve.verdicts(), accepted, cluster, proto)


def _apply_text_rules(
    config: RunConfig, run: RunDir, language: str, means: FilterModels, sieve: VerdictSet
) -> list[CorrectionPair]:
    """Look at what was written; returns what was refused for it, which tells of the key that it came from."""
    used, word = _trained_row_ids(config, run, language), read_reviews(run)
    sieve.add(
        {
            p.id: RuleFinding(CorrectionState.TRAINED, "the version that is served has it")
            for p in sieve.pairs
            if row_id(p) in used
        }
    )
    sieve.add(
        {p.id: RuleFinding(CorrectionState.REJECTED, "a person rejected it") for p in sieve.pending if word.get(p.id) is False}
    )
    reasons = {pair.id: check_length_and_letters(pair, config.train.max_tokens) for pair in sieve.pending}
    sieve.add({name: RuleFinding(CorrectionState.REFUSED, reason) for name, reason in reasons.items() if reason})
    sieve.add(check_language(sieve.pending, means.identifier, config.identifier, config.languages))
    return sieve.refused


def _apply_reviews(config: RunConfig, run: RunDir, sieve: VerdictSet) -> None:
    """Lift from quarantine what a person accepted, and hold what waits for one where all has to be reviewed."""
    word = read_reviews(run)
    for pair in sieve.pending:
        if word.get(pair.id):
            sieve.findings.pop(pair.id, None)
    if config.update.corrections != "all":
        sieve.add({pair.id: _AWAITS_REVIEW for pair in sieve.passed if not word.get(pair.id)})


def _apply_key_caps(config: RunConfig, sieve: VerdictSet) -> list[CorrectionPair]:
    """What is clear, within the cap of its key, in order of turn."""
    clear, most = sieve.passed, config.update.corrections_per_key
    found = round_robin_order([pair.id for pair in clear], [pair.key for pair in clear], config.seed)
    over = RuleFinding(CorrectionState.LEFT_OUT, f"{most} others of its key come first (update.corrections_per_key)")
    sieve.add({clear[i].id: over for i, turn in zip(found.position, found.turn, strict=True) if turn >= most})
    return [clear[i] for i, turn in zip(found.position, found.turn, strict=True) if turn < most]


def _find_repeats(ordered: Sequence[CorrectionPair], embeddings: npt.NDArray[np.float32], tau: float) -> dict[str, RuleFinding]:
    """Those that say again what one before says, and those whose prompt is nearly that of one before."""
    first: dict[str, CorrectionPair] = {}
    again = {pair.id: one for pair in ordered if (one := first.setdefault(row_id(pair), pair)) is not pair}
    near = {pair.id: ordered[i] for pair, i in zip(ordered, find_kept_duplicates(embeddings, tau), strict=True) if i >= 0}
    found = {name: f"its prompt is all but that of {one.id[:SHOWN_ID_DIGITS]}, which comes first" for name, one in near.items()}
    found |= {name: f"it says the same as {one.id[:SHOWN_ID_DIGITS]}" for name, one in again.items()}
    return {name: RuleFinding(CorrectionState.LEFT_OUT, reason) for name, reason in found.items()}


def _trained_row_ids(config: RunConfig, run: RunDir, language: str) -> frozenset[str]:
    """Ids of rows that the served version's line has already; where an update begins anew, of those that judged it alone."""
    live = run.live(language)
    if live is None:
        return frozenset()
    rows = TrainedRows.read(config, lineage.lineage_selections(config, run, language, str(live["version"])))
    anew = STRATEGIES[config.update.strategy].from_scratch
    return frozenset(name for name, held in zip(rows.row_ids, rows.held_out, strict=True) if held or not anew)
