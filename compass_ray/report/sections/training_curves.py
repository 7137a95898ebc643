"""Section "How did training go?": losses of every adapter by epoch."""

from __future__ import annotations

from compass_ray.records.training import HistoryRecord
from compass_ray.report.blocks import (
    Block,
    PlotImage,
    PlotsBlock,
    ReportSection,
    TableBlock,
    TextBlock,
    format_number,
    missing_note,
    plot_image,
)
from compass_ray.report.plots import adapter_name, loss_range, plot_training
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.translations import translate as _


def section(reader: RunReader, languages: tuple[str, ...], served: str) -> ReportSection:
    """Table with one row per adapter, and loss curves."""
    title = _("How did training go?")
    found = {code: histories for code in languages if (histories := reader.histories(code))}
    absent = [
        missing_note(_("{language} has no trained adapter.", language=language_name(code)))
        for code in languages
        if code not in found
    ]
    if not found:
        return ReportSection("training", title, [missing_note(_("This run has no trained adapter yet."))])
    rows = [_row(code, adapter_name(v, served), h) for code, histories in found.items() for v, h in histories.items()]
    header = (
        _("language"),
        _("adapter"),
        _("rows"),
        _("epochs"),
        _("selected epoch"),
        _("validation loss"),
        _("tokens"),
        _("reply tokens"),
        _("steps"),
        _("seconds"),
    )
    limits = loss_range(found)
    pictures = [_picture(code, histories, served, limits) for code, histories in found.items()]
    blocks: list[Block] = [
        TableBlock(_("Training of every adapter; losses are means in nats per token"), header, rows, numbers=2),
        TextBlock(
            _("Solid lines: loss on held-out rows, with a ring at the selected epoch. Dotted lines: loss on training rows.")
        ),
        PlotsBlock(pictures),
        *absent,
    ]
    return ReportSection("training", title, blocks)


def best_loss(history: HistoryRecord) -> float | None:
    """Validation loss of the selected epoch. The lowest loss if the record does not name that epoch."""
    losses = {e.epoch: e.validation_loss for e in history.epochs if e.validation_loss is not None}
    if history.best_epoch in losses:
        return losses[history.best_epoch]
    return min(losses.values(), default=None)


def _row(code: str, name: str, history: HistoryRecord) -> tuple[str, ...]:
    return (
        language_name(code),
        name,
        format_number(history.rows),
        format_number(len(history.epochs)),
        format_number(history.best_epoch),
        format_number(best_loss(history), 3),
        format_number(history.tokens),
        format_number(history.reply_tokens),
        format_number(history.steps),
        format_number(history.seconds, 1),
    )


def _picture(code: str, histories: dict[str, HistoryRecord], served: str, limits: tuple[float, float] | None) -> PlotImage:
    results = [
        _(
            "{adapter} {loss} (epochs: {epochs})",
            adapter=adapter_name(version, served),
            loss=format_number(best_loss(history), 3),
            epochs=len(history.epochs),
        )
        for version, history in histories.items()
    ]
    alt = _(
        "{language}, loss by epoch. Validation loss of the selected epoch: {results}.",
        language=language_name(code),
        results="; ".join(results),
    )
    return plot_image(f"training-{code}.svg", plot_training(code, histories, served, limits), alt, language=code)
