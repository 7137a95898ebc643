"""Log records of the package, in which texts of users cannot control the terminal that shows the log.

Key property: `install` covers every logger of the package in a process, whatever handlers the process has. Records of other
packages stay as they are.
"""

import logging
from typing import Any

from compass_ray.texts import make_visible

_PACKAGE = "compass_ray"
_FORMATTER = logging.Formatter()


def install() -> None:
    """Make the control characters in the package's log records visible from now on, in this process."""
    before = logging.getLogRecordFactory()

    def build(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        return _make_visible(record) if record.name.partition(".")[0] == _PACKAGE else record

    logging.setLogRecordFactory(build)


def _make_visible(record: logging.LogRecord) -> logging.LogRecord:
    record.msg, record.args = make_visible(record.getMessage()), None
    if record.exc_info:
        record.exc_text = make_visible(_FORMATTER.formatException(record.exc_info))
    return record
