"""How did training go? Losses of every adapter, by epoch."""

from __future__ import annotations

from compass_ray.report.blocks import Block, Picture, Pictures, Section, Table, Text, missing, number, picture
from compass_ray.report.evidence import Evidence, language_name
from compass_ray.report.figures import adapter_name, training
from compass_ray.report.records import History


def section(evidence: Evidence, languages: tuple[str, ...], served: str) -> Section:
    """A row an adapter, and its curves."""
    title = "How did training go?"
    found = {code: histories for code in languages if (histories := evidence.histories(code))}
    absent = [missing(f"{language_name(code)} has no trained adapter.") for code in languages if code not in found]
    if not found:
        return Section("training", title, [missing("No adapter has been trained yet.")])
    rows = [_row(code, adapter_name(v, served), h) for code, histories in found.items() for v, h in histories.items()]
    header = ("language", "adapter", "rows", "epochs", "epoch kept", "validation loss", "tokens", "seconds")
    pictures = [_picture(code, histories, served) for code, histories in found.items()]
    blocks: list[Block] = [
        Table("Training of every adapter; losses are means in nats a token", header, rows, numbers=2),
        Text("Solid lines: loss on held-out rows, the epoch kept ringed. Dotted lines: loss on the training rows."),
        Pictures(pictures),
        *absent,
    ]
    return Section("training", title, blocks)


def best_loss(history: History) -> float | None:
    """Validation loss of the epoch that was kept; the lowest one where it is not said which."""
    losses = {e.epoch: e.validation_loss for e in history.epochs if e.validation_loss is not None}
    if history.best_epoch in losses:
        return losses[history.best_epoch]
    return min(losses.values(), default=None)


def _row(code: str, name: str, history: History) -> tuple[str, ...]:
    return (
        language_name(code),
        name,
        number(history.rows),
        number(len(history.epochs)),
        number(history.best_epoch),
        number(best_loss(history), 3),
        number(history.tokens),
        number(history.seconds, 1),
    )


def _picture(code: str, histories: dict[str, History], served: str) -> Picture:
    told = [
        f"{adapter_name(version, served)} {number(best_loss(history), 3)} after {len(history.epochs)} epochs"
        for version, history in histories.items()
    ]
    alt = f"{language_name(code)}, loss by epoch. Validation loss kept: {'; '.join(told)}."
    return picture(f"training-{code}.png", training(code, histories, served), alt)
