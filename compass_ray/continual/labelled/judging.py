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

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual import lineage
from compass_ray.continual.labelled.languages import foreign
from compass_ray.continual.labelled.nearness import Surroundings
from compass_ray.continual.labelled.reviews import reviews
from compass_ray.continual.labelled.sieve import Sieve
from compass_ray.continual.labelled.suspicion import suspicious
from compass_ray.continual.labelled.texts import row_id, unfit
from compass_ray.continual.labelled.verdicts import Finding, State, Verdict
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.core.corrections import first_neighbours, turns
from compass_ray.core.instance_scores import pool_scores
from compass_ray.serving.monitoring.corrections import Pair, read_pairs
from compass_ray.serving.monitoring.placing import Placer, load_placer
from compass_ray.serving.routing.detection import Identifier
from compass_ray.watched_clusters import TrainedRows

SHOWN = 12
"""Digits of an id that are shown: more than tell any two of the kept corrections apart."""
_WAITS = Finding(State.HELD, "nobody has reviewed it")


@dataclass(frozen=True)
class Means:
    """What texts are looked at with."""

    placer: Placer
    identifier: Identifier

    @classmethod
    def load(cls, config: RunConfig, run: RunDir) -> Means:
        """The run's own encoder, clusters and identifier."""
        from compass_ray.models.language_id import LanguageIdentifier

        return cls(load_placer(run, config), LanguageIdentifier(config.identifier))


@dataclass(frozen=True)
class Judgement:
    """Every correction's verdict, and of the accepted ones, in order of turn, cluster int32[n] and prototype score float64[n]."""

    verdicts: tuple[Verdict, ...] = ()
    accepted: tuple[Pair, ...] = ()
    cluster: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    proto: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """By which one may become an anchor."""


def judged(config: RunConfig, run: RunDir, language: str, *, means: Means | None = None, now: float | None = None) -> Judgement:
    """Judge the corrections of a language that are kept at ``now`` (Unix seconds, the present if None).

    Raises:
        ArtifactError, ConfigError, ModelError: the run has no clusters that languages share, no guide set, or its models fail.
    """
    pairs = [pair for pair in read_pairs(run, config.drift, time.time() if now is None else now) if pair.language == language]
    if not pairs:
        return Judgement()
    means, sieve = means or Means.load(config, run), Sieve(pairs)
    blamed = _by_their_texts(config, run, language, means, sieve)
    around = Surroundings.read(run, language)
    sieve.add(around.asked(sieve.open))
    if not (open_ := sieve.open):
        return Judgement(sieve.verdicts())
    looked_at = [*sieve.trained, *open_]
    placed = means.placer.place([pair.prompt for pair in looked_at])
    sieve.add(around.near(open_, placed.embeddings[-len(open_) :], means.placer.embedder, config.select.tau))
    sieve.add(suspicious(sieve.open, blamed))
    _by_people(config, run, sieve)
    at = {pair.id: i for i, pair in enumerate(looked_at)}
    ordered = _by_turns(config, sieve)
    one_after_another = [*sieve.trained, *ordered]
    again = _repeated(one_after_another, placed.embeddings[[at[pair.id] for pair in one_after_another]], config.select.tau)
    sieve.add({pair.id: again[pair.id] for pair in ordered if pair.id in again})
    accepted = tuple(pair for pair in ordered if pair.id not in sieve.findings)
    rows = [at[pair.id] for pair in accepted]
    cluster = placed.cluster[rows]
    proto = pool_scores(placed.embeddings[rows], cluster, means.placer.assigner.centroids).proto
    return Judgement(sieve.verdicts(), accepted, cluster, proto)


def _by_their_texts(config: RunConfig, run: RunDir, language: str, means: Means, sieve: Sieve) -> list[Pair]:
    """Look at what was written; returns what was refused for it, which tells of the key that it came from."""
    used, word = _used(config, run, language), reviews(run)
    sieve.add({p.id: Finding(State.TRAINED, "the version that is served has it") for p in sieve.pairs if row_id(p) in used})
    sieve.add({p.id: Finding(State.REJECTED, "a person rejected it") for p in sieve.open if word.get(p.id) is False})
    reasons = {pair.id: unfit(pair, config.train.max_tokens) for pair in sieve.open}
    sieve.add({name: Finding(State.REFUSED, reason) for name, reason in reasons.items() if reason})
    sieve.add(foreign(sieve.open, means.identifier, config.identifier, config.languages))
    return sieve.blamed


def _by_people(config: RunConfig, run: RunDir, sieve: Sieve) -> None:
    """Lift from quarantine what a person accepted, and hold what waits for one where all has to be reviewed."""
    word = reviews(run)
    for pair in sieve.open:
        if word.get(pair.id):
            sieve.findings.pop(pair.id, None)
    if config.update.corrections != "all":
        sieve.add({pair.id: _WAITS for pair in sieve.clear if not word.get(pair.id)})


def _by_turns(config: RunConfig, sieve: Sieve) -> list[Pair]:
    """What is clear, within the cap of its key, in order of turn."""
    clear, most = sieve.clear, config.update.corrections_per_key
    found = turns([pair.id for pair in clear], [pair.key for pair in clear], config.seed)
    over = Finding(State.LEFT, f"{most} others of its key come first (update.corrections_per_key)")
    sieve.add({clear[i].id: over for i, turn in zip(found.position, found.turn, strict=True) if turn >= most})
    return [clear[i] for i, turn in zip(found.position, found.turn, strict=True) if turn < most]


def _repeated(ordered: Sequence[Pair], embeddings: npt.NDArray[np.float32], tau: float) -> dict[str, Finding]:
    """Those that say again what one before says, and those whose prompt is nearly that of one before."""
    first: dict[str, Pair] = {}
    again = {pair.id: one for pair in ordered if (one := first.setdefault(row_id(pair), pair)) is not pair}
    near = {pair.id: ordered[i] for pair, i in zip(ordered, first_neighbours(embeddings, tau), strict=True) if i >= 0}
    found = {name: f"its prompt is all but that of {one.id[:SHOWN]}, which comes first" for name, one in near.items()}
    found |= {name: f"it says the same as {one.id[:SHOWN]}" for name, one in again.items()}
    return {name: Finding(State.LEFT, reason) for name, reason in found.items()}


def _used(config: RunConfig, run: RunDir, language: str) -> frozenset[str]:
    """Ids of rows that the served version's line has already; where an update begins anew, of those that judged it alone."""
    live = run.live(language)
    if live is None:
        return frozenset()
    rows = TrainedRows.read(config, lineage.selections(config, run, language, str(live["version"])))
    anew = STRATEGIES[config.update.strategy].anew
    return frozenset(name for name, held in zip(rows.row_ids, rows.held, strict=True) if held or not anew)
