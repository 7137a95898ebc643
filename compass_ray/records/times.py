"""Times of records: Unix seconds, or ISO 8601 in older files."""

from __future__ import annotations

import math
from datetime import datetime


def to_unix_seconds(time: float | str | None) -> float | None:
    """A time as Unix seconds; None if it is unknown or damaged.

    >>> to_unix_seconds("1970-01-01T00:01:00+00:00"), to_unix_seconds("1p70-01-01T00:01:00+00:00"), to_unix_seconds(None)
    (60.0, None, None)
    """
    try:
        seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None
