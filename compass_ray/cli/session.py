"""A Ray session of a command: a spinner while Ray starts, and Ray's internal messages in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from compass_ray import ray_session
from compass_ray.cli.output import err
from compass_ray.ray_session import message_log

if TYPE_CHECKING:
    from compass_ray.config import Resources


@contextmanager
def open_session(resources: Resources, *, quiet: bool = False) -> Iterator[message_log.MessageLog | None]:
    """Ray for the duration of the block, with the file of its messages. Afterwards the file is named if it has any."""
    log = None
    try:
        with message_log.log_messages() as log, ExitStack() as starting:
            if err.is_terminal and not quiet:
                what = "Joining the Ray cluster" if ray_session.joins_cluster() else "Starting Ray"
                starting.enter_context(err.status(f"{what} ..."))
            with ray_session.session(resources):
                if log:
                    message_log.redirect_ray()
                starting.close()
                yield log
    except Exception:
        _show_messages(log)
        raise
    if log and log.last_lines() and not quiet:
        err.print(Text(f"note: internal messages of Ray are in {log.path}", style="dim"), soft_wrap=True)


def _show_messages(log: message_log.MessageLog | None) -> None:
    if log and (lines := log.last_lines()):
        err.print(f"The last internal messages of Ray, from {log.path}:", markup=False, highlight=False, soft_wrap=True)
        for line in lines:
            err.print(Text(f"  {line}", style="dim"), soft_wrap=True)
