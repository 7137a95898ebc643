"""The hours in which updates are begun."""

from __future__ import annotations

from datetime import UTC, datetime

from compass_ray.config import ConfigError, DailyTimeWindow, RunConfig


def require_scheduled_time(config: RunConfig, moment: datetime) -> None:
    """Stop where updates are kept to hours of little traffic and ``moment``, an aware time, is none of them.

    An update that has begun goes on past their end: what it holds is its own (see `update`).

    Raises:
        ConfigError: they are closed; says when they open.
    """
    hours = DailyTimeWindow.parse(config.update.schedule_utc) if config.update.schedule_utc else None
    opens = hours.next_opening(moment) if hours else moment
    if opens == moment:
        return
    minutes = -(-(opens - moment).total_seconds() // 60)
    raise ConfigError(
        f"updates are begun between {hours} UTC only (update.schedule_utc), and it is {moment.astimezone(UTC):%H:%M} UTC; come again "
        f"at {opens:%Y-%m-%d %H:%M} UTC, in {minutes // 60:.0f} h {minutes % 60:.0f} min, or give --now"
    )
