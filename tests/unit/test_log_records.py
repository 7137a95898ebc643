"""Log records of the package: no text of a user controls the terminal of the log, and other packages are left alone."""

from __future__ import annotations

import io
import logging

ESCAPES = "\x1b]0;title\x07 \u202e"


def _logged(name: str) -> str:
    stream, logger = io.StringIO(), logging.getLogger(name)
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.warning("monitor: language=%s n=%d", ESCAPES, 3)
        try:
            raise ValueError(ESCAPES)
        except ValueError:
            logger.exception("monitor: failed")
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def test_control_characters_in_messages_and_errors_are_visible() -> None:
    text = _logged("compass_ray.some.module")
    assert "monitor: language=\\x1b]0;title\\x07 \\u202e n=3" in text
    assert "ValueError: \\x1b]0;title" in text
    assert "Traceback" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_records_of_other_packages_stay_as_they_are() -> None:
    assert ESCAPES in _logged("compass_rays.module")
