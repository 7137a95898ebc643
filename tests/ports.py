"""Ports for processes that a test starts."""

from __future__ import annotations

import random
import socket

_CANDIDATES = range(20_000, 32_000)
"""Below the range from which Linux takes the ports of outgoing connections, and above the ports of Ray's workers.

A port of these ranges can be taken again between this function and the process that is to listen on it.
"""


def choose_free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    for port in random.SystemRandom().sample(_CANDIDATES, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("none of 100 ports is free")
